// dots16_test.cpp - products with x in 16-bit integers: against the formula with x rounded by plain loops, for every
// type, size and number of vectors; what cannot be rounded; and that exactness, where asked for, is not touched by any
// of it.
#include "src/base/half.h"
#include "src/base/rng.h"

#include "tests/support/blocks.h"
#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace dots16_test {

using namespace qlora;
using blocks_support::random_blocks;

// Those that have products with integers.
std::vector<std::reference_wrapper<const Kernels>> sets() {
    auto all = every_set_support::every_set();
    std::erase_if(all, [](const Kernels& set) { return !set.dots16; });
    return all;
}

// The signed low byte of an integer.
float low_byte(float integer) { return integer - 256 * std::floor((integer + 128) / 256); }

// x as it is rounded: groups of `share` elements, the largest of which becomes `largest`; or only their low bytes.
std::vector<float> rounded(const std::vector<float>& x, int64_t cols, int64_t share, float largest = most16,
                           bool low = false) {
    std::vector<float> out(x.size());
    for (size_t row = 0; row < x.size(); row += size_t(cols))
        for (int64_t g = 0; g < cols; g += share) {
            const int64_t end = std::min(cols, g + share);
            float most = 0;
            for (int64_t i = g; i < end; ++i) most = std::max(most, std::abs(x[row + size_t(i)]));
            for (int64_t i = g; i < end && most >= 1e-30f; ++i) {
                const float integer = std::nearbyint(x[row + size_t(i)] * (largest / most));
                out[row + size_t(i)] = most / largest * (low ? low_byte(integer) : integer);
            }
        }
    return out;
}

int64_t share_of(Order16 order) {
    return order == Order16::pairs ? 64 : order == Order16::integers || order == Order16::sixteens ? 256 : 32;
}

std::vector<float> vectors(int64_t count, int64_t cols, uint64_t seed) {
    std::vector<float> x(size_t(count * cols));
    Rng rng{seed, 0};
    for (float& v : x) v = rng.normal() * (rng.below(50) == 0 ? 100.0f : 1.0f);       // activations have outliers
    // and a group may be nothing but zeros
    for (int64_t i = 0; i < std::min<int64_t>(cols, 32); ++i) x[size_t(i)] = 0;
    return x;
}

// got[r * m + t] against row r . x[t] in double; what a float sum may lose grows with the sizes of x and of the row's
// weights.
void expect_products(const std::vector<float>& weights, const std::vector<float>& x, int64_t cols, int64_t m,
                     const float* got, const std::string& what) {
    for (int64_t r = 0; r < int64_t(weights.size()) / cols; ++r) {
        const float* w = weights.data() + r * cols;
        double largest = 0;
        for (int64_t i = 0; i < cols; ++i) largest = std::max(largest, double(std::abs(w[i])));
        for (int64_t t = 0; t < m; ++t) {
            double want = 0, size = 0;
            for (int64_t i = 0; i < cols; ++i) {
                want += double(x[size_t(t * cols + i)]) * double(w[i]);
                size += std::abs(double(x[size_t(t * cols + i)])) * largest;
            }
            ASSERT_NEAR(got[r * m + t], want, 2e-6 * size + 1e-30)
                << what << " row " << r << " vector " << t << " of " << m;
        }
    }
}

const std::vector<DType>& block_types() {
#define QLORA_TYPE(t) DType::t,
    static const std::vector<DType> types{QLORA_LATE_DOT_TYPES(QLORA_TYPE) QLORA_BLOCK_ROW_TYPES(QLORA_TYPE)};
#undef QLORA_TYPE
    return types;
}

struct Rounding {
    std::vector<Run16> runs;
    int64_t ld;
    Rounding(const Kernels& set, const std::vector<float>& x, int64_t cols, int64_t m, Order16 order)
        : runs(size_t(m * runs16(cols))), ld(runs16(cols)) {
        for (int64_t t = 0; t < m; ++t) set.dots16->round(x.data() + t * cols, cols, order, runs.data() + t * ld);
    }
};

TEST(Dots16, EveryBlockTypeAtEverySize) {
    for (const Kernels& set : sets())
        for (const DType type : block_types())
            for (const int64_t cols : {32, 96, 224, 256, 288, 544, 768, 1024}) {
                if (cols % type_info(type).block) continue;
                const int64_t rows = 5;
                std::vector<uint8_t> bytes = random_blocks(type, rows * cols);
                // sums stay finite
                for (size_t at = 0; type == DType::mxfp4 && at < bytes.size(); at += 17)
                    bytes[at] = uint8_t(112 + bytes[at] % 32);
                std::vector<float> weights(size_t(rows * cols)), out(size_t(rows * gemv_rows));
                type_info(type).decode(bytes.data(), weights.data(), rows * cols);
                const Order16 order = set.dots16->order(type);
                const std::vector<float> x = vectors(gemv_rows, cols, 7),
                                         near = rounded(x, cols, share_of(order));
                const Rounding held(set, x, cols, gemv_rows, order);
                for (int64_t m = 1; m <= gemv_rows; ++m) {
                    set.dots16->blocks(type, bytes.data(), bytes_of(type, cols), rows, cols, held.runs.data(), held.ld,
                                        m, out.data());
                    const std::string what =
                        std::string(name_of(type)) + " " + std::string(set.name) + " cols " + std::to_string(cols);
                    expect_products(weights, near, cols, m, out.data(), what);
                    // a row with nothing behind it has the same bytes as one among others
                    const int64_t row_bytes = bytes_of(type, cols);
                    for (int64_t r = 0; r < rows; ++r) {
                        const std::vector<uint8_t> row(bytes.begin() + r * row_bytes,
                                                       bytes.begin() + (r + 1) * row_bytes);
                        std::vector<float> alone(static_cast<size_t>(m));
                        set.dots16->blocks(type, row.data(), row_bytes, 1, cols, held.runs.data(), held.ld, m,
                                            alone.data());
                        EXPECT_EQ(std::memcmp(alone.data(), &out[size_t(r * m)], size_t(m) * 4), 0) << what << " " << r;
                    }
                }
            }
}

// a with b behind each of its rows.
std::vector<float> beside(const std::vector<float>& a, const std::vector<float>& b, int64_t cols) {
    std::vector<float> out;
    for (size_t row = 0; row < a.size(); row += size_t(cols)) {
        out.insert(out.end(), a.begin() + int64_t(row), a.begin() + int64_t(row) + cols);
        out.insert(out.end(), b.begin() + int64_t(row), b.begin() + int64_t(row) + cols);
    }
    return out;
}

// Levels of 16 bits leave out the products of low bytes, of the levels around 128, which is no more than x lost when it
// was rounded: these are columns of their own here.
TEST(Dots16, FourBitCodesWithAnyLevels) {
    Rng rng{5, 5};
    for (const Kernels& set : sets())
        for (const int64_t cols : {64, 192, 256, 320, 576, 1024}) {
            const int64_t rows = 5;
            std::vector<float> book(16), scales(size_t(rows * cols / 64)), weights(size_t(rows * cols)), low = weights,
                out(size_t(rows * gemv_rows));
            const float most_level = set.dots16->most_level;
            std::vector<uint8_t> codes(size_t(rows * cols / 2));
            for (auto* list : {&book, &scales})
                for (float& v : *list) v = rng.normal();
            for (uint8_t& c : codes) c = uint8_t(rng.next());
            float most = 0;
            for (float v : book) most = std::max(most, std::abs(v));
            for (int64_t e = 0; e < rows * cols; ++e) {
                const uint8_t pair = codes[size_t(e / 2)];
                const float level = std::nearbyint(book[size_t(e % 2 ? pair & 15 : pair >> 4)] * (most_level / most));
                const float unit = most / most_level * scales[size_t(e / 64)];
                weights[size_t(e)] = level * unit;
                low[size_t(e)] = most_level > 8191 ? -low_byte(level) * unit : 0;
            }
            WeightRef w{DType::nf4, codes.data(), {}, rows, cols};
            w.quant.codebook = book.data();
            w.quant.absmax = scales.data();
            const std::vector<float> x = vectors(gemv_rows, cols, 8), near = rounded(x, cols, 64);
            const std::vector<float> both = beside(weights, low, cols),
                                     both_x = beside(near, rounded(x, cols, 64, most16, true), cols);
            const Rounding held(set, x, cols, gemv_rows, Order16::pairs);
            for (int64_t m = 1; m <= gemv_rows; ++m) {
                set.dots16->codes(w, 0, rows, held.runs.data(), held.ld, m, out.data());
                expect_products(both, both_x, 2 * cols, m, out.data(),
                                std::string("codes ") + std::string(set.name) + " cols " + std::to_string(cols));
            }
        }
}

// Scales as they are, quantized again, or of larger blocks: the same bytes, from whatever row on.
TEST(Dots16, CodesWithScalesOfEveryKind) {
    Rng rng{5, 6};
    for (const Kernels& set : sets())
        for (const int64_t cols : {64, 192, 576, 2048})
            for (const int64_t block : {64, 128, 256}) {
                const int64_t rows = 8, runs = rows * cols / 64, blocks = runs * 64 / block;
                std::vector<uint8_t> codes(size_t(rows * cols / 2)), again(static_cast<size_t>(blocks));
                for (auto* list : {&codes, &again})
                    for (uint8_t& c : *list) c = uint8_t(rng.next());
                std::vector<float> book(16), map(256), scales2(size_t(blocks / 64 + 1)),
                    scales(static_cast<size_t>(runs));
                for (auto* list : {&book, &map, &scales2})
                    for (float& v : *list) v = rng.normal();
                WeightRef w{DType::nf4, codes.data(), {}, rows, cols};
                w.quant = {.block = block, .block2 = 64, .codebook = book.data(), .absmax_code = again.data(),
                           .absmax_map = map.data(), .absmax2 = scales2.data(), .offset = 0.1f};
                WeightRef plain = w;
                for (int64_t i = 0; i < runs; ++i) scales[size_t(i)] = w.quant.scale(i * 64 / block);
                plain.quant.block = 64;
                plain.quant.absmax = scales.data();
                const std::vector<float> x = vectors(gemv_rows, cols, 8);
                const Rounding held(set, x, cols, gemv_rows, Order16::pairs);
                for (const int64_t first : {0, 3})
                    for (int64_t m = 1; m <= gemv_rows; ++m) {
                        std::vector<float> got(size_t((rows - first) * m)), want = got;
                        set.dots16->codes(w, first, rows - first, held.runs.data(), held.ld, m, got.data());
                        set.dots16->codes(plain, first, rows - first, held.runs.data(), held.ld, m, want.data());
                        EXPECT_EQ(got, want) << set.name << ' ' << cols << " block " << block << " from " << first;
                    }
            }
}

// The largest codes times the largest integers: nothing overflows, in either sign.
TEST(Dots16, ExtremesDoNotOverflow) {
    for (const Kernels& set : sets())
        for (const float sign : {1.0f, -1.0f}) {
            const int64_t cols = 256;
            const std::vector<float> x(size_t(cols), sign * 3);
            float book[16], scale[4] = {1, 1, 1, 1}, got;
            std::fill_n(book, 16, 1.0f);
            const std::vector<uint8_t> codes(size_t(cols / 2), uint8_t(0xFF));
            const Rounding pairs(set, x, cols, 1, Order16::pairs);
            WeightRef w{DType::nf4, codes.data(), {}, 1, cols};
            w.quant.codebook = book;
            w.quant.absmax = scale;
            set.dots16->codes(w, 0, 1, pairs.runs.data(), pairs.ld, 1, &got);
            EXPECT_NEAR(got, sign * 3 * cols, 1e-3);
            for (const DType type : block_types()) {
                std::vector<uint8_t> bytes(size_t(bytes_of(type, cols)), uint8_t(0xFF));
                for (size_t at = 0; at < bytes.size(); at += size_t(type_info(type).bytes))
                    for (const int64_t half : blocks_support::halves_of(type)) {
                        const uint16_t one = f16_from_f32(1);
                        std::memcpy(bytes.data() + at + size_t(half), &one, 2);
                    }
                if (type == DType::mxfp4)
                    for (size_t at = 0; at < bytes.size(); at += 17) bytes[at] = 127;
                std::vector<float> weights(static_cast<size_t>(cols));
                type_info(type).decode(bytes.data(), weights.data(), cols);
                const Rounding held(set, x, cols, 1, set.dots16->order(type));
                set.dots16->blocks(type, bytes.data(), int64_t(bytes.size()), 1, cols, held.runs.data(), held.ld, 1,
                                    &got);
                expect_products(weights, x, cols, 1, &got, std::string(name_of(type)));
            }
        }
}

// Where the integer scales of a block are: from, count.
std::pair<size_t, size_t> integer_scales(DType type) {
    switch (type) {
        case DType::q2_k: return {0, 16};
        case DType::q3_k: return {96, 12};
        case DType::q4_k:
        case DType::q5_k: return {4, 12};
        case DType::q6_k: return {192, 16};
        default: return {0, 0};
    }
}

// The largest codes and scales times integers whose two bytes are as large as they can be, in every pattern of signs
// that neighbours can have: sums of bytes' products stay words, and those of words integers.
TEST(Dots16, ExtremesOfBytesDoNotSaturate) {
    const int64_t cols = 512;
    // high and low: 127 and 0, 126 and -128, 126 and 127, -127 and 0, -127 and 127, -126 and -128
    const float values[] = {32512, 32128, 32383, -32512, -32385, -32384};
    for (const Kernels& set : sets())
        for (const int a : {0, 1, 2, 3, 4, 5})
            for (const int b : {0, 1, 2, 3, 4, 5})
                for (const int64_t run : {1, 2, 16}) {
                    std::vector<float> x(static_cast<size_t>(cols));
                    for (int64_t i = 0; i < cols; ++i)
                        x[size_t(i)] = i % 32 == 7 ? 32512 : values[i / run % 2 ? a : b];      // the scale is 1
                    for (const DType type : block_types())
                        for (const uint8_t scales : {uint8_t(0xFF), uint8_t(0x7F), uint8_t(0x80)}) {
                            std::vector<uint8_t> bytes(size_t(bytes_of(type, cols)), uint8_t(0xFF));
                            const auto [from, count] = integer_scales(type);
                            for (size_t at = 0; at < bytes.size(); at += size_t(type_info(type).bytes)) {
                                std::fill_n(bytes.data() + at + from, count, scales);
                                for (const int64_t half : blocks_support::halves_of(type)) {
                                    const uint16_t one = f16_from_f32(1);
                                    std::memcpy(bytes.data() + at + size_t(half), &one, 2);
                                }
                                if (type == DType::mxfp4) bytes[at] = 127;
                            }
                            std::vector<float> weights(static_cast<size_t>(cols));
                            type_info(type).decode(bytes.data(), weights.data(), cols);
                            const Order16 order = set.dots16->order(type);
                            const Rounding held(set, x, cols, 1, order);
                            float got;
                            set.dots16->blocks(type, bytes.data(), int64_t(bytes.size()), 1, cols, held.runs.data(),
                                                held.ld, 1, &got);
                            expect_products(weights, rounded(x, cols, share_of(order)), cols, 1, &got,
                                            std::string(name_of(type)) + " " + std::string(set.name));
                        }
                }
}

// A number that is none must not come out as one; what is next to nothing becomes nothing.
TEST(Dots16, WhatIsNotFiniteStaysSo) {
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const int64_t cols = 512;
    for (const Kernels& set : sets())
        for (const Order16 order : {Order16::pairs, set.dots16->order(DType::q4_0), set.dots16->order(DType::q8_0),
                                    set.dots16->order(DType::q6_k)})
            for (const float bad : {infinity, -infinity, nan, -nan})
                for (const int64_t at : {0, 31, 255, 511}) {
                    std::vector<float> x(size_t(cols), 1.0f);
                    x[size_t(at)] = bad;
                    const Rounding held(set, x, cols, 1, order);
                    for (int64_t g = 0; g < cols; g += 32) {
                        const int64_t share = share_of(order);
                        EXPECT_EQ(std::isnan(held.runs[size_t(g / 256)].scales[g % 256 / 32]), g / share == at / share)
                            << g << " of " << at;
                    }
                    // all weights 0, but 0 times NaN is NaN
                    for (const DType type : block_types()) {
                        if (order != set.dots16->order(type)) continue;
                        const std::vector<uint8_t> bytes(size_t(bytes_of(type, cols)), 0);
                        float got = 1;
                        set.dots16->blocks(type, bytes.data(), int64_t(bytes.size()), 1, cols, held.runs.data(),
                                            held.ld, 1, &got);
                        EXPECT_TRUE(std::isnan(got)) << name_of(type) << " in " << set.name;
                    }
                }
    for (const Kernels& set : sets()) {
        const Rounding held(set, std::vector<float>(size_t(cols), 1e-38f), cols, 1, Order16::blocks);
        EXPECT_EQ(held.runs[0].scales[0], 0);
        EXPECT_EQ(held.runs[0].sums[0], 0);
    }
}

TEST(Dots16, OnlyWhereExactnessWasNotAskedFor) {
    const int64_t rows = 3, cols = 512;
    const std::vector<uint8_t> bytes = random_blocks(DType::q4_0, rows * cols);
    const WeightRef w{DType::q4_0, bytes.data(), {}, rows, cols};
    const std::vector<float> x = vectors(1, cols, 9);
    std::vector<float> weights(size_t(rows * cols));
    type_info(DType::q4_0).decode(bytes.data(), weights.data(), rows * cols);
    for (const Kernels& set : sets()) {
        std::vector<float> exact(3), mixed(3), bf16(3), direct(3);       // rows
        Cpu f32(1, Compute::f32, set), some(3, Compute::mixed, set), most(2, Compute::bf16, set);
        gemm_nt(f32, 1, x.data(), cols, w, exact.data(), rows);
        gemm_nt(some, 1, x.data(), cols, w, mixed.data(), rows);
        gemm_nt(most, 1, x.data(), cols, w, bf16.data(), rows);
        const Rounding held(set, x, cols, 1, Order16::blocks);
        set.dots16->blocks(DType::q4_0, bytes.data(), bytes_of(DType::q4_0, cols), rows, cols, held.runs.data(),
                            held.ld, 1, direct.data());
        expect_products(weights, x, cols, 1, exact.data(), "f32");
        EXPECT_EQ(mixed, direct);
        EXPECT_EQ(bf16 == direct, !set.rows_bf16) << "what has products of bf16 takes those";
        EXPECT_NE(mixed, exact);
        EXPECT_EQ(some.effective(), Compute::mixed);
    }
    EXPECT_EQ(Cpu(1, Compute::mixed, *all_kernels().back()).effective(), Compute::f32);
}

}  // namespace dots16_test
