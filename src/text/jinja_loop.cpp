// jinja_loop.cpp - loop.index, loop.last, loop.nextitem and their kin, lazily as the reference has them.
#include "src/text/jinja_loop.h"

namespace qlora { inline namespace QLORA_ABI {

std::optional<JinjaValue> JinjaLoop::pull() {
    while (at < items.size()) {
        const JinjaValue& item = items[at++];
        if (!keep || keep(item)) return item;
    }
    return std::nullopt;
}

bool JinjaLoop::next() {
    std::optional<JinjaValue> item = ahead ? std::exchange(ahead, std::nullopt) : pull();
    if (!item) return false;
    ++index0;
    before = std::move(current);
    current = std::move(*item);
    return true;
}

const std::optional<JinjaValue>& JinjaLoop::peek(JinjaContext& cx) {
    if (ended) cx.error("a loop is asked for what comes next after it has ended");
    if (!ahead) ahead = pull();
    return ahead;
}

int64_t JinjaLoop::count(JinjaContext& cx) {
    if (length) return *length;
    if (!keep && !ended) return *(length = int64_t(items.size()));
    if (ended) cx.error("a loop is asked for its length after it has ended");
    std::vector<JinjaValue> rest;                      // all that is left is looked at now
    while (std::optional<JinjaValue> item = pull()) rest.push_back(std::move(*item));
    length = int64_t(rest.size()) + index0 + 1 + int64_t(ahead.has_value());
    items = std::move(rest);
    at = 0;
    keep = nullptr;
    return *length;
}

JinjaValue JinjaLoop::attribute(JinjaContext& cx, std::string_view name) {
    using Value = JinjaValue;
    if (name == "index0") return Value::of(index0);
    if (name == "index") return Value::of(index0 + 1);
    if (name == "first") return Value::of(index0 == 0);
    if (name == "last") return Value::of(!peek(cx));
    if (name == "length") return Value::of(count(cx));
    if (name == "revindex") return Value::of(count(cx) - index0);
    if (name == "revindex0") return Value::of(count(cx) - index0 - 1);
    if (name == "depth") return Value::of(int64_t(1));
    if (name == "depth0") return Value::of(int64_t(0));
    if (name == "previtem") return index0 > 0 ? before : Value{};
    if (name == "nextitem") return peek(cx).value_or(Value{});
    return {};
}

JinjaText jinja_loop_text(JinjaContext& cx, JinjaLoop& loop) {
    return {str("<LoopContext ", loop.index0 + 1, "/", loop.count(cx), ">"), {}, false};
}

}}  // namespace qlora
