// autograd.cpp - the backward pass as nodes: walks the graph from the loss to the params and asks each operation's rule
// for gradients.
//
// With checkpointing, a segment (a layer) keeps nothing but what other segments read. Before the rules of its nodes
// run, the segment's forward nodes are appended a second time, reading the same outside inputs; the rules are handed
// the copies, so that they read recomputed values, and the first ones die in the forward pass. A gradient that flows
// into a copy counts for its original. Copies that no rule reads are never executed: the plan prunes them. The input of
// a segment may lie apart meanwhile (keep_apart); its copies then read what was fetched.
#include "src/graph/graph.h"

namespace qlora { inline namespace QLORA_ABI {
namespace autograd_room {

struct Recomputed {                                    // per original node: its copy, or itself
    std::vector<int32_t> copy;
    std::vector<bool> done;                            // per segment
    size_t waiting = 0;                                // of GraphImpl::apart, those that were not fetched
    int32_t coming = -1;                               // the fetch of the last of them, begun already
    int32_t halfway = -1;                              // the node whose rule is the first to find it begun
};

int32_t begin_fetch(GraphImpl& g, size_t i) { return g.add(Op::fetch, {g.handle(g.apart[i].sent)}).id(); }

// x of apart[i] as it was sent. A device has begun by then: in the middle of the segment before, when the way back has
// done with what is widest there, so that it comes beside the other half and has no memory at the peak.
int32_t fetched(GraphImpl& g, size_t i, Recomputed& r) {
    const bool begun = r.coming >= 0 && r.waiting == i + 1;
    const int32_t coming = begun ? r.coming : begin_fetch(g, i), x = g.apart[i].x;
    const int32_t here = g.add(Op::arrive, {g.handle(coming), Tensor{}}).id();
    r.waiting = i;
    r.coming = r.halfway = -1;
    if (i > 0 && !g.backend->has_host_memory()) {
        int32_t last = x;
        for (int32_t n = x; n < int32_t(r.copy.size()); ++n)
            if (g.node(n).segment == g.apart[i].segment) last = n;
        r.halfway = x + (last - x) / 2;
    }
    g.nodes[size_t(here)].origin = x;
    g.nodes[size_t(here)].wants_grad = g.wants_grad(x);
    return here;
}

void begin_next(GraphImpl& g, int32_t at, Recomputed& r) {
    if (at > r.halfway) return;
    r.coming = begin_fetch(g, r.waiting - 1);
    r.halfway = -1;
}

void recompute_segment(GraphImpl& g, int32_t segment, Recomputed& r) {
    if (size_t(segment) >= r.done.size()) r.done.resize(size_t(segment) + 1);
    if (r.done[size_t(segment)]) return;
    r.done[size_t(segment)] = true;
    std::vector<std::pair<int32_t, int32_t>> inputs;   // that were sent away, and where they are again
    for (size_t i = g.apart.size(); i-- > 0;)
        if (g.apart[i].segment == segment) inputs.emplace_back(g.apart[i].x, fetched(g, i, r));
    for (size_t i = 0; i < r.copy.size(); ++i) {
        const Node& original = g.nodes[i];
        if (original.segment != segment || op_def(original.op).effect) continue;    // an update of a state happens once
        Node n = original;
        for (int32_t& s : n.src) {
            if (s >= 0 && g.nodes[size_t(s)].segment == segment) s = r.copy[size_t(s)];
            for (const auto& [x, here] : inputs)
                if (s == x) s = here;
        }
        n.segment = -1;
        n.origin = int32_t(i);
        r.copy[i] = int32_t(g.nodes.size());
        g.nodes.push_back(std::move(n));
    }
}

// What the rule of node i is handed: itself, its copy, or where it reads a light segment a copy that reads what is
// recomputed of that. Rules read sources; where one reads its own result, as attention does, that is computed again.
int32_t handed(GraphImpl& g, int32_t i, Recomputed& r) {
    if (g.node(i).segment >= 0) recompute_segment(g, g.node(i).segment, r);
    Node n = g.node(r.copy[size_t(i)]);
    bool light = false;
    for (int32_t& s : n.src) {
        if (s < 0 || size_t(s) >= r.copy.size() || g.node(s).segment < g.light) continue;
        recompute_segment(g, g.node(s).segment, r);
        s = r.copy[size_t(s)];
        light = true;
    }
    if (!light) return r.copy[size_t(i)];
    n.segment = -1;
    n.origin = i;
    g.nodes.push_back(std::move(n));
    return int32_t(g.nodes.size()) - 1;
}

}  // namespace autograd_room

void GraphImpl::accumulate(int32_t id, Tensor grad) {
    if (!wants_grad(id)) return;
    const Node& n = node(id);
    const Node& flowing = node(grad.id());
    if (flowing.elements() != n.elements())
        fail(Errc::shape, "backward: a gradient of shape ", flowing.shape, " for the result of ", op_def(n.op).name,
             ", shape ", n.shape);
    if (flowing.shape != n.shape) grad = add(Op::view, {grad}, attr_of(ViewAttr{0}), n.shape);
    const Tensor sum = gradient(id);
    replace_gradient(id, sum.id() < 0 ? grad : add(Op::add, {sum, grad}));
}

Tensor GraphImpl::gradient(int32_t id) {
    const int32_t origin = node(id).origin, sum = grads[size_t(origin >= 0 ? origin : id)];
    return sum < 0 ? Tensor{} : handle(sum);
}

void GraphImpl::replace_gradient(int32_t id, Tensor sum) {
    const int32_t origin = node(id).origin;
    grads[size_t(origin >= 0 ? origin : id)] = sum.id();
}

void GraphImpl::backward(Tensor loss, bool checkpoint) {
    graph_of({loss}, "backward");
    if (!grads.empty())
        fail(Errc::argument, "backward: this graph already has its gradients; build another graph for another loss");
    if (node(loss.id()).elements() != 1)
        fail(Errc::shape, "backward: the loss has shape ", node(loss.id()).shape,
             ", expected [1]; reduce it with sum()");
    if (!wants_grad(loss.id()))
        fail(Errc::argument,
             "backward: the loss does not depend on any param, or only through operations without a gradient");

    const int32_t count = int32_t(nodes.size());
    autograd_room::Recomputed recomputed;
    for (int32_t i = 0; i < count; ++i) recomputed.copy.push_back(i);
    grads.assign(size_t(count), -1);
    const int32_t building = segment;
    segment = -1;
    accumulate(loss.id(), add(Op::fill, {}, attr_of(FillAttr{1}), node(loss.id()).shape));
    for (int32_t i = loss.id(); i >= 0; --i) {
        autograd_room::begin_next(*this, i, recomputed);
        const OpDef& def = op_def(node(i).op);
        if (grads[size_t(i)] < 0 || !def.grad) continue;
        const int32_t self = checkpoint ? autograd_room::handed(*this, i, recomputed) : i;
        def.grad(*this, node(self), self, grads[size_t(i)]);
    }
    segment = building;
}

}}  // namespace qlora
