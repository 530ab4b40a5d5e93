// graph.cpp - nodes and their memory: appending, leaves, reading and writing, and what a running operation sees of its
// node.
#include "src/graph/graph.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace graph_room {

Tensor append(GraphImpl& g, Node node) {
    const Look building(g.busy, "graph: appending to it");
    if (g.frozen)
        fail(Errc::argument,
             "graph: it has been planned for running and takes no more nodes; build everything before the first run()");
    g.nodes.push_back(std::move(node));
    return g.handle(int32_t(g.nodes.size()) - 1);
}

void check_leaf_shape(const char* what, const Shape& shape) {
    if (shape.empty()) fail(Errc::shape, what, ": a shape needs at least one dimension, a single number is {1}");
    for (const int64_t d : shape) {
        if (d < 1) fail(Errc::shape, what, ": shape ", shape, " has a dimension below 1");
    }
}

Tensor leaf(GraphImpl& g, const char* what, Op op, DType dtype, Shape shape, BufferRef buffer) {
    check_leaf_shape(what, shape);
    Node n;
    n.op = op;
    n.dtype = n.storage = dtype;
    n.shape = std::move(shape);
    n.wants_grad = op == Op::param;
    if (!buffer) buffer = g.backend->allocate(n.bytes());
    if (buffer->bytes < n.bytes())
        fail(Errc::argument, what, ": shape ", n.shape, " needs ", n.bytes(), " bytes, the memory given has ",
             buffer->bytes);
    n.buffer = std::move(buffer);
    return append(g, std::move(n));
}

bool is_leaf(Op op) { return op == Op::input || op == Op::param || op == Op::state || op == Op::weight; }

// Bytes between the start of node `id` and the start of its root.
int64_t alias_offset(const GraphImpl& g, int32_t id) {
    int64_t bytes = 0;
    for (int alias; (alias = op_def(g.node(id).op).aliases) >= 0; id = g.node(id).src[size_t(alias)]) {
        if (g.node(id).op == Op::view)
            bytes += g.source(g.node(id), 0).byte_of(g.node(id).attr.get<ViewAttr>().offset);
    }
    return bytes;
}

// A view or an update has the storage of its source, what lies behind a result is floats, and what is not f32 to begin
// with stays as it is; for the rest the backend chooses.
DType storage(const GraphImpl& g, const Node& n) {
    const int alias = op_def(n.op).aliases;
    if (alias < 0) return n.dtype == DType::f32 ? g.backend->storage(g, n) : n.dtype;
    const Node& source = g.source(n, alias);
    return n.op == Op::view && n.attr.get<ViewAttr>().offset >= source.elements() ? DType::f32 : source.storage;
}

Call call_of(GraphImpl& g, const Plan& plan, int32_t id) {
    const Node& n = g.node(id);
    Call call{g, n, g.address(id), {}, nullptr, *g.backend};
    for (int i = 0; i < max_sources; ++i)
        call.src[i] = n.src[size_t(i)] >= 0 ? g.address(n.src[size_t(i)]) : nullptr;
    if (const int64_t at = plan.offset[size_t(id)]; at >= 0) g.used = std::max(g.used, at + n.bytes());
    if (const int64_t at = plan.scratch[size_t(id)]; at >= 0) {
        call.scratch = static_cast<char*>(g.arena->data) + at;
        g.used = std::max(g.used, at + g.backend->kernel(n.op)->scratch(g, n));
    }
    return call;
}

}  // namespace graph_room

BufferRef slice(const BufferRef& parent, int64_t offset, int64_t bytes) {
    if (offset < 0 || bytes < 0 || offset > parent->bytes - bytes)
        fail(Errc::argument, "slice: bytes ", offset, " to ", offset + bytes, " of a buffer of ", parent->bytes);
    return std::make_shared<Buffer>(Buffer{static_cast<char*>(parent->data) + offset, bytes, parent, parent->file});
}

std::shared_ptr<Pager> BackendImpl::pager(const PageRequest&) { return nullptr; }

BufferRef BackendImpl::apart(int64_t bytes, const std::string&) { return allocate(bytes, Memory::pinned); }

std::shared_ptr<BackendImpl> BackendImpl::outline() const {
    fail(Errc::unsupported, "outline: ", name(), " cannot be planned for without its memory");
}

WeightPtr BackendImpl::hold(WeightPtr w, Placement) {
    w = on_host(std::move(w));
    if (!w || w->file || w->counted) return w;
    Weight out = *w;
    out.counted = limit->take(w->bytes(), "weights");
    return std::make_shared<const Weight>(std::move(out));
}

const Node& Call::source(int i) const { return graph.source(node, i); }

void* Call::writable(int i) const {
    if (!(op_def(node.op).writes >> i & 1))
        fail(Errc::argument, op_def(node.op).name, ": source ", i, " is not one that this operation updates");
    return src[i];
}

void run_steps(GraphImpl& g, const Plan& plan) {
    std::vector<Call> calls;
    for (int32_t at = 0; at < int32_t(plan.steps.size()); ++at) {
        calls.clear();
        for (const int32_t id : plan.nodes(at)) calls.push_back(graph_room::call_of(g, plan, id));
        if (const Fusion* fusion = plan.steps[size_t(at)].fusion) fusion->run(calls);
        else g.backend->kernel(calls[0].node.op)->run(calls[0]);
    }
}

WeightRef Call::matrix(int i) const {
    const Node& n = source(i);
    if (n.weight) return n.weight->ref();
    const int64_t cols = n.shape.back();
    WeightRef w;
    w.dtype = n.storage;
    w.data = src[i];
    w.rows = n.elements() / cols;
    w.cols = cols;
    return w;
}

Tensor GraphImpl::add(Op op, std::initializer_list<Tensor> sources, const Attr& attr, Shape shape) {
    const OpDef& def = op_def(op);
    if (sources.size() > size_t(max_sources))
        fail(Errc::argument, def.name, ": ", sources.size(), " sources, at most ", max_sources);
    Node n;
    n.op = op;
    n.attr = attr;
    n.shape = std::move(shape);
    n.segment = segment;
    size_t i = 0;
    bool reached = false;
    for (const Tensor& t : sources) {
        if (t.graph() && (t.graph() != this || t.id() < 0 || size_t(t.id()) >= nodes.size()))
            fail(Errc::argument, def.name, ": source ", i, " belongs to another graph");
        n.src[i] = t.graph() ? t.id() : -1;
        reached = reached || wants_grad(n.src[i]);
        ++i;
    }
    def.shape(*this, n);
    if (n.saved && def.results < 2)
        fail(Errc::argument, def.name, ": ", n.saved, " floats are to be kept, the operation has one result");
    n.storage = graph_room::storage(*this, n);
    n.wants_grad = reached && def.grad && grads.empty();    // once backward() has begun, nodes are gradients themselves
    return graph_room::append(*this, std::move(n));
}

Tensor GraphImpl::input(Shape shape, DType dtype) {
    if (dtype != DType::f32 && dtype != DType::i32)
        fail(Errc::argument, "input: type ", name_of(dtype), ", expected f32 or i32");
    return graph_room::leaf(*this, "input", Op::input, dtype, std::move(shape), {});
}

Tensor GraphImpl::param(Shape shape, BufferRef buffer) {
    return graph_room::leaf(*this, "param", Op::param, DType::f32, std::move(shape), std::move(buffer));
}

Tensor GraphImpl::state(Shape shape, BufferRef buffer, DType dtype) {
    graph_room::check_leaf_shape("state", shape);
    const TypeInfo& type = type_info(dtype);
    const bool codes = dtype == DType::u8;             // not numbers: only operations that say so take them
    if ((!type.decode && !codes) || shape.back() % type.block)
        fail(Errc::argument, "state: rows of ", shape.back(), " cannot be held as ", type.name,
             type.decode ? str(", which has blocks of ", type.block) : std::string());
    return graph_room::leaf(*this, "state", Op::state, dtype, std::move(shape), std::move(buffer));
}

Tensor GraphImpl::weight(WeightPtr w, Placement placement) {
    if (!w) fail(Errc::argument, "weight: there is none");
    graph_room::check_leaf_shape("weight", w->shape);
    w = backend->hold(std::move(w), placement);
    Node n;
    n.op = Op::weight;
    n.dtype = n.storage = w->dtype;
    n.shape = w->shape;
    if (w->file && std::none_of(mapped.begin(), mapped.end(), [&](const auto& m) { return m->file == w->file; }))
        mapped.push_back(w);
    n.weight = std::move(w);
    return graph_room::append(*this, std::move(n));
}

Tensor GraphImpl::step() {
    if (step_input < 0) step_input = input({2}, DType::i32).id();
    return handle(step_input);
}

void GraphImpl::set_step(uint64_t step) {
    if (step_input < 0 && frozen) return;              // no mask depends on it
    const int32_t halves[2] = {int32_t(uint32_t(step)), int32_t(uint32_t(step >> 32))};
    write(this->step(), halves, sizeof halves);
}

void GraphImpl::output(Tensor t) {
    graph_of({t}, "output");
    if (frozen)
        fail(Errc::argument, "output: the graph has been planned; name the results to keep before the first run()");
    if (std::find(outputs.begin(), outputs.end(), t.id()) == outputs.end()) outputs.push_back(t.id());
}

void GraphImpl::keep_apart(Tensor x, BufferRef memory) {
    settle_apart();
    const Tensor place = state(node(x.id()).shape, std::move(memory));
    apart.push_back({x.id(), add(Op::send, {place, x}).id(), segment});
}

void GraphImpl::settle_apart() {
    if (apart.empty() || node(apart.back().sent).op == Op::arrive) return;
    Apart& last = apart.back();
    last.sent = add(Op::arrive, {handle(last.sent), handle(last.x)}).id();
}

int32_t GraphImpl::root(int32_t id) const {
    for (int alias; (alias = op_def(node(id).op).aliases) >= 0;) id = node(id).src[size_t(alias)];
    return id;
}

void GraphImpl::prepare() {
    if (frozen) return;
    Plan made = make_plan(*this);
    if (made.order.empty())
        fail(Errc::argument, "run: nothing to compute; name a result with output() or update a state");
    for (const Step& step : made.steps) {
        const Op op = node(made.order[size_t(step.first)]).op;
        if (!step.fusion && !backend->kernel(op))
            fail(Errc::unsupported, "run: ", backend->name(), " does not have the operation ", op_def(op).name);
    }
    // graphs that never run at once may share one
    if (!arena || arena->bytes < made.arena) arena = backend->allocate(made.arena);
    plan = std::move(made);
    frozen = true;
}

void GraphImpl::run() {
    prepare();
    backend->run(*this, plan);
    for (const auto& w : mapped) w->check();
}

void* GraphImpl::address(int32_t id) const {
    const int64_t offset = plan.offset.empty() ? -1 : plan.offset[size_t(id)];
    if (offset >= 0) return static_cast<char*>(arena->data) + offset;
    const Node& leaf = node(root(id));
    return leaf.buffer ? static_cast<char*>(leaf.buffer->data) + graph_room::alias_offset(*this, id) : nullptr;
}

void GraphImpl::write(Tensor t, const void* values, int64_t bytes) {
    graph_of({t}, "write");
    const Node& n = node(t.id());
    if (!n.buffer)
        fail(Errc::argument, "write: only inputs, params and states can be written, this is the result of ",
             op_def(n.op).name);
    if (bytes != n.bytes())
        fail(Errc::shape, "write: ", bytes / 4, " values for shape ", n.shape, ", expected ", n.elements());
    backend->upload(*n.buffer, 0, values, bytes);
}

void GraphImpl::read(Tensor t, void* values, int64_t bytes) const {
    const GraphImpl& g = graph_of({t}, "read");
    const Node& n = g.node(t.id());
    if (bytes != n.elements() * 4)
        fail(Errc::shape, "read: ", bytes / 4, " values of shape ", n.shape, ", expected ", n.elements());
    read_part(t, 0, n.elements(), values);
}

void GraphImpl::read_part(Tensor t, int64_t first, int64_t count, void* values) const {
    const Node& n = graph_of({t}, "read").node(t.id());
    if (first < 0 || count < 0 || first > n.elements() - count)
        fail(Errc::shape, "read: values ", first, " to ", first + count, " of shape ", n.shape);
    const int32_t owner = root(t.id());
    if (const BufferRef& buffer = node(owner).buffer) {
        if (bytes_of(n.dtype, 1) != 4)
            fail(Errc::argument, "read: a state of ", name_of(n.dtype), " is not float values");
        return backend->download(*buffer, graph_room::alias_offset(*this, t.id()) + first * 4, values, count * 4);
    }
    if (n.weight) fail(Errc::argument, "read: ", n.weight->name, " is a stored weight, not a value of the graph");
    if (!frozen) fail(Errc::argument, "read: the graph has not run yet; call run() first");
    const bool kept = std::any_of(outputs.begin(), outputs.end(), [&](int32_t o) { return root(o) == owner; });
    if (!kept || plan.offset[size_t(t.id())] < 0)
        fail(Errc::argument, "read: this result of ", op_def(n.op).name,
             " is not kept after a run; name it with output() before the first run()");
    const int64_t offset = plan.offset[size_t(t.id())] + bytes_of(n.storage, first);
    if (n.storage == n.dtype) return backend->download(*arena, offset, values, count * 4);
    std::vector<uint8_t> stored(size_t(bytes_of(n.storage, count)));
    backend->download(*arena, offset, stored.data(), int64_t(stored.size()));
    type_info(n.storage).decode(stored.data(), static_cast<float*>(values), count);
}

GraphImpl& graph_of(std::initializer_list<Tensor> tensors, const char* operation) {
    GraphImpl* g = nullptr;
    for (const Tensor& t : tensors) {
        if (!t.graph()) fail(Errc::argument, operation, ": an empty Tensor; use one that a graph has returned");
        if (g && t.graph() != g) fail(Errc::argument, operation, ": the tensors belong to different graphs");
        g = t.graph();
    }
    if (!g) fail(Errc::argument, operation, ": no tensors");
    return *g;
}

}}  // namespace qlora
