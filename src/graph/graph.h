// graph.h - the tensor graph: nodes in execution order, the operation table, autograd and the memory plan.
//
// Life of a graph: builders append nodes (each checks its shapes at once); backward() appends gradient nodes, which are
// ordinary nodes; make_plan() gives every node an offset in one arena; BackendImpl::run() executes its steps in order.
// No buffer is allocated while running.
#pragma once
#include "src/base/exclusive.h"
#include "src/graph/attrs.h"
#include "src/graph/backend.h"

#include <array>
#include <cstring>
#include <deque>
#include <limits>
#include <type_traits>

namespace qlora { inline namespace QLORA_ABI {

enum class Op : uint8_t {
#define QLORA_OP(name, room) name,
#include "src/graph/ops.def"
    count
};

// ---- Nodes.
constexpr int max_sources = 8;

struct Attr {                                          // one of the structs of attrs.h, by value
    template <class T>
    void set(const T& value) {
        static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof bytes);
        std::memcpy(bytes, &value, sizeof value);
    }
    template <class T>
    T get() const {
        static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof bytes);
        T value;
        std::memcpy(&value, bytes, sizeof value);
        return value;
    }
    alignas(8) unsigned char bytes[64] = {};
};
template <class T> Attr attr_of(const T& value) { Attr a; a.set(value); return a; }

struct Node {
    Op op = Op::input;
    DType dtype = DType::f32;                          // results are f32 or i32, a state may have another type
    DType storage = DType::f32;    // what it is held in: dtype, or what the backend chose for a result
    Shape shape;
    std::array<int32_t, max_sources> src{-1, -1, -1, -1, -1, -1, -1, -1};      // earlier nodes; -1 = absent
    Attr attr;
    int64_t saved = 0;    // floats behind the result, its second: kept for the backward pass (attention: log-sum-exp)
    WeightPtr weight;                                  // Op::weight
    BufferRef buffer;    // leaves (input, param, state): memory that outlives a run and may be shared by graphs
    bool wants_grad = false;                           // a parameter can be reached from here
    int32_t segment = -1;    // checkpointing: nodes of one segment are recomputed in the backward pass
    int32_t origin = -1;                               // of a recomputed copy: the node it repeats
    int64_t elements() const { return elements_of(shape); }
    // Where element `at` begins, from the start of the result; behind the last one lie the saved floats.
    int64_t byte_of(int64_t at) const {
        const int64_t n = elements();
        return at < n ? bytes_of(storage, at) : (bytes_of(storage, n) + 3) / 4 * 4 + (at - n) * 4;
    }
    int64_t bytes() const { return saved ? byte_of(elements() + saved) : bytes_of(storage, elements()); }
};

// ---- One operation: what its room exports, and what its kernels are called with.
struct Call {                                          // one node, ready to compute: what a kernel is given
    const GraphImpl& graph;
    const Node& node;
    void* out;
    void* src[max_sources];                            // null = absent, or a weight (read it from source(i).weight)
    void* scratch;
    BackendImpl& backend;
    const Node& source(int i) const;
    bool has(int i) const { return node.src[size_t(i)] >= 0; }
    template <class T = float> const T* in(int i) const { return static_cast<const T*>(src[i]); }
    // source i, one of those that OpDef::writes names
    template <class T = float> T* written(int i) const { return static_cast<T*>(writable(i)); }
    template <class T = float> T* result() const { return static_cast<T*>(out); }
    // The second result, behind the first: this node's, and that of source i.
    float* saved() const { return reinterpret_cast<float*>(static_cast<char*>(out) + node.byte_of(node.elements())); }
    const float* saved_of(int i) const {
        const Node& n = source(i);
        return reinterpret_cast<const float*>(static_cast<const char*>(src[i]) + n.byte_of(n.elements()));
    }
    WeightRef matrix(int i) const;    // source i as a stored matrix: a weight, or a float node {rows, cols}
private:
    void* writable(int i) const;
};
// For backends: calls the kernel or the fusion of each step in order, and notes in GraphImpl::used how far the arena is
// used.
void run_steps(GraphImpl&, const Plan&);

// What an operation is, on any backend.
struct OpDef {
    const char* name;
    // checks the sources, sets shape, dtype and saved, or throws with the values
    void (*shape)(const GraphImpl&, Node&);
    // appends gradient nodes, hands them to accumulate(); null = none flows
    void (*grad)(GraphImpl&, const Node& forward, int32_t self, int32_t dy) = nullptr;
    int aliases = -1;    // the result is the memory of this source (views, and operations that update a state)
    bool effect = false;                               // changes a state: runs even when nobody reads it
    bool computes = true;                              // no: leaves and views, for which nothing runs
    uint32_t writes = 0;    // beside the result: bit i = source i is updated in place
    // Bit i = an element of the result depends on that element of source i, so that it may be put in its place where
    // nobody reads the source any more.
    uint32_t over = 0;
    int results = 1;                                   // 2: more may be kept behind it, Node::saved
    Tensor (*composed)(GraphImpl&, const Node&) = nullptr;    // the same value out of simpler operations, for tests
};
const OpDef& op_def(Op);

#define QLORA_OP(name, room) extern const OpDef name##_def;    // the rooms define them: const OpDef silu_def{...};
#include "src/graph/ops.def"

// ---- The memory plan: liveness of every node -> offsets in one arena, before anything runs.
struct Step { int32_t first = 0, count = 1; const Fusion* fusion = nullptr; };     // of Plan::order
struct Plan {
    std::vector<int32_t> order;    // nodes to run: those that an output, a leaf update or another needed node reads
    std::vector<Step> steps;                           // all of the order: one node each, or a fusion of several
    std::vector<int64_t> offset;    // per node: bytes into the arena, -1 = none (leaf, pruned); aliases are resolved
    std::vector<int64_t> scratch;                      // per node outside of fusions: bytes into the arena, -1 = none
    int64_t arena = 0;                                 // bytes: the peak
    std::span<const int32_t> nodes(int32_t step) const {
        return std::span(order).subspan(size_t(steps[size_t(step)].first), size_t(steps[size_t(step)].count));
    }
};

struct GraphImpl {
    std::shared_ptr<BackendImpl> backend;
    std::deque<Node> nodes;    // a deque: references to nodes stay valid while nodes are appended
    std::vector<int32_t> grads;                        // per node: its gradient node after backward(), -1 = none
    std::vector<int32_t> outputs;                      // nodes that may be read after run(); their memory is not reused
    int32_t segment = -1;                              // given to new nodes
    // Segments from this one on are light: gradient rules of what reads them are handed recomputed values too, so that
    // nothing of such a segment is kept. Of others, what is read outside of them is.
    int32_t light = std::numeric_limits<int32_t>::max();
    bool frozen = false;                               // planned: no more nodes
    Plan plan;
    BufferRef arena;    // set before prepare() to share one among graphs that never run at once
    // one weight of each mapped file that is read: asked after every run whether it is still whole
    std::vector<WeightPtr> mapped;
    std::shared_ptr<void> recorded;                    // the backend's: the plan made ready to be replayed
    struct Apart { int32_t x = -1, sent = -1, segment = -1; };    // a node, and the state that holds it for a segment
    std::vector<Apart> apart;                          // in the order in which they were sent
    int64_t used = 0;    // bytes: the furthest end in the arena that a run has touched, noted by the backend
    std::shared_ptr<class PanelStore> panels;          // of the CPU's products (src/cpu/panels.h); null: none is kept
    std::shared_ptr<struct Stepper> stepper;           // of the public Graph::step (src/ops/graph_api.cpp)
    int32_t step_input = -1;
    mutable Busy busy;                                 // taken by the public calls, and while nodes are appended

    explicit GraphImpl(std::shared_ptr<BackendImpl> b) : backend(std::move(b)) {}

    // Appends a node: runs its shape rule, derives wants_grad from its sources. The builders of the rooms call this.
    // `shape` is for operations whose sources do not tell it (view, fill, ...): the rule finds it in node.shape. An
    // empty Tensor{} is an absent source.
    Tensor add(Op, std::initializer_list<Tensor> sources, const Attr& = {}, Shape shape = {});
    Tensor input(Shape, DType = DType::f32);
    Tensor param(Shape, BufferRef = {});               // allocates unless given memory
    Tensor state(Shape, BufferRef = {}, DType = DType::f32);                    // rows of whole blocks
    Tensor weight(WeightPtr, Placement = Placement::device);
    // i32 {2}, an input that masks of dropout depend on; zero until set_step(), which the trainer calls for every
    // micro-batch.
    Tensor step();
    void set_step(uint64_t);
    void output(Tensor);                               // keep until the next run, so that it can be read

    // Appends the gradient of a {1} loss towards every param it depends on. With `checkpoint`, nodes in segments are
    // recomputed from the segment's inputs in the backward pass instead of being kept.
    void backward(Tensor loss, bool checkpoint = false);
    // For segments that begin with x, an f32 result: what backward() recomputes reads x from `memory` (of
    // BackendImpl::apart), so that it need not be kept. One is on its way at a time; settle_apart() waits for the last.
    void keep_apart(Tensor x, BufferRef memory);
    void settle_apart();
    // for gradient rules: adds to what flows into `node`; ignored where no gradient is wanted
    void accumulate(int32_t node, Tensor grad);
    // For those that add in their own pass: what flows into `node` so far (empty: nothing), and the sum with it.
    Tensor gradient(int32_t node);
    void replace_gradient(int32_t node, Tensor sum);
    bool wants_grad(int32_t node) const { return node >= 0 && nodes[size_t(node)].wants_grad; }

    const Node& node(int32_t id) const { return nodes[size_t(id)]; }
    const Node& source(const Node& n, int i) const { return nodes[size_t(n.src[size_t(i)])]; }
    Tensor handle(int32_t id) { return {this, id}; }

    void prepare();                                    // plans and allocates; run() does it on first use
    void run();
    void write(Tensor leaf, const void* values, int64_t bytes);
    void read(Tensor, void* values, int64_t bytes) const;
    void read_part(Tensor, int64_t first, int64_t count, void* values) const;    // elements `first` and behind it
    void* address(int32_t id) const;                   // of a node's memory once prepared; null for a stored weight
    int32_t root(int32_t id) const;    // the node whose memory this one is: itself, or through views and updates
};

Plan make_plan(const GraphImpl&);
int64_t memory_of(const GraphImpl&);                   // bytes of the nodes and their plan, without an arena
// What lies in the arena when it is fullest: what the backward pass will read, the vocabulary projection with its chunk
// of logits, and all else.
struct ArenaUse { int64_t kept = 0, loss = 0, working = 0; };
ArenaUse arena_use(const GraphImpl&);
// For fusions: run[first] and what follows it of the same operation with the same source i. Near it: queries, keys and
// values stand a few nodes apart, whatever adapters and biases lie between them.
std::vector<int32_t> neighbours(const GraphImpl& g, std::span<const int32_t> run, size_t first, size_t i,
                                       size_t most);

// For builders: the graph of a tensor; throws unless all belong to the same one.
GraphImpl& graph_of(std::initializer_list<Tensor>, const char* operation);

}}  // namespace qlora
