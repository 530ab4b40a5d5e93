// jinja_origin.h - which message a text belongs to while a template runs.
//
// Two answers travel with every text. Where it came from: the message whose string it was (JinjaText::content,
// Span::message). And when it was printed or put together: the message that was the current one of a loop
// (JinjaText::during), which template text has too. The outermost loop over messages decides: a loop inside a turn that
// looks at other messages does not end the turn.
#pragma once
#include "src/text/jinja_value.h"

namespace qlora { inline namespace QLORA_ABI {

class JinjaOrigin {
public:
    class Loop {                                       // lives as long as a loop runs
    public:
        explicit Loop(JinjaOrigin& origin) : origin_(origin), outer_(origin.current_) { ++origin.loops_; }
        Loop(const Loop&) = delete;
        ~Loop() {
            origin_.current_ = outer_;
            --origin_.loops_;
        }
        void item(const JinjaValue& v) { origin_.current_ = outer_ >= 0 ? outer_ : message_of(v); }
    private:
        JinjaOrigin& origin_;
        int64_t outer_;
    };
    // {% set m = messages[i] %} in a loop over numbers names the current message too.
    void assigned(const JinjaValue& v) {
        if (loops_ > 0 && current_ < 0 && v.is(JinjaValue::Kind::dict) && v.dict->reads) current_ = v.dict->message;
    }
    // What is printed or joined now belongs to the current message, unless a part of it was claimed before (text that
    // grows from turn to turn).
    JinjaText claim(JinjaText t) const {
        if (current_ >= 0 && t.during.empty() && !t.text.empty())
            t.during.push_back({0, int64_t(t.text.size()), current_});
        return t;
    }
private:
    static int64_t message_of(const JinjaValue& v) {
        if (v.is_string()) return v.s->content.empty() ? -1 : v.s->content.front().message;
        if (v.is(JinjaValue::Kind::dict)) {
            if (v.dict->message >= 0) return v.dict->message;    // else one that the template made: from its first text
            for (const auto& [key, x] : v.dict->items)
                if (x.is_string() && !x.s->content.empty()) return x.s->content.front().message;
        }
        if (!v.is(JinjaValue::Kind::list) || v.list->items.empty()) return -1;
        // several messages in one item: none is the current one yet
        const int64_t first = shallow(v.list->items.front());
        for (const JinjaValue& x : v.list->items) if (shallow(x) != first) return -1;
        return first;
    }
    static int64_t shallow(const JinjaValue& v) { return v.is(JinjaValue::Kind::list) ? -1 : message_of(v); }
    int64_t current_ = -1, loops_ = 0;
};

}}  // namespace qlora
