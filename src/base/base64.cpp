// base64.cpp - see base64.h.
#include "src/base/base64.h"

namespace qlora { inline namespace QLORA_ABI {
namespace base64_room {

constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

inline int value_of(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

}  // namespace base64_room

std::string base64(std::string_view bytes) {
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (size_t at = 0; at < bytes.size(); at += 3) {
        const size_t count = std::min<size_t>(3, bytes.size() - at);
        uint32_t group = 0;
        for (size_t i = 0; i < 3; ++i) group = group << 8 | (i < count ? uint8_t(bytes[at + i]) : 0u);
        for (size_t i = 0; i < 4; ++i) out += i > count ? '=' : base64_room::alphabet[group >> (18 - 6 * i) & 63];
    }
    return out;
}

bool base64_bytes(std::string_view text, std::string& out) {
    out.clear();
    if (text.size() % 4) return false;
    for (size_t at = 0; at < text.size(); at += 4) {
        const bool last = at + 4 == text.size();
        const size_t padding = !last || text[at + 3] != '=' ? 0 : text[at + 2] != '=' ? 1 : 2;
        uint32_t group = 0;
        for (size_t i = 0; i < 4; ++i) {
            const int value = i < 4 - padding ? base64_room::value_of(text[at + i]) : 0;
            if (value < 0) return false;
            group = group << 6 | uint32_t(value);
        }
        for (size_t i = 0; i < 3 - padding; ++i) out += char(group >> (16 - 8 * i) & 0xFF);
    }
    return true;
}

}}  // namespace qlora
