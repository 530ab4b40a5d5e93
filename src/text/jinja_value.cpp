// jinja_value.cpp - truth, equality, order and hash of template values, as Python does them, and the memory they take.
#include "src/text/jinja_value.h"

#include "src/text/jinja_lexer.h"
#include "src/text/jinja_loop.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace qlora { inline namespace QLORA_ABI {
namespace jinja_value_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Flavour = JinjaValue::Flavour;

constexpr int max_depth = 200;                         // a namespace can hold itself
[[noreturn]] inline void too_deep() { fail(Errc::format, "chat template: a value is nested deeper than ", max_depth); }

thread_local JinjaBudget* budget = nullptr;

struct HeldText : JinjaText {
    JinjaCharge charge;
    explicit HeldText(JinjaText t)
        : JinjaText(std::move(t)),
          charge(int64_t(sizeof(HeldText) + text.capacity() + content.size() * sizeof(JinjaSpan))) {}
};

// Moves what a container holds to `pending`.
inline void take_apart(JinjaList& list, std::vector<Value>& pending) {
    std::move(list.items.begin(), list.items.end(), std::back_inserter(pending));
    list.items.clear();
}
inline void take_apart(JinjaDict& dict, std::vector<Value>& pending) {
    for (auto& [key, value] : dict.items) {
        pending.push_back(std::move(key));
        pending.push_back(std::move(value));
    }
    dict.items.clear();
}
inline void take_apart(JinjaCallable& callable, std::vector<Value>& pending) {
    if (callable.self && callable.self.use_count() == 1) pending.push_back(std::move(*callable.self));
    callable.self.reset();
}
inline void take_apart(JinjaLoop& loop, std::vector<Value>& pending) {
    std::move(loop.items.begin(), loop.items.end(), std::back_inserter(pending));
    loop.items.clear();
    pending.push_back(std::move(loop.before));
    pending.push_back(std::move(loop.current));
    for (auto* kept : {&loop.ahead, &loop.last_changed}) {
        if (*kept) pending.push_back(std::move(**kept));
        kept->reset();
    }
}

// Destroys a container that nobody else holds, and everything in it that nobody else holds, in constant stack.
template <class Container>
void destroy(Container& container) {
    std::vector<Value> pending;
    try {
        take_apart(container, pending);
        while (!pending.empty()) {
            const Value v = std::move(pending.back());
            pending.pop_back();
            if (v.list.use_count() == 1) take_apart(*v.list, pending);
            if (v.dict.use_count() == 1) take_apart(*v.dict, pending);
            if (v.call.use_count() == 1) take_apart(*v.call, pending);
            if (v.loop.use_count() == 1) take_apart(*v.loop, pending);
        }
    // a destructor may not throw: what is left goes as it lies, one within the other
    } catch (const std::bad_alloc&) {
    }
}

// -1, 0, 1, or 2 where one is not a number: exact, as Python compares an integer with a float.
inline int compare_numbers(const Value& a, const Value& b) {
    const auto order = [](auto x, auto y) { return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2; };
    if (a.is_whole() && b.is_whole()) return order(a.integer(), b.integer());
    if (!a.is_whole() && !b.is_whole()) return order(a.d, b.d);
    if (!a.is_whole()) { const int c = compare_numbers(b, a); return c == 2 ? 2 : -c; }
    const int64_t x = a.integer();
    if (std::isnan(b.d)) return 2;
    if (b.d >= 0x1p63) return -1;
    if (b.d < -0x1p63) return 1;
    const int whole = order(x, int64_t(b.d));
    return whole ? whole : order(0.0, b.d - std::trunc(b.d));
}

inline bool is_view(const Value& v) { return v.is(Flavour::keys) || v.is(Flavour::items); }
inline bool is_tuple(const Value& v) { return v.is(Flavour::tuple) || v.is(Flavour::group); }
inline bool is_nan(const Value& v) { return v.is(Kind::number) && std::isnan(v.d); }

// An item as Python compares it inside a container: it looks at identity first, which we do not keep for numbers.
inline bool items_equal(JinjaContext& cx, const Value& a, const Value& b, int depth) {
    if (is_nan(a) && is_nan(b)) cx.error("comparing lists that hold nan is not supported");
    return jinja_equal(cx, a, b, depth);
}

inline bool lists_equal(JinjaContext& cx, const Value& a, const Value& b, int depth) {
    if (is_view(a) && is_view(b)) cx.error("comparing keys() or items() is not supported; use |list");
    const bool same_kind = a.list->flavour == b.list->flavour || (is_tuple(a) && is_tuple(b));
    const bool by_value = a.is(Flavour::list) || is_tuple(a) || a.is(Flavour::range);
    if (!same_kind || !by_value) return a.list == b.list;
    const std::vector<Value>&x = a.list->items, &y = b.list->items;
    return x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin(), [&](const Value& p, const Value& q) {
               return items_equal(cx, p, q, depth + 1);
           });
}

}  // namespace jinja_value_room

void JinjaContext::error(std::string_view what) const { fail(Errc::format, place(), ": ", jinja_one_line(what)); }

JinjaBudget::JinjaBudget(int64_t bytes) : limit(bytes), outer(jinja_value_room::budget) {
    jinja_value_room::budget = this;
}
JinjaBudget::~JinjaBudget() { jinja_value_room::budget = outer; }
JinjaCharge::~JinjaCharge() { if (JinjaBudget* b = jinja_value_room::budget) b->live -= bytes_; }
void JinjaCharge::set(int64_t bytes) {
    JinjaBudget* b = jinja_value_room::budget;
    if (!b) return;
    if (b->live + bytes - bytes_ > b->limit)
        fail(Errc::format, "chat template: its values take more than ", b->limit >> 20, " MiB");
    b->live += bytes - bytes_;
    bytes_ = bytes;
}

JinjaList::~JinjaList() { jinja_value_room::destroy(*this); }
JinjaDict::~JinjaDict() { jinja_value_room::destroy(*this); }
JinjaCallable::~JinjaCallable() { jinja_value_room::destroy(*this); }
JinjaLoop::~JinjaLoop() { jinja_value_room::destroy(*this); }

JinjaValue JinjaValue::of(JinjaText x) {
    JinjaValue v;
    v.kind = Kind::string;
    v.s = std::make_shared<const jinja_value_room::HeldText>(std::move(x));
    return v;
}
JinjaValue JinjaValue::of(std::vector<JinjaValue> x, Flavour flavour) {
    JinjaValue v;
    v.kind = Kind::list;
    v.list = std::make_shared<JinjaList>();
    v.list->charge.set(int64_t(sizeof(JinjaList) + x.size() * sizeof(JinjaValue)));
    v.list->items = std::move(x);
    v.list->flavour = flavour;
    return v;
}
JinjaValue JinjaValue::empty_dict() {
    JinjaValue v;
    v.kind = Kind::dict;
    v.dict = std::make_shared<JinjaDict>();
    v.dict->charge.set(int64_t(sizeof(JinjaDict)));
    return v;
}
JinjaValue JinjaValue::builtin(const JinjaBuiltin* row, const JinjaValue* self) {
    JinjaValue v;
    v.kind = Kind::callable;
    v.call = std::make_shared<JinjaCallable>();
    v.call->builtin = row;
    if (self) v.call->self = std::make_shared<JinjaValue>(*self);
    return v;
}

bool JinjaValue::truthy() const {
    switch (kind) {
        case Kind::undefined: case Kind::none: return false;
        case Kind::boolean: return b;
        case Kind::integer: return i != 0;
        case Kind::number: return d != 0;
        case Kind::string: return !s->text.empty();
        case Kind::list: return list->flavour == Flavour::generator || !list->items.empty();
        case Kind::dict: return dict->is_namespace || !dict->items.empty();
        case Kind::callable: case Kind::loop: return true;
    }
    return false;
}

const char* JinjaValue::type_name() const {
    static const char* const names[] = {"undefined", "none", "boolean", "integer",  "float",
                                        "string",    "list", "dict",    "callable", "loop"};
    static const char* const flavours[] = {"list",   "tuple",    "tuple",   "range",
                                           "keys()", "values()", "items()", "generator (what a lazy filter returns)"};
    return kind == Kind::list                         ? flavours[int(list->flavour)]
           : kind == Kind::dict && dict->is_namespace ? "namespace"
                                                      : names[int(kind)];
}

JinjaValue JinjaValue::from_json(const Json& j, bool content, int64_t message, bool top) {
    switch (j.kind()) {
        case Json::Kind::null: return none();
        case Json::Kind::boolean: return of(j.boolean());
        case Json::Kind::integer: return of(j.integer());
        case Json::Kind::number: {
            JinjaValue v = of(j.number());             // Json reads integers beyond 64 bits, and -0, as floats
            v.b = (std::fabs(v.d) >= 0x1p63 && v.d == std::trunc(v.d)) || (v.d == 0 && std::signbit(v.d));
            return v;
        }
        case Json::Kind::string: {
            JinjaText t{j.string(), {}, false};
            if (content && !t.text.empty()) t.content.push_back({0, int64_t(t.text.size()), message});
            return of(std::move(t));
        }
        case Json::Kind::array: {
            std::vector<JinjaValue> items;
            for (const Json& x : j.array()) items.push_back(from_json(x, content, message));
            return of(std::move(items));
        }
        case Json::Kind::object: {
            JinjaValue v = empty_dict();
            v.dict->message = message;
            // The role of a message is not content, but where it is printed the message is: its header begins there.
            const auto role = [&](const Json& x) {
                return of(JinjaText{x.string(), {}, false, {{0, int64_t(x.string().size()), message}}});
            };
            for (const auto& [key, value] : j.object())
                v.dict->add(from_json(Json(key), content && !top, message), top && key == "role" && value.is_string()
                                                                                ? role(value)
                                                                                : from_json(value, content, message));
            return v;
        }
    }
    return {};
}

JinjaValue* JinjaDict::find(JinjaContext& cx, const JinjaValue& key) {
    if (reads && key.is_string()) reads->insert(key.str());
    return peek(cx, key);
}
JinjaValue* JinjaDict::peek(JinjaContext& cx, const JinjaValue& key) {
    for (auto& [k, v] : items) if (jinja_equal(cx, k, key)) return &v;
    return nullptr;
}
JinjaValue* JinjaDict::find(std::string_view key) {
    if (reads) reads->emplace(key);
    for (auto& [k, v] : items) if (k.is_string() && k.str() == key) return &v;
    return nullptr;
}
void JinjaDict::read_all() const {
    if (reads) for (const auto& [key, value] : items) reads->insert(key.str());
}
void JinjaDict::set(JinjaContext& cx, JinjaValue key, JinjaValue value) {
    if (!key.is_string() && !key.is_number()) jinja_hash(cx, key);       // an error where it cannot be a key
    if (JinjaValue* old = peek(cx, key)) *old = std::move(value);
    else add(std::move(key), std::move(value));
}
void JinjaDict::add(JinjaValue key, JinjaValue value) {
    items.emplace_back(std::move(key), std::move(value));
    charge.set(int64_t(sizeof(JinjaDict) + items.size() * 2 * sizeof(JinjaValue)));
}

bool jinja_equal(JinjaContext& cx, const JinjaValue& a, const JinjaValue& b, int depth) {
    using namespace jinja_value_room;
    if (depth > max_depth) too_deep();
    cx.spend(1);
    if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
    if (a.kind != b.kind) return false;
    switch (a.kind) {
        case Kind::undefined: case Kind::none: return true;
        case Kind::string:
            if (a.str().size() == b.str().size()) cx.spend(int64_t(a.str().size()) / 64);
            return a.str() == b.str();
        case Kind::list: return lists_equal(cx, a, b, depth);
        case Kind::dict: {
            if (a.dict->is_namespace || b.dict->is_namespace) return a.dict == b.dict;
            if (a.dict->items.size() != b.dict->items.size()) return false;
            for (const auto& [k, v] : a.dict->items) {
                const Value* other = b.dict->peek(cx, k);
                if (!other || !items_equal(cx, v, *other, depth + 1)) return false;
            }
            return true;
        }
        case Kind::loop: return a.loop == b.loop;
        default:
            if (a.call != b.call && a.call->builtin && b.call->builtin && a.call->builtin == b.call->builtin)
                cx.error("comparing functions is not supported");
            return a.call == b.call;
    }
}

int jinja_compare(JinjaContext& cx, const JinjaValue& a, const JinjaValue& b, int depth) {
    using namespace jinja_value_room;
    if (depth > max_depth) too_deep();
    cx.spend(1);
    if (a.is_number() && b.is_number()) return compare_numbers(a, b);
    if (a.is_string() && b.is_string()) {
        cx.spend(int64_t(std::min(a.str().size(), b.str().size())) / 64);
        return a.str() < b.str() ? -1 : a.str() > b.str();             // bytes of UTF-8 are ordered like characters
    }
    if ((a.is(Flavour::list) && b.is(Flavour::list)) ||
        (a.kind == Kind::list && b.kind == Kind::list && is_tuple(a) && is_tuple(b))) {
        const std::vector<Value>&x = a.list->items, &y = b.list->items;
        for (size_t k = 0; k < std::min(x.size(), y.size()); ++k)
            if (!items_equal(cx, x[k], y[k], depth + 1)) return jinja_compare(cx, x[k], y[k], depth + 1);
        return x.size() < y.size() ? -1 : x.size() > y.size();
    }
    cx.error(str("cannot order ", a.type_name(), " and ", b.type_name()));
}

size_t jinja_hash(JinjaContext& cx, const JinjaValue& v, int depth) {
    using namespace jinja_value_room;
    if (depth > max_depth) too_deep();
    cx.spend(1);
    switch (v.kind) {
        case Kind::boolean: case Kind::integer: return std::hash<int64_t>()(v.integer());
        case Kind::number:
            if (is_nan(v)) cx.error("nan as a key is not supported");
            return v.d == std::trunc(v.d) && std::fabs(v.d) < 0x1p63 ? std::hash<int64_t>()(int64_t(v.d))
                                                                     : std::hash<double>()(v.d);
        case Kind::string: cx.spend_on(*v.s); return std::hash<std::string>()(v.str());
        case Kind::callable:
        case Kind::loop: cx.error(str("a value of type ", v.type_name(), " as a key is not supported"));
        case Kind::dict: break;
        case Kind::list:
            if (is_tuple(v)) {
                size_t hash = 1;
                for (const Value& item : v.list->items) hash = hash * 1000003 + jinja_hash(cx, item, depth + 1);
                return hash;
            }
            break;
        default: return 0;
    }
    cx.error(str("a value of type ", v.type_name(), " cannot be a key: it has no hash"));
}

std::optional<int64_t> jinja_contains_content(JinjaContext& cx, const JinjaValue& v, int depth) {
    if (depth > jinja_value_room::max_depth) jinja_value_room::too_deep();
    cx.spend(1);
    std::optional<int64_t> message;
    const auto add = [&](const std::optional<int64_t>& found) {
        if (found) message = message.value_or(*found) == *found ? *found : -1;
    };
    if (v.is_string()) for (const JinjaSpan& s : v.s->content) add(s.message);
    if (v.is(JinjaValue::Kind::list))
        for (const JinjaValue& x : v.list->items) add(jinja_contains_content(cx, x, depth + 1));
    if (v.is(JinjaValue::Kind::dict))
        for (const auto& [key, x] : v.dict->items)
            for (const JinjaValue* part : {&key, &x}) add(jinja_contains_content(cx, *part, depth + 1));
    return message;
}

}}  // namespace qlora
