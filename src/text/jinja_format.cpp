// jinja_format.cpp - Python's two ways to put values into a text. What a format asks for and is not written here is
// refused.
//
//   %[(key)][flags][width][.precision]type
//   {[field][!conversion][:[[fill]align][sign][#][0][width][grouping][.precision][type]]}
#include "src/text/jinja_format.h"

#include "src/text/jinja_number.h"
#include "src/text/jinja_text.h"
#include "src/text/unicode.h"

#include <cmath>
#include <cstdio>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_format_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

struct Spec {
    std::string fill = " ";
    char align = 0, sign = '-', type = 0, grouping = 0;                // align 0: as the type has it
    bool alternate = false, zero = false;
    int64_t width = 0, precision = -1;
};
constexpr int64_t widest = 1'000'000;

inline JinjaText padded(JinjaContext& cx, const JinjaText& t, const Spec& spec, char align) {
    const int64_t margin = spec.width - text_length(t.text);
    if (margin <= 0) return t;
    const int64_t left = align == '<' ? 0 : align == '>' ? margin : margin / 2;
    return text_padded(cx, t, left, margin - left, spec.fill);
}

// Sign, prefix and digits of a number, padded; zeros go between sign and digits.
inline JinjaText number_text(JinjaContext& cx, bool negative, const std::string& prefix, std::string digits,
                             const Spec& spec) {
    const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
    if (spec.grouping) {
        if (spec.zero) cx.error("a format with both grouping and zeros is not supported");
        const size_t whole = std::min(digits.find_first_of(".e%"), digits.size());
        if (digits.find('e') != digits.npos ||
            (spec.type && std::string_view("boxX").find(spec.type) != std::string_view::npos))
            cx.error("a format with grouping of this type is not supported");
        for (size_t at = whole; at > 3; at -= 3) digits.insert(at - 3, 1, spec.grouping);
    }
    const char align = spec.align ? spec.align : '>';
    if (spec.zero || align == '=') {
        const int64_t margin = std::max<int64_t>(0, spec.width - int64_t(sign.size() + prefix.size() + digits.size()));
        std::string pad;
        for (int64_t k = 0; k < margin; ++k) pad += spec.zero ? "0" : spec.fill;
        return {sign + prefix + pad + digits, {}, false};
    }
    return padded(cx, {sign + prefix + digits, {}, false}, spec, align);
}

inline JinjaText whole_text(JinjaContext& cx, int64_t n, const Spec& spec) {
    const int base = spec.type == 'x' || spec.type == 'X' ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
    uint64_t left = n < 0 ? 0 - uint64_t(n) : uint64_t(n);
    const char* const symbols = spec.type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    std::string digits, prefix;
    do digits.insert(digits.begin(), symbols[left % uint64_t(base)]); while (left /= uint64_t(base));
    if (spec.alternate && base != 10) prefix = std::string("0") + spec.type;
    return number_text(cx, n < 0, prefix, std::move(digits), spec);
}

inline JinjaText real_text(JinjaContext& cx, double d, const Spec& spec) {
    const bool percent = spec.type == '%', negative = std::signbit(d) && !std::isnan(d);
    const char type = percent ? 'f' : spec.type;
    std::string digits;
    const double size = std::fabs(percent ? d * 100 : d);
    if (!std::isfinite(size)) {
        digits = std::isnan(size) ? "nan" : "inf";
        if (type == 'F' || type == 'E' || type == 'G') for (char& c : digits) c = char(c - 32);
    } else {
        char buffer[1400];
        const int precision = spec.precision < 0 ? 6 : int(spec.precision);
        if (precision > 1000) cx.error("a format with a precision above 1000 is not supported");
        const char pattern[] = {'%', '#', '.', '*', type, 0}, plain[] = {'%', '.', '*', type, 0};
        std::snprintf(buffer, sizeof buffer, spec.alternate ? pattern : plain, precision, size);
        digits = buffer;
    }
    return number_text(cx, negative, "", digits + (percent ? "%" : ""), spec);
}

inline JinjaText cut(const JinjaText& t, int64_t precision) {
    return precision < 0 ? t : t.part(0, int64_t(text_offset(t.text, precision)));
}

// ---- 'text' % values
class Percent {
public:
    Percent(JinjaContext& cx, const JinjaText& format, const Value& arguments)
        : cx_(cx), format_(format), out_(format), arguments_(arguments) {
        many_ = arguments.is(Flavour::tuple) || arguments.is(Flavour::group);
        mapping_ = arguments.is_mapping() || arguments.is(Flavour::list) || arguments.is(Flavour::range);
        if (arguments.is(Kind::undefined)) cx.error("'%' of an undefined value");
    }
    JinjaText run() {
        const std::string& s = format_.text;
        cx_.spend_on(format_);
        for (size_t at = 0; at < s.size();) {
            const size_t percent = std::min(s.find('%', at), s.size());
            out_.keep(at, percent);
            if (percent == s.size()) break;
            at_ = percent + 1;
            item();
            at = at_;
            cx_.check_size(int64_t(out_.made().text.size()));
        }
        if (!mapping_ && used_ < (many_ ? arguments_.list->items.size() : 1))
            cx_.error("'%': not all values are used by the format");
        return out_.take();
    }

private:
    JinjaContext& cx_;
    const JinjaText& format_;
    JinjaRewriter out_;
    Value arguments_;
    bool many_ = false, mapping_ = false, keyed_ = false;
    size_t used_ = 0, at_ = 0;

    char peek() const { return at_ < format_.text.size() ? format_.text[at_] : char(0); }
    Value next() {
        if (keyed_) return arguments_;
        const size_t k = used_++;
        if (many_ ? k >= arguments_.list->items.size() : k >= 1) cx_.error("'%': the format needs more values");
        return many_ ? arguments_.list->items[k] : arguments_;
    }
    int64_t number() {                                 // digits, or "*" for a value
        if (peek() == '*') {
            ++at_;
            const Value v = next();
            if (!v.is_whole()) cx_.error("'%': '*' needs an integer");
            if (std::llabs(v.integer()) > widest) cx_.error("'%': the width is too large");
            return v.integer();
        }
        int64_t n = 0;
        for (; peek() >= '0' && peek() <= '9'; ++at_)
            if ((n = n * 10 + (peek() - '0')) > widest) cx_.error("'%': the width is too large");
        return n;
    }
    void item() {
        Spec spec;
        bool left = false;
        keyed_ = false;
        const Value all = arguments_;
        if (peek() == '(') {
            size_t close = ++at_;
            for (int nesting = 1; close < format_.text.size(); ++close) {
                nesting += format_.text[close] == '(';
                if (format_.text[close] == ')' && --nesting == 0) break;
            }
            if (close >= format_.text.size()) cx_.error("'%': a key without ')'");
            if (!arguments_.is_mapping()) cx_.error("'%': the format needs a dict");
            const Value* v = arguments_.dict->find(cx_, Value::of(format_.text.substr(at_, close - at_)));
            if (!v) cx_.error(str("'%': no value for the key '", format_.text.substr(at_, close - at_), "'"));
            arguments_ = *v;
            keyed_ = true;
            at_ = close + 1;
        }
        for (;; ++at_) {
            if (peek() == '-') left = true;
            else if (peek() == '+') spec.sign = '+';
            else if (peek() == ' ') { if (spec.sign != '+') spec.sign = ' '; }
            else if (peek() == '#') spec.alternate = true;
            else if (peek() == '0') spec.zero = true;
            else break;
        }
        spec.width = number();
        if (spec.width < 0) { left = true; spec.width = -spec.width; }
        if (peek() == '.') { ++at_; spec.precision = std::max<int64_t>(number(), 0); }
        if (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
        spec.type = peek();
        ++at_;
        spec.zero = spec.zero && !left;
        if (spec.type == '%') out_.insert({"%", {}, false});
        else out_.insert(value(spec, left));
        arguments_ = all;
        keyed_ = false;
    }
    JinjaText value(Spec& spec, bool left) {
        const Value v = next();
        spec.align = left ? '<' : '>';
        switch (spec.type) {
            case 's': case 'r': {
                JinjaText t = cut(spec.type == 's' ? jinja_text(cx_, v) : jinja_repr(cx_, v), spec.precision);
                return padded(cx_, t, spec, spec.align);
            }
            case 'c': {
                std::string c = v.is_string() ? v.str() : "";
                if (v.is_whole() && v.integer() >= 0 && v.integer() < 0x110000) utf8_append(c, char32_t(v.integer()));
                if (text_length(c) != 1) cx_.error("'%c' needs one character");
                return padded(cx_, v.is_string() ? *v.s : JinjaText{c, {}, false}, spec, spec.align);
            }
            case 'd': case 'i': case 'u': case 'x': case 'X': case 'o':
                if (!v.is_whole() && (!v.is(Kind::number) || spec.type == 'x' || spec.type == 'X' || spec.type == 'o'))
                    cx_.error(str("'%", spec.type, "' of a value of type ", v.type_name()));
                if (spec.precision >= 0) cx_.error(str("'%", spec.type, "' with a precision is not supported"));
                return whole_text(cx_, v.is(Kind::number) ? jinja_whole(cx_, v.d) : v.integer(), spec);
            case 'e': case 'E': case 'f': case 'F': case 'g': case 'G':
                if (!v.is_number()) cx_.error(str("'%", spec.type, "' of a value of type ", v.type_name()));
                return real_text(cx_, v.number(), spec);
            default: cx_.error(str("'%': the format type '", std::string(1, spec.type), "' is not supported"));
        }
    }
};

// ---- 'text'.format(values)
inline Spec parse_spec(JinjaContext& cx, std::string_view s) {
    Spec spec;
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '=' || c == '^'; };
    size_t at = 0;
    const size_t first = s.empty() ? 0 : size_t(utf8_at(s, 0).bytes);
    if (first && first < s.size() && is_align(s[first])) {
        spec.fill = s.substr(0, first);
        spec.align = s[first];
        at = first + 1;
    } else if (!s.empty() && is_align(s[0])) {
        spec.align = s[0];
        at = 1;
    }
    const auto peek = [&] { return at < s.size() ? s[at] : char(0); };
    if (peek() == '+' || peek() == '-' || peek() == ' ') spec.sign = s[at++];
    if (peek() == '#') { spec.alternate = true; ++at; }
    if (peek() == '0') { spec.zero = true; ++at; }
    for (; peek() >= '0' && peek() <= '9'; ++at)
        if ((spec.width = spec.width * 10 + (peek() - '0')) > widest) cx.error("format: the width is too large");
    if (peek() == ',' || peek() == '_') spec.grouping = s[at++];
    if (peek() == '.') {
        const size_t digits = ++at;
        for (spec.precision = 0; peek() >= '0' && peek() <= '9'; ++at)
            if ((spec.precision = spec.precision * 10 + (peek() - '0')) > widest)
                cx.error("format: the precision is too large");
        if (at == digits) cx.error("format: a precision without digits");
    }
    if (at < s.size()) spec.type = s[at++];
    if (at < s.size()) cx.error("format: the specification is not understood");
    return spec;
}

inline JinjaText formatted(JinjaContext& cx, const Value& v, std::string_view text) {
    if (text.empty()) return jinja_text(cx, v);
    Spec spec = parse_spec(cx, text);
    if (v.is_string()) {
        if (v.s->markup) cx.error("format of a safe text with a specification is not supported");
        if ((spec.type && spec.type != 's') || spec.sign != '-' || spec.alternate || spec.grouping ||
            spec.align == '=' || text.find('-') != text.npos)
            cx.error("format: this specification is not one of texts");
        if (spec.zero && !spec.align) spec.fill = "0";
        if (spec.zero && spec.align && spec.fill == " ") cx.error("format: this specification is not supported");
        return padded(cx, cut(*v.s, spec.precision), spec, spec.align ? spec.align : '<');
    }
    if (!v.is_number()) cx.error(str("format: a value of type ", v.type_name(), " takes no specification"));
    if (spec.zero && spec.align && spec.align != '=')
        cx.error("format with both an alignment and zeros is not supported");
    const bool real_type = spec.type && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
    if (real_type) return real_text(cx, v.number(), spec);
    if (v.is(Kind::number)) {
        if (spec.type || spec.precision >= 0 || spec.alternate)
            cx.error("format: this specification of floats is not supported");
        std::string digits = jinja_float_text(std::fabs(v.d));
        return number_text(cx, std::signbit(v.d) && !std::isnan(v.d), "", std::move(digits), spec);
    }
    if (spec.precision >= 0 || (spec.type && std::string_view("dboxX").find(spec.type) == std::string_view::npos))
        cx.error("format: this specification of integers is not supported");
    return whole_text(cx, v.integer(), spec);
}

class Braces {
public:
    Braces(JinjaContext& cx, const std::vector<Value>& positional,
           const std::vector<std::pair<std::string, Value>>& named)
        : cx_(cx), positional_(positional), named_(named) {}
    JinjaText run(const JinjaText& format, int depth) {
        if (depth > 1) cx_.error("format: fields nested too deeply");
        JinjaRewriter out(format);
        const std::string& s = format.text;
        cx_.spend_on(format);
        for (size_t at = 0; at < s.size();) {
            const size_t brace = std::min(s.find_first_of("{}", at), s.size());
            out.keep(at, brace);
            if (brace == s.size()) break;
            if (brace + 1 < s.size() && s[brace + 1] == s[brace]) {
                out.keep(brace, brace + 1);
                at = brace + 2;
                continue;
            }
            if (s[brace] == '}') cx_.error("format: a single '}'");
            size_t close = brace + 1;
            for (int nesting = 1; close < s.size(); ++close) {
                nesting += s[close] == '{';
                if (s[close] == '}' && --nesting == 0) break;
            }
            if (close >= s.size()) cx_.error("format: '{' without '}'");
            out.insert(field(format, brace + 1, close, depth));
            cx_.check_size(int64_t(out.made().text.size()));
            at = close + 1;
        }
        return out.take();
    }

private:
    JinjaContext& cx_;
    const std::vector<Value>& positional_;
    const std::vector<std::pair<std::string, Value>>& named_;
    int64_t next_ = 0;
    bool automatic_ = false, numbered_ = false;

    JinjaText field(const JinjaText& format, size_t begin, size_t end, int depth) {
        const std::string_view s = std::string_view(format.text).substr(0, end);
        size_t at = begin;
        for (bool bracket = false; at < end && (bracket || (s[at] != '!' && s[at] != ':')); ++at) {
            if (s[at] == '{' || s[at] == '}') cx_.error("format: a brace in a field's name");
            bracket = s[at] == '[' || (bracket && s[at] != ']');
        }
        Value v = object(s.substr(begin, at - begin));
        if (at < end && s[at] == '!') {
            const char how = at + 1 < end ? s[at + 1] : char(0);
            if (how == 'r') v = Value::of(jinja_repr(cx_, v));
            else if (how == 's') v = Value::of(jinja_text(cx_, v));
            else cx_.error("format: this conversion is not supported");
            at += 2;
            if (at < end && s[at] != ':') cx_.error("format: expected ':' after the conversion");
        }
        const std::string spec = at < end ? run(format.part(int64_t(at + 1), int64_t(end)), depth + 1).text : "";
        return formatted(cx_, v, spec);
    }
    Value object(std::string_view name) {
        const bool digits = !name.empty() && name.find_first_not_of("0123456789") == name.npos;
        if (name.empty() || digits) {
            (name.empty() ? automatic_ : numbered_) = true;
            if (automatic_ && numbered_) cx_.error("format: automatic and given numbers of fields are mixed");
        }
        size_t at = std::min(name.find_first_of(".["), name.size());
        Value v = name.empty() ? positional(next_++) : base(name.substr(0, at));
        while (at < name.size()) {
            const bool dot = name[at] == '.';
            const size_t start = at + 1;
            at = dot ? std::min(name.find_first_of(".[", start), name.size()) : name.find(']', start);
            if (at == name.npos || at == start) cx_.error("format: the field's name is not understood");
            const std::string part(name.substr(start, at - start));
            if (dot) { v = jinja_attribute(cx_, v, part); continue; }
            const bool index = part.find_first_not_of("0123456789") == part.npos && part.size() < 18;
            if (!index && !v.is_mapping()) cx_.error("format: only a dict has elements by name");
            v = jinja_subscript(cx_, v, index ? Value::of(int64_t(std::stoll(part))) : Value::of(part));
            if (v.is(Kind::undefined)) cx_.error(str("format: no element '", part, "'"));
            if (++at < name.size() && name[at] != '.' && name[at] != '[')
                cx_.error("format: the field's name is not understood");
        }
        return v;
    }
    Value positional(int64_t k) {
        if (k < 0 || k >= int64_t(positional_.size())) cx_.error(str("format: no value for field ", k));
        return positional_[size_t(k)];
    }
    Value base(std::string_view name) {
        if (!name.empty() && name.size() < 18 && name.find_first_not_of("0123456789") == name.npos)
            return positional(std::stoll(std::string(name)));
        for (const auto& [key, value] : named_) if (key == name) return value;
        cx_.error(str("format: no value for the field '", name, "'"));
    }
};

}  // namespace jinja_format_room

JinjaText jinja_percent_format(JinjaContext& cx, const JinjaText& format, const JinjaValue& arguments) {
    if (format.markup) cx.error("'%' of a safe text is not supported");
    return jinja_format_room::Percent(cx, format, arguments).run();
}

JinjaText jinja_brace_format(JinjaContext& cx, const JinjaText& format, const std::vector<JinjaValue>& positional,
                             const std::vector<std::pair<std::string, JinjaValue>>& named) {
    return jinja_format_room::Braces(cx, positional, named).run(format, 0);
}

}}  // namespace qlora
