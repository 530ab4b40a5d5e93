// fuzz.cpp - everything that reads a stranger's bytes, for libFuzzer: whatever comes in, the only way out is a result
// or qlora::Error.
//
//   make fuzz                                          (clang; the library with address and undefined-behaviour checks)
//   QLORA_FUZZ=gguf build/fuzz/fuzz CORPUS tests/fuzz/seeds/gguf -rss_limit_mb=4096 -runs=2000000
//
// QLORA_FUZZ names one of the targets in formats.h, folders.h, texts.h, told.h and runs.h. An empty CORPUS folder is
// filled with valid inputs first. The longest of them is the longest that is tried: with a lower -max_len they are
// cut, and a file that is cut is refused at once. What a target found goes into tests/fuzz/seeds/NAME, small;
// tests/fuzz/replay_test.cpp reads all of it again with every `make test`.
#include "tests/fuzz/all.h"

#include <cstdlib>

namespace fuzz {

inline const Target& chosen() {
    static const Target* target = [] {
        const char* name = std::getenv("QLORA_FUZZ");
        const auto found = targets().find(name ? name : "");
        if (found != targets().end()) return &found->second;
        std::fprintf(stderr, "QLORA_FUZZ names the target, one of:");
        for (const auto& [known, t] : targets()) std::fprintf(stderr, " %s", known.c_str());
        std::fprintf(stderr, "\n");
        std::exit(2);
    }();
    return *target;
}

}  // namespace fuzz

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    const fuzz::Seeds seeds = fuzz::chosen().seeds();
    for (int i = 1; i < *argc; ++i)
        if (const std::string corpus = (*argv)[i];
            corpus[0] != '-' && std::filesystem::is_directory(corpus) && std::filesystem::is_empty(corpus)) {
            int number = 0;
            for (const std::string& seed : seeds)
                std::ofstream(corpus + "/seed" + std::to_string(number++), std::ios::binary) << seed;
            break;
        }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        fuzz::chosen().read({reinterpret_cast<const char*>(data), size});
    } catch (const qlora::Error&) {
    }
    return 0;
}
