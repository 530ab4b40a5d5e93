// float8_test.cpp - 8-bit floats and blocks whose scales they are, bit for bit as torch and the `gguf` package decode
// them, from any position; their products are those of the decoded matrix.
#include "src/tensor/float8.h"
#include "src/cpu/kernels.h"
#include "tests/support/golden.h"

#include <cmath>
#include <limits>

namespace float8_tests {

using namespace qlora;

std::vector<Bytes> golden(const std::string& name) {
    static const auto file = read_golden("float8.txt");
    return file.at(name);
}

uint32_t bits_of(float f) { return std::bit_cast<uint32_t>(f); }

// All of a weight, and every kind of cut of it: inside, across and at the ends of blocks, tiles and rows.
void expect_decodes(const WeightRef& w, const std::vector<float>& expected) {
    const int64_t n = int64_t(expected.size());
    ASSERT_EQ(n, w.rows * w.cols);
    std::vector<float> all(expected.size());
    decode(w, 0, n, all.data());
    for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(bits_of(all[i]), bits_of(expected[i])) << "element " << i;
    for (int64_t first = 0; first < n; first += 7)
        for (int64_t count : {int64_t(0), int64_t(1), int64_t(15), int64_t(33), int64_t(70), int64_t(141), n - first}) {
            if (first + count > n) continue;
            std::vector<float> part(size_t(count) + 1, -77.0f);
            decode(w, first, count, part.data());
            for (int64_t i = 0; i < count; ++i)
                ASSERT_EQ(bits_of(part[size_t(i)]), bits_of(all[size_t(first + i)])) << first << '+' << count;
            ASSERT_EQ(part[size_t(count)], -77.0f) << "wrote past the range";
        }
}

// Owns what it points to.
struct F8 {
    Bytes codes;
    std::vector<float> scales;
    Weight w;
    F8(Bytes c, std::vector<float> s, int64_t rows, int64_t cols, int64_t tile_rows, int64_t tile_cols)
        : codes(std::move(c)), scales(std::move(s)) {
        w.name = "w";
        w.dtype = DType::f8_e4m3;
        w.shape = {rows, cols};
        w.data = codes.data();
        w.tiles = {scales.data(), tile_rows, tile_cols, cols};
    }
};

F8 tiled() {
    const std::vector<Bytes> g = golden("tiles");
    return F8(g[0], as<float>(g[1]), 5, 70, 2, 32);
}

std::vector<float> of_bf16(const Bytes& bytes) {
    std::vector<float> out(bytes.size() / 2);
    decode_bf16(bytes.data(), out.data(), int64_t(out.size()));
    return out;
}

// The weight of a folder: nibbles {rows, cols / 2}, scales {rows, cols / 16}, a scale that is multiplied with or
// divided by.
struct Nvfp4 {
    Bytes blocks;
    std::vector<float> table;
    Weight w;
    Nvfp4(const std::vector<Bytes>& g, bool divide) : blocks(g[0].size() / 32 * 36) {
        table = nvfp4_scales(as<float>(g[2])[0], divide, "scale");
        pack_nvfp4(g[0].data(), g[1].data(), int64_t(g[0].size()) * 2, blocks.data());
        w.name = "w";
        w.dtype = DType::nvfp4;
        w.shape = {3, 128};
        w.data = blocks.data();
        w.quant.absmax_map = table.data();
    }
};

TEST(Float8, EveryCodeIsTorchs) {
    const std::vector<float> expected = as<float>(golden("e4m3")[1]);
    for (int c = 0; c < 256; ++c) {
        const float v = f32_from_e4m3(uint8_t(c)), e = expected[size_t(c)];
        if (std::isnan(e)) EXPECT_TRUE(std::isnan(v)) << c;
        else EXPECT_EQ(bits_of(v), bits_of(e)) << c;
    }
}

TEST(Float8, TilesAndRowsAreScaledAsTorchDoes) {
    const F8 tiles = tiled();
    expect_decodes(tiles.w.ref(), as<float>(golden("tiles")[2]));
    EXPECT_EQ(tiles.w.bytes(), 5 * 70 + 9 * 4);
    const std::vector<Bytes> g = golden("rows");
    const F8 rows(g[0], of_bf16(g[1]), 5, 70, 1, 70);
    expect_decodes(rows.w.ref(), as<float>(g[2]));
    EXPECT_EQ(rows.w.decoded(), as<float>(g[2]));       // flat: the scales know the rows
}

TEST(Float8, BlocksOfGgufAreThoseOfTheReference) {
    const std::vector<Bytes> g = golden("blocks");
    FourBit quant;
    quant.absmax_map = nvfp4_scales();
    expect_decodes({DType::nvfp4, g[0].data(), quant, 32, 128}, as<float>(g[1]));
}

TEST(Float8, BlocksOfFoldersAreThoseOfTheirWriters) {
    const auto ours = Nvfp4(golden("modelopt"), false), theirs = Nvfp4(golden("compressed"), true);
    const auto one_zero = [](std::vector<float> v) {    // e2m1 has two, which blocks of GGUF do not tell apart
        for (float& x : v) x += 0.0f;
        return v;
    };
    expect_decodes(ours.w.ref(), one_zero(as<float>(golden("modelopt")[3])));
    expect_decodes(theirs.w.ref(), one_zero(as<float>(golden("compressed")[3])));
    EXPECT_EQ(nvfp4_tensor_scale(ours.table.data()), as<float>(golden("modelopt")[2])[0]);
    EXPECT_EQ(ours.w.bytes(), 3 * 2 * 36);
    const float infinite = std::numeric_limits<float>::infinity(), none = std::numeric_limits<float>::quiet_NaN();
    for (const float scale : {0.0f, -1.0f, infinite, none, 3e38f})
        EXPECT_THROW(nvfp4_scales(scale, false, "scale"), Error) << scale;
    for (const float scale : {0.0f, -1.0f, infinite, none, 1e-38f})
        EXPECT_THROW(nvfp4_scales(scale, true, "scale"), Error) << scale;
}

TEST(Float8, RowsAreCutWhereTilesBegin) {
    const auto cut = [](const Weight& w, int64_t first, int64_t count) {
        return rows_of(w, std::vector{RowRange{first, count}});
    };
    const F8 tiles = tiled();
    const std::vector<float> all = tiles.w.decoded();
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 2}, {2, 2}, {2, 3}, {4, 1}, {0, 5}}) {
        const std::vector<float> part = cut(tiles.w, first, count).decoded();
        EXPECT_EQ(part, std::vector<float>(all.begin() + first * 70, all.begin() + (first + count) * 70)) << first;
    }
    EXPECT_THROW(cut(tiles.w, 1, 2), Error);
    EXPECT_THROW(cut(tiles.w, 0, 3), Error);
    EXPECT_THROW(rows_of(tiles.w, std::vector{RowRange{2, 2}, RowRange{0, 2}}), Error);
    const F8 one(tiles.codes, {0.25f}, 5, 70, 5, 70);   // a scale for all is one for each part
    const std::vector<float> whole = one.w.decoded();
    EXPECT_EQ(cut(one.w, 3, 1).decoded(), std::vector<float>(whole.begin() + 210, whole.begin() + 280));
}

TEST(Float8, AWeightMovesWithItsScales) {
    int64_t arrays = 0;
    const auto copy = [&](const void* from, int64_t bytes) {
        ++arrays;
        auto memory = std::make_shared<Bytes>(static_cast<const uint8_t*>(from),
                                              static_cast<const uint8_t*>(from) + bytes);
        return std::shared_ptr<const void>(memory, memory->data());
    };
    const F8 tiles = tiled();
    const Weight there = moved(tiles.w, copy);
    EXPECT_EQ(arrays, 2);
    EXPECT_NE(there.tiles.scale, tiles.w.tiles.scale);
    EXPECT_EQ(there.decoded(), tiles.w.decoded());
    const Nvfp4 blocks(golden("modelopt"), false);
    EXPECT_EQ(moved(blocks.w, copy).decoded(), blocks.w.decoded());
    EXPECT_EQ(arrays, 4);
}

// On every instruction set, for one row and for many: y = x W^T and dx = dy W of the stored matrix are the bytes of
// those of the decoded one; of few rows, whose sums are in another order, within rounding.
TEST(Float8, ProductsAreThoseOfTheDecodedMatrix) {
    const F8 tiles = tiled();
    const Nvfp4 blocks(golden("modelopt"), false);
    for (const Kernels* set : all_kernels()) {
        if (!set->supported()) continue;
        for (const Compute compute : {Compute::f32, Compute::bf16})
            for (const Weight* w : {&tiles.w, &blocks.w}) {
                Cpu cpu(2);
                cpu.kernels = set;
                cpu.compute = compute;
                const int64_t out = w->rows(), in = w->cols();
                const std::vector<float> dense = w->decoded();
                for (const int64_t m : {1, 4, 17}) {
                    std::vector<float> x(size_t(m * in)), dy(size_t(m * out));
                    for (size_t i = 0; i < x.size(); ++i) x[i] = float(int(i * 7919 % 31) - 15) / 8;
                    for (size_t i = 0; i < dy.size(); ++i) dy[i] = float(int(i * 104729 % 29) - 14) / 16;
                    std::vector<float> y(size_t(m * out)), want_y(y), dx(size_t(m * in)), want_dx(dx);
                    gemm_nt(cpu, m, x.data(), in, w->ref(), y.data(), out);
                    gemm_nt(cpu, m, x.data(), in, dense_ref(dense.data(), out, in), want_y.data(), out);
                    gemm_nn(cpu, m, dy.data(), out, w->ref(), dx.data(), in);
                    gemm_nn(cpu, m, dy.data(), out, dense_ref(dense.data(), out, in), want_dx.data(), in);
                    EXPECT_EQ(dx, want_dx) << set->name << ' ' << name_of(w->dtype) << ' ' << m;
                    if (m > gemv_rows) { EXPECT_EQ(y, want_y) << set->name << ' ' << name_of(w->dtype); }
                    for (size_t i = 0; i < y.size(); ++i)
                        EXPECT_NEAR(y[i], want_y[i], 1e-5 * (1 + std::fabs(want_y[i]))) << set->name << ' ' << m;
                }
            }
    }
}

}  // namespace float8_tests
