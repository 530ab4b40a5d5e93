// rows_test.cpp - rows cut out of stored tensors: the values they had as a part, and the tensor again when they are
// joined, to the last byte of its scales.
#include "src/base/rng.h"
#include "src/tensor/encode.h"
#include "src/tensor/float8.h"
#include "src/tensor/nf4.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cstring>

namespace rows_test {

using namespace qlora;
using Ranges = std::vector<RowRange>;

Weight random(Shape shape) {
    Rng rng{11, 0, 0};
    std::vector<float> x(size_t(elements_of(shape)));
    for (float& v : x) v = rng.normal() * (1 + float(rng.below(9)));   // blocks of many scales
    return dense_weight("w", std::move(shape), std::move(x));
}

std::vector<float> rows(const std::vector<float>& whole, const Ranges& ranges, int64_t row) {
    std::vector<float> out;
    for (const RowRange& r : ranges)
        out.insert(out.end(), whole.begin() + r.first * row, whole.begin() + (r.first + r.count) * row);
    return out;
}

void expect_same(const Weight& a, const Weight& b, const std::string& what) {
    ASSERT_EQ(a.dtype, b.dtype) << what;
    EXPECT_EQ(a.shape, b.shape) << what;
    EXPECT_EQ(std::memcmp(a.data, b.data, size_t(bytes_of(a.dtype, a.elements()))), 0) << what;
    if (!is_4bit(a.dtype)) return;
    const FourBit &x = a.quant, &y = b.quant;
    const int64_t blocks = (a.elements() + x.block - 1) / x.block, groups = (blocks + x.block2 - 1) / x.block2;
    EXPECT_EQ(x.block, y.block) << what;
    EXPECT_EQ(std::memcmp(x.codebook, y.codebook, 64), 0) << what;
    ASSERT_EQ(!x.absmax, !y.absmax) << what;
    if (x.absmax) {
        EXPECT_EQ(std::memcmp(x.absmax, y.absmax, size_t(blocks) * 4), 0) << what;
        return;
    }
    EXPECT_EQ(x.block2, y.block2) << what;
    EXPECT_EQ(x.offset, y.offset) << what;
    EXPECT_EQ(std::memcmp(x.absmax_code, y.absmax_code, size_t(blocks)), 0) << what;
    EXPECT_EQ(std::memcmp(x.absmax2, y.absmax2, size_t(groups) * 4), 0) << what;
}

// Thirds that take turns: what `heads` order is.
std::vector<Ranges> turns(int64_t all, int64_t unit) {
    std::vector<Ranges> out(3);
    for (int64_t first = 0, n = 0; first < all; first += unit, ++n) out[size_t(n % 3)].push_back({first, unit});
    return out;
}

TEST(StoredRows, CutAndJoined) {
    const struct { Shape shape; std::vector<Ranges> parts; } cases[] = {
        {{192, 64}, {{{0, 64}}, {{64, 32}}, {{96, 96}}}},              // blocks of 64, groups cut
        {{96, 48}, {{{0, 7 * 4}}, {{28, 4}}, {{32, 64}}}},             // blocks cut: 28 * 48 = 21 * 64
        {{120, 80}, turns(120, 4)},                                    // 320 elements at a time
        {{27, 16}, turns(27, 3)},                                      // 48 elements at a time, and odd ends
        {{66, 512}, turns(66, 11)},
        {{1536, 128}, {{{0, 512}}, {{512, 512}}, {{1024, 512}}}},      // whole groups: views
    };
    int number = 0;
    for (const auto& c : cases) {
        const Weight source = random(c.shape);
        std::vector<Weight> stored{source, convert_weight(source, DType::bf16, false)};
        if (c.shape[1] % 32 == 0) stored.push_back(convert_weight(source, DType::q8_0, false));
        for (const bool twice : {false, true}) {
            stored.push_back(quantize_4bit(source, DType::nf4, twice));
            stored.push_back(quantize_4bit(source, DType::fp4, twice));
        }
        ++number;
        for (const Weight& whole : stored) {
            const char* twice = whole.quant.absmax ? "" : " twice";
            const std::string what = str("case ", number, ", ", name_of(whole.dtype), twice);
            const std::vector<float> values = whole.decoded();
            std::vector<Part> parts;
            for (const Ranges& ranges : c.parts) {
                parts.push_back({rows_of(whole, ranges), ranges});
                EXPECT_EQ(parts.back().weight.decoded(), rows(values, ranges, c.shape[1])) << what;
            }
            const Weight again = joined("again", parts);
            EXPECT_EQ(again.decoded(), values) << what;
            expect_same(again, whole, what);
            if (c.parts[0].size() == 1) { EXPECT_EQ(parts[0].weight.data, whole.data) << what << ": a view"; }
            if (number == 6) { EXPECT_EQ(again.data, whole.data) << what << ": a view again"; }
        }
    }
}

TEST(StoredRows, WhatCannotBeCutIsRefused) {
    const Weight source = random({32, 24});
    EXPECT_THROW((void)rows_of(quantize_4bit(source, DType::nf4, true), Ranges{{1, 4}}), Error) << "24 elements in";
    EXPECT_THROW((void)rows_of(source, Ranges{{30, 3}}), Error);
    EXPECT_THROW((void)rows_of(source, Ranges{}), Error);
    // Parts that were quantized one by one have means of their own.
    const Weight other = random({32, 64});
    const std::vector<Part> apart{{quantize_4bit(other, DType::nf4, true), {{0, 32}}},
                                  {quantize_4bit(random({16, 64}), DType::nf4, true), {{32, 16}}}};
    EXPECT_THROW((void)joined("whole", apart), Error);
}

// Parts of several tensors of nvfp4 have tables of their own: together they are floats.
TEST(StoredRows, PartsWithTheirOwnTables) {
    const std::vector<uint8_t> blocks(8 * 36, 0x35);   // 8 rows of 64; every scale and every code is one
    const std::vector<float> twice = nvfp4_scales(2, false, "test");
    std::vector<Part> parts;
    std::vector<float> expected;
    for (const float* table : {nvfp4_scales(), twice.data(), nvfp4_scales()}) {
        Weight w;
        w.dtype = DType::nvfp4;
        w.shape = {8, 64};
        w.data = blocks.data();
        w.quant.absmax_map = table;
        parts.push_back({w, {{int64_t(parts.size()) * 8, 8}}});
        const std::vector<float> values = w.decoded();
        expected.insert(expected.end(), values.begin(), values.end());
    }
    EXPECT_NE(expected[0], expected[512]);
    EXPECT_EQ(joined("whole", parts).decoded(), expected);
    std::swap(parts[1].weight, parts[2].weight);
    parts.pop_back();
    EXPECT_EQ(joined("whole", parts).dtype, DType::nvfp4) << "one table";
}

TEST(StoredRows, Transposed) {
    for (const DType type : {DType::f32, DType::bf16}) {
        const auto w = std::make_shared<const Weight>(convert_weight(random({21, 37}), type, false));
        const std::vector<float> values = w->decoded();
        const Weight all = transposed(*w), some = Stored{w, {{30, 5}, {2, 1}}, true}.now();
        EXPECT_EQ(all.shape, (Shape{37, 21}));
        EXPECT_EQ(some.shape, (Shape{6, 21}));
        const std::vector<float> a = all.decoded(), s = some.decoded();
        for (size_t r = 0; r < 37; ++r)
            for (size_t i = 0; i < 21; ++i) ASSERT_EQ(a[r * 21 + i], values[i * 37 + r]);
        for (size_t i = 0; i < 21; ++i) ASSERT_EQ(s[i], values[i * 37 + 30]);
        for (size_t i = 0; i < 21; ++i) ASSERT_EQ(s[5 * 21 + i], values[i * 37 + 2]);
        EXPECT_EQ(transposed(all).decoded(), values);
    }
    EXPECT_THROW((void)transposed(quantize_4bit(random({32, 64}), DType::nf4, true)), Error);
}

}  // namespace rows_test
