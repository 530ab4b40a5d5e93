// table.cpp - the table of families: one row for each line of families.def. A family that is listed and has no room
// fails to link.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {

std::span<const Family* const> families() {
    static const Family* const table[] = {
#define QLORA_FAMILY(name) &name##_family,
#include "src/model/families.def"
#undef QLORA_FAMILY
    };
    return table;
}

const Family* family_named(std::string_view model_type) {
    for (const Family* f : families())
        if (f->name == model_type) return f;
    return nullptr;
}

const Family* family_of_gguf(std::string_view architecture) {
    for (const Family* f : families())
        if (f->gguf == architecture) return f;
    return nullptr;
}

std::string family_names() {
    std::string names;
    for (const Family* f : families()) names += (names.empty() ? "" : ", ") + std::string(f->name);
    return names;
}

std::string_view activation_name(Activation a) {
    switch (a) {
        case Activation::silu: return "silu";
        case Activation::gelu: return "gelu";
        case Activation::gelu_tanh: break;
    }
    return "gelu_pytorch_tanh";
}

Config Family::start() const {
    Config c;
    c.family = name;
    c.names = names;
    if (configure) configure(c);
    return c;
}

}}  // namespace qlora
