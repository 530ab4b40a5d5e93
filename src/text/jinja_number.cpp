// jinja_number.cpp - arithmetic of template values. Integers have 64 bits: a result that needs more is an error, never
// another number.
//
//   a // b = floor(a / b)      a % b = a - b * (a // b), with the sign of b
#include "src/base/number.h"
#include "src/text/jinja_number.h"

#include "src/text/jinja_text.h"
#include "src/text/unicode.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_number_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

[[noreturn]] inline void too_large(JinjaContext& cx, std::string_view what) {
    cx.error(str(what, ": the result needs an integer beyond 64 bits, which is not supported"));
}

inline Value whole_arithmetic(JinjaContext& cx, char op, int64_t x, int64_t y) {
    int64_t r = 0;
    bool overflow = false;
    if (op == '+') overflow = __builtin_add_overflow(x, y, &r);
    else if (op == '-') overflow = __builtin_sub_overflow(x, y, &r);
    else if (op == '*') overflow = __builtin_mul_overflow(x, y, &r);
    else if (op == '%') r = y == -1 ? 0 : (x % y + y) % y;
    else if (y == -1) overflow = __builtin_sub_overflow(int64_t(0), x, &r);
    else r = x / y - ((x % y != 0) && ((x < 0) != (y < 0)));
    if (overflow) too_large(cx, str("'", op, "'"));
    return Value::of(r);
}

// CPython's float_rem and float_floor_div: the quotient is made from the remainder, so that the two agree.
inline double remainder(double x, double y) {
    double mod = std::fmod(x, y);
    if (mod != 0 && (y < 0) != (mod < 0)) mod += y;
    return mod == 0 ? std::copysign(0.0, y) : mod;
}
inline double floor_quotient(double x, double y) {
    double mod = std::fmod(x, y), quotient = (x - mod) / y;
    if (mod != 0 && (y < 0) != (mod < 0)) quotient -= 1;
    if (quotient == 0) return std::copysign(0.0, x / y);
    const double floored = std::floor(quotient);
    return quotient - floored > 0.5 ? floored + 1 : floored;
}

inline Value power(JinjaContext& cx, const Value& a, const Value& b) {
    if (a.is_whole() && b.is_whole() && b.integer() >= 0) {
        int64_t r = 1, base = a.integer();
        for (uint64_t n = uint64_t(b.integer()); n;) {
            if ((n & 1) && __builtin_mul_overflow(r, base, &r)) too_large(cx, "'**'");
            n >>= 1;
            if (n && __builtin_mul_overflow(base, base, &base)) too_large(cx, "'**'");
        }
        return Value::of(r);
    }
    const double x = a.number(), y = b.number();
    if (x == 0 && y < 0) cx.error("'**': zero to a negative power");
    if (x < 0 && std::isfinite(x) && std::isfinite(y) && y != std::floor(y))
        cx.error("'**': a root of a negative number is not supported");
    const double r = std::pow(x, y);
    if (std::isinf(r) && std::isfinite(x) && std::isfinite(y)) cx.error("'**': the result is out of range");
    return Value::of(r);
}

// A text or list, n times.
inline Value repeated(JinjaContext& cx, const Value& v, int64_t times) {
    times = std::max<int64_t>(times, 0);
    const int64_t size = v.is_string() ? int64_t(v.str().size()) : int64_t(v.list->items.size());
    if (v.is_string()) {
        if (times && size > cx.output_limit() / times) cx.check_size(cx.output_limit() + 1);
        JinjaText t;
        t.markup = v.s->markup;
        const bool marked = std::any_of(std::begin(JinjaText::marks), std::end(JinjaText::marks),
                                        [&](const auto of) { return !((*v.s).*of).empty(); });
        for (int64_t k = 0; size && k < times; ++k) {
            if (marked) t.append(*v.s);
            else t.text += v.s->text;
            if (k % 64 == 0) cx.spend(1 + size);
        }
        return cx.text(std::move(t));
    }
    constexpr int64_t longest = 10'000'000;
    if (size && times > longest / size) cx.error(str("a list grows beyond ", longest, " items"));
    cx.spend(size * times);
    std::vector<Value> items;
    for (int64_t k = 0; size && k < times; ++k) items.insert(items.end(), v.list->items.begin(), v.list->items.end());
    return Value::of(std::move(items), v.is(Flavour::group) ? Flavour::tuple : v.list->flavour);
}

inline bool is_sequence(const Value& v) {
    return v.is_string() || v.is(Flavour::list) || v.is(Flavour::tuple) || v.is(Flavour::group);
}

inline Value added(JinjaContext& cx, const Value& a, const Value& b) {
    if (a.is_string()) {
        const bool markup = a.s->markup || b.s->markup;
        JinjaText t = markup && !a.s->markup ? text_escaped(*a.s) : *a.s;
        t.append(markup && !b.s->markup ? text_escaped(*b.s) : *b.s);
        t.markup = markup;
        return cx.text(std::move(t));
    }
    cx.spend(int64_t(a.list->items.size() + b.list->items.size()));
    std::vector<Value> items = a.list->items;
    items.insert(items.end(), b.list->items.begin(), b.list->items.end());
    return Value::of(std::move(items), a.is(Flavour::list) ? Flavour::list : Flavour::tuple);
}

inline std::string_view stripped(std::string_view text) {
    const auto drop_front = [&] {
        const Utf8Char c = utf8_at(text, 0);
        return !text.empty() && c.valid && python_space(c.code) ? size_t(c.bytes) : 0;
    };
    while (const size_t n = drop_front()) text.remove_prefix(n);
    while (!text.empty()) {
        size_t start = text.size() - 1;
        while (start > 0 && (text[start] & 0xC0) == 0x80) --start;
        const Utf8Char c = utf8_at(text, start);
        if (!c.valid || !python_space(c.code)) break;
        text.remove_suffix(text.size() - start);
    }
    return text;
}

// The text without single underscores between digits; nothing where one stands elsewhere. Digits of other scripts are
// refused.
inline std::optional<std::string> without_underscores(JinjaContext& cx, std::string_view text) {
    std::string out;
    const auto alnum = [](char c) { return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'); };
    for (size_t k = 0; k < text.size(); ++k) {
        const Utf8Char c = utf8_at(text, k);
        if (c.bytes > 1 && (char_class(c.code) & char_number))
            cx.error("reading digits of other scripts as a number is not supported");
        if (text[k] != '_') { out += text[k]; continue; }
        if (k == 0 || k + 1 == text.size() || !alnum(text[k - 1]) || !alnum(text[k + 1])) return std::nullopt;
    }
    return out;
}

}  // namespace jinja_number_room

std::string jinja_float_text(double d) {
    if (std::isnan(d)) return "nan";
    if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
    return Json(d).dump();
}

void jinja_need_exact(JinjaContext& cx, const JinjaValue& v) {
    if (v.is(JinjaValue::Kind::number) && v.b)
        cx.error(str("the number ", jinja_float_text(v.d),
                     " of the data may be an integer beyond 64 bits, which is not supported"));
}

int64_t jinja_whole(JinjaContext& cx, double d) {
    if (!std::isfinite(d)) cx.error("nan and infinity are no integers");
    if (std::fabs(d) >= 0x1p63) jinja_number_room::too_large(cx, "int()");
    return int64_t(d);
}

std::optional<int64_t> jinja_parse_int(JinjaContext& cx, std::string_view text, int64_t base) {
    using namespace jinja_number_room;
    if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
    std::string_view s = stripped(text);
    const bool negative = s.starts_with('-');
    if (negative || s.starts_with('+')) s.remove_prefix(1);
    const char mark = s.size() > 2 && s[0] == '0' ? char(s[1] | 0x20) : ' ';
    const int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    const bool zero_base = base == 0;
    if (marked && (base == 0 || base == marked)) {
        s.remove_prefix(2);
        base = marked;
        if (s.starts_with('_')) s.remove_prefix(1);
    }
    if (base == 0) base = 10;
    const std::optional<std::string> digits = without_underscores(cx, s);
    if (!digits || digits->empty()) return std::nullopt;
    if (zero_base && !marked && digits->size() > 1 && (*digits)[0] == '0' &&
        digits->find_first_not_of('0') != digits->npos)
        return std::nullopt;
    for (const char c : *digits) {
        const int value = c >= '0' && c <= '9'                     ? c - '0'
                          : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                                   : 99;
        if (value >= base) return std::nullopt;
    }
    int64_t n = 0;
    const std::string signed_digits = (negative ? "-" : "") + *digits;
    if (std::from_chars(signed_digits.data(), signed_digits.data() + signed_digits.size(), n, int(base)).ec !=
        std::errc{})
        too_large(cx, "int()");
    return n;
}

std::optional<double> jinja_parse_float(JinjaContext& cx, std::string_view text) {
    using namespace jinja_number_room;
    std::string_view s = stripped(text);
    const bool negative = s.starts_with('-');
    if (negative || s.starts_with('+')) s.remove_prefix(1);
    const std::string lower = lowercase(s);
    if (lower == "inf" || lower == "infinity") return negative ? -INFINITY : INFINITY;
    if (lower == "nan") return NAN;
    const std::optional<std::string> digits = without_underscores(cx, s);
    if (!digits || digits->empty() || digits->find_first_not_of("0123456789.eE+-") != digits->npos ||
        (*digits)[0] == '-' || (*digits)[0] == '+')
        return std::nullopt;
    double d = 0;
    const auto [end, bad] = parse_double(digits->data(), digits->data() + digits->size(), d);
    if (end != digits->data() + digits->size() || bad == std::errc::invalid_argument) return std::nullopt;
    return negative ? -d : d;
}

double jinja_round(JinjaContext& cx, double d, int64_t digits) {
    if (!std::isfinite(d)) return d;
    if (digits > 300) return d;
    if (digits < -300) return std::copysign(0.0, d);
    char buffer[800];
    if (digits >= 0) {                                 // correctly rounded decimal, ties to even, as CPython's round
        std::snprintf(buffer, sizeof buffer, "%.*f", int(digits), d);
        return jinja_parse_float(cx, buffer).value_or(d);
    }
    const double scale = std::pow(10.0, double(-digits)), r = std::nearbyint(d / scale) * scale;
    if (std::isinf(r)) cx.error("round: the result is out of range");
    return r;
}

JinjaValue jinja_round(JinjaContext& cx, const JinjaValue& v, int64_t digits, bool to_integer) {
    if (v.is(JinjaValue::Kind::number))
        return to_integer ? JinjaValue::of(jinja_whole(cx, jinja_round(cx, v.d, 0)))
                          : JinjaValue::of(jinja_round(cx, v.d, digits));
    const int64_t n = v.integer();
    if (digits >= 0) return JinjaValue::of(n);
    if (digits < -18) {
        if (digits < -19 || std::llabs(n) < 5'000'000'000'000'000'000) return JinjaValue::of(int64_t(0));
        jinja_number_room::too_large(cx, "round");
    }
    int64_t scale = 1;
    for (int64_t k = digits; k < 0; ++k) scale *= 10;
    int64_t down = n / scale - (n % scale < 0), rest = n - down * scale, r = 0;
    if (rest > scale - rest || (rest == scale - rest && down % 2 != 0)) ++down;
    if (__builtin_mul_overflow(down, scale, &r)) jinja_number_room::too_large(cx, "round");
    return JinjaValue::of(r);
}

JinjaValue jinja_arithmetic(JinjaContext& cx, const std::string& op, const JinjaValue& a, const JinjaValue& b) {
    using namespace jinja_number_room;
    if (op == "+" && is_sequence(a) && is_sequence(b)) {
        const bool same = a.is_string() == b.is_string() &&
                          (a.is_string() || a.is(Flavour::list) == b.is(Flavour::list));
        if (same) return added(cx, a, b);
    }
    if (op == "*" && is_sequence(a) && b.is_whole()) return repeated(cx, a, b.integer());
    if (op == "*" && is_sequence(b) && a.is_whole()) return repeated(cx, b, a.integer());
    if (!a.is_number() || !b.is_number()) cx.error(str("'", op, "' between ", a.type_name(), " and ", b.type_name()));
    jinja_need_exact(cx, a);
    jinja_need_exact(cx, b);
    if ((op == "/" || op == "//" || op == "%") && b.number() == 0) cx.error("division by zero");
    if (op == "**") return power(cx, a, b);
    const double x = a.number(), y = b.number();
    if (op == "/") {
        constexpr int64_t exact = int64_t(1) << 53;    // up to here a double holds every integer
        const auto beyond = [](const Value& v) {
            return v.is_whole() && (v.integer() > exact || v.integer() < -exact);
        };
        if (a.is_whole() && b.is_whole() && (beyond(a) || beyond(b)))
            cx.error("'/' of integers beyond 53 bits is not supported");
        return Value::of(x / y);
    }
    if (a.is_whole() && b.is_whole()) return whole_arithmetic(cx, op == "//" ? '/' : op[0], a.integer(), b.integer());
    switch (op[0]) {
        case '+': return Value::of(x + y);
        case '-': return Value::of(x - y);
        case '*': return Value::of(x * y);
        case '%': return Value::of(remainder(x, y));
        default: return Value::of(floor_quotient(x, y));
    }
}

JinjaValue jinja_range(JinjaContext& cx, int64_t start, int64_t stop, int64_t step) {
    constexpr size_t longest = 100'000;                // the reference's sandbox: MAX_RANGE
    if (step == 0) cx.error("range(): the step is zero");
    std::vector<JinjaValue> out;
    for (int64_t k = start; step > 0 ? k < stop : k > stop;) {
        if (out.size() >= longest) cx.error(str("range() of more than ", longest, " numbers"));
        out.push_back(JinjaValue::of(k));
        if (__builtin_add_overflow(k, step, &k)) break;
    }
    cx.spend(int64_t(out.size()));
    JinjaValue v = JinjaValue::of(std::move(out), JinjaValue::Flavour::range);
    v.list->start = start;
    v.list->stop = stop;
    v.list->step = step;
    return v;
}

}}  // namespace qlora
