// plan.cpp - the memory plan: which nodes run, how long each result lives, and where it lies in one arena. Made once,
// before anything runs.
//
// A block is a stretch of memory with a life: the steps from the one that writes it to the last that reads it (through
// views too). Scratch is a block that lives for one step. A result that can be put where one of its sources lies
// (OpDef::over), and is the last to read it, prolongs the life of that block. Two blocks may share bytes if their lives
// are apart. Blocks are placed from the largest to the smallest, each into the tightest gap among those already placed
// that live at the same time.
#include "src/graph/graph.h"

#include <algorithm>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace plan_room {

constexpr int64_t alignment = 64;                      // bytes: a cache line, and the widest vector
struct Block {
    int32_t node = -1;
    bool scratch = false;
    int64_t bytes = 0;
    int32_t first = 0, last = 0;                       // steps, both included
    int64_t offset = -1;
};

std::vector<bool> needed_nodes(const GraphImpl& g) {
    std::vector<bool> needed(g.nodes.size(), false);
    for (const int32_t id : g.outputs) needed[size_t(id)] = true;
    for (size_t i = g.nodes.size(); i-- > 0;) {
        const Node& n = g.nodes[i];
        if (op_def(n.op).effect) needed[i] = true;
        if (!needed[i]) continue;
        for (const int32_t s : n.src) {
            if (s >= 0) needed[size_t(s)] = true;
        }
    }
    return needed;
}

bool share_memory(const Node& a, const Node& b) {
    if (!a.buffer || !b.buffer) return false;
    const char *a0 = static_cast<const char*>(a.buffer->data), *b0 = static_cast<const char*>(b.buffer->data);
    return a0 < b0 + b.bytes() && b0 < a0 + a.bytes();
}

// Per node: the leaves whose memory it reads or updates.
using Leaves = std::vector<std::vector<int32_t>>;
Leaves touched_leaves(const GraphImpl& g, const std::vector<bool>& needed) {
    Leaves leaves(g.nodes.size());
    for (int32_t i = 0; i < int32_t(g.nodes.size()); ++i) {
        if (!needed[size_t(i)] || !op_def(g.node(i).op).computes) continue;
        for (const int32_t s : g.node(i).src) {
            if (s >= 0 && g.node(g.root(s)).buffer) leaves[size_t(i)].push_back(g.root(s));
        }
    }
    return leaves;
}

// Where an `accumulate` may run: right after the node that computes its gradient, unless something in between uses the
// same state. -1 = in its place.
int32_t earliest(const GraphImpl& g, int32_t id, const Leaves& leaves) {
    const Node& n = g.node(id);
    const int32_t ready = g.root(n.src[1]);
    if (!op_def(g.node(ready).op).computes) return -1;
    for (int32_t s = n.src[0]; op_def(g.node(s).op).aliases >= 0; s = g.node(s).src[0]) {
        if (op_def(g.node(s).op).effect) return -1;
    }
    const Node& state = g.node(g.root(id));
    for (int32_t k = ready; k < id; ++k) {
        for (const int32_t leaf : leaves[size_t(k)]) {
            if (share_memory(g.node(leaf), state)) return -1;
        }
    }
    return ready;
}

// Gradients are added to their running sums by `accumulate` nodes, which a builder appends after backward(). Run where
// they stand, all gradients would pile up until the end of the pass; so each runs as early as it may.
std::vector<int32_t> run_order(const GraphImpl& g, const std::vector<bool>& needed, const Leaves& leaves) {
    std::vector<std::vector<int32_t>> early(g.nodes.size());
    std::vector<bool> moved(g.nodes.size(), false);
    for (int32_t i = 0; i < int32_t(g.nodes.size()); ++i) {
        if (g.node(i).op != Op::accumulate) continue;
        const int32_t after = earliest(g, i, leaves);
        if (after < 0) continue;
        early[size_t(after)].push_back(i);
        moved[size_t(i)] = true;
    }
    std::vector<int32_t> order;
    for (int32_t i = 0; i < int32_t(g.nodes.size()); ++i) {
        if (needed[size_t(i)] && !moved[size_t(i)] && op_def(g.node(i).op).computes) order.push_back(i);
        order.insert(order.end(), early[size_t(i)].begin(), early[size_t(i)].end());
    }
    return order;
}

// ---- Fusions.

// The order as it is being made: nodes that stand in a step already are `taken`.
struct Order {
    std::vector<int32_t> nodes, position;              // position: per node, -1 = it does not run
    std::vector<bool> taken;                           // per node
    const Leaves& leaves;
};

// May node `id` run where `group`, whose nodes are in front of it, begins? What it reads must be there by then, and
// nothing that runs in between may change what it reads or use what it changes.
bool may_join(const GraphImpl& g, int32_t id, const std::vector<int32_t>& group, const Order& order) {
    const auto sooner = [&](int32_t n) {
        return order.taken[size_t(n)] || std::find(group.begin(), group.end(), n) != group.end();
    };
    for (int32_t s : g.node(id).src) {
        while (s >= 0 && !op_def(g.node(s).op).computes && op_def(g.node(s).op).aliases >= 0) s = g.node(s).src[0];
        if (s >= 0 && op_def(g.node(s).op).computes && !sooner(s)) return false;
    }
    const auto changes = [&](int32_t n) { return op_def(g.node(n).op).effect || op_def(g.node(n).op).writes; };
    for (int32_t at = order.position[size_t(group.front())]; at < order.position[size_t(id)]; ++at) {
        const int32_t between = order.nodes[size_t(at)];
        if (sooner(between) || (!changes(between) && !changes(id))) continue;
        for (const int32_t a : order.leaves[size_t(between)])
            for (const int32_t b : order.leaves[size_t(id)])
                if (share_memory(g.node(a), g.node(b))) return false;
    }
    return true;
}

// The nodes of the first fusion that fits, or the one at `first` alone.
std::vector<int32_t> group_at(const GraphImpl& g, size_t first, const Order& order, const Fusion** fusion) {
    for (const Fusion& f : g.backend->fusions()) {
        std::vector<int32_t> group{order.nodes[first]};
        for (const int32_t id : f.match(g, order.nodes, first)) {
            const bool later = order.position[size_t(id)] > int32_t(first) && !order.taken[size_t(id)];
            if (later && may_join(g, id, group, order)) group.push_back(id);
        }
        if (group.size() < 2) continue;
        *fusion = &f;
        return group;
    }
    return {order.nodes[first]};
}

// Puts nodes that a backend computes together side by side, where the first of them stands.
void make_steps(const GraphImpl& g, const Leaves& leaves, Plan& plan) {
    Order order{std::move(plan.order), std::vector<int32_t>(g.nodes.size(), -1),
                std::vector<bool>(g.nodes.size(), false), leaves};
    for (size_t at = 0; at < order.nodes.size(); ++at) order.position[size_t(order.nodes[at])] = int32_t(at);
    plan.order.clear();
    for (size_t at = 0; at < order.nodes.size(); ++at) {
        if (order.taken[size_t(order.nodes[at])]) continue;
        Step step{int32_t(plan.order.size())};
        const std::vector<int32_t> group = group_at(g, at, order, &step.fusion);
        step.count = int32_t(group.size());
        for (const int32_t id : group) order.taken[size_t(id)] = true;
        plan.order.insert(plan.order.end(), group.begin(), group.end());
        plan.steps.push_back(step);
    }
}

// ---- Memory.

constexpr int32_t forever = std::numeric_limits<int32_t>::max();

struct Spot { int32_t block = -1; int64_t at = 0; };    // where memory begins: a block, and bytes from its start
struct Layout {
    std::vector<Block> blocks;
    std::vector<Spot> spots;                           // per node, but for those that alias another
};

Spot spot_of(const GraphImpl& g, const Layout& layout, int32_t id) {
    int64_t at = 0;
    for (int alias; (alias = op_def(g.node(id).op).aliases) >= 0; id = g.node(id).src[size_t(alias)]) {
        const Node& n = g.node(id);
        if (n.op == Op::view) at += g.source(n, 0).byte_of(n.attr.get<ViewAttr>().offset);
    }
    const Spot& root = layout.spots[size_t(id)];
    return {root.block, root.at + at};
}

// Where node `id`, computed in step `at`, can replace one of its sources: of the same size and type, in a block that
// nothing else reads then or later; of several in the smallest block, of which half may lie idle at most. block -1 = of
// none.
Spot replaced(const GraphImpl& g, int32_t id, int32_t at, const Layout& layout) {
    const Node& n = g.node(id);
    Spot best;
    int64_t least = 2 * n.bytes() + 1;
    for (int i = 0; i < max_sources; ++i) {
        const int32_t s = n.src[size_t(i)];
        if (s < 0 || !(op_def(n.op).over >> i & 1)) continue;
        const Spot spot = spot_of(g, layout, s);
        if (spot.block < 0 || spot.at % alignment) continue;
        const Block& block = layout.blocks[size_t(spot.block)];
        const bool alike = g.node(s).storage == n.storage && g.node(s).elements() == n.elements() && n.saved == 0;
        const auto there = [&](int32_t o) { return o >= 0 && spot_of(g, layout, o).block == spot.block; };
        const bool alone = std::count_if(n.src.begin(), n.src.end(), there) == 1;
        if (block.last == at && alike && alone && block.bytes < least) best = spot, least = block.bytes;
    }
    return best;
}

Layout layout_of(const GraphImpl& g, const Plan& plan) {
    std::vector<int32_t> last(g.nodes.size(), -1);     // per root: the step of its last reader
    for (int32_t at = 0; at < int32_t(plan.steps.size()); ++at) {
        for (const int32_t id : plan.nodes(at))
            for (const int32_t s : g.node(id).src)
                if (s >= 0) last[size_t(g.root(s))] = at;
    }
    for (const int32_t id : g.outputs) last[size_t(g.root(id))] = forever;

    Layout layout;
    layout.spots.resize(g.nodes.size());
    std::vector<Block>& blocks = layout.blocks;
    for (int32_t at = 0; at < int32_t(plan.steps.size()); ++at) {
        const Step& step = plan.steps[size_t(at)];
        for (const int32_t id : plan.nodes(at)) {
            // what only a fusion's own nodes read stays inside of it
            const bool inside = step.fusion && last[size_t(id)] == at;
            if (op_def(g.node(id).op).aliases >= 0 || inside) continue;
            const int32_t until = std::max(at, last[size_t(id)]);
            Spot& spot = layout.spots[size_t(id)];
            if (!step.fusion) spot = replaced(g, id, at, layout);
            if (spot.block >= 0) {
                blocks[size_t(spot.block)].last = until;
                continue;
            }
            spot.block = int32_t(blocks.size());
            blocks.push_back({id, false, g.node(id).bytes(), at, until});
        }
        if (step.fusion) continue;
        const int32_t id = plan.order[size_t(step.first)];
        const Kernel* kernel = g.backend->kernel(g.node(id).op);
        const int64_t scratch = kernel && kernel->scratch ? kernel->scratch(g, g.node(id)) : 0;
        if (scratch > 0) blocks.push_back({id, true, scratch, at, at});
    }
    return layout;
}

// The tightest gap between placed blocks (sorted by offset) that are alive together with b; past the last of them if no
// gap fits.
int64_t best_offset(const Block& b, const std::vector<const Block*>& placed) {
    int64_t end = 0, best = -1, best_gap = std::numeric_limits<int64_t>::max();
    for (const Block* p : placed) {
        if (p->last < b.first || b.last < p->first) continue;
        const int64_t gap = p->offset - end;
        if (gap >= b.bytes && gap < best_gap) best = end, best_gap = gap;
        end = std::max(end, (p->offset + p->bytes + alignment - 1) / alignment * alignment);
    }
    return best >= 0 ? best : end;
}

int64_t place(std::vector<Block>& blocks) {
    std::vector<Block*> by_size;
    for (Block& b : blocks) by_size.push_back(&b);
    std::stable_sort(by_size.begin(), by_size.end(),
                     [](const Block* a, const Block* b) { return a->bytes > b->bytes; });
    std::vector<const Block*> placed;
    int64_t peak = 0;
    for (Block* b : by_size) {
        b->offset = best_offset(*b, placed);
        peak = std::max(peak, b->offset + b->bytes);
        placed.insert(std::upper_bound(placed.begin(), placed.end(), b,
                                       [](const Block* a, const Block* c) { return a->offset < c->offset; }),
                      b);
    }
    return peak;
}

}  // namespace plan_room

Plan make_plan(const GraphImpl& g) {
    Plan plan;
    const std::vector<bool> needed = plan_room::needed_nodes(g);
    const plan_room::Leaves leaves = plan_room::touched_leaves(g, needed);
    plan.order = plan_room::run_order(g, needed, leaves);
    plan_room::make_steps(g, leaves, plan);
    plan_room::Layout layout = plan_room::layout_of(g, plan);
    plan.arena = plan_room::place(layout.blocks);
    plan.offset.assign(g.nodes.size(), -1);
    plan.scratch.assign(g.nodes.size(), -1);
    for (const plan_room::Block& b : layout.blocks)
        if (b.scratch) plan.scratch[size_t(b.node)] = b.offset;
    for (int32_t i = 0; i < int32_t(g.nodes.size()); ++i) {
        const plan_room::Spot spot = plan_room::spot_of(g, layout, i);
        if (needed[size_t(i)] && spot.block >= 0)
            plan.offset[size_t(i)] = layout.blocks[size_t(spot.block)].offset + spot.at;
    }
    return plan;
}

int64_t memory_of(const GraphImpl& g) {
    // A node with its dimensions and the bookkeeping of the allocator, a leaf's buffer, and its places in the plan.
    // A deque has two nodes of this size in a block of 512 bytes.
    constexpr int64_t node = std::max<int64_t>(sizeof(Node), 256) + 8, dimensions = 32, leaf = 96;
    constexpr int64_t places = 2 * 8 + 2 * 4 + int64_t(sizeof(Step));
    int64_t bytes = 0;
    for (const Node& n : g.nodes) bytes += node + dimensions + places + (n.buffer ? leaf : 0);
    return bytes;
}

ArenaUse arena_use(const GraphImpl& g) {
    const std::vector<plan_room::Block> blocks = plan_room::layout_of(g, g.plan).blocks;
    const auto is_loss = [&](const plan_room::Block& b) { return g.node(b.node).op == Op::linear_cross_entropy; };
    int32_t turn = 0;                                  // the step of the loss, where the way back begins
    std::vector<int64_t> change(g.plan.steps.size() + 1, 0);
    for (const plan_room::Block& b : blocks) {
        if (is_loss(b)) turn = b.first;
        change[size_t(b.first)] += b.bytes;
        if (size_t(b.last) + 1 < change.size()) change[size_t(b.last) + 1] -= b.bytes;
    }
    int64_t now = 0, most = -1;
    int32_t fullest = 0;
    for (int32_t at = 0; at < int32_t(g.plan.steps.size()); ++at) {
        now += change[size_t(at)];
        if (now > most) most = now, fullest = at;
    }
    ArenaUse use;
    for (const plan_room::Block& b : blocks) {
        if (fullest < b.first || b.last < fullest) continue;
        if (is_loss(b)) use.loss += b.bytes;
        else if (b.first < turn && b.last > turn) use.kept += b.bytes;
    }
    use.working = g.plan.arena - use.loss - use.kept;  // with the gaps between the blocks
    return use;
}

std::vector<int32_t> neighbours(const GraphImpl& g, std::span<const int32_t> run, size_t first, size_t i,
                                       size_t most) {
    constexpr size_t near = 16;
    const Node& node = g.node(run[first]);
    std::vector<int32_t> group{run[first]};
    for (size_t at = first + 1; at < std::min(run.size(), first + near) && group.size() < most; ++at) {
        const Node& other = g.node(run[at]);
        if (other.op == node.op && other.src[i] == node.src[i]) group.push_back(run[at]);
    }
    return group;
}

}}  // namespace qlora
