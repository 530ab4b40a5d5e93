// gemm_case.h - a product of src/cuda on the emulation, in several orders of threads, against double.
#pragma once
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/base/half.h"
#include "src/base/rng.h"
#include "src/cuda/gemm.cuh"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

namespace gemm_case {

using cuda_emulation::Order;
using qlora::DType;
namespace cuda = qlora::cuda;

#if defined(__SANITIZE_THREAD__)                        // finds a race in any order
constexpr std::pair<Order, uint64_t> orders[] = {{Order::forward, 0}};
#else
constexpr std::pair<Order, uint64_t> orders[] = {{Order::forward, 0}, {Order::random, 1}, {Order::reverse, 0}};
#endif

// A stored matrix of lines `ld` apart, that begins `shift` elements into memory of exactly its size.
struct Matrix {
    int64_t lines = 0, line = 0, ld = 0, shift = 0;
    DType type = DType::f32;
    std::vector<uint8_t> bytes;                        // as last uploaded or downloaded
    cuda::Memory memory;

    int64_t at(int64_t i, int64_t j) const { return shift + i * ld + j; }
    int64_t count() const { return shift + (lines - 1) * ld + line; }
    char* data() const { return memory.as<char>() + qlora::bytes_of(type, shift); }
    cuda::Values in() const { return {data(), type}; }
    cuda::Places out() const { return {data(), type}; }
    float get(int64_t i, int64_t j) const {
        return type == DType::f32 ? reinterpret_cast<const float*>(bytes.data())[at(i, j)]
                                  : qlora::f32_from_bf16(reinterpret_cast<const uint16_t*>(bytes.data())[at(i, j)]);
    }
    void download(const cuda::Stream& stream) { memory.download(stream, bytes.data(), memory.bytes()); }
    void poison(const cuda::Stream& stream) {
        std::fill(bytes.begin(), bytes.end(), uint8_t(0xFF));
        memory.upload(stream, bytes.data(), memory.bytes());
    }
    // Random numbers where the matrix is, NaN around it.
    Matrix(const cuda::Stream& stream, int64_t lines_, int64_t line_, int64_t ld_, int64_t shift_, DType type_,
           uint64_t seed)
        : lines(lines_), line(line_), ld(ld_), shift(shift_), type(type_),
          bytes(size_t(qlora::bytes_of(type_, count())), uint8_t(0xFF)), memory(int64_t(bytes.size())) {
        qlora::Rng rng{seed};
        for (int64_t i = 0; i < lines; ++i)
            for (int64_t j = 0; j < line; ++j) {
                const float x = rng.normal();
                if (type == DType::f32) reinterpret_cast<float*>(bytes.data())[at(i, j)] = x;
                else reinterpret_cast<uint16_t*>(bytes.data())[at(i, j)] = qlora::bf16_from_f32(x);
            }
        memory.upload(stream, bytes.data(), memory.bytes());
    }
};

struct Case {
    int64_t m, n, k;
    bool a_across = false, b_across = false;
    DType a = DType::bf16, b = DType::bf16, c = DType::bf16;
    float alpha = 1, beta = 0;
    int64_t pad = 0, shift = 0;                        // of every matrix: elements between lines, and before the first
    bool apart = false;                                // D is another matrix than C
};

using cuda::gemm_room::Tiling;

// The engine that the sizes choose, or those tiles.
inline void check(const Case& t, bool exact, std::optional<Tiling> tiling = {}, int stretches = 1) {
    SCOPED_TRACE(qlora::str(t.m, "x", t.n, "x", t.k, t.a_across ? " a across" : "", t.b_across ? " b across" : "", " ",
                            name_of(t.a), name_of(t.b), name_of(t.c), " beta ", t.beta, " pad ", t.pad, " shift ",
                            t.shift, exact ? " exact" : "", " tiles ", tiling ? int(*tiling) : -1, " stretches ",
                            stretches));
    const cuda::Stream stream(0);
    const auto make = [&](int64_t lines, int64_t line, DType type, uint64_t seed) {
        return Matrix(stream, lines, line, line + t.pad, t.shift, type, seed);
    };
    const Matrix a = t.a_across ? make(t.k, t.m, t.a, 1) : make(t.m, t.k, t.a, 1);
    const Matrix b = t.b_across ? make(t.k, t.n, t.b, 2) : make(t.n, t.k, t.b, 2);
    const Matrix d = make(t.m, t.n, t.c, 3);
    std::vector<float> first;
    for (const auto& [order, seed] : orders) {
        cuda_emulation::options = {order, seed};
        Matrix c = make(t.m, t.n, t.c, 3);
        if (t.beta == 0 || t.apart) c.poison(stream);
        cuda::Product p{t.m,    t.n,        t.k,     a.in(), a.ld,    t.a_across, b.in(),
                        b.ld,   t.b_across, c.out(), c.ld,   t.alpha, t.beta,     {},     0};
        if (t.apart) p.d = d.in(), p.ldd = d.ld;
        const cuda::Engine engine{{90, exact, true}, stream, 2};
        if (tiling) {
            cuda::gemm_room::Way way = cuda::gemm_room::way_with(*tiling, p);
            way.stretches = stretches;
            const cuda::Memory scratch(way.bytes());
            cuda::gemm_room::run(engine, p, way, scratch.as<void>());
            stream.sync();
        } else {
            const cuda::Memory scratch(product_scratch(engine, p));
            product(engine, p, scratch.as<void>());
        }
        c.download(stream);
        std::vector<float> got;
        for (int64_t i = 0; i < t.m; ++i)
            for (int64_t j = 0; j < t.n; ++j) {
                double sum = 0, size = 0;
                for (int64_t x = 0; x < t.k; ++x) {
                    float u = t.a_across ? a.get(x, i) : a.get(i, x), v = t.b_across ? b.get(x, j) : b.get(j, x);
                    const double product = double(u) * double(v);
                    sum += product;
                    size += std::fabs(product);
                }
                const double want = t.alpha * sum + (t.beta != 0 ? double(t.beta) * d.get(i, j) : 0);
                const bool rounds = !exact && (t.a == DType::f32 || t.b == DType::f32);
                const double all = std::fabs(t.alpha) * size + std::fabs(t.beta) * 4;
                double tolerance = (!exact && rounds ? 0x1p-8 : 2e-6) * all + 1e-30;
                if (t.c != DType::f32) tolerance += 0x1p-8 * std::fabs(want);
                got.push_back(c.get(i, j));
                ASSERT_NEAR(got.back(), want, tolerance) << "at " << i << ", " << j;
            }
        if (first.empty()) first = got;
        ASSERT_EQ(got, first) << "the order of threads shows";
    }
    cuda_emulation::options = {};
}

}  // namespace gemm_case
