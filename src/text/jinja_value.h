// jinja_value.h - values of the template interpreter: Python's, as far as chat templates can see them.
#pragma once
#include "src/text/chat_template.h"

#include <algorithm>
#include <set>

namespace qlora::inline v0_1 {

struct JinjaNode;
struct JinjaValue;
struct JinjaContext;
using JinjaSpan = RenderedTemplate::Span;

// Text that remembers which bytes came from the messages: those never become control tokens.
struct JinjaText {
    std::string text;
    std::vector<JinjaSpan> content;
    bool markup = false;                               // came out of |safe: adding a plain text to it escapes that text, as markupsafe does
    std::vector<JinjaSpan> during = {}, generation = {};               // by current message (jinja_origin.h); printed in {% generation %}
    static constexpr std::vector<JinjaSpan> JinjaText::* marks[] = {&JinjaText::content, &JinjaText::during, &JinjaText::generation};
    void append(const JinjaText& other) {
        const int64_t by = int64_t(text.size());
        for (const auto of : marks)
            for (const JinjaSpan& s : other.*of) {
                std::vector<JinjaSpan>& mine = this->*of;
                if (of != &JinjaText::generation && !mine.empty() && mine.back().end == s.begin + by && mine.back().message == s.message) mine.back().end = s.end + by;
                else mine.push_back({s.begin + by, s.end + by, s.message});
            }
        text += other.text;
    }
    JinjaText part(int64_t begin, int64_t end) const {
        JinjaText out{text.substr(size_t(begin), size_t(end - begin)), {}, false};
        for (const auto of : marks) {
            const std::vector<JinjaSpan>& mine = this->*of;
            auto s = std::upper_bound(mine.begin(), mine.end(), begin, [](int64_t at, const JinjaSpan& x) { return at < x.end; });
            for (; s != mine.end() && s->begin < end; ++s) (out.*of).push_back({std::max(s->begin, begin) - begin, std::min(s->end, end) - begin, s->message});
        }
        return out;
    }
    // For text made over (upper, replace, tojson): all of it counts as content if any of the source did.
    JinjaText made_over(std::string now) const {
        const int64_t n = int64_t(now.size());
        JinjaText out{std::move(now), {}, false};
        for (const auto of : marks) {
            const std::vector<JinjaSpan>& mine = this->*of;
            if (mine.empty() || !n) continue;
            const bool one = std::all_of(mine.begin(), mine.end(), [&](const JinjaSpan& s) { return s.message == mine[0].message; });
            if (one || of == &JinjaText::content) (out.*of).push_back({0, n, one ? mine[0].message : -1});
        }
        return out;
    }
};

// A loop can nest values as deeply as it has steps: containers are taken apart without recursion.
struct JinjaList {
    std::vector<JinjaValue> items;
    bool tuple = false;
    ~JinjaList();
};
struct JinjaDict {                                     // insertion order
    std::vector<std::pair<JinjaValue, JinjaValue>> items;
    bool is_namespace = false;
    int64_t message = -1;                              // the message that it is, or is in
    std::set<std::string, std::less<>>* reads = nullptr;               // of a message itself: where the keys that are asked for are noted
    ~JinjaDict();
    JinjaValue* find(JinjaContext&, const JinjaValue& key);            // find() and read_all() note
    JinjaValue* find(std::string_view key);
    JinjaValue* peek(JinjaContext&, const JinjaValue& key);            // the same, not noted: comparing is not reading
    void read_all() const;
    void set(JinjaContext&, JinjaValue key, JinjaValue value);
};
struct JinjaCallable {
    const JinjaNode* macro = nullptr;                  // a macro of the template, or else a built-in by name
    std::string name;
    std::shared_ptr<JinjaValue> self;                  // of a method
    const JinjaNode* caller_body = nullptr;            // what caller() of a {% call %} block prints
    ~JinjaCallable();
};

struct JinjaValue {
    enum class Kind : uint8_t { undefined, none, boolean, integer, number, string, list, dict, callable } kind = Kind::undefined;
    bool b = false;
    int64_t i = 0;
    double d = 0;
    std::shared_ptr<const JinjaText> s;
    std::shared_ptr<JinjaList> list;
    std::shared_ptr<JinjaDict> dict;
    std::shared_ptr<JinjaCallable> call;

    static JinjaValue none() { JinjaValue v; v.kind = Kind::none; return v; }
    static JinjaValue of(bool x) { JinjaValue v; v.kind = Kind::boolean; v.b = x; return v; }
    static JinjaValue of(int64_t x) { JinjaValue v; v.kind = Kind::integer; v.i = x; return v; }
    static JinjaValue of(double x) { JinjaValue v; v.kind = Kind::number; v.d = x; return v; }
    static JinjaValue of(JinjaText x) { JinjaValue v; v.kind = Kind::string; v.s = std::make_shared<const JinjaText>(std::move(x)); return v; }
    static JinjaValue of(std::string x) { return of(JinjaText{std::move(x), {}, false}); }
    static JinjaValue of(const char* x) { return of(std::string(x)); }
    static JinjaValue of(std::vector<JinjaValue> x, bool tuple = false) {
        JinjaValue v;
        v.kind = Kind::list;
        v.list = std::make_shared<JinjaList>();
        v.list->items = std::move(x);
        v.list->tuple = tuple;
        return v;
    }
    static JinjaValue empty_dict() { JinjaValue v; v.kind = Kind::dict; v.dict = std::make_shared<JinjaDict>(); return v; }
    static JinjaValue builtin(std::string name) { JinjaValue v; v.kind = Kind::callable; v.call = std::make_shared<JinjaCallable>(); v.call->name = std::move(name); return v; }
    // content: strings are marked as coming from the row, and from which of its messages; top: not the "role", which templates compare.
    static JinjaValue from_json(const Json&, bool content, int64_t message = -1, bool top = false);

    bool is(Kind k) const { return kind == k; }
    bool is_string() const { return kind == Kind::string; }
    bool is_number() const { return kind == Kind::integer || kind == Kind::number || kind == Kind::boolean; }
    double number() const { return kind == Kind::number ? d : kind == Kind::boolean ? double(b) : double(i); }
    int64_t integer() const { return kind == Kind::boolean ? int64_t(b) : i; }
    const std::string& str() const { return s->text; }
    bool truthy() const;
    const char* type_name() const;
};

// They spend a step a value: a list that holds another twice, which holds another twice, is short to write and endless to read.
bool jinja_equal(JinjaContext&, const JinjaValue&, const JinjaValue&, int depth = 0);
JinjaText jinja_text(JinjaContext&, const JinjaValue&);                        // str(): what printing shows
std::string jinja_json(JinjaContext&, const JinjaValue&, int64_t indent, int depth = 0);       // json.dumps(ensure_ascii=False)
std::optional<int64_t> jinja_contains_content(JinjaContext&, const JinjaValue&, int depth = 0);  // the message all of it is from, else -1; nothing = no content

// The part of the interpreter that filters, tests and methods need: errors with a line, the step budget, calls.
struct JinjaContext {
    virtual ~JinjaContext() = default;
    virtual std::string place() const = 0;             // file and line, for errors
    [[noreturn]] void error(std::string_view what) const { fail(Errc::format, place(), ": ", what); }
    virtual void spend(int64_t steps) = 0;
    virtual int64_t output_limit() const = 0;
    JinjaValue text(JinjaText t) {
        check_size(int64_t(t.text.size()));
        spend_on(t);
        return JinjaValue::of(std::move(t));
    }
    void check_size(int64_t bytes) const { if (bytes > output_limit()) error(qlora::str("a text grows beyond ", output_limit(), " bytes")); }
    void spend_on(const JinjaText& t) { spend(1 + int64_t(t.text.size()) / 64 + int64_t(t.content.size() + t.during.size()) / 8); }     // what reading or copying it takes
};

struct JinjaArgs {
    std::vector<JinjaValue> values;
    std::vector<std::string> names;                    // "" = positional
    const JinjaValue* get(size_t position, std::string_view name) const {      // null = not given
        for (size_t k = 0; k < values.size(); ++k) if (!names[k].empty() && names[k] == name) return &values[k];
        size_t seen = 0;
        for (size_t k = 0; k < values.size(); ++k) if (names[k].empty() && seen++ == position) return &values[k];
        return nullptr;
    }
};

JinjaValue jinja_filter(JinjaContext&, const std::string& name, const JinjaValue& operand, const JinjaArgs&);
bool jinja_test(JinjaContext&, const std::string& name, const JinjaValue& operand, const JinjaArgs&);
JinjaValue jinja_method(JinjaContext&, const JinjaValue& self, const std::string& name, const JinjaArgs&);
bool jinja_has_method(const JinjaValue& self, std::string_view name);
JinjaValue jinja_attribute(const JinjaValue& object, std::string_view name);   // dict entry, undefined otherwise
std::vector<JinjaValue> jinja_items(JinjaContext&, const JinjaValue&);         // what iterating yields

// Renders a parsed template; `where` names it in errors.
RenderedTemplate run_jinja(const JinjaNode& root, std::string_view where, const Json& variables, const TemplateLimits&);

}  // namespace qlora
