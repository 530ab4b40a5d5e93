// peak.cpp - the peaks of the machine. Twelve independent accumulators hide the latency of a multiply-add (4 cycles, 2 units: 8 would just do).
#include "examples/common/peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace program {

static double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

static double on_threads(int threads, const std::function<void(int)>& work) {
    return seconds_of([&] {
        std::vector<std::thread> team;
        for (int i = 1; i < threads; ++i) team.emplace_back(work, i);
        work(0);
        for (std::thread& thread : team) thread.join();
    });
}

// Each returns the lanes of one vector; the sum goes to `sink`, so that no compiler drops the work.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) static int fma_avx512(int64_t rounds, float* sink) {
    __m512 sum[12];
    for (__m512& s : sum) s = _mm512_set1_ps(0.5f);
    const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
    for (int64_t i = 0; i < rounds; ++i)
        for (__m512& s : sum) s = _mm512_fmadd_ps(s, a, b);
    float lanes[16];
    for (int i = 1; i < 12; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
    _mm512_storeu_ps(lanes, sum[0]);
    *sink = lanes[0];
    return 16;
}

__attribute__((target("avx2,fma"))) static int fma_avx2(int64_t rounds, float* sink) {
    __m256 sum[12];
    for (__m256& s : sum) s = _mm256_set1_ps(0.5f);
    const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
    for (int64_t i = 0; i < rounds; ++i)
        for (__m256& s : sum) s = _mm256_fmadd_ps(s, a, b);
    float lanes[8];
    for (int i = 1; i < 12; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
    _mm256_storeu_ps(lanes, sum[0]);
    *sink = lanes[0];
    return 8;
}
#endif

static int fma_plain(int64_t rounds, float* sink) {
    typedef float Lanes __attribute__((vector_size(16)));
    Lanes sum[12];
    for (Lanes& s : sum) s = Lanes{0.5f, 0.5f, 0.5f, 0.5f};
    const Lanes a{0.999f, 0.999f, 0.999f, 0.999f}, b{1e-3f, 1e-3f, 1e-3f, 1e-3f};
    for (int64_t i = 0; i < rounds; ++i)
        for (Lanes& s : sum) s = s * a + b;
    for (int i = 1; i < 12; ++i) sum[0] += sum[i];
    *sink = sum[0][0];
    return 4;
}

static int fma_rounds(int64_t rounds, float* sink) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return fma_avx512(rounds, sink);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return fma_avx2(rounds, sink);
#endif
    return fma_plain(rounds, sink);
}

double fma_peak(int threads) {
    constexpr int64_t rounds = 4'000'000;              // 48 million vector operations a thread: some 10 ms
    std::vector<float> sinks(size_t(threads) * 16);    // a cache line each
    double best = 0;
    for (int repeat = 0; repeat < 5; ++repeat) {
        std::vector<int> lanes(static_cast<size_t>(threads));
        const double seconds = on_threads(threads, [&](int i) { lanes[size_t(i)] = fma_rounds(rounds, &sinks[size_t(i) * 16]); });
        best = std::max(best, 2.0 * 12 * double(rounds) * lanes[0] * threads / seconds);
    }
    return best;
}

double copy_peak(int threads) {
    const size_t bytes = size_t(256) << 20, share = bytes / size_t(threads);
    const std::unique_ptr<char[]> from(new char[bytes]), to(new char[bytes]);
    std::memset(from.get(), 1, bytes);
    std::memset(to.get(), 2, bytes);
    double best = 0;
    for (int repeat = 0; repeat < 4; ++repeat) {
        const double seconds = on_threads(threads, [&](int i) { std::memcpy(to.get() + size_t(i) * share, from.get() + size_t(i) * share, share); });
        best = std::max(best, 2.0 * double(share) * threads / seconds);
    }
    return best;
}

}  // namespace program
