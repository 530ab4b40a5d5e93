// jinja_value.h - values of the template interpreter: Python's, as far as chat templates can see them.
#pragma once
#include "src/text/chat_template.h"

#include <algorithm>
#include <set>

namespace qlora { inline namespace QLORA_ABI {

struct JinjaNode;
struct JinjaValue;
struct JinjaContext;
struct JinjaFrame;
struct JinjaBuiltin;
struct JinjaLoop;
using JinjaSpan = RenderedTemplate::Span;

// Text that remembers which bytes came from the messages: those never become control tokens.
struct JinjaText {
    std::string text;
    std::vector<JinjaSpan> content;
    // came out of |safe or |escape: adding a plain text to it escapes that text, as markupsafe does
    bool markup = false;
    // by current message (jinja_origin.h); printed in {% generation %}
    std::vector<JinjaSpan> during = {}, generation = {};
    static constexpr std::vector<JinjaSpan> JinjaText::*marks[] = {&JinjaText::content, &JinjaText::during,
                                                                   &JinjaText::generation};
    void append(const JinjaText& other) {
        const int64_t by = int64_t(text.size());
        for (const auto of : marks)
            for (const JinjaSpan& s : other.*of) {
                std::vector<JinjaSpan>& mine = this->*of;
                if (of != &JinjaText::generation && !mine.empty() && mine.back().end == s.begin + by &&
                    mine.back().message == s.message)
                    mine.back().end = s.end + by;
                else mine.push_back({s.begin + by, s.end + by, s.message});
            }
        text += other.text;
    }
    JinjaText part(int64_t begin, int64_t end) const {
        JinjaText out{text.substr(size_t(begin), size_t(end - begin)), {}, markup};
        for (const auto of : marks) {
            const std::vector<JinjaSpan>& mine = this->*of;
            auto s = std::upper_bound(mine.begin(), mine.end(), begin,
                                      [](int64_t at, const JinjaSpan& x) { return at < x.end; });
            for (; s != mine.end() && s->begin < end; ++s)
                (out.*of).push_back({std::max(s->begin, begin) - begin, std::min(s->end, end) - begin, s->message});
        }
        return out;
    }
    // For text made over (upper, replace, tojson): all of it counts as content if any of the source did.
    JinjaText made_over(std::string now) const {
        const int64_t n = int64_t(now.size());
        JinjaText out{std::move(now), {}, markup};
        for (const auto of : marks) {
            const std::vector<JinjaSpan>& mine = this->*of;
            if (mine.empty() || !n) continue;
            const bool one = std::all_of(mine.begin(), mine.end(),
                                         [&](const JinjaSpan& s) { return s.message == mine[0].message; });
            if (one || of == &JinjaText::content) (out.*of).push_back({0, n, one ? mine[0].message : -1});
        }
        return out;
    }
};

// Memory of all live values of one rendering, in bytes: whoever holds a lot holds a charge. Beyond the limit it is an
// error.
class JinjaCharge {
public:
    JinjaCharge() = default;
    explicit JinjaCharge(int64_t bytes) { set(bytes); }
    JinjaCharge(const JinjaCharge&) = delete;
    JinjaCharge& operator=(const JinjaCharge&) = delete;
    ~JinjaCharge();
    void set(int64_t bytes);
private:
    int64_t bytes_ = 0;
};
struct JinjaBudget {                                   // while it lives, charges of this thread count against its limit
    explicit JinjaBudget(int64_t limit);
    ~JinjaBudget();
    JinjaBudget(const JinjaBudget&) = delete;
    int64_t limit, live = 0;
    JinjaBudget* outer;
};

// A loop can nest values as deeply as it has steps: containers are taken apart without recursion.
struct JinjaList {                                     // everything with items in an order
    enum class Flavour : uint8_t { list, tuple, group, range, keys, values, items, generator } flavour = Flavour::list;
    std::vector<JinjaValue> items;
    int64_t start = 0, stop = 0, step = 1;             // range: what it was made of
    size_t taken = 0;                                  // generator: how many items were read; they are gone
    bool spoiled = false;    // generator: read by another lazy filter, or in part by a loop: must not be read again
    JinjaCharge charge;
    ~JinjaList();
};
struct JinjaDict {                                     // insertion order
    std::vector<std::pair<JinjaValue, JinjaValue>> items;
    bool is_namespace = false;
    int64_t message = -1;                              // the message that it is, or is in
    // of a message itself: where the keys that are asked for are noted
    std::set<std::string, std::less<>>* reads = nullptr;
    JinjaCharge charge;
    ~JinjaDict();
    JinjaValue* find(JinjaContext&, const JinjaValue& key);            // find() and read_all() note
    JinjaValue* find(std::string_view key);
    JinjaValue* peek(JinjaContext&, const JinjaValue& key);            // the same, not noted: comparing is not reading
    void read_all() const;
    void set(JinjaContext&, JinjaValue key, JinjaValue value);
    void add(JinjaValue key, JinjaValue value);        // a key that it is known not to have
};
struct JinjaCallable {
    std::string name;
    const JinjaNode* macro = nullptr;                  // a macro, or the body of a call block
    std::shared_ptr<JinjaFrame> frame;                 // macro: where it was defined
    const JinjaBuiltin* builtin = nullptr;             // a global, or a method of self
    std::shared_ptr<JinjaValue> self;
    ~JinjaCallable();
};

struct JinjaValue {
    enum class Kind : uint8_t {
        undefined,
        none,
        boolean,
        integer,
        number,
        string,
        list,
        dict,
        callable,
        loop
    } kind = Kind::undefined;
    using Flavour = JinjaList::Flavour;
    bool b = false;    // boolean; number: the data does not tell whether it was an integer of more than 64 bits
    int64_t i = 0;
    double d = 0;
    std::shared_ptr<const JinjaText> s;
    std::shared_ptr<JinjaList> list;
    std::shared_ptr<JinjaDict> dict;
    std::shared_ptr<JinjaCallable> call;
    std::shared_ptr<JinjaLoop> loop;

    static JinjaValue none() { JinjaValue v; v.kind = Kind::none; return v; }
    static JinjaValue of(bool x) { JinjaValue v; v.kind = Kind::boolean; v.b = x; return v; }
    static JinjaValue of(int64_t x) { JinjaValue v; v.kind = Kind::integer; v.i = x; return v; }
    static JinjaValue of(double x) { JinjaValue v; v.kind = Kind::number; v.d = x; return v; }
    static JinjaValue of(JinjaText x);
    static JinjaValue of(std::string x) { return of(JinjaText{std::move(x), {}, false}); }
    static JinjaValue of(const char* x) { return of(std::string(x)); }
    static JinjaValue of(std::vector<JinjaValue> x, Flavour flavour = Flavour::list);
    static JinjaValue empty_dict();
    static JinjaValue builtin(const JinjaBuiltin*, const JinjaValue* self);
    // content: strings are marked as coming from the row, and from which of its messages; top: not the "role", which
    // templates compare.
    static JinjaValue from_json(const Json&, bool content, int64_t message = -1, bool top = false);

    bool is(Kind k) const { return kind == k; }
    bool is(Flavour f) const { return kind == Kind::list && list->flavour == f; }
    bool is_string() const { return kind == Kind::string; }
    bool is_number() const { return kind == Kind::integer || kind == Kind::number || kind == Kind::boolean; }
    bool is_whole() const { return kind == Kind::integer || kind == Kind::boolean; }
    bool is_mapping() const { return kind == Kind::dict && !dict->is_namespace; }
    double number() const { return kind == Kind::number ? d : kind == Kind::boolean ? double(b) : double(i); }
    int64_t integer() const { return kind == Kind::boolean ? int64_t(b) : i; }
    const std::string& str() const { return s->text; }
    bool truthy() const;
    const char* type_name() const;
};

// They spend a step a value: a list that holds another twice, which holds another twice, is short to write and endless
// to read.
bool jinja_equal(JinjaContext&, const JinjaValue&, const JinjaValue&, int depth = 0);
// -1, 0 or 1 as Python's < orders numbers, texts, lists and tuples; an error for everything else.
int jinja_compare(JinjaContext&, const JinjaValue&, const JinjaValue&, int depth = 0);
// equal values, equal hashes; an error where Python has none
size_t jinja_hash(JinjaContext&, const JinjaValue&, int depth = 0);
JinjaText jinja_text(JinjaContext&, const JinjaValue&);                        // str(): what printing shows
JinjaText jinja_repr(JinjaContext&, const JinjaValue&);
// the message all of it is from, else -1; nothing = no content
std::optional<int64_t> jinja_contains_content(JinjaContext&, const JinjaValue&, int depth = 0);

struct JinjaJsonStyle {                                // json.dumps
    bool ascii = false, sort_keys = false;
    std::optional<std::string> indent;                 // one level of it
    std::string between = ", ", colon = ": ";
};
std::string jinja_json(JinjaContext&, const JinjaValue&, const JinjaJsonStyle&, int depth = 0);

// The part of the interpreter that filters, tests and methods need: errors with a line, the step budget, calls.
struct JinjaContext {
    virtual ~JinjaContext() = default;
    virtual std::string place() const = 0;             // file and line, for errors
    [[noreturn]] void error(std::string_view what) const;
    virtual void spend(int64_t steps) = 0;
    virtual int64_t output_limit() const = 0;
    // a namespace: the only values that can hold themselves
    virtual void adopt(const std::shared_ptr<JinjaDict>&) = 0;
    JinjaValue text(JinjaText t) {
        check_size(int64_t(t.text.size()));
        spend_on(t);
        return JinjaValue::of(std::move(t));
    }
    void check_size(int64_t bytes) const {
        if (bytes > output_limit()) error(qlora::str("a text grows beyond ", output_limit(), " bytes"));
    }
    // what reading or copying it takes
    void spend_on(const JinjaText& t) {
        spend(1 + int64_t(t.text.size()) / 64 + int64_t(t.content.size() + t.during.size()) / 8);
    }
};

// Arguments as a call wrote them, those behind "*" and "**" unpacked.
struct JinjaArgs {
    std::vector<JinjaValue> values;
    std::vector<std::string> names;                    // "" = positional
    void add(JinjaValue value, std::string name = {}) {
        values.push_back(std::move(value));
        names.push_back(std::move(name));
    }
};

bool jinja_knows_filter(std::string_view name);        // the reference has it, whether or not we do
bool jinja_knows_test(std::string_view name);
JinjaValue jinja_filter(JinjaContext&, const std::string& name, const JinjaValue& operand, const JinjaArgs&);
bool jinja_test(JinjaContext&, const std::string& name, const JinjaValue& operand, const JinjaArgs&);
JinjaValue jinja_call_builtin(JinjaContext&, const JinjaCallable&, const JinjaArgs&);
const JinjaBuiltin* jinja_global(std::string_view name);               // null: there is none

JinjaValue jinja_attribute(JinjaContext&, const JinjaValue& object, const std::string& name);          // object.name
JinjaValue jinja_subscript(JinjaContext&, const JinjaValue& object, const JinjaValue& key);            // object[key]
JinjaValue jinja_slice(JinjaContext&, const JinjaValue& object, const JinjaValue part[3]);    // object[start:stop:step]
// "function.name", "0", 3: |map(attribute=...)
JinjaValue jinja_path(JinjaContext&, const JinjaValue& object, const JinjaValue& path);
bool jinja_contains(JinjaContext&, const JinjaValue& container, const JinjaValue& item);    // item in container
JinjaValue jinja_arithmetic(JinjaContext&, const std::string& op, const JinjaValue& a, const JinjaValue& b);
JinjaValue jinja_range(JinjaContext&, int64_t start, int64_t stop, int64_t step);

// What iterating yields. lazily: for a filter that reads its operand only when somebody reads the filter's own items.
std::vector<JinjaValue> jinja_items(JinjaContext&, const JinjaValue&, bool lazily = false);

// Renders a parsed template; `where` names it in errors.
RenderedTemplate run_jinja(const JinjaNode& root, std::string_view where, const Json& variables, const TemplateLimits&);

}}  // namespace qlora
