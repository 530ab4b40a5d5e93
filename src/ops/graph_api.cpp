// graph_api.cpp - the public Graph and Tensor over GraphImpl. (Graph::weight, which needs a model, is in
// src/api/models.cpp.)
//
// A caller may read what it likes after a run. Kept for that are the results that nothing reads, and the gradients of
// the params; asking for another one plans the graph anew with that one kept. step() runs graphs of its own over the
// same memory: one for the norms of the gradients (clipping needs them all first), one that updates the params.
#include "src/base/access.h"
#include "src/ops/ops.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

struct Stepper {
    bool fresh = false;                                // the arena holds what the leaves as they are now give
    std::vector<int32_t> asked;                        // results to keep from the next run on
    int64_t steps = 0;
    std::vector<int32_t> params;                       // those that have a gradient
    std::vector<BufferRef> moments;                    // two a param
    BufferRef arena;                                   // the one that the graphs below read gradients from
    AdamWAttr attr;
    std::unique_ptr<GraphImpl> norms, update;
    std::vector<Tensor> norm;                          // per param
    Tensor hyper;
};

namespace graph_api_room {

Stepper& stepper(GraphImpl& g) {
    if (!g.stepper) g.stepper = std::make_shared<Stepper>();
    return *g.stepper;
}

bool same(const AdamWAttr& a, const AdamWAttr& b) {
    return a.beta1 == b.beta1 && a.beta2 == b.beta2 && a.epsilon == b.epsilon && a.weight_decay == b.weight_decay;
}

// The results of the forward nodes that no forward node reads.
void keep_results(GraphImpl& g) {
    const size_t count = g.grads.empty() ? g.nodes.size() : g.grads.size();
    std::vector<bool> read(count, false);
    for (size_t i = 0; i < count; ++i) {
        for (const int32_t s : g.nodes[i].src) {
            if (s >= 0) read[size_t(s)] = true;
        }
    }
    for (size_t i = 0; i < count; ++i) {
        if (!read[i] && !g.nodes[i].buffer && !g.nodes[i].weight) g.output(g.handle(int32_t(i)));
    }
}

bool kept(const GraphImpl& g, int32_t id) {
    return std::any_of(g.outputs.begin(), g.outputs.end(), [&](int32_t o) { return g.root(o) == g.root(id); });
}

void run(GraphImpl& g) {
    Stepper& s = stepper(g);
    if (g.frozen && !s.asked.empty()) {                // plan anew; the graphs of step() point into the old arena
        g.frozen = false;
        s.arena.reset();
        s.norms.reset();
        s.update.reset();
    }
    if (!g.frozen) {
        keep_results(g);
        for (const int32_t id : s.asked) g.output(g.handle(id));
        s.asked.clear();
    }
    g.run();
    s.fresh = true;
}

void build_steps(GraphImpl& g, Stepper& s, const AdamWAttr& attr) {
    s.arena = g.arena;
    s.attr = attr;
    s.norm.clear();
    s.norms = std::make_unique<GraphImpl>(g.backend);
    s.update = std::make_unique<GraphImpl>(g.backend);
    s.hyper = s.update->input({4});
    for (size_t i = 0; i < s.params.size(); ++i) {
        const Node& p = g.node(s.params[i]);
        const BufferRef grad = slice(g.arena, g.plan.offset[size_t(g.grads[size_t(s.params[i])])], p.bytes());
        s.norm.push_back(global_norm(s.norms->state(p.shape, grad)));
        s.norms->output(s.norm.back());
        adamw(s.update->state(p.shape, p.buffer), s.update->state(p.shape, grad),
              s.update->state(p.shape, s.moments[2 * i]), s.update->state(p.shape, s.moments[2 * i + 1]), {}, s.hyper,
              attr);
    }
}

float clip_factor(Stepper& s, float max_norm) {
    double squares = 0;
    s.norms->run();
    for (const Tensor& t : s.norm) {
        float norm = 0;
        s.norms->read(t, &norm, 4);
        squares += double(norm) * double(norm);
    }
    if (!std::isfinite(squares))
        fail(Errc::numeric,
             "step: a gradient is not finite; nothing was changed. Lower the learning rate or look for infinities in "
             "the inputs");
    return max_norm > 0 ? std::min(1.0f, max_norm / (float(std::sqrt(squares)) + 1e-6f)) : 1.0f;
}

void write(GraphImpl& g, Tensor t, DType type, const void* values, size_t count) {
    graph_of({t}, "write");
    if (t.dtype() != type)
        fail(Errc::argument, "write: values of type ", name_of(type), " into a tensor of type ", name_of(t.dtype()));
    g.write(t, values, int64_t(count) * 4);
    stepper(g).fresh = false;
}

GraphImpl& live(const std::unique_ptr<GraphImpl>& impl) {
    if (!impl) fail(Errc::argument, "graph: this object was moved from; use the one that it was moved to");
    return *impl;
}

struct InUse {                                         // for as long as a public call lasts
    GraphImpl& graph;
    const Exclusive use;
    InUse(const std::unique_ptr<GraphImpl>& g, const char* what) : graph(live(g)), use(graph.busy, what) {}
};

void check_own(const GraphImpl& g, Tensor t, const char* what) {
    if (&graph_of({t}, what) != &g) fail(Errc::argument, what, ": the tensor belongs to another graph");
}

}  // namespace graph_api_room

Shape Tensor::shape() const {
    const GraphImpl& g = graph_of({*this}, "shape");
    const Look look(g.busy, "Tensor::shape");
    return g.node(id_).shape;
}
DType Tensor::dtype() const {
    const GraphImpl& g = graph_of({*this}, "dtype");
    const Look look(g.busy, "Tensor::dtype");
    return g.node(id_).dtype;
}

Graph::Graph(Backend backend) {
    if (!impl_of(backend)) fail(Errc::argument, "Graph: an empty backend; use Backend::best() or Backend::cpu()");
    impl_ = std::make_unique<GraphImpl>(impl_of(backend));
}
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

Tensor Graph::input(Shape shape, DType type) {
    return graph_api_room::InUse(impl_, "Graph::input").graph.input(std::move(shape), type);
}
Tensor Graph::param(Shape shape) {
    return graph_api_room::InUse(impl_, "Graph::param").graph.param(std::move(shape));
}

void Graph::backward(Tensor loss) {
    const graph_api_room::InUse use(impl_, "Graph::backward");
    GraphImpl& g = use.graph;
    graph_api_room::check_own(g, loss, "backward");
    g.backward(loss);
    g.output(loss);
    for (size_t i = 0; i < g.grads.size(); ++i) {
        if (g.nodes[i].op == Op::param && g.grads[i] >= 0) g.output(g.handle(g.grads[i]));
    }
}

Tensor Graph::grad(Tensor t) const {
    const graph_api_room::InUse use(impl_, "Graph::grad");
    GraphImpl& g = use.graph;
    graph_api_room::check_own(g, t, "grad");
    const Node& n = g.node(t.id());
    if (n.op == Op::weight)
        fail(Errc::argument, "grad: ", n.weight->name, " is a stored, frozen ", name_of(n.dtype),
             " weight and has no gradient; train a param beside it (LoRA)");
    if (g.grads.empty()) fail(Errc::argument, "grad: there are no gradients yet; call backward() with the loss first");
    const int32_t id = size_t(t.id()) < g.grads.size() ? g.grads[size_t(t.id())] : -1;
    if (id < 0)
        fail(Errc::argument, "grad: no gradient flows to this ", op_def(n.op).name, " of shape ", n.shape,
             "; the loss does not depend on it through a param");
    return g.handle(id);
}

void Graph::write(Tensor t, std::span<const float> values) {
    const graph_api_room::InUse use(impl_, "Graph::write");
    graph_api_room::write(use.graph, t, DType::f32, values.data(), values.size());
}
void Graph::write(Tensor t, std::span<const int32_t> values) {
    const graph_api_room::InUse use(impl_, "Graph::write");
    graph_api_room::write(use.graph, t, DType::i32, values.data(), values.size());
}

void Graph::run() { graph_api_room::run(graph_api_room::InUse(impl_, "Graph::run").graph); }

void Graph::step(float learning_rate, const AdamW& options) {
    const graph_api_room::InUse use(impl_, "Graph::step");
    GraphImpl& g = use.graph;
    if (g.grads.empty())
        fail(Errc::argument, "step: there are no gradients; call backward() with the loss, then run()");
    if (!g.frozen) fail(Errc::argument, "step: the graph has not run yet; call run() first");
    if (options.bits != 32)
        fail(Errc::unsupported, "step: moments of ", options.bits, " bits, expected 32; a Trainer has those of 8");
    Stepper& s = graph_api_room::stepper(g);
    const AdamWAttr attr{options.beta1, options.beta2, options.epsilon, options.weight_decay, 0};
    if (s.params.empty()) {
        for (size_t i = 0; i < g.grads.size(); ++i) {
            if (g.nodes[i].op != Op::param || g.grads[i] < 0) continue;
            s.params.push_back(int32_t(i));
            for (int moment = 0; moment < 2; ++moment) s.moments.push_back(g.backend->allocate(g.nodes[i].bytes()));
        }
    }
    if (s.arena != g.arena || !graph_api_room::same(s.attr, attr)) graph_api_room::build_steps(g, s, attr);
    const float hyper[4] = {learning_rate, float(s.steps + 1), graph_api_room::clip_factor(s, options.max_grad_norm),
                            0};
    s.update->write(s.hyper, hyper, sizeof hyper);
    s.update->run();
    ++s.steps;
    s.fresh = false;
}

std::vector<float> Graph::read(Tensor t) const {
    const graph_api_room::InUse use(impl_, "Graph::read");
    GraphImpl& g = use.graph;
    graph_api_room::check_own(g, t, "read");
    const Node& n = g.node(t.id());
    if (n.weight) return n.weight->decoded();
    if (n.dtype != DType::f32) fail(Errc::argument, "read: the tensor has type ", name_of(n.dtype), ", expected f32");
    if (!g.node(g.root(t.id())).buffer && g.frozen && !graph_api_room::kept(g, t.id())) {
        Stepper& s = graph_api_room::stepper(g);
        s.asked.push_back(t.id());
        if (!s.fresh)
            fail(Errc::argument, "read: this result of ", op_def(n.op).name,
                 " was not kept, and the inputs or params have changed since; call run() and read it again");
        graph_api_room::run(g);
    }
    std::vector<float> values(size_t(n.elements()));
    g.read(t, values.data(), n.elements() * 4);
    return values;
}

int64_t Graph::planned_bytes() const {
    const graph_api_room::InUse use(impl_, "Graph::planned_bytes");
    GraphImpl& g = use.graph;
    if (g.frozen) return g.plan.arena;
    graph_api_room::keep_results(g);
    return make_plan(g).arena;
}

int64_t Graph::used_bytes() const { return graph_api_room::InUse(impl_, "Graph::used_bytes").graph.used; }

}}  // namespace qlora
