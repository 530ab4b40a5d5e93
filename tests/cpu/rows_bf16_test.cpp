// rows_bf16_test.cpp - products of stored rows and up to sixteen vectors in bf16: against the formula in double, for
// every type and size; the same bytes whatever the number of vectors; what is not finite stays so.
#include "src/base/half.h"
#include "src/base/rng.h"

#include "tests/support/blocks.h"
#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace rows_bf16_test {

using namespace qlora;
using blocks_support::random_blocks;

std::vector<std::reference_wrapper<const Kernels>> sets() {
    auto all = every_set_support::every_set();
    std::erase_if(all, [](const Kernels& set) { return !set.rows_bf16; });
    return all;
}

float rounded(float x) { return f32_from_bf16(bf16_from_f32(x)); }

// A matrix of one of the types, and the numbers that its products are of.
struct Matrix {
    DType type;
    int64_t rows, cols;
    std::vector<uint8_t> bytes;
    std::vector<float> scales, book, numbers;
};

Matrix matrix(DType type, int64_t rows, int64_t cols) {
    Matrix m{type, rows, cols, {}, {}, {}, std::vector<float>(size_t(rows * cols))};
    if (!is_4bit(type)) {
        m.bytes = random_blocks(type, rows * cols);
        Rng rng{4, uint64_t(cols)};
        for (size_t i = 0; type == DType::bf16 && i < m.bytes.size(); i += 2) {    // random ones are NaN now and then
            const uint16_t half = bf16_from_f32(rng.normal());
            std::memcpy(&m.bytes[i], &half, 2);
        }
        type_info(type).decode(m.bytes.data(), m.numbers.data(), rows * cols);
        if (type_info(type).block == 1)
            for (float& v : m.numbers) v = rounded(v);
        return m;
    }
    Rng rng{3, uint64_t(cols)};
    m.bytes.resize(size_t(rows * cols / 2));
    m.scales.resize(size_t(rows * cols / 64));
    m.book.resize(16);
    for (uint8_t& b : m.bytes) b = uint8_t(rng.next());
    for (auto* list : {&m.scales, &m.book})
        for (float& v : *list) v = rng.normal();
    for (int64_t e = 0; e < rows * cols; ++e) {
        const uint8_t pair = m.bytes[size_t(e / 2)];
        m.numbers[size_t(e)] = rounded(m.book[size_t(e % 2 ? pair & 15 : pair >> 4)] * m.scales[size_t(e / 64)]);
    }
    return m;
}

// {row, vector}; what lies behind a row of x must not matter
std::vector<float> products(const Kernels& set, const Matrix& w, const std::vector<float>& x, int64_t m) {
    const int64_t ldx = w.cols + 5;
    std::vector<float> apart(size_t(m * ldx), std::numeric_limits<float>::quiet_NaN()), out(size_t(w.rows * m));
    for (int64_t t = 0; t < m; ++t) std::copy_n(x.begin() + t * w.cols, w.cols, apart.begin() + t * ldx);
    struct alignas(64) Line { uint16_t halves[32]; };
    std::vector<Line> lines(size_t(m * RowsBf16::size(w.cols) / 32));
    set.rows_bf16->round(set.rows_bf16->order(w.type), apart.data(), ldx, m, w.cols, lines[0].halves);
    if (is_4bit(w.type))
        set.rows_bf16->codes(w.bytes.data(), w.scales.data(), w.book.data(), w.rows, w.cols, lines[0].halves, m,
                             out.data());
    else
        set.rows_bf16->blocks(w.type, w.bytes.data(), bytes_of(w.type, w.cols), w.rows, w.cols, lines[0].halves, m,
                              out.data());
    return out;
}

std::vector<DType> types(const Kernels& set) {
    std::vector<DType> out;
#define QLORA_TYPE(t) DType::t,
    for (const DType type : {QLORA_BLOCK_DOT_TYPES(QLORA_TYPE) QLORA_BLOCK_ROW_TYPES(QLORA_TYPE)      //
                             DType::nf4, DType::fp4})
#undef QLORA_TYPE
        if (set.rows_bf16->order(type) >= 0) out.push_back(type);
    return out;
}

std::vector<float> vectors(int64_t count, int64_t cols) {
    std::vector<float> x(size_t(count * cols));
    Rng rng{9, 0};
    for (float& v : x) v = rng.normal() * (rng.below(50) == 0 ? 100.0f : 1.0f);
    return x;
}

TEST(RowsBf16, EveryTypeSizeAndNumberOfVectors) {
    for (const Kernels& set : sets())
        for (const DType type : types(set))
            for (const int64_t cols : {1, 31, 32, 33, 64, 96, 128, 192, 223, 320, 512, 576, 768, 1088})
                for (const int64_t rows : {1, 3, 6}) {
                    if (cols % (is_4bit(type) ? 64 : type_info(type).block)) continue;
                    const Matrix w = matrix(type, rows, cols);
                    const std::vector<float> x = vectors(most_gemv_rows, cols);
                    const std::vector<float> all = products(set, w, x, most_gemv_rows);
                    for (int64_t r = 0; r < rows; ++r)
                        for (int64_t t = 0; t < most_gemv_rows; ++t) {
                            double want = 0, size = 0;
                            for (int64_t i = 0; i < cols; ++i) {
                                const double term = double(w.numbers[size_t(r * cols + i)]) *
                                                    double(rounded(x[size_t(t * cols + i)]));
                                want += term;
                                size += std::abs(term);
                            }
                            ASSERT_NEAR(all[size_t(r * most_gemv_rows + t)], want, 1e-6 * size + 1e-30)
                                << name_of(type) << ' ' << set.name << " cols " << cols << " row " << r << " vector "
                                << t;
                        }
                    for (int64_t m = 1; m < most_gemv_rows; ++m) {
                        const std::vector<float> some = products(set, w, x, m);
                        for (int64_t r = 0; r < rows; ++r)
                            ASSERT_EQ(std::memcmp(&some[size_t(r * m)], &all[size_t(r * most_gemv_rows)],
                                                  size_t(m) * sizeof(float)), 0)
                                << name_of(type) << " cols " << cols << " row " << r << " of " << rows << " times "
                                << m << " vectors";
                    }
                }
}

TEST(RowsBf16, WhatIsNotFiniteStaysSo) {
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (const Kernels& set : sets())
        for (const DType type : types(set))
            for (const int64_t m : {1, 3, 16})
                for (const float bad : {infinity, nan}) {
                    const int64_t cols = 320;
                    const Matrix w = matrix(type, 2, cols);
                    std::vector<float> x = vectors(m, cols);
                    x[size_t((m - 1) * cols + 319)] = bad;
                    const std::vector<float> got = products(set, w, x, m);
                    for (int64_t r = 0; r < 2; ++r)
                        for (int64_t t = 0; t < m; ++t)
                            EXPECT_EQ(std::isfinite(got[size_t(r * m + t)]), t != m - 1)
                                << name_of(type) << " vector " << t << " of " << m;
                }
}

}  // namespace rows_bf16_test
