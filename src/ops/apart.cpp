// apart.cpp - what is written once and read much later: send(state, x) puts x into a state that lies apart
// (BackendImpl::apart), fetch(state) reads it again. A device copies beside what it computes: x may not be written to,
// and what was fetched not be read, before an arrive(), which waits for all that is on its way. The CPU copies at once,
// and lets the pages of a file go. Numbers pass as they are, so there is no gradient.
#include "src/base/unnamed_file.h"
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {
namespace apart_room {

// Piece by piece, each of whole pages of the file, which leave at once: so little of it is ever in memory.
void copy(const Call& call, const float* from, float* to, float* state) {
    const bool file = call.graph.node(call.graph.root(call.node.src[0])).buffer->file;
    static_assert(task_floats * 4 % file_page == 0);
    split(call, call.node.elements(), 1, [&](int64_t first, int64_t last) {
        std::copy(from + first, from + last, to + first);
        if (file) let_go(state + first, (last - first) * 4);
    });
}

void send_cpu(const Call& call) { copy(call, call.in(1), call.result(), call.result()); }

void fetch_shape(const GraphImpl& g, Node& n) { n.shape = updated_floats(g, n, 0).shape; }
void fetch_cpu(const Call& call) {
    copy(call, call.in(0), call.result(), static_cast<float*>(call.src[0]));
}

void arrive_shape(const GraphImpl& g, Node& n) {
    n.shape = float_source(g, n, 0).shape;
    if (n.src[1] >= 0) float_source(g, n, 1);
}
void arrive_cpu(const Call&) {}

}  // namespace apart_room

const OpDef send_def{.name = "send", .shape = updated_by_its_like, .aliases = 0, .effect = true};
const OpDef fetch_def{.name = "fetch", .shape = apart_room::fetch_shape};
const OpDef arrive_def{.name = "arrive", .shape = apart_room::arrive_shape, .aliases = 0, .effect = true};
const Kernel send_cpu{apart_room::send_cpu};
const Kernel fetch_cpu{apart_room::fetch_cpu};
const Kernel arrive_cpu{apart_room::arrive_cpu};

Tensor send(Tensor state, Tensor x) { return graph_of({state, x}, "send").add(Op::send, {state, x}); }
Tensor fetch(Tensor state) { return graph_of({state}, "fetch").add(Op::fetch, {state}); }
Tensor arrive(Tensor x, Tensor kept) { return graph_of({x}, "arrive").add(Op::arrive, {x, kept}); }

}}  // namespace qlora
