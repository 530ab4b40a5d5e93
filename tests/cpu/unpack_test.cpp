// unpack_test.cpp - the fast ways from stored bytes to floats give the bits of decode(), for every type, piece and
// instruction set.
#include "src/base/half.h"
#include "src/base/rng.h"

#include "tests/support/blocks.h"
#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace unpack_test {

using namespace qlora;
using every_set_support::every_set;
using blocks_support::random_blocks;

void expect_pieces(const WeightRef& w, const std::string& what) {
    const int64_t pieces[][2] = {{0, w.cols}, {0, 256}, {256, 256}, {32, 32}, {96, 160}, {64, 64}, {5, 100}, {33, 31}};
    for (const Kernels& set : every_set()) {
        for (const auto& [col, cols] : pieces) {
            if (col + cols > w.cols) continue;
            const int64_t row = 1, rows = 3;
            std::vector<float> scratch(size_t(float_rows_size(rows, cols))), want(size_t(cols), 0.0f);
            const FloatRows got = float_rows(set, w, w.cols, row, rows, col, cols, scratch.data());
            for (int64_t r = 0; r < rows; ++r) {
                decode(w, (row + r) * w.cols + col, cols, want.data());
                ASSERT_EQ(std::memcmp(got.data + r * got.ld, want.data(), size_t(cols) * sizeof(float)), 0)
                    << what << " " << set.name << " row " << row + r << " from " << col << " count " << cols;
            }
        }
    }
}

TEST(Unpack, EveryTypeGivesTheBitsOfDecode) {
    for (int t = 0; t < dtype_count; ++t) {
        const DType type = DType(t);
        if (!type_info(type).decode || type == DType::bf16) continue;
        const std::vector<uint8_t> bytes = random_blocks(type, 4 * 512);
        expect_pieces({type, bytes.data(), {}, 4, 512}, std::string(name_of(type)));
    }
}

// What is made in registers and multiplied at once has the bits of decoding the row and of Vec::dot, for 1 to gemv_rows
// vectors.
void expect_dots(const std::vector<float>& decoded, const float* got, const Kernels& set, const std::vector<float>& x,
                 int64_t cols, int64_t m, const std::string& what) {
    const int64_t rows = int64_t(decoded.size()) / cols;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t t = 0; t < m; ++t) {
            const float want = set.vec.dot(x.data() + t * cols, decoded.data() + r * cols, cols);
            ASSERT_EQ(std::memcmp(&want, got + r * m + t, sizeof want), 0)
                << what << ' ' << set.name << " row " << r << " vector " << t << " of " << m << ": " << want;
        }
}

TEST(Unpack, ProductsMadeInRegistersHaveTheBitsOfDecodingFirst) {
    Rng rng{12, 0};
    for (const Kernels& set : every_set()) {
        for (const int64_t cols : {32, 96, 256, 544, 768}) {
            std::vector<float> x(size_t(cols * gemv_rows)), out(size_t(5 * gemv_rows));
            for (float& v : x) v = rng.normal();
#define QLORA_TYPE(t) DType::t,
            for (const DType type : {QLORA_BLOCK_ROW_TYPES(QLORA_TYPE)}) {
#undef QLORA_TYPE
                const BlockDots dots = set.dots_of(type);
                if (!dots || cols % type_info(type).block) continue;
                const std::vector<uint8_t> bytes = random_blocks(type, 5 * cols);
                std::vector<float> decoded(size_t(5 * cols));
                type_info(type).decode(bytes.data(), decoded.data(), 5 * cols);
                for (int64_t m = 1; m <= gemv_rows; ++m) {
                    dots(type, bytes.data(), bytes_of(type, cols), 5, cols, x.data(), cols, m, out.data());
                    expect_dots(decoded, out.data(), set, x, cols, m, std::string(name_of(type)));
                }
            }
        }
        const FourBitKernels* kernels = set.four_bit;
        if (!kernels || !kernels->dots || kernels->spreads) continue;
        for (const int64_t cols : {64, 192, 576}) {
            std::vector<float> x(size_t(cols * gemv_rows)), out(size_t(5 * gemv_rows)), scales(size_t(5 * cols / 64)),
                book(16), decoded(size_t(5 * cols));
            std::vector<uint8_t> codes(size_t(5 * cols / 2));
            for (auto* list : {&x, &scales, &book})
                for (float& v : *list) v = rng.normal();
            for (uint8_t& c : codes) c = uint8_t(rng.next());
            for (int64_t e = 0; e < 5 * cols; ++e)
                decoded[size_t(e)] = book[e % 2 ? codes[size_t(e / 2)] & 15 : codes[size_t(e / 2)] >> 4] *
                                     scales[size_t(e / 64)];
            for (int64_t m = 1; m <= gemv_rows; ++m) {
                kernels->dots(codes.data(), scales.data(), book.data(), 5, cols, x.data(), cols, m, out.data());
                expect_dots(decoded, out.data(), set, x, cols, m, "4-bit codes");
            }
        }
    }
}

// Short rows share their last additions; a row alone has the bytes of one among others, and each vector those it has by
// itself.
TEST(Unpack, ShortRowsOfHalves) {
    Rng rng{13, 0};
    for (const Kernels& set : every_set())
        for (const DType type : {DType::f16, DType::bf16})
            for (const int64_t cols : {1, 4, 8, 15, 16, 17, 32, 48, 63, 64, 65, 100}) {
                const BlockDots dots = set.dots_of(type);
                if (!dots) continue;
                const int64_t rows = 37, row_bytes = cols * 2;
                std::vector<float> x(size_t(cols * gemv_rows)), weights(size_t(rows * cols)), alone(1);
                for (auto* list : {&x, &weights})
                    for (float& v : *list) v = rng.normal();
                std::vector<uint16_t> halves(weights.size());
                for (size_t i = 0; i < halves.size(); ++i) {
                    halves[i] = type == DType::f16 ? f16_from_f32(weights[i]) : bf16_from_f32(weights[i]);
                    weights[i] = type == DType::f16 ? f32_from_f16(halves[i]) : f32_from_bf16(halves[i]);
                }
                for (int64_t m = 1; m <= gemv_rows; ++m) {
                    std::vector<float> out(size_t(rows * m));
                    dots(type, halves.data(), row_bytes, rows, cols, x.data(), cols, m, out.data());
                    for (int64_t r = 0; r < rows; ++r)
                        for (int64_t t = 0; t < m; ++t) {
                            double want = 0;
                            for (int64_t i = 0; i < cols; ++i)
                                want += double(weights[size_t(r * cols + i)]) * double(x[size_t(t * cols + i)]);
                            const float got = out[size_t(r * m + t)];
                            const std::string what = str(set.name, ' ', cols, " row ", r, " vector ", t, " of ", m);
                            ASSERT_NEAR(got, want, 1e-6 * double(cols)) << what;
                            dots(type, &halves[size_t(r * cols)], row_bytes, 1, cols, &x[size_t(t * cols)], cols, 1,
                                 alone.data());
                            ASSERT_EQ(got, alone[0]) << what;
                        }
                }
            }
}

// Those of many blocks, which have loops of their own: the bits of FourBit::scale().
TEST(Unpack, ManyScalesThatWereQuantizedAgain) {
    Rng rng{6, 1};
    std::vector<uint8_t> codes(2000);
    std::vector<float> map(256), absmax2(400), got(1500);
    for (uint8_t& c : codes) c = uint8_t(rng.next());
    for (auto* list : {&map, &absmax2})
        for (float& v : *list) v = rng.normal();
    for (const Kernels& set : every_set())
        for (const int64_t block2 : {256, 64, 100, 5}) {
            const FourBit quant{64, block2, nullptr, nullptr, codes.data(), map.data(), absmax2.data(), 0.25f};
            for (const int64_t first : {0, 1, 250, 320})
                for (const int64_t count : {64, 65, 100, 256, 1037}) {
                    run_scales(set, quant, first, 0, 1, count, got.data());
                    for (int64_t i = 0; i < count; ++i)
                        ASSERT_EQ(got[size_t(i)], quant.scale(first + i))
                            << set.name << " block2 " << block2 << ": " << i << " of " << count << " from " << first;
                }
        }
}

TEST(Unpack, FourBitWithEveryKindOfScale) {
    const int64_t rows = 4;
    // whole runs, an odd number of them, and rows that start inside a run
    for (const int64_t cols : {512, 576, 500}) {
        std::vector<uint8_t> codes(size_t(rows * cols / 2)), scale_codes(size_t(rows * cols / 32 + 1));
        std::vector<float> book(16), absmax(size_t(rows * cols / 32 + 1)), map(256), absmax2(64);
        Rng rng{4, 4};
        for (uint8_t& v : codes) v = uint8_t(rng.next());
        for (uint8_t& v : scale_codes) v = uint8_t(rng.next());
        for (auto* list : {&book, &absmax, &map, &absmax2})
            for (float& v : *list) v = rng.normal();
        for (const int64_t block : {64, 128, 32, 4096}) {
            const FourBit single{block, 256, book.data(), absmax.data(), nullptr, nullptr, nullptr, 0};
            expect_pieces({DType::nf4, codes.data(), single, rows, cols}, "single, block " + std::to_string(block));
            for (const int64_t block2 : {256, 8, 6}) {
                const FourBit twice{block,      block2,         book.data(), nullptr, scale_codes.data(),
                                    map.data(), absmax2.data(), 0.25f};
                const int64_t blocks = (rows * cols + block - 1) / block;
                ASSERT_LE((blocks + block2 - 1) / block2, 64);
                expect_pieces({DType::fp4, codes.data(), twice, rows, cols},
                              "double, block " + std::to_string(block) + " of " + std::to_string(block2));
            }
        }
    }
}

TEST(Unpack, ScalesOfLongStripsAreThoseOfTheFormula) {
    const int64_t blocks = 3000;
    std::vector<uint8_t> codes(static_cast<size_t>(blocks));
    std::vector<float> map(256), absmax2(64), absmax(static_cast<size_t>(blocks)), got(static_cast<size_t>(blocks));
    Rng rng{8, 8};
    // every code at least once
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = i < 256 ? uint8_t(i) : uint8_t(rng.next());
    for (auto* list : {&map, &absmax2, &absmax})
        for (float& v : *list) v = rng.normal();
    for (const int64_t block2 : {256, 64, 48}) {
        for (const bool twice : {false, true}) {
            const FourBit quant{64,           block2,     nullptr,        twice ? nullptr : absmax.data(),
                                codes.data(), map.data(), absmax2.data(), 0.3f};
            for (const Kernels& set : every_set()) {
                for (const int64_t first : {0, 1, 200, 255}) {
                    const int64_t count = blocks - 256 - first;
                    run_scales(set, quant, first, 0, 1, count, got.data());
                    for (int64_t i = 0; i < count; ++i)
                        ASSERT_EQ(got[size_t(i)], quant.scale(first + i))
                            << set.name << " block " << first + i << " block2 " << block2;
                }
            }
        }
    }
}

}  // namespace unpack_test
