// blocks_test.cpp - every stored type decodes as the `gguf` package decodes it, from any position, also beyond 2^31
// elements.
#include "src/base/half.h"
#include "src/tensor/nf4.h"
#include "tests/support/golden.h"

#include <cmath>
#include <sys/mman.h>

namespace blocks_tests {

using qlora::DType;

TEST(Types, TheTableIsConsistent) {
    for (int i = 0; i < qlora::dtype_count; ++i) {
        const qlora::TypeInfo& info = qlora::type_info(DType(i));
        EXPECT_EQ(int(info.dtype), i);
        EXPECT_EQ(qlora::name_of(DType(i)), info.name);
        if (info.ggml >= 0) { EXPECT_EQ(qlora::type_of_ggml(info.ggml), &info); }
    }
    EXPECT_EQ(qlora::type_of_ggml(-1), nullptr);
    EXPECT_EQ(qlora::type_of_ggml(16), nullptr);        // iq2_xxs: not read
    EXPECT_EQ(qlora::bytes_of(DType::q4_k, 512), 288);
    EXPECT_EQ(qlora::bytes_of(DType::nf4, 7), 4);
    EXPECT_EQ(qlora::bytes_of(DType::nf4, int64_t(1) << 40), int64_t(1) << 39);
    EXPECT_THROW(qlora::bytes_of(DType::q4_0, 33), qlora::Error);
    EXPECT_THROW(qlora::bytes_of(DType::f32, int64_t(1) << 62), qlora::Error);
    EXPECT_THROW(qlora::bytes_of(DType::f32, -4), qlora::Error);
    EXPECT_THROW(qlora::type_info(DType(200)), qlora::Error);
}

TEST(Blocks, DecodeAsTheReference) {
    const auto golden = read_golden("blocks.txt");
    int types = 0;
    for (int t = 0; t < qlora::dtype_count; ++t) {
        const qlora::TypeInfo& info = qlora::type_info(DType(t));
        if (!info.decode) continue;
        ASSERT_TRUE(golden.count(std::string(info.name))) << info.name;
        const auto& fields = golden.at(std::string(info.name));
        const Bytes& data = fields[0];
        const std::vector<float> expected = as<float>(fields[1]);
        const int64_t n = int64_t(expected.size());
        ASSERT_EQ(int64_t(data.size()), qlora::bytes_of(info.dtype, n)) << info.name;
        const qlora::WeightRef w{info.dtype, data.data(), {}, 1, n};
        std::vector<float> out(expected.size());
        qlora::decode(w, 0, n, out.data());
        for (int64_t i = 0; i < n; ++i)
            ASSERT_FLOAT_EQ(out[size_t(i)], expected[size_t(i)]) << info.name << " element " << i;
        for (int64_t first = 0; first < n; first += 7)    // every kind of cut: inside, across and at the ends of blocks
            for (int64_t count :
                 {int64_t(0), int64_t(1), int64_t(5), int64_t(31), int64_t(33), int64_t(70), n - first}) {
                if (first + count > n) continue;
                std::vector<float> part(size_t(count) + 1, -77.0f);
                qlora::decode(w, first, count, part.data());
                for (int64_t i = 0; i < count; ++i)
                    ASSERT_EQ(part[size_t(i)], out[size_t(first + i)]) << info.name << ' ' << first << '+' << count;
                ASSERT_EQ(part[size_t(count)], -77.0f) << info.name << " wrote past the range";
            }
        ++types;
    }
    EXPECT_EQ(types, 16);
}

TEST(Blocks, NothingNeedBeAligned) {
    const auto golden = read_golden("blocks.txt");
    for (const char* name : {"q4_1", "q6_k", "f32", "bf16"}) {
        const auto& fields = golden.at(name);
        Bytes shifted(1, 0);
        shifted.insert(shifted.end(), fields[0].begin(), fields[0].end());
        const std::vector<float> expected = as<float>(fields[1]);
        std::vector<float> out(expected.size());
        for (int t = 0; t < qlora::dtype_count; ++t) {
            const qlora::TypeInfo& info = qlora::type_info(DType(t));
            if (info.name == name) info.decode(shifted.data() + 1, out.data(), int64_t(out.size()));
        }
        EXPECT_EQ(out, expected) << name;
    }
}

TEST(Weights, KnowTheirSizesAndRefuseBadRanges) {
    const qlora::Weight w = qlora::dense_weight("w", {2, 3}, {1, 2, 3, 4, 5, 6});
    EXPECT_EQ(w.bytes(), 24);
    EXPECT_EQ(w.decoded(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_THROW(qlora::dense_weight("w", {2, 3}, {1}), qlora::Error);
    float out[8];
    for (auto [first, count] :
         {std::pair<int64_t, int64_t>{-1, 2}, {0, 7}, {6, 1}, {3, -1}, {INT64_MAX, 1}, {1, INT64_MAX}})
        EXPECT_THROW(qlora::decode(w.ref(), first, count, out), qlora::Error) << first << ' ' << count;
    const int32_t ints[2] = {1, 2};
    EXPECT_THROW(qlora::decode({DType::i32, ints, {}, 1, 2}, 0, 2, out), qlora::Error);
    qlora::Weight experts = qlora::dense_weight("e", {2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
    EXPECT_EQ(experts.decoded().size(), 8u);            // three dimensions: all of it
}

// Address space without memory: only the pages that a test touches exist.
struct Sparse {
    size_t bytes;
    uint8_t* at;
    explicit Sparse(int64_t n) : bytes(size_t(n)), at(static_cast<uint8_t*>(MAP_FAILED)) {
        if (uint64_t(n) > SIZE_MAX) return;            // a processor of 32 bits
        at = static_cast<uint8_t*>(
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    }
    ~Sparse() { if (good()) munmap(at, bytes); }
    bool good() const { return at != MAP_FAILED; }
};

TEST(Weights, PositionsBeyondTwoToThe31) {
    // 2^33, rows that straddle blocks
    constexpr int64_t rows = int64_t(1) << 17, cols = (int64_t(1) << 16) + 1, n = rows * cols;
    const Sparse codes(n / 2 + 64), absmax(n / 64 * 4 + 64), halves(n * 2);
    if (!codes.good() || !absmax.good() || !halves.good()) GTEST_SKIP() << "needs 18 GiB of address space";
    const int64_t e = n - 70;                           // an even position; elements e and e + 1 share a byte
    codes.at[e / 2] = 0xF2;
    reinterpret_cast<float*>(absmax.at)[e / 64] = 3.0f;
    qlora::FourBit quant;
    quant.codebook = qlora::nf4_codebook;
    quant.absmax = reinterpret_cast<float*>(absmax.at);
    float out[2];
    qlora::decode({DType::nf4, codes.at, quant, rows, cols}, e, 2, out);
    EXPECT_EQ(out[0], 3.0f);
    EXPECT_EQ(out[1], 3.0f * qlora::nf4_codebook[2]);
    reinterpret_cast<uint16_t*>(halves.at)[e] = qlora::bf16_from_f32(-1.5f);
    qlora::decode({DType::bf16, halves.at, {}, rows, cols}, e, 1, out);
    EXPECT_EQ(out[0], -1.5f);
    EXPECT_THROW(qlora::decode({DType::bf16, halves.at, {}, int64_t(1) << 40, int64_t(1) << 40}, 0, 1, out),
                 qlora::Error);
}

}  // namespace blocks_tests
