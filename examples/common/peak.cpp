// peak.cpp - the peaks of the machine. Twelve independent accumulators hide the latency of a multiply-add (4 cycles, 2
// units: 8 would just do).
#include "examples/common/peak.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace program {

// The shortest of `bursts` bursts that all threads begin together. Short bursts, many of them: other programs spoil
// some, seldom all.
static double shortest(int threads, int bursts, const std::function<void(int thread, int burst)>& work) {
    using Clock = std::chrono::steady_clock;
    std::barrier together(threads);
    std::vector<std::vector<Clock::time_point>> starts(static_cast<size_t>(threads)),
        ends(static_cast<size_t>(threads));
    const auto all = [&](int thread) {
        for (int burst = 0; burst < bursts; ++burst) {
            together.arrive_and_wait();
            starts[size_t(thread)].push_back(Clock::now());
            work(thread, burst);
            ends[size_t(thread)].push_back(Clock::now());
        }
    };
    std::vector<std::thread> team;
    for (int i = 1; i < threads; ++i) team.emplace_back(all, i);
    all(0);
    for (std::thread& thread : team) thread.join();
    double best = std::numeric_limits<double>::infinity();
    for (size_t burst = 0; burst < size_t(bursts); ++burst) {
        Clock::time_point start = starts[0][burst], end = ends[0][burst];
        for (size_t i = 1; i < size_t(threads); ++i)
            start = std::min(start, starts[i][burst]), end = std::max(end, ends[i][burst]);
        best = std::min(best, std::chrono::duration<double>(end - start).count());
    }
    return best;
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

#if defined(__x86_64__)
// A vdpbf16ps is 16 lanes of two multiply-adds.
__attribute__((target("avx512f,avx512bf16"))) static int dot_bf16(int64_t rounds, float* sink) {
    __m512 sum[12];
    for (__m512& s : sum) s = _mm512_set1_ps(0.5f);
    const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3A803A80), b = (__m512bh)_mm512_set1_epi32(0x3F7F3F7F);
    for (int64_t i = 0; i < rounds; ++i)
        for (__m512& s : sum) s = _mm512_dpbf16_ps(s, a, b);
    float lanes[16];
    for (int i = 1; i < 12; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
    _mm512_storeu_ps(lanes, sum[0]);
    *sink = lanes[0];
    return 32;
}
#endif

#if defined(__x86_64__) && defined(__linux__)
// A tdpbf16ps is 16 x 16 sums of 32 multiply-adds: twelve a round over four sums, as many as products keep. That there
// are tiles, and that this process may use them, whoever named the set has found out.
__attribute__((target("avx512f,amx-tile,amx-bf16"))) static int tiles_bf16(int64_t rounds, float* sink) {
    struct alignas(64) Configuration { uint8_t palette, row, unused[14]; uint16_t bytes[16]; uint8_t rows[16]; };
    static constexpr Configuration configuration{
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    alignas(64) static constexpr uint16_t zeros[512] = {};
    alignas(64) float sums[256];
    _tile_loadconfig(&configuration);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, zeros, 64);
    _tile_loadd(5, zeros, 64);
    for (int64_t i = 0; i < rounds; ++i)
        for (int k = 0; k < 3; ++k) {
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 5);
            _tile_dpbf16ps(2, 4, 5);
            _tile_dpbf16ps(3, 4, 5);
        }
    _tile_stored(0, sums, 64);
    _tile_release();
    *sink = sums[0];
    return 16 * 16 * 32;
}
#endif

static int rounds_of(std::string_view isa, [[maybe_unused]] bool bf16, int64_t rounds, float* sink) {
#if defined(__x86_64__) && defined(__linux__)
    if (isa == "amx" && bf16) return tiles_bf16(rounds, sink);
#endif
#if defined(__x86_64__)
    if (isa == "avx512_bf16" && bf16) return dot_bf16(rounds, sink);
    if (isa == "amx" || isa == "avx512_bf16" || isa == "avx512") return fma_avx512(rounds, sink);
    if (isa == "avx2") return fma_avx2(rounds, sink);
#endif
    return fma_plain(rounds, sink);
}

double multiply_add_peak(int threads, std::string_view isa, bool bf16) {
    std::vector<float> sinks(size_t(threads) * 16);    // a cache line each
    const int lanes = rounds_of(isa, bf16, 1, sinks.data());
    // 3.6 million operations of vectors a thread, or 180,000 of tiles, sixteen cycles each: less than a millisecond
    const int64_t rounds = lanes > 32 ? 15'000 : 300'000;
    const double seconds =
        shortest(threads, 100, [&](int i, int) { rounds_of(isa, bf16, rounds, &sinks[size_t(i) * 16]); });
    return 2.0 * 12 * double(rounds) * lanes * threads / seconds;
}

// Four sums in registers, and lines asked for well ahead: more in flight than memory can answer.
constexpr int64_t ahead = 4096;

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t read_avx2(const char* from, int64_t bytes) {
    const __m256i* at = reinterpret_cast<const __m256i*>(from);
    __m256i sum[4] = {};
    for (int64_t i = 0; i < bytes / 32; i += 8)
        for (int k = 0; k < 4; ++k) {
            _mm_prefetch(from + i * 32 + k * 64 + ahead, _MM_HINT_T0);
            sum[k] = _mm256_add_epi64(
                sum[k], _mm256_add_epi64(_mm256_load_si256(at + i + 2 * k), _mm256_load_si256(at + i + 2 * k + 1)));
        }
    uint64_t lanes[4];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes),
                        _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3])));
    return lanes[0];
}
#endif

static uint64_t read_plain(const char* from, int64_t bytes) {
    typedef uint64_t Lanes __attribute__((vector_size(16)));
    const Lanes* at = reinterpret_cast<const Lanes*>(from);
    Lanes sum[4] = {};
    for (int64_t i = 0; i < bytes / 16; i += 16)
        for (int k = 0; k < 4; ++k) {
            __builtin_prefetch(from + i * 16 + k * 64 + ahead);
            sum[k] += at[i + 4 * k] + at[i + 4 * k + 1] + at[i + 4 * k + 2] + at[i + 4 * k + 3];
        }
    return (sum[0] + sum[1] + sum[2] + sum[3])[0];
}

static uint64_t read_all(const char* from, int64_t bytes) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return read_avx2(from, bytes);
#endif
    return read_plain(from, bytes);
}

double read_peak(int threads, int64_t bytes) {
    const int64_t share = std::max<int64_t>(bytes / threads, 4096) / 256 * 256,
                  part = std::min<int64_t>(share, int64_t(8) << 20), parts = share / part;
    constexpr std::align_val_t line{256};
    const std::unique_ptr<void, void (*)(void*)> memory(
        ::operator new(size_t(share * threads), line, std::nothrow), [](void* at) { ::operator delete(at, line); });
    char* const from = static_cast<char*>(memory.get());
    if (!from) return 0;
    std::vector<uint64_t> sinks(size_t(threads) * 8);
    shortest(threads, 1, [&](int i, int) {
        std::memset(from + i * share, 1, size_t(share));
    });    // each touches its own memory first
    const int64_t rounds = std::max<int64_t>(1, (int64_t(4) << 20) / part);    // a few hundred microseconds at least
    const double seconds = shortest(threads, int(std::max<int64_t>(60, 2 * parts)), [&](int i, int burst) {
        for (int64_t r = 0; r < rounds; ++r)
            sinks[size_t(i) * 8] += read_all(from + i * share + burst % parts * part, part);
    });
    return double(part) * threads * double(rounds) / seconds;
}

}  // namespace program
