// sentencepiece_file.h - the bytes of small SentencePiece models and lists of tiktoken, for tests.
#pragma once
#include "src/base/base64.h"

#include <cstring>

namespace sentencepiece_file {

using qlora::str;

inline std::string varint(uint64_t n) {
    std::string out;
    for (; n >= 0x80; n >>= 7) out += char(uint8_t(n | 0x80));
    return out + char(n);
}
inline std::string number(int field, uint64_t value) { return varint(uint64_t(field) << 3) + varint(value); }
inline std::string bytes(int field, const std::string& value) {
    return varint(uint64_t(field) << 3 | 2) + varint(value.size()) + value;
}
inline std::string piece(const std::string& text, float score, uint64_t type = 1) {
    std::string f(4, '\0');
    std::memcpy(f.data(), &score, 4);
    return bytes(1, bytes(1, text) + varint(2 << 3 | 5) + f + number(3, type));
}

constexpr uint64_t unknown = 2, control = 3, user_defined = 4;

// kind: 1 Unigram, 2 BPE. rules: of the normalizer.
inline std::string model(uint64_t kind = 2, const std::string& more_pieces = "",
                         const std::string& rules = number(4, 0)) {
    return piece("<unk>", 0, unknown) + piece("<s>", 0, control) + piece("</s>", 0, control) +
           piece("\xE2\x96\x81", -3) + piece("h", -4) + piece("e", -5) + piece("he", -1) + piece("\xE2\x96\x81he", -2) +
           more_pieces + bytes(2, number(3, kind)) + bytes(3, rules);
}

inline std::string ranks() {                           // the bytes, "he" and "hel"
    std::string out;
    for (int b = 0; b < 256; ++b) out += str(qlora::base64(std::string(1, char(b))), ' ', b, '\n');
    return out + str(qlora::base64("he"), " 256\n", qlora::base64("hel"), " 257\n");
}

}  // namespace sentencepiece_file
