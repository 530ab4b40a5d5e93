// unicode.cpp - unpacks the character tables once, and brings text into the normal forms (Unicode Standard Annex 15).
#include "src/text/unicode.h"
#include "src/text/unicode_packed.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <unordered_map>

namespace qlora { inline namespace QLORA_ABI {
namespace unicode_room {

using unicode_packed_room::PackedReader;
constexpr char32_t last_code = 0x10FFFF;

inline uint16_t class_of_letter(char letter) {
    switch (letter) {
        case 'U': return char_upper;
        case 'L': return char_lower;
        case 'T': return char_title;
        case 'M': return char_modifier;
        case 'O': return char_other_letter;
        case 'K': return char_mark;
        case 'N': return char_number;
        case 'P': return char_punctuation;
        case 'S': return char_symbol;
        default: return char_none;
    }
}

inline std::vector<uint16_t> unpack_classes() {
    std::vector<uint16_t> classes;                     // 2.2 MB for every code point: one load a character
    classes.reserve(last_code + 1);
    PackedReader in{unicode_class_runs};
    uint32_t count = 0;
    for (char letter = 0; in.next(count, letter);) classes.insert(classes.end(), count, class_of_letter(letter));
    classes.resize(last_code + 1, char_none);
    constexpr char32_t spaces[] = {0x9,  0xA,    0xB,    0xC,    0xD,    0x20,   0x85,
                                   0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    for (const char32_t space : spaces) classes[space] |= char_space;
    for (char32_t space = 0x2000; space <= 0x200A; ++space) classes[space] |= char_space;
    return classes;
}

struct Composition {
    struct Pair { char32_t first, second; };           // second 0: a single character
    std::unordered_map<char32_t, Pair> apart;          // one step of canonical decomposition
    std::unordered_map<uint64_t, char32_t> together;   // first << 32 | second -> composed
    std::unordered_map<char32_t, uint8_t> combining;   // combining classes other than 0

    Composition() {
        PackedReader in{unicode_decompositions};
        uint32_t number = 0;
        char32_t code = 0, first = 0;
        for (char letter = 0; in.next(number, letter);) {
            if (letter == 'D') code += number;
            else if (letter == 'S') apart[code] = {number, 0};
            else if (letter == 'A') first = number;
            else {
                apart[code] = {first, number};
                if (letter == 'B') together[uint64_t(first) << 32 | number] = code;
            }
        }
        PackedReader runs{unicode_combining_runs};
        uint32_t count = 0;
        code = 0;
        for (char letter = 0; runs.next(number, letter);) {
            if (letter == 'R') { count = number; continue; }
            for (uint32_t i = 0; number && i < count; ++i) combining[code + i] = uint8_t(number);
            code += count;
        }
    }
};

inline const Composition& composition() {
    static const Composition tables;
    return tables;
}

// Characters that compatibility takes apart otherwise, and all of what they become.
using Compatible = std::unordered_map<char32_t, std::u32string>;
inline Compatible unpack_compatible() {
    Compatible out;
    PackedReader in{unicode_compatible};
    uint32_t number = 0, count = 1;
    char32_t code = 0;
    std::u32string parts;
    for (char letter = 0; in.next(number, letter);) {
        if (letter == 'D') code += number;
        else if (letter == 'N') count = number;
        else if (letter == 'P') parts += char32_t(number);
        else {
            for (char32_t i = 0; i < count; ++i, ++parts[0]) out[code + i] = parts;
            parts.clear();
            count = 1;
        }
    }
    return out;
}
inline const Compatible& compatible() {
    static const Compatible tables = unpack_compatible();
    return tables;
}

inline bool composes(Form form) { return form == Form::nfc || form == Form::nfkc; }
inline bool plain(Form form) { return form == Form::nfkc || form == Form::nfkd; }

// Hangul syllables are composed by arithmetic: L (19), V (21) and T (28, the first of them "none").
constexpr char32_t hangul_s = 0xAC00, hangul_l = 0x1100, hangul_v = 0x1161, hangul_t = 0x11A7;

struct Mark { char32_t code; uint8_t order; };         // a character and its combining class

inline void decompose(const Composition& tables, char32_t code, std::vector<Mark>& out) {
    if (code >= hangul_s && code < hangul_s + 11172) {
        const char32_t s = code - hangul_s;
        out.push_back({hangul_l + s / 588, 0});
        out.push_back({hangul_v + s % 588 / 28, 0});
        if (s % 28) out.push_back({hangul_t + s % 28, 0});
        return;
    }
    if (const auto pair = tables.apart.find(code); pair != tables.apart.end()) {
        decompose(tables, pair->second.first, out);
        if (pair->second.second) decompose(tables, pair->second.second, out);
        return;
    }
    const auto order = tables.combining.find(code);
    out.push_back({code, order == tables.combining.end() ? uint8_t(0) : order->second});
}

inline void decompose(const Composition& tables, Form form, char32_t code, std::vector<Mark>& out) {
    if (plain(form))
        if (const auto parts = compatible().find(code); parts != compatible().end()) {
            for (const char32_t part : parts->second) decompose(tables, part, out);
            return;
        }
    decompose(tables, code, out);
}

inline char32_t compose_pair(const Composition& tables, char32_t a, char32_t b) {      // 0: they do not compose
    if (a >= hangul_l && a < hangul_l + 19 && b >= hangul_v && b < hangul_v + 21)
        return hangul_s + ((a - hangul_l) * 21 + (b - hangul_v)) * 28;
    if (a >= hangul_s && a < hangul_s + 11172 && (a - hangul_s) % 28 == 0 && b > hangul_t && b < hangul_t + 28)
        return a + (b - hangul_t);
    const auto found = tables.together.find(uint64_t(a) << 32 | b);
    return found == tables.together.end() ? 0 : found->second;
}

// Puts marks into canonical order, then joins each starter with what follows it unless something of the same or a
// higher class is between.
inline void order_and_compose(const Composition& tables, Form form, std::vector<Mark>& run) {
    for (size_t i = 0; i < run.size();) {
        size_t end = i;
        while (end < run.size() && run[end].order) ++end;
        std::stable_sort(run.begin() + int64_t(i), run.begin() + int64_t(end),
                         [](Mark a, Mark b) { return a.order < b.order; });
        i = end + 1;
    }
    if (!composes(form)) return;
    size_t kept = 0, starter = SIZE_MAX;
    uint8_t last = 0;                                  // class of the last kept character after the starter
    for (const Mark& m : run) {
        const bool adjacent = starter != SIZE_MAX && kept == starter + 1;
        if (starter != SIZE_MAX && (adjacent || last < m.order)) {
            if (const char32_t whole = compose_pair(tables, run[starter].code, m.code)) {
                run[starter].code = whole;
                continue;
            }
        }
        if (m.order == 0) starter = kept;
        last = m.order;
        run[kept++] = m;
    }
    run.resize(kept);
}

// By code point: 1 begins, 2 settled. A character begins where the first of its decomposition is no mark and, in the
// composed forms, is second in no pair; Hangul syllables are their own normal form there.
inline std::vector<uint8_t> unpack_borders(Form form) {
    const Composition& tables = composition();
    std::vector<uint8_t> borders(last_code + 1, 3);
    const auto set = [&](char32_t first, char32_t last, uint8_t border) {
        std::fill(borders.begin() + first, borders.begin() + last + 1, border);
    };
    for (const auto& [code, order] : tables.combining) set(code, code, 0);
    if (composes(form)) {
        for (const auto& [pair, whole] : tables.together)
            set(char32_t(pair & 0xFFFFFFFF), char32_t(pair & 0xFFFFFFFF), 0);
        set(hangul_v, hangul_v + 20, 0);
        set(hangul_t + 1, hangul_t + 27, 0);
    } else {
        set(hangul_s, hangul_s + 11171, 1);
    }
    std::vector<Mark> parts;
    const auto look = [&](char32_t code) {
        parts.clear();
        decompose(tables, form, code, parts);
        const char32_t first = parts[0].code;          // has no decomposition: what it is stands in the table already
        order_and_compose(tables, form, parts);
        borders[code] = uint8_t(!borders[first] ? 0 : parts.size() == 1 && parts[0].code == code ? 3 : 1);
    };
    for (const auto& [code, pair] : tables.apart) look(code);
    if (plain(form)) for (const auto& [code, plain_text] : compatible()) look(code);
    return borders;
}
inline uint8_t border(Form form, char32_t code) {
    // each unpacked when it is first asked for: 1 MB
    static std::array<std::vector<uint8_t>, 4> borders;
    static std::array<std::once_flag, 4> once;
    std::call_once(once[size_t(form)], [form] { borders[size_t(form)] = unpack_borders(form); });
    return code <= last_code ? borders[size_t(form)][code] : uint8_t(3);
}

}  // namespace unicode_room

uint16_t char_class(char32_t code) {
    static const std::vector<uint16_t> classes = unicode_room::unpack_classes();
    return code <= unicode_room::last_code ? classes[code] : uint16_t(char_none);
}

bool form_begins(Form form, char32_t code) { return unicode_room::border(form, code) & 1; }
bool form_settled(Form form, char32_t code) { return unicode_room::border(form, code) & 2; }

std::string normal_form(Form form, std::string_view text) {
    const auto plain = [](char c) { return uint8_t(c) < 0x80; };
    if (std::all_of(text.begin(), text.end(), plain)) return std::string(text);
    const unicode_room::Composition& tables = unicode_room::composition();
    std::string out;
    out.reserve(text.size());
    std::vector<unicode_room::Mark> run;
    const auto flush = [&] {
        unicode_room::order_and_compose(tables, form, run);
        for (const unicode_room::Mark& m : run) utf8_append(out, m.code);
        run.clear();
    };
    for (size_t at = 0; at < text.size();) {
        const Utf8Char c = utf8_at(text, at);
        if (!c.valid || form_begins(form, c.code)) flush();
        if (c.valid) unicode_room::decompose(tables, form, c.code, run);
        else out += text[at];
        at += size_t(c.bytes);
    }
    flush();
    return out;
}

}}  // namespace qlora
