// fill.cpp - a tensor of one value: y = value. It has no sources, so no gradient flows.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace fill_room {

void shape(const GraphImpl&, Node& n) {
    if (n.shape.empty() || n.elements() < 1) fail(Errc::shape, "fill: shape ", n.shape, " holds nothing");
}

void cpu(const Call& call) {
    const float value = call.node.attr.get<FillAttr>().value;
    float* y = call.result();
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) { std::fill(y + first, y + last, value); });
}

}  // namespace fill_room

const OpDef fill_def{.name = "fill", .shape = fill_room::shape};
const Kernel fill_cpu{fill_room::cpu};

Tensor fill(GraphImpl& g, Shape shape, float value) {
    return g.add(Op::fill, {}, attr_of(FillAttr{value}), std::move(shape));
}

}}  // namespace qlora
