// store_rows_test.cpp - rows land where they are told, negative ones nowhere; readers after it see them, readers before
// it do not.
#include "src/tensor/encode.h"
#include "tests/support/op_golden.h"

namespace store_rows_test {

namespace q = qlora;
namespace s = graph_support;
using q::GraphImpl;
using q::Tensor;

TEST(StoreRows, WritesInPlaceInOrder) {
    GraphImpl g(s::cpu());
    const Tensor cache = s::state(g, {4, 2}, {0, 0, 0, 0, 0, 0, 7, 7}),
                 x = s::input(g, {3, 2}, std::vector<float>{1, 2, 3, 4, 5, 6}), rows = s::indices(g, {2, -1, 0});
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

TEST(StoreRows, EachPartToItsOwnRows) {
    GraphImpl g(s::cpu());
    const Tensor cache = g.state({2, 3, 2}), x = s::input(g, {2, 4}, std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
    q::store_rows(cache, x, s::indices(g, {2, 0}));
    g.run();
    EXPECT_EQ((std::vector<float>{5, 6, 0, 0, 1, 2, 7, 8, 0, 0, 3, 4}), s::get(cache));
    EXPECT_TRUE(s::contains(s::error_of([&] {
                                GraphImpl h(s::cpu());
                                q::store_rows(h.state({3, 3, 2}), h.input({2, 4}), s::indices(h, {2, 0}));
                            }),
                            "[3, 3, 2]"));
}

TEST(StoreRows, RoundsToTheTypeOfTheState) {
    // the second lies between two f16
    const std::vector<float> x{1, -2.0009765625f, 0.1f, 65504, 1e-6f, -0.0f, 3, 100};
    for (const q::DType type : {q::DType::f16, q::DType::bf16, q::DType::q8_0}) {
        std::vector<float> wide(32, 0.25f);
        std::copy(x.begin(), x.end(), wide.begin());
        GraphImpl g(s::cpu());
        const Tensor cache = g.state({3, 32}, {}, type);
        q::store_rows(cache, s::input(g, {1, 32}, wide), s::indices(g, {1}));
        g.run();
        const q::Buffer& held = *g.node(cache.id()).buffer;
        const int64_t row = q::bytes_of(type, 32);
        std::vector<uint8_t> want(size_t(3 * row));
        q::encode_plain(type, "test", wide.data(), want.data() + row, 32);
        EXPECT_EQ(std::memcmp(held.data, want.data(), want.size()), 0) << q::name_of(type);
        std::vector<float> back(32);
        q::type_info(type).decode(want.data() + row, back.data(), 32);
        for (size_t i = 0; i < 32; ++i)
            EXPECT_NEAR(back[i], wide[i],
                        type == q::DType::q8_0
                            ? 65504.0 / 253
                            : std::max(std::fabs(wide[i]) / (type == q::DType::f16 ? 2048 : 256), 3e-8f));
    }
}

TEST(StoreRows, NumbersThatTheTypeCannotHold) {
    for (const float bad : {65520.0f, -1e9f, INFINITY, NAN}) {
        GraphImpl g(s::cpu());
        q::store_rows(g.state({1, 2}, {}, q::DType::f16), s::input(g, {1, 2}, std::vector<float>{1, bad}),
                      s::indices(g, {0}));
        EXPECT_TRUE(s::contains(s::error_of([&] { g.run(); }), "f16 cannot hold")) << bad;
    }
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
