// jinja_run.cpp - the interpreter: walks the syntax tree with scopes, a step budget and limits, and prints.
//
// Semantics are those of Jinja2 in the environment that Hugging Face uses: undefined prints as nothing, its attributes are errors;
// loops open a scope, conditions do not; a macro sees the template's own variables.
#include "src/text/jinja_ast.h"
#include "src/text/jinja_origin.h"

#include <algorithm>
#include <cmath>
#include <ctime>

namespace qlora::inline v0_1 {
namespace jinja_run_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Syntax = JinjaNode::Kind;
enum class Flow : uint8_t { go_on, break_loop, continue_loop };
using Scope = std::vector<std::pair<std::string, Value>>;

class Run final : public JinjaContext {
public:
    Run(std::string_view where, const TemplateLimits& limits) : where_(where), limits_(limits) {}
    ~Run() override { for (const auto& space : namespaces_) space->items.clear(); }

    RenderedTemplate render(const JinjaNode& root, const Json& variables) {
        scopes_.emplace_back();
        for (const auto& [name, value] : variables.as_object("chat template variables"))
            set(name, name == "messages" && value.is_array() ? messages(value) : Value::from_json(value, !name.ends_with("_token")));
        execute(root);
        RenderedTemplate result;
        result.text = std::move(root_.text);
        for (const JinjaSpan& s : root_.content) {     // neighbours become one span
            if (!result.content.empty() && result.content.back().end == s.begin) result.content.back().end = s.end;
            else result.content.push_back({s.begin, s.end});
            if (s.message >= 0) result.from.push_back(s);
        }
        result.during = std::move(root_.during);
        result.generation = std::move(root_.generation);
        result.read_keys.assign(read_keys_.begin(), read_keys_.end());
        result.read_variables.assign(read_variables_.begin(), read_variables_.end());
        return result;
    }

    std::string place() const override { return str(where_, ": line ", line_, " of the chat template"); }
    void spend(int64_t steps) override { if ((steps_ += steps) > limits_.steps) error(str("takes more than ", limits_.steps, " steps")); }
    int64_t output_limit() const override { return limits_.output; }

private:
    std::string where_;
    TemplateLimits limits_;
    int line_ = 1;
    int64_t steps_ = 0, depth_ = 0, macros_ = 0;
    std::set<std::string, std::less<>> read_keys_, read_variables_;
    std::vector<Scope> scopes_;
    JinjaOrigin origin_;
    std::vector<std::shared_ptr<JinjaDict>> namespaces_;   // the only values that can hold themselves: emptied at the end
    JinjaText root_;
    JinjaText* out_ = &root_;

    struct Deeper {
        Run& run;
        explicit Deeper(Run& r) : run(r) { if (++run.depth_ > 4 * run.limits_.depth) run.error("nested too deeply"); }
        ~Deeper() { --run.depth_; }
    };
    struct Capture {                                   // prints go to a text of their own while this lives
        Run& run;
        JinjaText* outer;
        JinjaText text;
        explicit Capture(Run& r) : run(r), outer(r.out_) { run.out_ = &text; }
        ~Capture() { run.out_ = outer; }
    };

    void set(const std::string& name, Value value) {
        spend(int64_t(scopes_.back().size()) / 16);
        for (auto& [n, v] : scopes_.back()) if (n == name) { v = std::move(value); return; }
        scopes_.back().emplace_back(name, std::move(value));
    }
    Value messages(const Json& list) {
        std::vector<Value> all;
        for (const Json& m : list.array()) {
            all.push_back(Value::from_json(m, true, int64_t(all.size()), true));
            if (all.back().is(Kind::dict)) all.back().dict->reads = &read_keys_;
        }
        return Value::of(std::move(all));
    }
    Value lookup(const std::string& name) {
        for (size_t k = scopes_.size(); k-- > 0;) {
            if (k == 0) read_variables_.insert(name);
            spend(int64_t(scopes_[k].size()) / 16);
            for (const auto& [n, v] : scopes_[k]) if (n == name) return v;
        }
        for (std::string_view builtin : {"namespace", "range", "raise_exception", "strftime_now", "dict"})
            if (name == builtin) return Value::builtin(name);
        return {};
    }
    void print(const JinjaText& t) {
        spend_on(t);
        check_size(int64_t(out_->text.size() + t.text.size()));
        out_->append(origin_.claim(t));
    }

    // ---- statements
    Flow execute(const JinjaNode& n) {
        Deeper deeper(*this);
        line_ = n.line;
        spend(1);
        switch (n.kind) {
            case Syntax::body:
                for (const JinjaNodePtr& kid : n.kids) if (const Flow flow = execute(*kid); flow != Flow::go_on) return flow;
                return Flow::go_on;
            case Syntax::text: print({n.text, {}, false}); return Flow::go_on;
            case Syntax::print: print(jinja_text(*this, evaluate(*n.kids[0]))); return Flow::go_on;
            case Syntax::if_block:
                if (evaluate(*n.kids[0]).truthy()) return execute(*n.kids[1]);
                return n.kids[2] ? execute(*n.kids[2]) : Flow::go_on;
            case Syntax::for_block: return loop(n);
            case Syntax::set: assign(*n.kids[0], evaluate(*n.kids[1])); return Flow::go_on;
            case Syntax::set_block: assign(*n.kids[0], Value::of(captured(*n.kids[1]))); return Flow::go_on;
            case Syntax::macro: {
                Value m = Value::builtin(n.text);
                m.call->macro = &n;
                set(n.text, std::move(m));
                return Flow::go_on;
            }
            case Syntax::call_block: {
                Value caller = Value::builtin("caller");
                caller.call->caller_body = n.kids[1].get();
                const JinjaNode& call_node = *n.kids[0];
                if (call_node.kind != Syntax::call) error("'call' needs a macro call");
                print(jinja_text(*this, call(evaluate(*call_node.kids[0]), arguments(call_node, 1), &caller)));
                return Flow::go_on;
            }
            case Syntax::filter_block: {
                const JinjaNode& filter = *n.kids[0];
                print(jinja_text(*this, jinja_filter(*this, filter.text, Value::of(captured(*n.kids[1])), arguments(filter, 1))));
                return Flow::go_on;
            }
            case Syntax::generation: {
                const int64_t begin = int64_t(out_->text.size());
                const Flow flow = execute(*n.kids[0]);
                out_->generation.push_back({begin, int64_t(out_->text.size())});
                return flow;
            }
            case Syntax::break_loop: return Flow::break_loop;
            case Syntax::continue_loop: return Flow::continue_loop;
            default: error("not a statement");
        }
    }

    JinjaText captured(const JinjaNode& body) {
        Capture capture(*this);
        execute(body);
        return std::move(capture.text);
    }

    void assign(const JinjaNode& target, Value value) {
        if (target.kind == Syntax::name) {
            origin_.assigned(value);
            return set(target.text, std::move(value));
        }
        if (target.kind == Syntax::attribute) {
            const Value object = evaluate(*target.kids[0]);
            if (!object.is(Kind::dict) || !object.dict->is_namespace) error(str("cannot set attribute '", target.text, "': only a namespace() can be changed"));
            return object.dict->set(*this, Value::of(target.text), std::move(value));
        }
        if (target.kind != Syntax::tuple) error("cannot assign to this expression");
        const std::vector<Value> parts = jinja_items(*this, value);
        if (parts.size() != target.kids.size()) error(str("cannot unpack ", parts.size(), " values into ", target.kids.size(), " names"));
        for (size_t k = 0; k < parts.size(); ++k) assign(*target.kids[k], parts[k]);
    }

    Flow loop(const JinjaNode& n) {
        std::vector<Value> items = jinja_items(*this, evaluate(*n.kids[1]));
        if (n.kids[2]) {                               // {% for x in xs if condition %}: loop.index counts what is left
            std::vector<Value> kept;
            for (Value& item : items) {
                scopes_.emplace_back();
                assign(*n.kids[0], item);
                if (evaluate(*n.kids[2]).truthy()) kept.push_back(std::move(item));
                scopes_.pop_back();
            }
            items = std::move(kept);
        }
        if (items.empty()) return n.kids[4] ? execute(*n.kids[4]) : Flow::go_on;
        const int64_t count = int64_t(items.size());
        JinjaOrigin::Loop turns(origin_);
        for (int64_t k = 0; k < count; ++k) {
            turns.item(items[size_t(k)]);
            scopes_.emplace_back();
            assign(*n.kids[0], items[size_t(k)]);
            set("loop", loop_variable(items, k));
            const Flow flow = execute(*n.kids[3]);
            scopes_.pop_back();
            if (flow == Flow::break_loop) break;
        }
        return Flow::go_on;
    }

    static Value loop_variable(const std::vector<Value>& items, int64_t k) {
        const int64_t n = int64_t(items.size());
        Value v = Value::empty_dict();
        const auto put = [&](const char* name, Value x) { v.dict->items.emplace_back(Value::of(name), std::move(x)); };
        put("index0", Value::of(k));
        put("index", Value::of(k + 1));
        put("revindex", Value::of(n - k));
        put("revindex0", Value::of(n - k - 1));
        put("first", Value::of(k == 0));
        put("last", Value::of(k == n - 1));
        put("length", Value::of(n));
        put("previtem", k > 0 ? items[size_t(k - 1)] : Value{});
        put("nextitem", k + 1 < n ? items[size_t(k + 1)] : Value{});
        return v;
    }

    // ---- expressions
    JinjaArgs arguments(const JinjaNode& n, size_t first) {
        JinjaArgs args;
        for (size_t k = first; k < n.kids.size(); ++k) {
            args.values.push_back(evaluate(*n.kids[k]));
            args.names.push_back(n.names[k]);
        }
        return args;
    }

    Value evaluate(const JinjaNode& n) {
        Deeper deeper(*this);
        line_ = n.line;
        spend(1);
        switch (n.kind) {
            case Syntax::literal_none: return Value::none();
            case Syntax::literal_bool: return Value::of(n.flag);
            case Syntax::literal_int: return Value::of(n.integer);
            case Syntax::literal_float: return Value::of(n.number);
            case Syntax::literal_string: return Value::of(n.text);
            case Syntax::name: return lookup(n.text);
            case Syntax::list: case Syntax::tuple: {
                std::vector<Value> items;
                for (const JinjaNodePtr& kid : n.kids) items.push_back(evaluate(*kid));
                return Value::of(std::move(items), n.kind == Syntax::tuple);
            }
            case Syntax::dict: {
                Value v = Value::empty_dict();
                for (size_t k = 0; k < n.kids.size(); k += 2) {
                    Value key = evaluate(*n.kids[k]);
                    v.dict->set(*this, std::move(key), evaluate(*n.kids[k + 1]));
                }
                return v;
            }
            case Syntax::attribute: return attribute(evaluate(*n.kids[0]), n.text, *n.kids[0]);
            case Syntax::subscript: return subscript(evaluate(*n.kids[0]), evaluate(*n.kids[1]), *n.kids[0]);
            case Syntax::slice: return slice(n);
            case Syntax::call: return call(evaluate(*n.kids[0]), arguments(n, 1), nullptr);
            case Syntax::filter: return jinja_filter(*this, n.text, evaluate(*n.kids[0]), arguments(n, 1));
            case Syntax::test: return Value::of(jinja_test(*this, n.text, evaluate(*n.kids[0]), arguments(n, 1)) != n.flag);
            case Syntax::unary: return unary(n);
            case Syntax::binary: return binary(n);
            case Syntax::ternary: return evaluate(*n.kids[0]).truthy() ? evaluate(*n.kids[1]) : n.kids[2] ? evaluate(*n.kids[2]) : Value{};
            default: error("not an expression");
        }
    }

    static std::string label(const JinjaNode& n) { return n.text.empty() ? "value" : n.text; }

    Value attribute(const Value& object, const std::string& name, const JinjaNode& from) {
        if (object.is(Kind::undefined)) error(str("'", label(from), "' is undefined, so it has no '", name, "'"));
        const bool loop_cycle = name == "cycle" && object.is(Kind::dict) && object.dict->find("index0");
        if (loop_cycle || (jinja_has_method(object, name) && !(object.is(Kind::dict) && object.dict->is_namespace))) {
            Value v = Value::builtin(name);
            v.call->self = std::make_shared<Value>(object);
            return v;
        }
        return jinja_attribute(object, name);
    }

    Value subscript(const Value& object, const Value& key, const JinjaNode& from) {
        if (object.is(Kind::undefined)) error(str("'", label(from), "' is undefined, so it has no element ", jinja_text(*this, key).text));
        if (object.is(Kind::dict)) { const Value* v = object.dict->find(*this, key); return v ? *v : Value{}; }
        if ((object.is(Kind::list) || object.is_string()) && key.is(Kind::integer)) {
            const std::vector<Value> items = object.is(Kind::list) ? std::vector<Value>{} : jinja_items(*this, object);
            const std::vector<Value>& all = object.is(Kind::list) ? object.list->items : items;
            const int64_t n = int64_t(all.size()), at = key.i < 0 ? key.i + n : key.i;
            return at >= 0 && at < n ? all[size_t(at)] : Value{};
        }
        return key.is_string() ? attribute(object, key.str(), from) : Value{};
    }

    Value slice(const JinjaNode& n) {
        const Value object = evaluate(*n.kids[0]);
        if (!object.is(Kind::list) && !object.is_string()) error(str("cannot slice a value of type ", object.type_name()));
        const std::vector<Value> items = jinja_items(*this, object);
        const int64_t size = int64_t(items.size());
        std::optional<int64_t> part[3];
        for (size_t k = 0; k < 3; ++k) {
            if (!n.kids[k + 1]) continue;
            const Value v = evaluate(*n.kids[k + 1]);
            if (v.is(Kind::none)) continue;
            if (!v.is(Kind::integer)) error("the parts of a slice must be integers");
            part[k] = v.i;
        }
        const int64_t step = part[2].value_or(1);
        if (step == 0) error("the step of a slice is zero");
        const auto bound = [&](std::optional<int64_t> p, int64_t none) {
            if (!p) return none;
            const int64_t at = *p < 0 ? (*p < -size ? -1 : *p + size) : std::min(*p, size);
            return step > 0 ? std::max<int64_t>(at, 0) : std::min(at, size - 1);
        };
        std::vector<Value> out;
        const int64_t start = bound(part[0], step > 0 ? 0 : size - 1), stop = bound(part[1], step > 0 ? size : -1);
        for (int64_t k = start; step > 0 ? k < stop : k > stop;) {
            out.push_back(items[size_t(k)]);
            if (__builtin_add_overflow(k, step, &k)) break;
        }
        if (object.is(Kind::list)) return Value::of(std::move(out));
        JinjaText t;
        for (const Value& c : out) t.append(*c.s);
        return text(std::move(t));
    }

    Value unary(const JinjaNode& n) {
        const Value v = evaluate(*n.kids[0]);
        if (n.text == "not") return Value::of(!v.truthy());
        if (!v.is_number()) error(str("'", n.text, "' of a value of type ", v.type_name()));
        if (n.text == "+") return v;
        return v.is(Kind::number) ? Value::of(-v.d) : Value::of(int64_t(0 - uint64_t(v.integer())));
    }

    Value binary(const JinjaNode& n) {
        Value a = evaluate(*n.kids[0]);
        const std::string& op = n.text;
        if (op == "and") return a.truthy() ? evaluate(*n.kids[1]) : a;
        if (op == "or") return a.truthy() ? a : evaluate(*n.kids[1]);
        const Value b = evaluate(*n.kids[1]);
        line_ = n.line;
        if (op == "==") return Value::of(jinja_equal(*this, a, b));
        if (op == "!=") return Value::of(!jinja_equal(*this, a, b));
        if (op == "in" || op == "not in") return Value::of(contains(b, a) == (op == "in"));
        if (op == "<" || op == ">" || op == "<=" || op == ">=") return Value::of(jinja_test(*this, op, a, {{b}, {""}}));
        if (op == "~" || (op == "+" && a.is_string() && b.is_string())) {
            const bool markup = op == "+" && a.s->markup != b.s->markup;
            JinjaText t = origin_.claim(markup && !a.s->markup ? escaped(*a.s) : jinja_text(*this, a));
            t.append(origin_.claim(markup && !b.s->markup ? escaped(*b.s) : jinja_text(*this, b)));
            t.markup = op == "+" && (a.s->markup || b.s->markup);
            return text(std::move(t));
        }
        if (op == "+" && a.is(Kind::list) && b.is(Kind::list)) {
            std::vector<Value> items = a.list->items;
            items.insert(items.end(), b.list->items.begin(), b.list->items.end());
            spend(int64_t(items.size()));
            return Value::of(std::move(items));
        }
        if (op == "*" && a.is_string() && b.is_number()) {
            const int64_t times = std::max<int64_t>(0, b.integer());
            if (times && int64_t(a.str().size()) > output_limit() / times) error(str("a text grows beyond ", output_limit(), " bytes"));
            JinjaText t;
            for (int64_t k = 0; k < times && !a.str().empty(); ++k) t.append(*a.s);
            return text(std::move(t));
        }
        if (!a.is_number() || !b.is_number()) error(str("'", op, "' between ", a.type_name(), " and ", b.type_name()));
        return arithmetic(op, a, b);
    }

    static JinjaText escaped(const JinjaText& t) {
        std::string out;
        for (const char c : t.text) {
            switch (c) {
                case '&': out += "&amp;"; break;
                case '<': out += "&lt;"; break;
                case '>': out += "&gt;"; break;
                case '\'': out += "&#39;"; break;
                case '"': out += "&#34;"; break;
                default: out += c;
            }
        }
        return t.made_over(std::move(out));
    }

    bool contains(const Value& container, const Value& item) {
        if (container.is(Kind::dict)) return container.dict->find(*this, item) != nullptr;
        if (container.is_string() && !item.is_string()) error(str("'in' between ", item.type_name(), " and text"));
        return jinja_test(*this, "in", item, {{container}, {""}});
    }

    Value arithmetic(const std::string& op, const Value& a, const Value& b) {
        const bool real = a.is(Kind::number) || b.is(Kind::number);
        if ((op == "/" || op == "//" || op == "%") && b.number() == 0) error("division by zero");
        if (op == "/") return Value::of(a.number() / b.number());
        if (op == "**") return real || b.integer() < 0 ? Value::of(std::pow(a.number(), b.number())) : power(a.integer(), b.integer());
        if (real) {
            const double x = a.number(), y = b.number();
            if (op == "+") return Value::of(x + y);
            if (op == "-") return Value::of(x - y);
            if (op == "*") return Value::of(x * y);
            return Value::of(op == "//" ? std::floor(x / y) : x - y * std::floor(x / y));
        }
        const int64_t x = a.integer(), y = b.integer();
        int64_t r = 0;
        const bool overflow = op == "+" ? __builtin_add_overflow(x, y, &r) : op == "-" ? __builtin_sub_overflow(x, y, &r)
                            : op == "*" ? __builtin_mul_overflow(x, y, &r) : y == -1 ? __builtin_sub_overflow(int64_t(0), x, &r) : false;
        if (op == "%") return Value::of(y == -1 ? int64_t(0) : (x % y + y) % y);        // the sign of the divisor, as Python
        if (op == "//" && y != -1) r = x / y - ((x % y != 0) && ((x < 0) != (y < 0)));
        if (overflow) error(str("'", op, "': the result is out of range"));
        return Value::of(r);
    }
    Value power(int64_t base, int64_t exponent) {
        int64_t r = 1;
        for (int64_t k = 0; k < exponent; ++k) { spend(1); if (__builtin_mul_overflow(r, base, &r)) error("'**': the result is out of range"); }
        return Value::of(r);
    }

    // ---- calls
    Value call(const Value& f, const JinjaArgs& args, const Value* caller) {
        if (!f.is(Kind::callable)) error(f.is(Kind::undefined) ? std::string("calls something undefined") : str("calls a value of type ", f.type_name()));
        if (f.call->macro) return call_macro(*f.call->macro, args, caller);
        if (f.call->caller_body) return Value::of(captured(*f.call->caller_body));
        const std::string& name = f.call->name;
        if (f.call->self) {
            if (name == "cycle" && f.call->self->is(Kind::dict)) {
                if (args.values.empty()) error("cycle() needs values");
                return args.values[size_t(f.call->self->dict->find("index0")->i) % args.values.size()];
            }
            return jinja_method(*this, *f.call->self, name, args);
        }
        if (name == "raise_exception") error(args.values.empty() ? "raise_exception" : jinja_text(*this, args.values[0]).text);
        if (name == "strftime_now") return Value::of(now(args));
        if (name == "range") return range(args);
        Value v = Value::empty_dict();                 // namespace(...) and dict(...)
        if (name == "namespace") {
            v.dict->is_namespace = true;
            namespaces_.push_back(v.dict);
        }
        for (size_t k = 0; k < args.values.size(); ++k) {
            if (!args.names[k].empty()) v.dict->set(*this, Value::of(args.names[k]), args.values[k]);
            else if (args.values[k].is(Kind::dict)) for (const auto& [key, x] : args.values[k].dict->items) v.dict->set(*this, key, x);
        }
        return v;
    }

    Value call_macro(const JinjaNode& macro, const JinjaArgs& args, const Value* caller) {
        if (++macros_ > limits_.depth / 4) error(str("macro '", macro.text, "' calls itself too deeply"));
        std::vector<Scope> outer;
        outer.swap(scopes_);
        spend(int64_t(outer.front().size()) / 4);
        scopes_.push_back(outer.front());              // the template's own variables, then the parameters
        scopes_.emplace_back();
        for (size_t k = 0; k < macro.names.size(); ++k) {
            const Value* given = args.get(k, macro.names[k]);
            set(macro.names[k], given ? *given : macro.kids[k] ? evaluate(*macro.kids[k]) : Value{});
        }
        if (caller) set("caller", *caller);
        JinjaText printed = captured(*macro.kids.back());
        scopes_.swap(outer);
        --macros_;
        return Value::of(std::move(printed));
    }

    Value range(const JinjaArgs& args) {
        int64_t part[3] = {0, 0, 1};
        for (size_t k = 0; k < args.values.size() && k < 3; ++k) {
            if (!args.values[k].is(Kind::integer)) error("range() needs integers");
            part[k] = args.values[k].i;
        }
        if (args.values.size() == 1) { part[1] = part[0]; part[0] = 0; }
        if (part[2] == 0) error("range(): the step is zero");
        std::vector<Value> out;
        for (int64_t k = part[0]; part[2] > 0 ? k < part[1] : k > part[1];) {
            if (out.size() >= 1'000'000) error("range() of more than a million numbers");
            out.push_back(Value::of(k));
            if (__builtin_add_overflow(k, part[2], &k)) break;
        }
        spend(int64_t(out.size()));
        return Value::of(std::move(out));
    }

    std::string now(const JinjaArgs& args) {
        if (args.values.empty() || !args.values[0].is_string()) error("strftime_now() needs a format");
        const std::time_t t = std::time(nullptr);
        std::tm local{};
#ifdef _WIN32
        localtime_s(&local, &t);
#else
        localtime_r(&t, &local);
#endif
        char buffer[256];
        const size_t n = std::strftime(buffer, sizeof buffer, args.values[0].str().c_str(), &local);
        return {buffer, n};
    }
};

}  // namespace jinja_run_room

RenderedTemplate run_jinja(const JinjaNode& root, std::string_view where, const Json& variables, const TemplateLimits& limits) {
    return jinja_run_room::Run(where, limits).render(root, variables);
}

}  // namespace qlora
