// encode_test.cpp - dense types are the bytes that NumPy and the `gguf` package make, block types have scales as good
// as the best there are; conversion in pieces, its fallbacks and its refusals.
#include "src/tensor/encode.h"
#include "tests/support/golden.h"

#include <cmath>
#include <limits>

namespace encode_tests {

using qlora::DType;

const DType dense[] = {DType::f32, DType::f16, DType::bf16}, blocks[] = {DType::q8_0, DType::q4_0, DType::iq4_nl};
const DType written[] = {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::iq4_nl};

qlora::Weight random(qlora::Shape shape, uint32_t seed = 1) {
    std::vector<float> values(size_t(qlora::elements_of(shape)));
    for (float& v : values) {
        seed = seed * 1664525 + 1013904223;
        v = float(int32_t(seed)) * 0x1p-31f;
    }
    return qlora::dense_weight("w", std::move(shape), std::move(values));
}

std::string error_of(const auto& act) {
    try { act(); } catch (const qlora::Error& e) { return e.what(); }
    return "nothing";
}

TEST(Encode, DenseTypesAreTheBytesOfTheReference) {
    const auto golden = read_golden("encode.txt");
    for (const DType type : dense) {
        const std::string name(qlora::name_of(type));
        ASSERT_TRUE(golden.count(name)) << name;
        const std::vector<float> in = as<float>(golden.at(name)[0]);
        const Bytes& expected = golden.at(name)[1];
        const qlora::Weight w = qlora::convert_weight(qlora::dense_weight("w", {int64_t(in.size()) / 32, 32}, in),
                                                      type);
        ASSERT_EQ(w.dtype, type);
        ASSERT_EQ(w.bytes(), int64_t(expected.size()));
        for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(w.data[i], expected[i]) << name << " byte " << i;
    }
}

// sum w (x - y)^2, w = 1 or sqrt(mean x^2 + x^2).
double squares(const float* x, const float* y, bool weighted) {
    double mean = 0, sum = 0;
    for (int i = 0; i < 32; ++i) mean += double(x[i]) * x[i] / 32;
    for (int i = 0; i < 32; ++i)
        sum += (weighted ? std::sqrt(mean + double(x[i]) * x[i]) : 1) * (double(x[i]) - y[i]) * (double(x[i]) - y[i]);
    return sum;
}

// Against every scale that f16 has (tools/make_encode_goldens.py tried them all), block by block; and against the stock
// encoder.
TEST(Encode, NoScaleIsBetter) {
    const auto golden = read_golden("encode.txt");
    const float zero[32] = {};
    const size_t tiny = 5;                             // scales below f16's normal range
    for (const DType type : blocks) {
        const std::string name(qlora::name_of(type));
        const std::vector<float> in = as<float>(golden.at(name)[0]);
        const std::vector<double> best = as<double>(golden.at(name)[1]);
        const std::vector<float> out =
            qlora::convert_weight(qlora::dense_weight("w", {int64_t(in.size()) / 32, 32}, in), type).decoded();
        double ours = 0, stock = 0;
        for (size_t block = 0; block < in.size() / 32; ++block) {
            const double error = squares(&in[block * 32], &out[block * 32], type == DType::q4_0),
                         least = best[2 * block];
            // of the scale to f16, where nothing else is lost
            const double rounding = squares(&in[block * 32], zero, type == DType::q4_0) * 0x1p-24;
            EXPECT_GE(error, least * 0.999999) << name << ", block " << block;
            if (block != tiny) {
                EXPECT_LE(error, least * (type == DType::q8_0 ? 1.1 : 1.01) + rounding) << name << ", block " << block;
            }
            EXPECT_LE(error, best[2 * block + 1] + rounding) << name << ", block " << block << ": stock does better";
            if (block >= 9 && block < 14) ours += error, stock += best[2 * block + 1];
        }
        if (type != DType::iq4_nl) {
            EXPECT_LT(ours, 0.5 * stock) << name
                                         << ": of the values of NF4, half the error of a scale from the extreme value";
        }
    }
}

// Decoding what was encoded: within half a step of the block's scale and its rounding to f16 (q4_0: a whole step at the
// end that has no code).
TEST(Encode, DecodesToWithinAStep) {
    const qlora::Weight source = random({5, 4096});
    const std::vector<float> x = source.decoded();
    const struct {
        DType type;
        float most;
    } bounds[] = {{DType::f32, 0},         {DType::f16, 0x1p-12f}, {DType::bf16, 0x1p-9f}, {DType::q8_0, 0.65f / 127},
                  {DType::q4_0, 1.1f / 8}, {DType::iq4_nl, 0.16f}, {DType::nf4, 0.16f}};
    for (const auto& b : bounds) {
        const std::vector<float> y = qlora::convert_weight(source, b.type).decoded();
        float most = 0;
        for (size_t i = 0; i < x.size(); ++i) most = std::max(most, std::fabs(x[i] - y[i]));
        EXPECT_LE(most, b.most) << qlora::name_of(b.type);
        if (b.most > 0) { EXPECT_GT(most, b.most / 8) << qlora::name_of(b.type); }
    }
}

TEST(Encode, FromAnyTypeOnAnyNumberOfThreads) {
    const qlora::Weight source = random({67, 320}, 5);          // 21,440 elements: pieces that end inside a row
    qlora::ThreadPool pool(3);
    for (const DType from : {DType::q8_0, DType::bf16, DType::nf4}) {
        const qlora::Weight start = qlora::convert_weight(source, from);
        for (const DType to : written) {
            const qlora::Weight one = qlora::convert_weight(start, to),
                                three = qlora::convert_weight(start, to, true, &pool);
            const qlora::Weight whole = qlora::convert_weight(qlora::dense_weight("w", source.shape, start.decoded()),
                                                              to);
            EXPECT_EQ(one.decoded(), three.decoded());
            EXPECT_EQ(one.decoded(), whole.decoded());
        }
        EXPECT_EQ(qlora::convert_weight(start, from).data, start.data) << "the same type is the same memory";
    }
}

TEST(Encode, RefusesWhatATypeCannotHold) {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (const DType type : {DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::iq4_nl})
        for (const float bad : {inf, -inf, nan}) {
            std::vector<float> values(64, 1.0f);
            values[40] = bad;
            EXPECT_NE(error_of([&] {
                          qlora::convert_weight(qlora::dense_weight("blk.0.x", {2, 32}, values), type);
                      }).find("blk.0.x: element 40"),
                      std::string::npos);
        }
    EXPECT_NE(
        error_of([] { qlora::convert_weight(qlora::dense_weight("w", {1}, {70000.0f}), DType::f16); }).find("bf16"),
        std::string::npos);
    EXPECT_EQ(error_of([] { qlora::convert_weight(qlora::dense_weight("w", {1}, {70000.0f}), DType::bf16); }),
              "nothing");
    EXPECT_NE(error_of([] {
                  qlora::convert_weight(random({4, 48}), DType::q8_0);
              }).find("rows of 48"),
              std::string::npos);
    EXPECT_NE(error_of([] { qlora::convert_weight(random({1, 256}), DType::q6_k); }).find("q6_k"), std::string::npos);
    EXPECT_FALSE(qlora::can_encode(DType::i32));
    EXPECT_TRUE(qlora::can_encode(DType::nf4));
}

// A block so small that the inverse of its scale overflows is zeros, not garbage.
TEST(Encode, VanishingBlocks) {
    for (const DType type : blocks) {
        std::vector<float> values(32, 0.0f);
        values[3] = 1e-44f;
        for (const float v : qlora::convert_weight(qlora::dense_weight("w", {1, 32}, values), type).decoded())
            EXPECT_EQ(v, 0);
    }
}

}  // namespace encode_tests
