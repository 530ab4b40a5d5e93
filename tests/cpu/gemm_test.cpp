// gemm_test.cpp - the three products against sums in double, for every instruction set of this machine and every kind
// of weight.
#include "src/base/half.h"
#include "src/base/rng.h"

#include "tests/support/every_set.h"
#include "tests/support/normals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace gemm_test {

using namespace qlora;
using every_set_support::every_set;
using normals_support::normals;

// A weight with random contents, together with the memory behind it.
struct Stored {
    std::vector<float> floats, absmax, absmax2, map, codebook;
    std::vector<uint8_t> bytes, absmax_code;
    std::vector<uint16_t> halves;
    WeightRef ref;
    std::vector<float> values;                         // what it decodes to
};

enum class Kind { f32, bf16, q4_1, nf4, nf4_double, f16, q4_0, q8_0, q4_k, q6_k };
constexpr Kind kinds[] = {Kind::f32, Kind::bf16, Kind::q4_1, Kind::nf4,  Kind::nf4_double,
                          Kind::f16, Kind::q4_0, Kind::q8_0, Kind::q4_k, Kind::q6_k};

// GGUF's types: random bytes, with a scale (and an offset) of a size that occurs.
// elements; the place of the half floats among the bytes, -1 = none
struct Blocks { DType type; int64_t count, scale, offset; };
Blocks blocks_of(Kind kind) {
    switch (kind) {
        case Kind::q4_0: return {DType::q4_0, 32, 0, -1};
        case Kind::q8_0: return {DType::q8_0, 32, 0, -1};
        case Kind::q4_k: return {DType::q4_k, 256, 0, 2};
        case Kind::q6_k: return {DType::q6_k, 256, 208, -1};
        default: return {DType::q4_1, 32, 0, 2};
    }
}

std::unique_ptr<Stored> stored(Kind kind, int64_t rows, int64_t cols) {
    auto s = std::make_unique<Stored>();
    const int64_t n = rows * cols;
    Rng rng{5, uint64_t(n)};
    s->ref = {DType::f32, nullptr, {}, rows, cols};
    if (kind == Kind::f32) {
        s->floats = normals(n, 3);
        s->ref.data = s->floats.data();
    } else if (kind == Kind::bf16) {
        for (float v : normals(n, 3)) s->halves.push_back(bf16_from_f32(v));
        s->ref.dtype = DType::bf16;
        s->ref.data = s->halves.data();
    } else if (kind == Kind::f16) {
        for (float v : normals(n, 3)) s->halves.push_back(f16_from_f32(v));
        s->ref.dtype = DType::f16;
        s->ref.data = s->halves.data();
    } else if (kind != Kind::nf4 && kind != Kind::nf4_double) {
        const Blocks form = blocks_of(kind);
        const int64_t blocks = (n + form.count - 1) / form.count, bytes = bytes_of(form.type, form.count);
        for (int64_t i = 0; i < blocks * bytes; ++i) s->bytes.push_back(uint8_t(rng.next()));
        for (int64_t b = 0; b < blocks; ++b) {
            const uint16_t scale = f16_from_f32(0.05f + 0.1f * rng.uniform()),
                           low = f16_from_f32(kind == Kind::q4_1 ? -rng.uniform() : 0.1f * rng.uniform());
            std::memcpy(&s->bytes[size_t(b * bytes + form.scale)], &scale, 2);
            if (form.offset >= 0) std::memcpy(&s->bytes[size_t(b * bytes + form.offset)], &low, 2);
        }
        s->ref.dtype = form.type;
        s->ref.data = s->bytes.data();
    } else {
        const int64_t blocks = (n + 63) / 64;
        for (int64_t i = 0; i < (n + 1) / 2; ++i) s->bytes.push_back(uint8_t(rng.next()));
        for (int i = 0; i < 16; ++i) s->codebook.push_back(float(i * i) / 120 - 1);   // any sixteen values
        s->ref.dtype = DType::nf4;
        s->ref.data = s->bytes.data();
        s->ref.quant.codebook = s->codebook.data();
        if (kind == Kind::nf4) {
            for (int64_t b = 0; b < blocks; ++b) s->absmax.push_back(0.5f + rng.uniform());
            s->ref.quant.absmax = s->absmax.data();
        } else {
            for (int i = 0; i < 256; ++i) s->map.push_back(float(i - 128) / 128);
            for (int64_t b = 0; b < blocks; ++b) s->absmax_code.push_back(uint8_t(rng.next()));
            for (int64_t b = 0; b < (blocks + 255) / 256; ++b) s->absmax2.push_back(0.3f + rng.uniform());
            s->ref.quant.absmax_code = s->absmax_code.data();
            s->ref.quant.absmax_map = s->map.data();
            s->ref.quant.absmax2 = s->absmax2.data();
            s->ref.quant.offset = 0.7f;
        }
    }
    s->values.resize(size_t(n));
    decode(s->ref, 0, n, s->values.data());
    return s;
}

float rounded(float x, bool bf16) { return bf16 ? f32_from_bf16(bf16_from_f32(x)) : x; }

// Every product here is c[i, j] = sum over r of a(i, r) b(r, j); the error of a float sum is bounded by its sum of
// magnitudes.
struct Product {
    int64_t rows, cols, depth;
    std::vector<float> a, b;                           // [rows, depth], [depth, cols]
};

// to bf16 both factors or the first one, to two numbers of bf16 both, to 16-bit integers the first one (as dots16.h
// says)
enum class Rounded : uint8_t { nothing, bf16, x_bf16, split, x16 };

// How far the rounding of the first factor to integers can move element i, j: half a step of its group for each x, half
// a step of the levels of 4-bit codes for each weight.
double integer_bound(const Product& p, int64_t i, int64_t j) {
    double bound = 0, largest_w = 0;
    for (int64_t r = 0; r < p.depth; ++r)
        largest_w = std::max(largest_w, double(std::abs(p.b[size_t(r * p.cols + j)])));
    for (int64_t r = 0; r < p.depth; ++r) {
        double largest = 0;
        for (int64_t g = r / 64 * 64; g < std::min(p.depth, r / 64 * 64 + 64); ++g)
            largest = std::max(largest, double(std::abs(p.a[size_t(i * p.depth + g)])));
        bound += largest / 32767 / 2 * std::abs(p.b[size_t(r * p.cols + j)]) +
                 largest_w / 8191 / 2 * std::abs(p.a[size_t(i * p.depth + r)]);
    }
    return bound;
}

void expect_product(const Product& p, Rounded rounds, float alpha, float beta, const std::vector<float>& before,
                    const std::vector<float>& after, int64_t ld, const std::string& what) {
    const bool bf16 = rounds == Rounded::bf16;
    for (int64_t i = 0; i < p.rows; ++i) {
        for (int64_t j = 0; j < ld; ++j) {
            const float old = before[size_t(i * ld + j)], got = after[size_t(i * ld + j)];
            if (j >= p.cols) {
                ASSERT_EQ(std::memcmp(&old, &got, 4), 0) << what << ": wrote beyond the row at " << i << ", " << j;
                continue;
            }
            double sum = 0, size = 0;
            for (int64_t r = 0; r < p.depth; ++r) {
                const double term = double(rounded(p.a[size_t(i * p.depth + r)], bf16 || rounds == Rounded::x_bf16)) *
                                    rounded(p.b[size_t(r * p.cols + j)], bf16);
                sum += term;
                size += std::abs(term);
            }
            double want = alpha * sum;
            if (beta != 0) want += double(beta) * old;
            double bound = 1e-6 * (std::abs(alpha) * size + std::abs(want)) + 1e-30;
            if (rounds == Rounded::split) bound += std::abs(alpha) * size * 3.1 / 65536;
            if (rounds == Rounded::x16) bound += std::abs(alpha) * integer_bound(p, i, j);
            ASSERT_NEAR(got, want, bound) << what << " at " << i << ", " << j;
        }
    }
}

std::vector<float> transposed(const std::vector<float>& v, int64_t rows, int64_t cols) {
    std::vector<float> t(v.size());
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) t[size_t(c * rows + r)] = v[size_t(r * cols + c)];
    return t;
}

std::vector<float> spread(const std::vector<float>& v, int64_t rows, int64_t cols, int64_t ld) {
    // what lies between rows must not matter
    std::vector<float> out(size_t(rows * ld), std::numeric_limits<float>::quiet_NaN());
    for (int64_t r = 0; r < rows; ++r) std::copy_n(v.begin() + r * cols, cols, out.begin() + r * ld);
    return out;
}

std::vector<float> junk(int64_t n, float beta) {
    return beta == 0 ? std::vector<float>(size_t(n), std::numeric_limits<float>::quiet_NaN()) : normals(n, 9);
}

std::string label(const char* op, const Cpu& cpu, Kind kind, int64_t m, int64_t n, int64_t k) {
    return std::string(op) + " " + std::string(cpu.kernels->name) + " " + std::string(name_of(cpu.compute)) + " kind " +
           std::to_string(int(kind)) + " m " + std::to_string(m) + " rows " + std::to_string(n) + " cols " +
           std::to_string(k);
}

Rounded of_gradients(const Cpu& cpu) {
    return cpu.gradients() == Compute::bf16 ? Rounded::bf16 : Rounded::nothing;
}

// gemm_nt of more rows than few.
Rounded of_many(const Cpu& cpu) {
    const GemmKernels& products = cpu.kernels->gemm_for(cpu.compute);
    return &products == cpu.kernels->gemm_bf16    ? Rounded::bf16
           : &products == cpu.kernels->gemm_split ? Rounded::split
                                                  : Rounded::nothing;
}

// The products of at most rows_alike rows.
Rounded of_few(const Cpu& cpu, const WeightRef& w) {
    if (cpu.effective() == Compute::f32) return Rounded::nothing;
    const RowsBf16* bf16 = cpu.effective() == Compute::bf16 ? cpu.kernels->rows_bf16 : nullptr;
    if (!bf16 || bf16->order(w.dtype) < 0 || rows_alike(cpu, w) == gemv_rows) return Rounded::x16;
    return is_4bit(w.dtype) || type_info(w.dtype).block == 1 ? Rounded::bf16 : Rounded::x_bf16;
}

void check_weight_products(Cpu& cpu, Kind kind, int64_t m, int64_t n, int64_t k, float alpha, float beta) {
    const auto w = stored(kind, n, k);
    const Rounded gradients = of_gradients(cpu);
    const Rounded few = of_few(cpu, w->ref);
    const Rounded many = of_many(cpu);
    const int64_t pad = 3;
    {
        Product p{m, n, k, normals(m * k, 1), transposed(w->values, n, k)};
        const std::vector<float> x = spread(p.a, m, k, k + pad), before = junk(m * (n + pad), beta);
        std::vector<float> y = before;
        gemm_nt(cpu, m, x.data(), k + pad, w->ref, y.data(), n + pad, alpha, beta);
        expect_product(p, m > rows_alike(cpu, w->ref) ? many : few, alpha, beta, before, y, n + pad,
                       label("gemm_nt", cpu, kind, m, n, k));
    }
    {
        Product p{m, k, n, normals(m * n, 2), w->values};
        const std::vector<float> dy = spread(p.a, m, n, n + pad), before = junk(m * (k + pad), beta);
        std::vector<float> dx = before;
        gemm_nn(cpu, m, dy.data(), n + pad, w->ref, dx.data(), k + pad, alpha, beta);
        expect_product(p, gradients, alpha, beta, before, dx, k + pad, label("gemm_nn", cpu, kind, m, n, k));
    }
}

void check_dense_product(Cpu& cpu, int64_t m, int64_t n, int64_t k, float alpha, float beta) {
    const Rounded gradients = of_gradients(cpu);
    const int64_t pad = 2;
    const std::vector<float> a = normals(m * n, 4);
    Product p{n, k, m, transposed(a, m, n), normals(m * k, 6)};
    const std::vector<float> as = spread(a, m, n, n + pad), bs = spread(p.b, m, k, k + pad),
                             before = junk(n * (k + pad), beta);
    std::vector<float> c = before;
    gemm_tn(cpu, m, n, k, as.data(), n + pad, bs.data(), k + pad, c.data(), k + pad, alpha, beta);
    expect_product(p, gradients, alpha, beta, before, c, k + pad, label("gemm_tn", cpu, Kind::f32, m, n, k));
}

std::vector<float> bytes_of_everything(Cpu& cpu, Kind kind, int64_t m, int64_t n, int64_t k) {
    const auto w = stored(kind, n, k);
    const std::vector<float> x = normals(m * k, 1), dy = normals(m * n, 2);
    std::vector<float> out(size_t(m * n + m * k + n * k), 0.5f);
    gemm_nt(cpu, m, x.data(), k, w->ref, out.data(), n, 0.5f, 2.0f);
    gemm_nn(cpu, m, dy.data(), n, w->ref, out.data() + m * n, k, 0.5f, 2.0f);
    gemm_tn(cpu, m, n, k, dy.data(), n, x.data(), k, out.data() + m * n + m * k, k, 0.5f, 2.0f);
    return out;
}

TEST(Gemm, EveryIsaAndWeightAtAwkwardSizes) {
    const int64_t sizes[][3] = {{1, 1, 1},   {1, 33, 64},   {2, 7, 63},    {3, 65, 130}, {8, 40, 128},
                                {9, 16, 65}, {13, 97, 192}, {29, 31, 577}, {50, 64, 64}, {37, 129, 320},
                                {1, 9, 768}, {2, 5, 512},   {3, 6, 256},   {4, 11, 1024}};
    for (const Kernels& set : every_set()) {
        for (Compute compute : {Compute::f32, Compute::bf16, Compute::mixed}) {
            Cpu cpu(2, compute, set);
            for (const auto& [m, n, k] : sizes) {
                for (Kind kind : kinds) check_weight_products(cpu, kind, m, n, k, 1, 0);
                check_dense_product(cpu, m, n, k, 1, 0);
                if (::testing::Test::HasFatalFailure()) return;
            }
        }
    }
}

TEST(Gemm, LongReductionsAreCutInBlocks) {
    for (const Kernels& set : every_set()) {
        for (Compute compute : {Compute::f32, Compute::bf16, Compute::mixed}) {
            Cpu cpu(2, compute, set);
            check_weight_products(cpu, Kind::nf4_double, 14, 67, 1600, 1, 0);
            check_weight_products(cpu, Kind::nf4, 14, 1603, 64, 1, 0);
            check_weight_products(cpu, Kind::f32, 14, 1603, 66, -2, 1);
            check_weight_products(cpu, Kind::nf4, 530, 37, 65, 1, 1);
            check_dense_product(cpu, 1601, 17, 35, 0.5f, 1);
            check_dense_product(cpu, 4133, 9, 33, 0.5f, 1);
            check_weight_products(cpu, Kind::nf4, 6, 2061, 64, 1, 0.5f);
        }
    }
}

TEST(Gemm, AlphaAndBeta) {
    for (const Kernels& set : every_set()) {
        for (Compute compute : {Compute::f32, Compute::bf16, Compute::mixed}) {
            Cpu cpu(2, compute, set);
            for (const auto& [alpha, beta] :
                 {std::pair{0.25f, 1.0f}, {-1.5f, 0.5f}, {2.0f, 0.0f}, {0.0f, 1.0f}, {0.0f, 0.0f}}) {
                for (int64_t m : {1, 6, 21}) {
                    check_weight_products(cpu, Kind::nf4, m, 35, 128, alpha, beta);
                    check_weight_products(cpu, Kind::f32, m, 35, 37, alpha, beta);
                    check_dense_product(cpu, m, 35, 37, alpha, beta);
                }
            }
        }
    }
}

TEST(Gemm, NothingToDo) {
    for (const Kernels& set : every_set()) {
        Cpu cpu(2, Compute::f32, set);
        std::vector<float> x(64, 1.0f), y(64, 3.0f);
        gemm_nt(cpu, 0, x.data(), 4, dense_ref(x.data(), 4, 4), y.data(), 4);
        gemm_nn(cpu, 0, x.data(), 4, dense_ref(x.data(), 4, 4), y.data(), 4);
        gemm_tn(cpu, 4, 0, 4, x.data(), 4, x.data(), 4, y.data(), 4);
        EXPECT_EQ(y, std::vector<float>(64, 3.0f));
        gemm_nt(cpu, 2, x.data(), 4, dense_ref(x.data(), 4, 0), y.data(), 4, 1, 0.5f);   // an empty sum is 0
        gemm_tn(cpu, 0, 2, 4, x.data(), 4, x.data(), 4, y.data() + 8, 4);
        EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + 8), std::vector<float>(8, 1.5f));
        EXPECT_EQ(std::vector<float>(y.begin() + 8, y.begin() + 16), std::vector<float>(8, 0.0f));
    }
}

TEST(Gemm, SameBytesForEveryThreadCount) {
    for (const Kernels& set : every_set()) {
        for (Compute compute : {Compute::f32, Compute::bf16, Compute::mixed}) {
            for (Kind kind : {Kind::f32, Kind::q4_1, Kind::nf4_double}) {
                for (int64_t m : {1, 5, 70}) {
                    Cpu one(1, compute, set);
                    const std::vector<float> want = bytes_of_everything(one, kind, m, 300, 640);
                    for (int threads : {2, 3, 5}) {
                        Cpu cpu(threads, compute, set);
                        const std::vector<float> got = bytes_of_everything(cpu, kind, m, 300, 640);
                        ASSERT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)), 0)
                            << label("threads", cpu, kind, m, 300, 640) << " threads " << threads;
                    }
                }
            }
        }
    }
}

TEST(Gemm, ARowIsTheSameInEveryBatchOfItsPath) {
    const int64_t n = 70, k = 640, most = 61;
    const std::vector<float> x = normals(most * k, 1), dy = normals(most * n, 2);
    for (const Kernels& set : every_set()) {
        for (Compute compute : {Compute::f32, Compute::bf16, Compute::mixed}) {
            for (Kind kind : kinds) {
                Cpu cpu(2, compute, set);
                const auto w = stored(kind, n, k);
                // the last m rows alone and as the end of a batch of `of`
                const auto same = [&](int64_t m, int64_t of) {
                    std::vector<float> y(size_t(of * n)), dx(size_t(of * k)), part_y(size_t(m * n)),
                        part_dx(size_t(m * k));
                    gemm_nt(cpu, of, x.data(), k, w->ref, y.data(), n);
                    gemm_nt(cpu, m, x.data() + (of - m) * k, k, w->ref, part_y.data(), n);
                    gemm_nn(cpu, of, dy.data(), n, w->ref, dx.data(), k);
                    gemm_nn(cpu, m, dy.data() + (of - m) * n, n, w->ref, part_dx.data(), k);
                    EXPECT_EQ(std::memcmp(part_y.data(), y.data() + (of - m) * n, part_y.size() * 4), 0)
                        << label("gemm_nt", cpu, kind, m, n, k) << " of " << of;
                    EXPECT_EQ(std::memcmp(part_dx.data(), dx.data() + (of - m) * k, part_dx.size() * 4), 0)
                        << label("gemm_nn", cpu, kind, m, n, k) << " of " << of;
                };
                const int64_t few = rows_alike(cpu, w->ref);
                for (int64_t m : {5, 8, 12, 13, 17, 48})
                    if (m > few) same(m, most);
                for (int64_t m = 1; m < few; ++m) same(m, few);
            }
        }
    }
}

}  // namespace gemm_test
