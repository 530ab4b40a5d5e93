// jinja_loop.h - the special variable of a loop: where it is, and what comes next.
#pragma once
#include "src/text/jinja_value.h"

namespace qlora { inline namespace QLORA_ABI {

// Items are looked at only when the loop needs them: the condition of {% for x in xs if condition %} may depend on what
// the body did.
struct JinjaLoop {
    std::vector<JinjaValue> items;
    std::function<bool(const JinjaValue&)> keep;       // the condition; empty: none
    size_t at = 0;                                     // items before it were looked at
    int64_t index0 = -1;
    std::optional<int64_t> length;
    std::optional<JinjaValue> ahead;                   // taken from items, not yet looped over
    std::optional<JinjaValue> last_changed;
    JinjaValue before, current;
    bool ended = false;
    JinjaCharge charge;
    ~JinjaLoop();

    bool next();                                       // moves on to the next item; false at the end
    JinjaValue attribute(JinjaContext&, std::string_view name);        // undefined for unknown names
    int64_t count(JinjaContext&);
private:
    std::optional<JinjaValue> pull();
    const std::optional<JinjaValue>& peek(JinjaContext&);
};

JinjaText jinja_loop_text(JinjaContext&, JinjaLoop&);  // <LoopContext 1/3>

}}  // namespace qlora
