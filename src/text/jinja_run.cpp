// jinja_run.cpp - the interpreter: walks the syntax tree with scopes, a step budget and limits, and prints.
//
// Semantics are those of Jinja2 in the environment that Hugging Face uses: undefined prints as nothing, its attributes
// are errors; loops, macros, with, call, generation, filter and set blocks open a scope, conditions do not; a macro
// sees the scope it was defined in.
#include "src/base/stop.h"
#include "src/text/jinja_ast.h"
#include "src/text/jinja_contract.h"
#include "src/text/jinja_format.h"
#include "src/text/jinja_loop.h"
#include "src/text/jinja_origin.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

struct JinjaFrame {                                    // a scope
    std::vector<std::pair<std::string, JinjaValue>> variables;
    std::shared_ptr<JinjaFrame> parent;
    bool captured = false;                             // a macro holds it
};

namespace jinja_run_room {

using Value = JinjaValue;
using Kind = JinjaValue::Kind;
using Syntax = JinjaNode::Kind;
using Frame = std::shared_ptr<JinjaFrame>;
enum class Flow : uint8_t { go_on, break_loop, continue_loop };

class Run final : public JinjaContext {
public:
    Run(std::string_view where, const TemplateLimits& limits) : where_(where), limits_(limits) {}
    ~Run() override {                                  // what may hold itself is emptied
        for (const auto& space : namespaces_) space->items.clear();
        for (const Frame& frame : captured_) frame->variables.clear();
    }

    RenderedTemplate render(const JinjaNode& root, const Json& variables) {
        Scope scope(*this);
        for (const auto& [name, value] : variables.as_object("chat template variables"))
            set(name, name == "messages" && value.is_array() ? messages(value)
                                                             : Value::from_json(value, !name.ends_with("_token")));
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
    void spend(int64_t steps) override {
        check_stop();
        if ((steps_ += steps) > limits_.steps) error(str("takes more than ", limits_.steps, " steps"));
    }
    int64_t output_limit() const override { return limits_.output; }
    void adopt(const std::shared_ptr<JinjaDict>& space) override { namespaces_.push_back(space); }

private:
    std::string where_;
    TemplateLimits limits_;
    int line_ = 1;
    int64_t steps_ = 0, depth_ = 0, macros_ = 0;
    std::set<std::string, std::less<>> read_keys_, read_variables_;
    Frame frame_;
    JinjaOrigin origin_;
    // the only values that can hold themselves: emptied at the end
    std::vector<std::shared_ptr<JinjaDict>> namespaces_;
    std::vector<Frame> captured_;                          // and scopes that a macro in them holds
    JinjaText root_;
    JinjaText* out_ = &root_;
    Value printed_;                                    // what a filter or set block printed, for its filters

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
    struct Scope {    // a new frame while this lives, inside the current one or another
        Run& run;
        Frame outer;
        explicit Scope(Run& r) : Scope(r, r.frame_) {}
        Scope(Run& r, Frame parent) : run(r), outer(r.frame_) {
            run.frame_ = std::make_shared<JinjaFrame>();
            run.frame_->parent = std::move(parent);
        }
        ~Scope() { run.frame_ = outer; }
    };

    void set(const std::string& name, Value value) {
        auto& variables = frame_->variables;
        spend(int64_t(variables.size()) / 16);
        for (auto& [n, v] : variables) if (n == name) { v = std::move(value); return; }
        variables.emplace_back(name, std::move(value));
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
        for (const JinjaFrame* f = frame_.get(); f; f = f->parent.get()) {
            if (!f->parent) read_variables_.insert(name);
            spend(int64_t(f->variables.size()) / 16);
            for (const auto& [n, v] : f->variables) if (n == name) return v;
        }
        const JinjaBuiltin* builtin = jinja_global(name);
        return builtin ? Value::builtin(builtin, nullptr) : Value{};
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
                for (const JinjaNodePtr& kid : n.kids)
                    if (const Flow flow = execute(*kid); flow != Flow::go_on) return flow;
                return Flow::go_on;
            case Syntax::text: print({n.text, {}, false}); return Flow::go_on;
            case Syntax::print:
                for (const JinjaNodePtr& kid : n.kids) print(jinja_text(*this, evaluate(*kid)));
                return Flow::go_on;
            case Syntax::if_block:
                if (evaluate(*n.kids[0]).truthy()) return execute(*n.kids[1]);
                return n.kids[2] ? execute(*n.kids[2]) : Flow::go_on;
            case Syntax::for_block: return loop(n);
            case Syntax::set: assign(*n.kids[0], evaluate(*n.kids[1])); return Flow::go_on;
            case Syntax::set_block: assign(*n.kids[0], block(*n.kids[2], n.kids[1].get())); return Flow::go_on;
            case Syntax::filter_block: print(jinja_text(*this, block(*n.kids[1], n.kids[0].get()))); return Flow::go_on;
            case Syntax::with_block: return with(n);
            case Syntax::macro: set(n.text, function(n, n.text)); return Flow::go_on;
            case Syntax::call_block: {
                const JinjaNode& call_node = *n.kids[0];
                const Value callee = called(call_node);
                JinjaArgs args = arguments(call_node);
                args.add(function(n, ""), "caller");
                print(jinja_text(*this, call(callee, args)));
                return Flow::go_on;
            }
            case Syntax::generation: {
                const int64_t begin = int64_t(out_->text.size());
                Scope scope(*this);
                execute(*n.kids[0]);
                out_->generation.push_back({begin, int64_t(out_->text.size())});
                return Flow::go_on;
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
    // What the body prints, through the filters of the block.
    Value block(const JinjaNode& body, const JinjaNode* filters) {
        Value text;
        {
            Scope scope(*this);
            text = Value::of(captured(body));
        }
        if (!filters) return text;
        std::swap(printed_, text);
        Value filtered = evaluate(*filters);
        std::swap(printed_, text);
        return filtered;
    }
    // A macro or the body of a call block, which sees the scope it stands in.
    Value function(const JinjaNode& n, const std::string& name) {
        Value m = Value::builtin(nullptr, nullptr);
        m.call->name = name;
        m.call->macro = &n;
        m.call->frame = frame_;
        if (!frame_->captured) captured_.push_back(frame_);
        frame_->captured = true;
        return m;
    }

    void assign(const JinjaNode& target, Value value) {
        if (target.kind == Syntax::name) {
            origin_.assigned(value);
            return set(target.text, std::move(value));
        }
        if (target.kind == Syntax::namespace_target) {
            const Value object = lookup(target.kids[0]->text);
            if (!object.is(Kind::dict) || !object.dict->is_namespace)
                error(str("cannot set attribute '", target.text, "': only a namespace() can be changed"));
            return object.dict->set(*this, Value::of(target.text), std::move(value));
        }
        const std::vector<Value> parts = jinja_items(*this, value);
        if (parts.size() != target.kids.size())
            error(str("cannot unpack ", parts.size(), " values into ", target.kids.size(), " names"));
        for (size_t k = 0; k < parts.size(); ++k) assign(*target.kids[k], parts[k]);
    }

    Flow with(const JinjaNode& n) {
        std::vector<Value> values;                     // of the scope outside
        for (size_t k = 0; k + 1 < n.kids.size(); k += 2) values.push_back(evaluate(*n.kids[k + 1]));
        Scope scope(*this);
        for (size_t k = 0; k + 1 < n.kids.size(); k += 2) assign(*n.kids[k], values[k / 2]);
        return execute(*n.kids.back());
    }

    Flow loop(const JinjaNode& n) {
        const Value source = evaluate(*n.kids[1]);
        const auto state = std::make_shared<JinjaLoop>();
        state->items = jinja_items(*this, source);
        state->charge.set(int64_t(state->items.size() * sizeof(Value)));
        const Frame outer = frame_;
        if (n.kids[2]) state->keep = [this, &n, outer](const Value& item) {
            Scope scope(*this, outer);
            spend(1);
            assign(*n.kids[0], item);
            return evaluate(*n.kids[2]).truthy();
        };
        Flow flow = Flow::go_on;
        bool completed = false;    // an iteration that ran to its end: {% else %} is for loops without one
        {
            Scope scope(*this);    // one for all iterations, as macros defined in them see it; emptied before each
            JinjaOrigin::Loop turns(origin_);
            while (flow != Flow::break_loop && state->next()) {
                turns.item(state->current);
                frame_->variables.clear();
                assign(*n.kids[0], state->current);
                if (n.flag) set("loop", loop_value(state));
                flow = execute(*n.kids[3]);
                completed |= flow == Flow::go_on;
            }
        }
        if (flow == Flow::break_loop && source.is(Value::Flavour::generator)) source.list->spoiled = true;
        state->keep = nullptr;
        state->ended = true;
        if (completed || !n.kids[4]) return Flow::go_on;
        Scope scope(*this);
        return execute(*n.kids[4]);
    }
    static Value loop_value(const std::shared_ptr<JinjaLoop>& state) {
        Value v;
        v.kind = Kind::loop;
        v.loop = state;
        return v;
    }

    // ---- expressions
    JinjaArgs arguments(const JinjaNode& n) {          // kids[0] is what is called, or what is filtered
        JinjaArgs args;
        for (size_t k = 1; k < n.kids.size(); ++k) {
            const Value v = evaluate(*n.kids[k]);
            if (n.names[k] == "*") for (Value& item : jinja_items(*this, v)) args.add(std::move(item));
            else if (n.names[k] == "**") unpack(args, v);
            else args.add(v, n.names[k]);
        }
        return args;
    }
    void unpack(JinjaArgs& args, const Value& v) {
        if (!v.is_mapping()) error(str("'**' of a value of type ", v.type_name()));
        for (const auto& [key, value] : v.dict->items) {
            if (!key.is_string() || key.str().empty()) error("'**' of a dict whose keys are not texts");
            for (const std::string& name : args.names)
                if (name == key.str()) error(str("the keyword '", name, "' is given twice"));
            args.add(value, key.str());
        }
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
            case Syntax::literal_string: return text({n.text, {}, false});
            case Syntax::name: return lookup(n.text);
            case Syntax::list: case Syntax::tuple: {
                std::vector<Value> items;
                for (const JinjaNodePtr& kid : n.kids) items.push_back(evaluate(*kid));
                return Value::of(std::move(items),
                                 n.kind == Syntax::tuple ? Value::Flavour::tuple : Value::Flavour::list);
            }
            case Syntax::dict: {
                Value v = Value::empty_dict();
                for (size_t k = 0; k < n.kids.size(); k += 2) {
                    Value key = evaluate(*n.kids[k]);
                    v.dict->set(*this, std::move(key), evaluate(*n.kids[k + 1]));
                }
                return v;
            }
            case Syntax::attribute: {
                const Value object = evaluate(*n.kids[0]);
                if (object.is(Kind::undefined))
                    error(str("'", label(*n.kids[0]), "' is undefined, so it has no '", n.text, "'"));
                return jinja_attribute(*this, object, n.text);
            }
            case Syntax::subscript: return subscript(n);
            case Syntax::call: {
                const Value callee = called(n);
                return call(callee, arguments(n));
            }
            case Syntax::filter: {
                const Value operand = n.kids[0] ? evaluate(*n.kids[0]) : printed_;
                return jinja_filter(*this, n.text, operand, arguments(n));
            }
            case Syntax::test: {
                const Value operand = evaluate(*n.kids[0]);
                return Value::of(jinja_test(*this, n.text, operand, arguments(n)));
            }
            case Syntax::unary: return unary(n);
            case Syntax::binary: return binary(n);
            case Syntax::compare: return compare(n);
            case Syntax::concat: {
                JinjaText t;
                for (const JinjaNodePtr& kid : n.kids) {
                    const JinjaText part = origin_.claim(jinja_text(*this, evaluate(*kid)));
                    check_size(int64_t(t.text.size() + part.text.size()));
                    t.append(part);
                }
                return text(std::move(t));
            }
            case Syntax::ternary:
                return evaluate(*n.kids[0]).truthy() ? evaluate(*n.kids[1])
                       : n.kids[2]                   ? evaluate(*n.kids[2])
                                                     : Value{};
            default: error("not an expression");
        }
    }

    static std::string label(const JinjaNode& n) { return n.text.empty() ? "value" : n.text; }

    Value subscript(const JinjaNode& n) {
        const Value object = evaluate(*n.kids[0]);
        const JinjaNode& key = *n.kids[1];
        if (object.is(Kind::undefined)) error(str("'", label(*n.kids[0]), "' is undefined, so it has no elements"));
        if (key.kind != Syntax::slice) return jinja_subscript(*this, object, evaluate(key));
        Value part[3];
        for (size_t k = 0; k < 3; ++k) part[k] = key.kids[k] ? evaluate(*key.kids[k]) : Value::none();
        return jinja_slice(*this, object, part);
    }

    Value unary(const JinjaNode& n) {
        const Value v = evaluate(*n.kids[0]);
        if (n.text == "not") return Value::of(!v.truthy());
        if (!v.is_number()) error(str("'", n.text, "' of a value of type ", v.type_name()));
        if (n.text == "+") return v.is_whole() ? Value::of(v.integer()) : v;
        return v.is(Kind::number) ? Value::of(-v.d) : jinja_arithmetic(*this, "-", Value::of(int64_t(0)), v);
    }

    Value binary(const JinjaNode& n) {
        const Value a = evaluate(*n.kids[0]);
        const std::string& op = n.text;
        if (op == "and") return a.truthy() ? evaluate(*n.kids[1]) : a;
        if (op == "or") return a.truthy() ? a : evaluate(*n.kids[1]);
        const Value b = evaluate(*n.kids[1]);
        line_ = n.line;
        // The reference writes a constant -2 into Python's source as it is, where **, with a variable behind it, binds
        // tighter than the sign.
        if (op == "**" && n.flag && a.is_number() && std::signbit(a.number()))
            error("a negative constant to the power of a variable is not supported");
        if (op == "+" && a.is_string() && b.is_string())
            return jinja_arithmetic(*this, op, Value::of(origin_.claim(*a.s)), Value::of(origin_.claim(*b.s)));
        return op == "%" && a.is_string() ? text(jinja_percent_format(*this, *a.s, b))
                                          : jinja_arithmetic(*this, op, a, b);
    }

    Value compare(const JinjaNode& n) {                // a < b < c: a < b and b < c
        Value left = evaluate(*n.kids[0]);
        for (size_t k = 0; k < n.names.size(); ++k) {
            Value right = evaluate(*n.kids[k + 1]);
            line_ = n.line;
            if (!holds(n.names[k], left, right)) return Value::of(false);
            left = std::move(right);
        }
        return Value::of(true);
    }
    bool holds(const std::string& op, const Value& a, const Value& b) {
        if (op == "==") return jinja_equal(*this, a, b);
        if (op == "!=") return !jinja_equal(*this, a, b);
        if (op == "in") return jinja_contains(*this, b, a);
        if (op == "not in") return !jinja_contains(*this, b, a);
        const int c = jinja_compare(*this, a, b);
        return c == 0 ? op.size() == 2 : op[0] == '<' ? c == -1 : c == 1;
    }

    // ---- calls
    Value called(const JinjaNode& n) {
        const JinjaNode& callee = *n.kids[0];
        if (callee.kind != Syntax::attribute) {
            const Value f = evaluate(callee);
            if (f.is(Kind::undefined)) error(str("calls '", label(callee), "', which is undefined"));
            return f;
        }
        const Value object = evaluate(*callee.kids[0]);
        if (object.is(Kind::undefined))
            error(str("'", label(*callee.kids[0]), "' is undefined, so it has no '", callee.text, "'"));
        const Value f = jinja_attribute(*this, object, callee.text);
        if (!f.is(Kind::undefined)) return f;
        if (jinja_changes(object, callee.text))
            error(
                str("'", callee.text, "' would change a ", object.type_name(), ": only a namespace() can be changed"));
        error(str("calls '", callee.text, "', which a value of type ", object.type_name(), " does not have"));
    }

    Value call(const Value& f, const JinjaArgs& args) {
        if (!f.is(Kind::callable)) error(str("calls a value of type ", f.type_name()));
        return f.call->macro ? call_macro(*f.call, args) : jinja_call_builtin(*this, *f.call, args);
    }

    Value call_macro(const JinjaCallable& f, JinjaArgs args) {
        if (++macros_ > limits_.depth / 4) error(str("macro '", f.name, "' calls itself too deeply"));
        const JinjaNode& macro = *f.macro;
        Value caller;
        for (size_t k = args.values.size(); macro.uses_caller && k-- > 0;) {
            if (args.names[k] != "caller") continue;
            caller = args.values[k].is(Kind::none) ? Value{} : args.values[k];
            args.values.erase(args.values.begin() + int64_t(k));
            args.names.erase(args.names.begin() + int64_t(k));
        }
        JinjaSignature signature;
        for (const std::string& name : macro.names) signature.parameters.push_back({name, false, true, false});
        signature.rest = macro.uses_varargs;
        signature.keywords = macro.uses_kwargs;
        static const Value nobody;
        JinjaCall bound{*this, nobody, str("macro '", f.name, "'"), {}, {}, {}};
        jinja_bind(bound, signature, args);
        Scope scope(*this, f.frame);
        const size_t first_default = macro.kind == Syntax::call_block ? 1 : 0;
        for (size_t k = 0; k < macro.names.size(); ++k) {
            const JinjaNode* otherwise = macro.kids[first_default + k].get();
            set(macro.names[k], bound.values[k] ? *bound.values[k] : otherwise ? evaluate(*otherwise) : Value{});
        }
        if (macro.uses_caller) set("caller", caller);
        if (macro.uses_varargs) set("varargs", Value::of(std::move(bound.rest), Value::Flavour::tuple));
        if (macro.uses_kwargs) {
            Value keywords = Value::empty_dict();
            for (auto& [name, value] : bound.keywords) keywords.dict->add(Value::of(name), std::move(value));
            set("kwargs", std::move(keywords));
        }
        JinjaText printed = captured(*macro.kids.back());
        --macros_;
        return text(std::move(printed));
    }
};

}  // namespace jinja_run_room

RenderedTemplate run_jinja(const JinjaNode& root, std::string_view where, const Json& variables,
                           const TemplateLimits& limits) {
    JinjaBudget budget(4 * limits.output);             // room for the text, and for what it is made of
    return jinja_run_room::Run(where, limits).render(root, variables);
}

}}  // namespace qlora
