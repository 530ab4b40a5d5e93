// wording.cpp - "Model::load: x.gguf: no such file" becomes "x.gguf: no such file", and remedies name flags, not calls.
#include "examples/common/wording.h"

#include <cctype>

namespace program {

// "Model::load: ": a class of the library, what is called, and a colon.
static size_t name_of_call(const std::string& text) {
    size_t at = 0;
    if (text.empty() || !std::isupper(static_cast<unsigned char>(text[0]))) return 0;
    while (at < text.size() && (std::isalnum(static_cast<unsigned char>(text[at])) || text[at] == '_' ||
                                text.compare(at, 2, "::") == 0))
        at += text[at] == ':' ? 2 : 1;
    return text.compare(at, 2, ": ") == 0 && text.find("::") < at ? at + 2 : 0;
}

std::string in_program_words(std::string text) {
    text.erase(0, name_of_call(text));
    constexpr struct { const char *call, *words; } table[] = {
        {"(OnBase::any, in the programs --any-base)", "(--any-base)"},
        {"this program was built without CUDA; compile with -DQLORA_CUDA and add qlora-cuda.cu (make CUDA=1, cmake "
         "-DQLORA_CUDA=ON), or use Backend::cpu() (--device cpu)",
         "this program was built without CUDA: make CUDA=1 builds one with it, --device cpu does without"},
    };
    for (const auto& entry : table)
        if (const size_t at = text.find(entry.call); at != std::string::npos)
            text.replace(at, std::string(entry.call).size(), entry.words);
    for (const char* doing : {"open ", "write "})
        if (text.starts_with(doing)) return "cannot " + text;
    return text;
}

}  // namespace program
