// json.cpp - RFC 8259 to the letter: one value, UTF-8, unique keys, finite numbers; nesting is bounded, so recursion is
// too.
//
// Beyond the letter: a byte order mark at the start is skipped (the RFC allows it), and half of a surrogate pair is an
// error, because no UTF-8 text can hold it. Numbers print the shortest digits that read back as the same double, laid
// out as Python does.
#include "src/base/json.h"

#include "src/base/number.h"
#include "src/base/stop.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace qlora { inline namespace QLORA_ABI {
namespace json_room {

constexpr int64_t deepest = 1000;    // a frame of value() is below 300 bytes: 1000 levels fit any thread's stack

// Length of the UTF-8 sequence at p: 1 to 4, or 0 where there is none (overlong forms, surrogates and values above
// U+10FFFF included).
int utf8_length(const unsigned char* p, const unsigned char* end) {
    const auto follows = [&](int i, unsigned low, unsigned high) { return end - p > i && p[i] >= low && p[i] <= high; };
    const unsigned c = p[0];
    if (c < 0x80) return 1;
    if (c >= 0xC2 && c <= 0xDF) return follows(1, 0x80, 0xBF) ? 2 : 0;
    if ((c & 0xF0) == 0xE0)
        return follows(1, c == 0xE0 ? 0xA0 : 0x80, c == 0xED ? 0x9F : 0xBF) && follows(2, 0x80, 0xBF) ? 3 : 0;
    if (c >= 0xF0 && c <= 0xF4)
        return follows(1, c == 0xF0 ? 0x90 : 0x80, c == 0xF4 ? 0x8F : 0xBF) && follows(2, 0x80, 0xBF) &&
                       follows(3, 0x80, 0xBF)
                   ? 4
                   : 0;
    return 0;
}

void append_utf8(std::string& out, uint32_t c) {
    if (c < 0x80) { out += char(c); return; }
    if (c < 0x800) out += char(0xC0 | c >> 6);
    else {
        if (c < 0x10000) out += char(0xE0 | c >> 12);
        else {
            out += char(0xF0 | c >> 18);
            out += char(0x80 | (c >> 12 & 63));
        }
        out += char(0x80 | (c >> 6 & 63));
    }
    out += char(0x80 | (c & 63));
}

class Parser {
public:
    Parser(std::string_view text, std::string_view where, int64_t depth)
        : begin_(text.data()),
          p_(begin_),
          end_(begin_ + text.size()),
          where_(where),
          depth_(std::min(depth, deepest)) {}

    Json document() {
        if (end_ - p_ >= 3 && std::string_view(p_, 3) == "\xEF\xBB\xBF") p_ += 3;
        skip_space();
        Json result = value(0);
        skip_space();
        if (p_ != end_) error("unexpected ", seen(), " after the value");
        return result;
    }

private:
    const char *begin_, *p_, *end_;
    std::string_view where_;
    int64_t depth_;

    template <class... Part>
    [[noreturn]] void error(const Part&... parts) const {
        const int64_t breaks = std::count(begin_, p_, '\n');
        const char* start = p_;
        while (start != begin_ && start[-1] != '\n') --start;
        // characters, not bytes
        const int64_t column = 1 + std::count_if(start, p_, [](char c) { return (c & 0xC0) != 0x80; });
        // "chats.jsonl:12" is where the text begins, and a text of one line needs no number of it
        const size_t name = where_.find_last_not_of("0123456789");
        if (name != where_.npos && name > 0 && name + 1 < where_.size() && where_[name] == ':') {
            const int64_t first = std::strtoll(std::string(where_.substr(name + 1)).c_str(), nullptr, 10);
            fail(Errc::format, where_.substr(0, name + 1), first + breaks, ": column ", column, ": ", parts...);
        }
        const std::string_view text(begin_, size_t(end_ - begin_));
        const bool lines = text.find('\n') < text.find_last_not_of(" \t\r\n");
        fail(Errc::format, where_, lines ? str(": line ", breaks + 1, ", column ") : ": column ", column, ": ",
             parts...);
    }

    std::string seen() const {
        if (p_ == end_) return "end of text";
        const unsigned char c = static_cast<unsigned char>(*p_);
        if (c > 0x20 && c < 0x7F) return str("'", *p_, "'");
        return str("byte ", int(c));
    }

    void skip_space() {
        while (p_ != end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
    }

    bool accept(char c) {
        skip_space();
        if (p_ == end_ || *p_ != c) return false;
        ++p_;
        skip_space();
        return true;
    }

    bool accept_word(std::string_view word) {
        if (std::string_view(p_, size_t(end_ - p_)).substr(0, word.size()) != word) return false;
        p_ += word.size();
        return true;
    }

    Json value(int64_t level) {
        check_stop();
        if (p_ == end_) error("expected a value, found end of text");
        if ((*p_ == '{' || *p_ == '[') && level >= depth_) error("nested deeper than ", depth_, " levels");
        switch (*p_) {
            case '{': return object(level);
            case '[': return array(level);
            case '"': return Json(string());
            case 't': if (accept_word("true")) return Json(true); break;
            case 'f': if (accept_word("false")) return Json(false); break;
            case 'n': if (accept_word("null")) return Json(nullptr); break;
            default: if (*p_ == '-' || is_digit(p_)) return number();
        }
        error("expected a value, found ", seen());
    }

    Json array(int64_t level) {
        Json::Array items;
        accept('[');
        if (accept(']')) return Json(std::move(items));
        do items.push_back(value(level + 1)); while (accept(','));
        if (!accept(']')) error("expected ',' or ']' in an array, found ", seen());
        return Json(std::move(items));
    }

    Json object(int64_t level) {
        Json::Object members;
        accept('{');
        if (accept('}')) return Json(std::move(members));
        do {
            if (p_ == end_ || *p_ != '"') error("expected a key in quotes, found ", seen());
            std::string key = string();
            if (!accept(':')) error("expected ':' after the key, found ", seen());
            members.emplace_back(std::move(key), value(level + 1));
        } while (accept(','));
        skip_space();
        if (p_ == end_ || *p_ != '}') error("expected ',' or '}' in an object, found ", seen());
        refuse_duplicates(members);
        ++p_;
        return Json(std::move(members));
    }

    // By sorting: no input can make it slow, and a vocabulary of 10^5 keys is one object.
    void refuse_duplicates(const Json::Object& members) const {
        if (members.size() < 2) return;
        std::vector<std::string_view> keys;
        keys.reserve(members.size());
        for (const Json::Member& m : members) keys.push_back(m.first);
        std::sort(keys.begin(), keys.end());
        const auto twice = std::adjacent_find(keys.begin(), keys.end());
        if (twice != keys.end()) error("the object that ends here has the key ", json_quote(*twice), " twice");
    }

    std::string string() {
        std::string out;
        ++p_;
        for (;;) {
            const char* run = p_;
            while (p_ != end_ && *p_ != '"' && *p_ != '\\' && static_cast<unsigned char>(*p_) >= 0x20) {
                const int length = utf8_length(reinterpret_cast<const unsigned char*>(p_),
                                               reinterpret_cast<const unsigned char*>(end_));
                if (length == 0) error("invalid UTF-8 in a string");
                p_ += length;
            }
            out.append(run, p_);
            if (p_ == end_) error("a string without its closing quote");
            if (*p_ == '"') { ++p_; return out; }
            if (*p_ != '\\') error("control character ", int(*p_), " in a string: write it as an escape");
            escape(out);
        }
    }

    void escape(std::string& out) {
        if (end_ - p_ < 2) error("a string without its closing quote");
        constexpr std::string_view names = "\"\\/bfnrt", values = "\"\\/\b\f\n\r\t";
        const size_t known = names.find(p_[1]);
        if (known != names.npos) {
            out += values[known];
            p_ += 2;
            return;
        }
        if (p_[1] != 'u') error("unknown escape in a string");
        uint32_t c = hex4();
        if (c >= 0xDC00 && c <= 0xDFFF) error("\\u escape: second half of a surrogate pair without the first");
        if (c >= 0xD800 && c <= 0xDBFF) {
            const bool paired = end_ - p_ >= 2 && p_[0] == '\\' && p_[1] == 'u';
            const uint32_t low = paired ? hex4() : 0;
            if (low < 0xDC00 || low > 0xDFFF) error("\\u escape: first half of a surrogate pair without the second");
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        }
        append_utf8(out, c);
    }

    uint32_t hex4() {                                  // at the backslash of \uXXXX
        uint32_t c = 0;
        if (end_ - p_ < 6) error("\\u must be followed by four hexadecimal digits");
        const auto [last, problem] = std::from_chars(p_ + 2, p_ + 6, c, 16);
        if (problem != std::errc() || last != p_ + 6) error("\\u must be followed by four hexadecimal digits");
        p_ += 6;
        return c;
    }

    bool is_digit(const char* p) const { return p != end_ && *p >= '0' && *p <= '9'; }

    const char* digits(const char* p) const {
        if (!is_digit(p)) error("malformed number");
        while (is_digit(p)) ++p;
        return p;
    }

    Json number() {
        const char *start = p_, *p = p_ + (*p_ == '-');
        const char* whole_end = is_digit(p) && *p == '0' ? p + 1 : digits(p);
        if (is_digit(whole_end)) error("a number must not start with a zero");
        p = whole_end;
        if (p != end_ && *p == '.') p = digits(p + 1);
        if (p != end_ && (*p == 'e' || *p == 'E')) {
            ++p;
            if (p != end_ && (*p == '+' || *p == '-')) ++p;
            p = digits(p);
        }
        if (p == whole_end) {
            int64_t whole = 0;
            // no integer has its sign
            const bool fits = std::from_chars(start, p, whole).ec == std::errc(),
                       minus_zero = whole == 0 && *start == '-';
            if (fits && !minus_zero) { p_ = p; return Json(whole); }
        }
        double result = 0;
        parse_double(start, p, result);
        if (std::isinf(result))
            error("the number ", std::string_view(start, size_t(p - start)).substr(0, 40), " does not fit a double");
        p_ = p;
        return Json(result);
    }
};

std::string python_float(double v) {
    if (!std::isfinite(v))
        fail(Errc::numeric, "json: ", v,
             " cannot be written, JSON has finite numbers only: write null or leave the field out");
    char scientific[40];                               // -d.dddddddddddddddde-ddd at most
    const auto end = std::to_chars(scientific, scientific + sizeof scientific, v, std::chars_format::scientific).ptr;
    const std::string_view text(scientific, size_t(end - scientific));
    const size_t e = text.find('e');
    int exponent = 0;
    std::from_chars(text.data() + e + 1 + (text[e + 1] == '+'), end, exponent);
    std::string digits, sign = std::signbit(v) ? "-" : "";
    for (char c : text.substr(0, e)) if (c >= '0' && c <= '9') digits += c;
    const int n = int(digits.size());
    if (exponent < -4 || exponent >= 16) {
        const std::string fraction = n > 1 ? "." + digits.substr(1) : "", power = std::to_string(std::abs(exponent));
        return sign + digits[0] + fraction + (exponent < 0 ? "e-" : "e+") + (power.size() < 2 ? "0" : "") + power;
    }
    if (exponent < 0) return sign + "0." + std::string(size_t(-exponent - 1), '0') + digits;
    if (n <= exponent + 1) return sign + digits + std::string(size_t(exponent + 1 - n), '0') + ".0";
    return sign + digits.substr(0, size_t(exponent + 1)) + "." + digits.substr(size_t(exponent + 1));
}

void write_value(std::string& out, const Json& v, int indent, int level);

// The frame of arrays and objects: brackets, commas, and a line for each item when indented. item(i) appends the i-th.
template <class Item>
void write_items(std::string& out, const char* brackets, size_t count, int indent, int level, const Item& item) {
    out += brackets[0];
    for (size_t i = 0; i < count; ++i) {
        if (i) out += indent < 0 ? ", " : ",";
        if (indent >= 0) out.append("\n").append(size_t(indent) * size_t(level + 1), ' ');
        item(i);
    }
    if (indent >= 0 && count) out.append("\n").append(size_t(indent) * size_t(level), ' ');
    out += brackets[1];
}

void write_value(std::string& out, const Json& v, int indent, int level) {
    switch (v.kind()) {
        case Json::Kind::null: out += "null"; return;
        case Json::Kind::boolean: out += v.boolean() ? "true" : "false"; return;
        case Json::Kind::integer: out += std::to_string(v.integer()); return;
        case Json::Kind::number: out += python_float(v.number()); return;
        case Json::Kind::string: out += json_quote(v.string()); return;
        case Json::Kind::array:
            write_items(out, "[]", v.array().size(), indent, level,
                        [&](size_t i) { write_value(out, v.array()[i], indent, level + 1); });
            return;
        case Json::Kind::object:
            write_items(out, "{}", v.object().size(), indent, level, [&](size_t i) {
                out += json_quote(v.object()[i].first) + ": ";
                write_value(out, v.object()[i].second, indent, level + 1);
            });
            return;
    }
}

[[noreturn]] void wrong_kind(std::string_view where, const char* expected, Json::Kind found) {
    constexpr const char* names[] = {"null",     "a boolean", "an integer", "a number",
                                     "a string", "an array",  "an object"};
    fail(Errc::format, where, " must be ", expected, ", is ", names[int(found)]);
}

}  // namespace json_room

bool Json::as_bool(std::string_view where) const {
    if (!is_bool()) json_room::wrong_kind(where, "a boolean", kind_);
    return bool_;
}

int64_t Json::as_int(std::string_view where) const {
    if (kind_ == Kind::integer) return int_;
    // 2^53: up to there every whole double is the number that was written.
    if (kind_ == Kind::number && num_ == std::floor(num_) && std::fabs(num_) <= 0x1p53) return int64_t(num_);
    json_room::wrong_kind(where, "an integer", kind_);
}

double Json::as_number(std::string_view where) const {
    if (!is_number()) json_room::wrong_kind(where, "a number", kind_);
    return number();
}

const std::string& Json::as_string(std::string_view where) const {
    if (!is_string()) json_room::wrong_kind(where, "a string", kind_);
    return str_;
}

const Json::Array& Json::as_array(std::string_view where) const {
    if (!is_array()) json_room::wrong_kind(where, "an array", kind_);
    return array_;
}

const Json::Object& Json::as_object(std::string_view where) const {
    if (!is_object()) json_room::wrong_kind(where, "an object", kind_);
    return object_;
}

const Json* Json::find(std::string_view key) const {
    for (const Member& m : object_) if (m.first == key) return &m.second;
    return nullptr;
}

Json& Json::set(std::string key, Json value) {
    if (is_null()) kind_ = Kind::object;
    if (!is_object()) json_room::wrong_kind("json: set(): the value", "an object", kind_);
    for (Member& m : object_) {
        if (m.first != key) continue;
        m.second = std::move(value);
        return *this;
    }
    object_.emplace_back(std::move(key), std::move(value));
    return *this;
}

Json& Json::push(Json value) {
    if (is_null()) kind_ = Kind::array;
    if (!is_array()) json_room::wrong_kind("json: push(): the value", "an array", kind_);
    array_.push_back(std::move(value));
    return *this;
}

std::string Json::dump(int indent) const {
    std::string out;
    json_room::write_value(out, *this, indent, 0);
    return out;
}

Json Json::parse(std::string_view text, std::string_view where, const Limits& limits) {
    if (int64_t(text.size()) > limits.bytes)
        fail(Errc::format, where, ": ", text.size(), " bytes of JSON, the limit is ", limits.bytes);
    return json_room::Parser(text, where, limits.depth).document();
}

std::string json_quote(std::string_view utf8) {
    constexpr std::string_view names = "\"\\bfnrt", values = "\"\\\b\f\n\r\t";
    constexpr char hex[] = "0123456789abcdef";
    std::string out = "\"";
    out.reserve(utf8.size() + 2);
    for (char c : utf8) {
        const size_t known = values.find(c);
        if (known != values.npos) out.append("\\") += names[known];
        else if (static_cast<unsigned char>(c) < 0x20) out.append("\\u00").append(1, hex[c >> 4]) += hex[c & 15];
        else out += c;
    }
    return out + '"';
}

}}  // namespace qlora
