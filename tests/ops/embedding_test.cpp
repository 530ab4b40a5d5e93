// embedding_test.cpp - against PyTorch, repeated ids included; over a stored table; ids outside it.
#include "tests/support/op_golden.h"

namespace embedding_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(Embedding, EqualsPyTorch) {
    GraphImpl g(s::cpu());
    const Tensor table = g.param({6, 5}), ids = s::indices(g, op_golden::integers("embedding", "ids"));
    s::set(table, op_golden::floats("embedding", "table"));
    const Tensor y = q::embed(table, ids);
    op_golden::run_with_gradient(y, op_golden::floats("embedding", "dy"), {table});
    EXPECT_EQ(op_golden::floats("embedding", "y"), s::get(y));
    op_golden::expect_near(s::get(s::grad_of(table)), op_golden::floats("embedding", "dtable"), 1e-6);
}

TEST(Embedding, AStoredTableGivesTheSameRowsAndNoGradient) {
    GraphImpl g(s::cpu());
    const Tensor table = g.weight(
        std::make_shared<q::Weight>(q::dense_weight("token_embd", {6, 5}, op_golden::floats("embedding", "table"))));
    const Tensor y = q::embed(table, s::indices(g, op_golden::integers("embedding", "ids")));
    EXPECT_FALSE(g.wants_grad(y.id()));
    EXPECT_EQ(op_golden::floats("embedding", "y"), s::value_of(y));
}

TEST(Embedding, AnIdOutsideIsNamed) {
    for (const int32_t id : {-1, 6, 1 << 30}) {
        GraphImpl g(s::cpu());
        g.output(q::embed(s::input(g, {6, 5}, 1), s::indices(g, {0, id})));
        EXPECT_TRUE(s::contains(s::error_of([&] { g.run(); }), "id " + std::to_string(id) + " in row 1"));
    }
    GraphImpl g(s::cpu());
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::embed(g.input({6}), g.input({2}, q::DType::i32)); }), "[6]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { (void)q::embed(g.input({6, 5}), g.input({2})); }), "i32"));
}

}  // namespace embedding_test
