// op_golden.h - reads tests/golden/ops.json: single operations as PyTorch computes them (tools/make_op_goldens.py).
#pragma once
#include "src/base/file.h"
#include "src/base/json.h"
#include "tests/support/graph_support.h"
#include "tests/support/support.h"

namespace op_golden {

inline std::vector<float> floats(std::string_view operation, std::string_view name) {
    static const qlora::Json all = qlora::Json::parse(qlora::read_file(golden_path("ops.json")), "ops.json");
    std::vector<float> values;
    for (const qlora::Json& v : all.find(operation)->find(name)->array()) values.push_back(float(v.number()));
    return values;
}

inline std::vector<int32_t> integers(std::string_view operation, std::string_view name) {
    std::vector<int32_t> values;
    for (const float v : floats(operation, name)) values.push_back(int32_t(v));
    return values;
}

// Relative to the largest expected magnitude.
inline void expect_near(const std::vector<float>& found, const std::vector<float>& expected, double tolerance) {
    ASSERT_EQ(expected.size(), found.size());
    double largest = 0;
    for (const float v : expected) largest = std::max(largest, std::fabs(double(v)));
    for (size_t i = 0; i < found.size(); ++i)
        EXPECT_NEAR(expected[i], found[i], tolerance * largest) << "element " << i;
}

// loss = sum(y * dy): then the gradient that arrives at y is dy.
inline void run_with_gradient(qlora::Tensor y, const std::vector<float>& dy, const std::vector<qlora::Tensor>& params) {
    qlora::GraphImpl& g = *y.graph();
    g.backward(qlora::sum(qlora::mul(y, graph_support::input(g, y.shape(), dy))));
    g.output(y);
    for (const qlora::Tensor& p : params) g.output(graph_support::grad_of(p));
    g.run();
}

}  // namespace op_golden
