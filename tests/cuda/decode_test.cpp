// decode_test.cpp - elements and rows of every stored type on the emulation, bit for bit those of the CPU, in several
// orders of threads.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/cuda/decode.cuh"
#include "src/tensor/nf4.h"
#include "tests/support/blocks.h"

#include <gtest/gtest.h>

namespace cuda_decode_tests {

using cuda_emulation::Order;
using qlora::DType;
namespace cuda = qlora::cuda;

struct Case { DType type; int64_t rows, cols; bool double_quant = true; int64_t block = 64; };

std::vector<Case> cases() {
    std::vector<Case> all;
    for (int t = 0; t < qlora::dtype_count; ++t) {
        const DType type = DType(t);
        const qlora::TypeInfo& info = qlora::type_info(type);
        if (!qlora::can_decode(type) || qlora::is_4bit(type)) continue;
        all.push_back({type, 5, info.block == 1 ? 24 : info.block * 3});
        if (info.block == 1) all.push_back({type, 7, 13});
        if (info.block == 32) all.push_back({type, 32, 19});               // rows end inside blocks
        if (info.block == 64) all.push_back({type, 64, 19});
        if (info.block == 256) all.push_back({type, 64, 12});
    }
    for (const bool twice : {false, true})
        for (const int64_t block : {64, 48, 2}) {
            all.push_back({DType::nf4, 5, 96, twice, block});
            all.push_back({DType::nf4, 9, 77, twice, block});
        }
    all.push_back({DType::fp4, 5, 96});
    all.push_back({DType::fp4, 9, 77});
    return all;
}

std::string title(const Case& c) {
    return qlora::str(qlora::name_of(c.type), " ", c.rows, "x", c.cols, " of blocks of ", c.block);
}

// Owns what its weight points to. 4-bit scales are made here: any block size, values that rounding shows in.
struct Stored {
    std::vector<uint8_t> data, codes;
    std::vector<float> absmax, map, absmax2;
    qlora::Weight w;
    explicit Stored(const Case& c) {
        qlora::Rng rng{uint64_t(c.rows * 100 + c.cols), uint64_t(c.type)};
        const int64_t n = c.rows * c.cols;
        data = blocks_support::random_blocks(c.type, n);
        w.dtype = c.type;
        w.shape = {c.rows, c.cols};
        w.data = data.data();
        blocks_support::add_scales(w);
        if (!qlora::is_4bit(c.type)) return;
        qlora::FourBit& q = w.quant;
        q.block = c.block;
        q.block2 = c.block == 48 ? 3 : 4;
        q.codebook = c.type == DType::nf4 ? qlora::nf4_codebook : qlora::fp4_codebook;
        const int64_t blocks = (n + q.block - 1) / q.block;
        const auto fill = [&](std::vector<float>& v, int64_t count) {
            for (int64_t i = 0; i < count; ++i) v.push_back(rng.normal());
            return v.data();
        };
        if (!c.double_quant) {
            q.absmax = fill(absmax, blocks);
            return;
        }
        for (int64_t i = 0; i < blocks; ++i) codes.push_back(uint8_t(rng.next()));
        q.absmax_code = codes.data();
        q.absmax_map = fill(map, 256);
        q.absmax2 = fill(absmax2, (blocks + q.block2 - 1) / q.block2);
        q.offset = 0.37f;
    }
};

struct Read {
    qlora::WeightRef w;
    cuda::Places out;
    __device__ void operator()(int64_t i) const { out.set(i, cuda::element(w, i)); }
};

// A call of any operation: the backend is all that these functions look at.
struct Bench {
    std::shared_ptr<qlora::BackendImpl> backend = qlora::make_cuda_backend(0, qlora::Compute::f32);
    qlora::GraphImpl g{backend};
    qlora::Node node;
    qlora::Call call{g, node, nullptr, {}, nullptr, *backend};
    Bench() { node.op = qlora::Op::swiglu; }
    const cuda::Stream& stream() const { return cuda::stream_of(call); }
};

uint32_t bits_of(float f) { return std::bit_cast<uint32_t>(f); }
uint32_t expected_bits(float f, DType type) {
    return type == DType::f32 ? bits_of(f) : type == DType::bf16 ? qlora::bf16_from_f32(f) : qlora::f16_from_f32(f);
}

std::vector<uint32_t> downloaded(const Bench& bench, const cuda::Memory& memory, int64_t from, int64_t count,
                                 DType type) {
    std::vector<uint32_t> bits;
    if (type == DType::f32) {
        bits.resize(size_t(count));
        memory.download(bench.stream(), bits.data(), count * 4, from * 4);
    } else {
        std::vector<uint16_t> half(static_cast<size_t>(count));
        memory.download(bench.stream(), half.data(), count * 2, from * 2);
        bits.assign(half.begin(), half.end());
    }
    return bits;
}

TEST(CudaDecode, ElementsAreThoseOfTheCpu) {
    const Bench bench;
    for (const Case& c : cases()) {
        const Stored stored(c);
        const qlora::WeightPtr held = bench.backend->hold(std::make_shared<const qlora::Weight>(stored.w), {});
        const std::vector<float> want = stored.w.decoded();
        const int64_t n = int64_t(want.size());
        cuda_emulation::options = {Order::random, 5};
        cuda::Memory out(n * 4);
        cuda::each(bench.call, n, Read{held->ref(), {out.as<float>(), DType::f32}});
        const std::vector<uint32_t> got = downloaded(bench, out, 0, n, DType::f32);
        for (int64_t i = 0; i < n; ++i)
            ASSERT_EQ(got[size_t(i)], bits_of(want[size_t(i)])) << title(c) << ", element " << i;
    }
    cuda_emulation::options = {};
}

struct Part { int64_t first, rows; DType type; int64_t shift = 0; };       // shift: elements off an aligned place

TEST(CudaDecode, RowsAreThoseOfTheCpu) {
    const Bench bench;
    for (const Case& c : cases()) {
        const Stored stored(c);
        const qlora::WeightPtr held = bench.backend->hold(std::make_shared<const qlora::Weight>(stored.w), {});
        const std::vector<float> want = stored.w.decoded();
        for (const Part& part : {Part{0, c.rows, DType::f32}, {0, c.rows, DType::f16}, {1, c.rows - 2, DType::bf16},
                                 {1, c.rows - 2, DType::bf16, 3}}) {
            const DType type = part.type;
            cuda_emulation::options = {part.shift ? Order::random : Order::reverse, 5};
            const int64_t count = part.rows * c.cols, size = type == DType::f32 ? 4 : 2;
            cuda::Memory out((part.shift + count + 1) * size);
            const cuda::Places places{out.as<char>() + part.shift * size, type};
            cuda::decode_rows(bench.call, held->ref(), part.first, part.rows, places);
            const std::vector<uint32_t> got = downloaded(bench, out, 0, part.shift + count + 1, type);
            for (int64_t i = 0; i < int64_t(got.size()); ++i) {            // around the rows: untouched
                const int64_t e = i - part.shift;
                const uint32_t expected = e < 0 || e == count ? type == DType::f32 ? ~0u : 0xffffu
                                          : expected_bits(want[size_t(part.first * c.cols + e)], type);
                ASSERT_EQ(got[size_t(i)], expected) << title(c) << ", rows " << part.first << '+' << part.rows << " as "
                                                    << qlora::name_of(type) << ", element " << e;
            }
        }
    }
    cuda_emulation::options = {};
}

TEST(CudaDecode, RefusesWhatItCannotDo) {
    const Bench bench;
    std::vector<float> out(64);
    const cuda::Places places{out.data(), DType::f32};
    const qlora::WeightRef integers{DType::i32, out.data(), {}, 2, 4}, floats{DType::f32, out.data(), {}, 2, 4};
    EXPECT_THROW(cuda::decode_rows(bench.call, integers, 0, 1, places), qlora::Error);
    for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{-1, 1}, {0, 3}, {2, 1}, {1, -1}})
        EXPECT_THROW(cuda::decode_rows(bench.call, floats, first, rows, places), qlora::Error);
    cuda::decode_rows(bench.call, floats, 2, 0, places);                   // nothing to do
}

}  // namespace cuda_decode_tests
