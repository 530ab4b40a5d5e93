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

const Family* family_of_hf(std::string_view model_type, std::string_view hf_class) {
    for (const Family* f : families())
        if (!model_type.empty() && f->other_name == model_type &&
            (f->hf_class == hf_class || f->other_class == hf_class))
            return f;
    return family_named(model_type);
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

std::optional<Activation> activation_named(std::string_view name) {
    static constexpr std::pair<std::string_view, Activation> names[] = {
        {"silu", Activation::silu},          {"swish", Activation::silu},         {"gelu", Activation::gelu},
        {"gelu_python", Activation::gelu},   {"gelu_new", Activation::gelu_tanh}, {"gelu_fast", Activation::gelu_tanh},
        {"gelu_pytorch_tanh", Activation::gelu_tanh}};
    for (const auto& [known, activation] : names)
        if (known == name) return activation;
    return {};
}

void refuse_for_llama_cpp(const Family& f, const char* what) {
    if (what)
        fail(Errc::unsupported, "save: llama.cpp runs no ", f.name, " with ", what,
             "; save a Hugging Face folder, or 4-bit codes, which only this library reads");
}

Config Family::start() const {
    Config c;
    c.family = name;
    c.names = names;
    if (configure) configure(c);
    return c;
}

}}  // namespace qlora
