// panel_uses.cpp - what a run multiplies by: a layer that is recomputed twice forward, one that nothing is trained
// before never on the way back, the head once for each chunk of the loss.
#include "src/ops/panel_uses.h"

#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {

std::vector<PanelUse> panel_uses(const GraphImpl& g) {
    std::vector<PanelUse> uses;
    for (const int32_t id : g.plan.order) {
        const Node& node = g.node(id);
        if (node.op == Op::qmatmul) uses.push_back({g.source(node, 1).weight, Pass::forward, 1});
        if (node.op == Op::qmatmul_dx) uses.push_back({g.source(node, 1).weight, Pass::backward, 1});
        if (node.op != Op::linear_cross_entropy || !g.source(node, 1).weight) continue;
        const int64_t chunks = chunks_of_loss(g, node);
        uses.push_back({g.source(node, 1).weight, Pass::forward, chunks});
        if (node.attr.get<CrossEntropyAttr>().with_grad)
            uses.push_back({g.source(node, 1).weight, Pass::backward, chunks});
    }
    return uses;
}

}}  // namespace qlora
