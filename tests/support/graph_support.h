// graph_support.h - small graphs for tests: a backend, random tensors, running and reading, gradients against finite
// differences.
#pragma once
#include <gtest/gtest.h>

#include <cmath>

#include "src/base/rng.h"
#include "src/ops/ops.h"

namespace graph_support {

using qlora::BackendImpl;
using qlora::GraphImpl;
using qlora::Shape;
using qlora::Tensor;

inline std::shared_ptr<BackendImpl> cpu(int threads = 2) {
    return qlora::make_cpu_backend(threads, qlora::Compute::f32);
}

inline std::vector<float> random_values(int64_t count, uint64_t seed, float scale = 1) {
    qlora::Rng rng{seed, 7};
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = rng.normal() * scale;
    return values;
}

inline void set(Tensor t, const std::vector<float>& values) {
    t.graph()->write(t, values.data(), int64_t(values.size()) * 4);
}
inline void set(Tensor t, const std::vector<int32_t>& values) {
    t.graph()->write(t, values.data(), int64_t(values.size()) * 4);
}

inline Tensor input(GraphImpl& g, Shape shape, const std::vector<float>& values) {
    const Tensor t = g.input(std::move(shape));
    set(t, values);
    return t;
}
inline Tensor input(GraphImpl& g, Shape shape, uint64_t seed) {
    return input(g, shape, random_values(qlora::elements_of(shape), seed));
}
inline Tensor indices(GraphImpl& g, const std::vector<int32_t>& values) {
    const Tensor t = g.input({int64_t(values.size())}, qlora::DType::i32);
    set(t, values);
    return t;
}
inline Tensor param(GraphImpl& g, Shape shape, uint64_t seed, float scale = 1) {
    const Tensor t = g.param(shape);
    set(t, random_values(qlora::elements_of(shape), seed, scale));
    return t;
}
inline Tensor state(GraphImpl& g, Shape shape, const std::vector<float>& values) {
    const Tensor t = g.state(std::move(shape));
    set(t, values);
    return t;
}

inline std::vector<float> get(Tensor t) {
    std::vector<float> values(static_cast<size_t>(t.graph()->node(t.id()).elements()));
    t.graph()->read(t, values.data(), int64_t(values.size()) * 4);
    return values;
}

// Runs the graph for one result.
inline std::vector<float> value_of(Tensor t) {
    t.graph()->output(t);
    t.graph()->run();
    return get(t);
}

// A {1} loss that weighs every element of y differently.
inline Tensor weigh(Tensor y, uint64_t seed = 99) {
    return qlora::sum(qlora::mul(y, input(*y.graph(), y.graph()->node(y.id()).shape, seed)));
}

inline Tensor grad_of(Tensor t) { return t.graph()->handle(t.graph()->grads[size_t(t.id())]); }

// backward() from the loss, then every element of every param against (f(p + h) - f(p - h)) / 2h. With h = 1e-2 the
// rounding of the loss (1e-7 of it) costs about 1e-5 and the cubic term about 1e-4; `tolerance` is relative to the
// largest gradient of the param.
inline void check_gradients(Tensor loss, const std::vector<Tensor>& params, bool checkpoint = false,
                            double tolerance = 4e-3) {
    GraphImpl& g = *loss.graph();
    g.backward(loss, checkpoint);
    g.output(loss);
    for (const Tensor& p : params) {
        ASSERT_GE(g.grads[size_t(p.id())], 0) << "no gradient";
        g.output(grad_of(p));
    }
    g.run();
    std::vector<std::vector<float>> gradients;
    for (const Tensor& p : params) gradients.push_back(get(grad_of(p)));
    for (size_t k = 0; k < params.size(); ++k) {
        std::vector<float> values = get(params[k]);
        double largest = 0.1;
        for (const float v : gradients[k]) largest = std::max(largest, std::fabs(double(v)));
        for (size_t i = 0; i < values.size(); ++i) {
            const float kept = values[i], h = 1e-2f;
            double at[2];
            for (const int side : {0, 1}) {
                values[i] = side ? kept + h : kept - h;
                set(params[k], values);
                g.run();
                at[side] = get(loss)[0];
            }
            values[i] = kept;
            EXPECT_NEAR(gradients[k][i], (at[1] - at[0]) / (2 * double(h)), tolerance * largest)
                << "param " << k << " element " << i;
        }
        set(params[k], values);
    }
}

// The text of the Error that f throws; empty if it throws none.
template <class F>
std::string error_of(const F& f) {
    try {
        f();
    } catch (const qlora::Error& e) {
        return e.what();
    }
    return {};
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// f(graph) builds one result; its bytes must not depend on the number of threads.
template <class F>
void check_threads(const F& f) {
    std::vector<float> one, three;
    for (const int threads : {1, 3}) {
        GraphImpl g(cpu(threads));
        (threads == 1 ? one : three) = value_of(f(g));
    }
    EXPECT_EQ(0, std::memcmp(one.data(), three.data(), one.size() * 4));
}

}  // namespace graph_support
