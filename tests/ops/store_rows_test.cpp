// store_rows_test.cpp - rows land where they are told, negative ones nowhere; readers after it see them, readers before it do not.
#include "tests/support/op_golden.h"

namespace store_rows_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(StoreRows, WritesInPlaceInOrder) {
    GraphImpl g(s::cpu());
    const Tensor cache = s::state(g, {4, 2}, {0, 0, 0, 0, 0, 0, 7, 7}), x = s::input(g, {3, 2}, std::vector<float>{1, 2, 3, 4, 5, 6}), rows = s::indices(g, {2, -1, 0});
    const Tensor before = q::scale(cache, 1), after = q::scale(q::store_rows(cache, x, rows), 10);
    g.output(before);
    g.output(after);
    g.run();
    EXPECT_EQ((std::vector<float>{0, 0, 0, 0, 0, 0, 7, 7}), s::get(before));
    EXPECT_EQ((std::vector<float>{50, 60, 0, 0, 10, 20, 70, 70}), s::get(after));
    EXPECT_EQ((std::vector<float>{5, 6, 0, 0, 1, 2, 7, 7}), s::get(cache));
    s::set(rows, std::vector<int32_t>{3, 1, -5});
    g.run();
    EXPECT_EQ((std::vector<float>{5, 6, 3, 4, 1, 2, 1, 2}), s::get(cache));
}

TEST(StoreRows, RunsEvenWhenNobodyReadsIt) {
    GraphImpl g(s::cpu());
    const Tensor cache = g.state({2, 2});
    q::store_rows(cache, s::input(g, {1, 2}, std::vector<float>{1, 2}), s::indices(g, {1}));
    g.run();
    EXPECT_EQ((std::vector<float>{0, 0, 1, 2}), s::get(cache));
}

TEST(StoreRows, WrongUse) {
    GraphImpl g(s::cpu());
    const Tensor cache = g.state({2, 2}), x = g.input({1, 2}), rows = s::indices(g, {2});
    EXPECT_TRUE(s::contains(s::error_of([&] { q::store_rows(x, x, rows); }), "param or a state"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::store_rows(cache, g.input({1, 3}), rows); }), "[1, 3]"));
    EXPECT_TRUE(s::contains(s::error_of([&] { q::store_rows(cache, g.input({2, 2}), rows); }), "2 rows"));
    q::store_rows(cache, x, rows);
    EXPECT_TRUE(s::contains(s::error_of([&] { g.run(); }), "row 2 of a state with 2 rows"));
}

}  // namespace store_rows_test
