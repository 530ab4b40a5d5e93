// rooms.h - what the rooms of the operations share: checks for shape rules, and the split of large tensors into tasks.
#pragma once
#include "src/cpu/kernels.h"
#include "src/cpu/panels.h"
#include "src/ops/ops.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

// Beside its OpDef a room defines how the CPU computes the operation: const Kernel silu_cpu{...};
#define QLORA_LEAF(name, room)
#define QLORA_OP(name, room) extern const Kernel name##_cpu;
#include "src/graph/ops.def"
const Kernel* cpu_kernel(Op);                          // null for leaves and views
extern const Fusion adapted_cpu, qmatmuls_cpu;

// Source i as float values of the graph: not absent, not i32, not a stored weight.
inline const Node& float_source(const GraphImpl& g, const Node& n, int i) {
    const char* name = op_def(n.op).name;
    if (n.src[size_t(i)] < 0) fail(Errc::argument, name, ": source ", i, " is missing");
    const Node& s = g.source(n, i);
    if (s.op == Op::weight)
        fail(Errc::argument, name, ": source ", i, " is the stored weight ", s.weight->name,
             ", expected float values; weights go into matmul, embed, rms_norm and bias");
    if (s.dtype != DType::f32)
        fail(Errc::argument, name, ": source ", i, " has type ", name_of(s.dtype), ", expected f32");
    return s;
}

// Source i as rows that are read in blocks: float values, or a state that holds them in another type (the cache of keys
// and values).
inline const Node& rows_source(const GraphImpl& g, const Node& n, int i) {
    const bool state = n.src[size_t(i)] >= 0 && g.node(g.root(n.src[size_t(i)])).op == Op::state;
    return state && g.source(n, i).dtype != DType::i32 ? g.source(n, i) : float_source(g, n, i);
}

// Source i as a vector or matrix of factors: float values, or a stored weight of any type.
inline const Node& weight_source(const GraphImpl& g, const Node& n, int i) {
    if (n.src[size_t(i)] >= 0 && g.source(n, i).op == Op::weight) return g.source(n, i);
    return float_source(g, n, i);
}

inline const Node& index_source(const GraphImpl& g, const Node& n, int i, int64_t count) {
    const char* name = op_def(n.op).name;
    if (n.src[size_t(i)] < 0) fail(Errc::argument, name, ": source ", i, " is missing");
    const Node& s = g.source(n, i);
    if (s.dtype != DType::i32)
        fail(Errc::argument, name, ": source ", i, " has type ", name_of(s.dtype), ", expected i32");
    if (s.elements() != count)
        fail(Errc::shape, name, ": ", s.elements(), " indices of shape ", s.shape, " for ", count, " rows");
    return s;
}

inline void same_shape(const Node& n, const Node& a, const Node& b) {
    if (a.shape != b.shape) fail(Errc::shape, op_def(n.op).name, ": shapes ", a.shape, " and ", b.shape, " differ");
}

// The cap of scores: positive, and such that neither it nor 1 / cap is infinite. 0 says that there is none.
inline void check_cap(const Node& n, float cap, bool may_be_none) {
    if ((std::isnormal(cap) && cap > 0) || (may_be_none && cap == 0)) return;
    fail(Errc::argument, op_def(n.op).name, ": a cap of ", cap, " for scores, expected a positive number",
         may_be_none ? ", or 0 for none" : "");
}

// Source i of an operation that updates memory in place: it must be, or be a view of, a param or a state.
inline const Node& updated_source(const GraphImpl& g, const Node& n, int i) {
    const Node& s = rows_source(g, n, i);
    const Op owner = g.node(g.root(n.src[size_t(i)])).op;
    if (owner != Op::param && owner != Op::state)
        fail(Errc::argument, op_def(n.op).name, ": source ", i,
             " is updated in place and must be a param or a state, is ", op_def(s.op).name);
    return s;
}

// The same where the operation computes with floats.
inline const Node& updated_floats(const GraphImpl& g, const Node& n, int i) {
    float_source(g, n, i);
    return updated_source(g, n, i);
}

// Source i of a product that may be absent: what it is added to, of the shape of the result.
inline void check_base(const GraphImpl& g, const Node& n, int i) {
    if (n.src[size_t(i)] >= 0) same_shape(n, float_source(g, n, i), n);
}

// The shape rule of state = f(state, x) element by element, in place.
inline void updated_by_its_like(const GraphImpl& g, Node& n) {
    const Node &state = updated_floats(g, n, 0), &x = float_source(g, n, 1);
    same_shape(n, state, x);
    n.shape = state.shape;
}

inline int64_t last_dim(const Node& n) { return n.shape.back(); }
inline int64_t leading(const Node& n) { return n.elements() / n.shape.back(); }

// Null: so many bytes fit into what is left, or into the budget.
std::shared_ptr<Pager> cpu_pager(const PageRequest&, int64_t left);

inline Cpu& cpu_of(const Call& call) { return call.backend.host(); }
// Of source i, a stored weight: null where none are kept.
inline KeptPanels* panels_of(const Call& call, int i, Pass pass) {
    return call.graph.panels ? call.graph.panels->find(call.matrix(i), pass) : nullptr;
}
int64_t chunks_of_loss(const GraphImpl&, const Node&);    // of a linear_cross_entropy whose rows are all trained

// The step that masks of dropout depend on, from its input: GraphImpl::step().
inline uint64_t step_of(const Call& call, int i) {
    const int32_t* halves = call.in<int32_t>(i);
    return uint64_t(uint32_t(halves[1])) << 32 | uint32_t(halves[0]);
}

// A task handles 16384 floats, 64 KiB: large enough that handing it to a thread costs nothing beside it, small enough
// to stay in the L2 cache. The split depends on the size alone, so results are the same for any number of threads.
constexpr int64_t task_floats = 16384;

// f(first, last) over [0, count), `floats` being the work of one item; what fits one task runs right here.
template <class F>
void split(const Call& call, int64_t count, int64_t floats, const F& f) {
    const int64_t piece = std::max<int64_t>(1, task_floats / std::max<int64_t>(1, floats));
    if (count <= piece) return f(int64_t(0), count);
    cpu_of(call).pool.run((count + piece - 1) / piece,
                          [&](int64_t number, int) { f(number * piece, std::min(count, (number + 1) * piece)); });
}

// Puts source i, if there is one, where the product that is added to it goes; returns the product's beta.
inline float begin_with_base(const Call& call, int i) {
    if (!call.has(i)) return 0;
    const float* base = call.in(i);
    if (call.result() == base) return 1;
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { std::copy(base + first, base + last, call.result() + first); });
    return 1;
}

// y = f(a, b), element by element of one shape, f a loop of Vec.
inline void pair_shape(const GraphImpl& g, Node& n) {
    const Node &a = float_source(g, n, 0), &b = float_source(g, n, 1);
    same_shape(n, a, b);
    n.shape = a.shape;
}
template <auto loop>
void pair_cpu(const Call& call) {
    const auto run = cpu_of(call).kernels->vec.*loop;
    const float *a = call.in(0), *b = call.in(1);
    float* y = call.result();
    split(call, call.node.elements(), 1,
          [&](int64_t first, int64_t last) { run(a + first, b + first, y + first, last - first); });
}

// Source i as floats: where they are, or decoded into `buffer` when it is a weight of another type. Such a source needs
// decoded_bytes() of scratch.
inline const float* decoded_source(const Call& call, int i, float* buffer) {
    const WeightRef w = call.matrix(i);
    if (w.dtype == DType::f32) return static_cast<const float*>(w.data);
    decode(w, 0, w.rows * w.cols, buffer);
    return buffer;
}
inline int64_t decoded_bytes(const Node& source) { return source.dtype == DType::f32 ? 0 : source.elements() * 4; }

}}  // namespace qlora
