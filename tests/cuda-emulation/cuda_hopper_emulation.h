// cuda_hopper_emulation.h - what src/cuda/hopper.cuh is on the emulation: tensor maps, bulk copies into shared memory,
// mbarriers that count arrivals and bytes, products of warpgroups.
//
// A bulk copy happens when nothing else can go on, in any order. A product is computed when its group is waited for and
// reads shared memory only then; until then the accumulators in the kernel's hands are NaN. The thread sanitizer does
// not see what either of them reads and writes: it is done here, not by the kernel.
#pragma once
#include "tests/cuda-emulation/cuda_mma_emulation.h"

#include <map>

namespace cuda_emulation {

inline bool tensor_maps = true;                        // whether the driver encodes them

// ---- Addresses of shared memory as instructions see them: 32 bits, here not from 0 on.
constexpr unsigned first_address = 1024;
inline unsigned shared_address(const void* p, int line) {
    const ptrdiff_t at = static_cast<const char*>(p) - block->dynamic;
    if (at < 0 || size_t(at) >= block->dynamic_bytes) refuse(line, "an address outside the dynamic shared memory");
    return first_address + unsigned(at);
}
// 16-byte chunks of lines of 128 bytes change places in groups of 8 lines.
inline char* swizzled(unsigned address, int line) {
    address ^= (address >> 7 & 7) << 4;
    if (address < first_address || address - first_address + 2 > block->dynamic_bytes)
        refuse(line, "an access beyond the dynamic shared memory");
    return block->dynamic + (address - first_address);
}

// ---- mbarriers: phase, arrivals still due, arrivals of every phase, bytes still due. Bytes may land before they are
// announced.
struct Mbarrier { uint64_t phase : 1, due : 15, count : 15, unused : 1; int64_t bytes : 32; };
static_assert(sizeof(Mbarrier) == 8);
inline Mbarrier mbarrier_at(const uint64_t* b) { return std::bit_cast<Mbarrier>(*b); }
inline void put_mbarrier(uint64_t* b, Mbarrier m) {
    if (m.due == 0 && m.bytes == 0) {                  // the phase is over
        m.phase ^= 1;
        m.due = m.count;
    }
    *b = std::bit_cast<uint64_t>(m);
}
inline void mbarrier_init(uint64_t* b, int count, int line = __builtin_LINE()) {
    const Quiet quiet;
    if (count < 1 || count > 0x7fff || !is_aligned(b, 8))
        refuse(line, "an mbarrier of an impossible count or address");
    Mbarrier m{};
    m.due = m.count = unsigned(count) & 0x7fff;
    *b = std::bit_cast<uint64_t>(m);
    release_memory(b);
}
inline void mbarrier_fence_init() {}
inline void mbarrier_expect(uint64_t* b, int bytes, int line = __builtin_LINE()) {
    const Quiet quiet;
    release_memory(b);
    Mbarrier m = mbarrier_at(b);
    if (m.due == 0) refuse(line, "an mbarrier has more arrivals than it was made for");
    m.bytes += bytes;
    m.due = (m.due - 1) & 0x7fff;
    put_mbarrier(b, m);
}
inline void mbarrier_arrive(uint64_t* b, int line = __builtin_LINE()) { mbarrier_expect(b, 0, line); }
// Until the phase of this parity is over.
inline void mbarrier_wait(uint64_t* b, int parity, int line = __builtin_LINE()) {
    const Quiet quiet;
    poll(line, [=] { return mbarrier_at(b).phase != (unsigned(parity) & 1); });
    acquire_memory(b);
}

// ---- Bulk copies.
struct TensorMap { const uint16_t* data; int64_t lines, line, ld; int box_lines; };
inline bool has_tensor_maps() { return tensor_maps; }
inline TensorMap tensor_map(const uint16_t* data, int64_t lines, int64_t line, int64_t ld, int box_lines) {
    if (box_lines < 1 || box_lines > 256 || !is_aligned(data, 16) || ld % 8 || ld < 1 || lines < 1 || line < 1)
        throw Failure("a tensor map that the driver would refuse");
    return {data, lines, line, ld, box_lines};
}
inline void bulk_copy(void* to, const TensorMap& map, int col, int row, uint64_t* arrived,
                      int line = __builtin_LINE()) {
    const Quiet quiet;
    if (!is_aligned(to, 1024)) refuse(line, "a swizzled bulk copy to an address that is not a multiple of 1024");
    const unsigned start = shared_address(to, line);
    block->late.push_back([=] {
        const Quiet late;
        for (int r = 0; r < map.box_lines; ++r)
            for (int c = 0; c < 64; ++c) {
                const int64_t i = int64_t(row) + r, j = int64_t(col) + c;
                const bool inside = i >= 0 && i < map.lines && j >= 0 && j < map.line;
                const uint16_t value = inside ? map.data[i * map.ld + j] : uint16_t(0);
                std::memcpy(swizzled(start + unsigned(r * 128 + c * 2), line), &value, 2);
            }
        release_memory(arrived);
        Mbarrier m = mbarrier_at(arrived);
        m.bytes -= map.box_lines * 128;
        put_mbarrier(arrived, m);
    });
}

template <int count> void registers_give() { static_assert(count % 8 == 0 && count >= 24 && count <= 256); }
template <int count> void registers_take() { static_assert(count % 8 == 0 && count >= 24 && count <= 256); }
template <class Kernel> bool is_for_sm90a(Kernel*) { return true; }

// ---- Products of a warpgroup. Descriptors, in units of 16 bytes: start in bits 0 to 13, `panels` in 16 to 29,
// `groups` in 32 to 45; bits 62 and 63 are 1: swizzled by 128 bytes.
inline uint64_t matrix_at(const void* start, int panels, int groups, int line = __builtin_LINE()) {
    const unsigned at = shared_address(start, line);
    if (at % 16 || panels % 16 || groups % 16) refuse(line, "a descriptor takes multiples of 16 bytes");
    return uint64_t(at >> 4 & 0x3fff) | uint64_t(panels >> 4 & 0x3fff) << 16 | uint64_t(groups >> 4 & 0x3fff) << 32 |
           uint64_t(1) << 62;
}
// Element (outer, k) of what a descriptor describes. Along: lines of the outer dimension, in groups of 8. Across: lines
// of the inner one, 64 elements long, in groups of 8 within panels of 64 of the outer one.
inline float described(uint64_t d, bool across, int outer, int k, int line) {
    if (d >> 62 != 1 || (d & 0x3fffc000c000c000u)) refuse(line, "a descriptor of another kind than lines of 128 bytes");
    const auto field = [&](int bit) { return unsigned(d >> bit & 0x3fff) << 4; };
    const unsigned start = field(0), panels = field(16), groups = field(32);
    const unsigned u = unsigned(outer), v = unsigned(k);
    const unsigned at = across ? u / 64 * panels + v / 8 * groups + v % 8 * 128 + u % 64 * 2
                               : u / 8 * groups + u % 8 * 128 + v * 2;
    uint16_t value;
    std::memcpy(&value, swizzled(start + at, line), 2);
    return __uint_as_float(uint32_t(value) << 16);
}

struct WarpgroupProduct {
    float* sums;
    int columns;                                       // and half as many accumulators in each thread
    uint64_t a, b;
    bool b_across;
    int line;
    bool operator==(const WarpgroupProduct& o) const {
        return columns == o.columns && a == o.a && b == o.b && b_across == o.b_across && line == o.line;
    }
};
// What a thread keeps of them.
struct Products : Extension {
    std::vector<std::vector<WarpgroupProduct>> groups{{}};    // the last one is not committed yet
    std::map<float*, std::vector<float>> sums;         // what accumulators are while the kernel has NaN
    bool fenced = false;
    void check_end() const override {
        if (sums.empty()) return;
        for (const auto& group : groups)
            if (!group.empty()) refuse(group.front().line, "products that nobody waited for");
    }
};
inline Products& products_of(Thread& t) {
    if (!t.extension) t.extension = std::make_shared<Products>();
    return static_cast<Products&>(*t.extension);
}

constexpr uint32_t in_flight = 0x7fffffffu;            // a NaN
template <size_t n> void tie_sums(float (&)[n][4]) {}
inline void wgmma_fence() {
    const Quiet quiet;
    products_of(*block->running).fenced = true;
}
inline void wgmma_commit() {
    const Quiet quiet;
    products_of(*block->running).groups.emplace_back();
}

// d {64, 8 n} += a {64, 16} b {16, 8 n}.
template <bool b_across, size_t n>
void wgmma(float (&d)[n][4], uint64_t a, uint64_t b, int line = __builtin_LINE()) {
    const Quiet quiet;
    Products& mine = products_of(*block->running);
    float* const sums = d[0];
    if (!mine.sums.count(sums)) {
        if (!mine.fenced) refuse(line, "wgmma on registers that no wgmma_fence() handed over");
        mine.sums[sums].assign(sums, sums + 4 * n);
    }
    std::fill_n(sums, 4 * n, __uint_as_float(in_flight));
    mine.groups.back().push_back({sums, int(8 * n), a, b, b_across, line});
}

inline void multiply(const WarpgroupProduct& p, size_t index, Thread* const* threads) {
    tensor_products += 64 * int64_t(p.columns) * 16;
    std::vector<float> left(64 * 16), right(size_t(p.columns) * 16);    // lines of the inner dimension
    for (int k = 0; k < 16; ++k) {
        for (int r = 0; r < 64; ++r) left[size_t(r * 16 + k)] = described(p.a, false, r, k, p.line);
        for (int c = 0; c < p.columns; ++c) right[size_t(c * 16 + k)] = described(p.b, p.b_across, c, k, p.line);
    }
    for (int t = 0; t < 128; ++t) {
        Products& his = products_of(*threads[t]);
        if (his.groups.size() < 2 || his.groups.front().size() <= index || !(his.groups.front()[index] == p))
            refuse(p.line, "the threads of a warpgroup start different products");
        std::vector<float>& sums = his.sums[his.groups.front()[index].sums];
        for (int i = 0; i < p.columns / 2; ++i) {
            const int row = t / 32 * 16 + t % 32 / 4 + 8 * (i / 2 % 2), col = i / 4 * 8 + 2 * (t % 4) + i % 2;
            const float *u = &left[size_t(row * 16)], *v = &right[size_t(col * 16)];
            for (int k = 0; k < 16; ++k) sums[size_t(i)] += u[k] * v[k];
        }
    }
}
// Accumulators that no product in flight adds to are the kernel's again.
inline void give_sums_back(Products& p, int line) {
    for (auto it = p.sums.begin(); it != p.sums.end();) {
        bool busy = false;
        for (const auto& group : p.groups)
            for (const WarpgroupProduct& product : group) busy = busy || product.sums == it->first;
        for (size_t i = 0; i < it->second.size(); ++i)
            if (__float_as_uint(it->first[i]) != in_flight) refuse(line, "accumulators were written during a product");
        if (!busy) {
            std::copy(it->second.begin(), it->second.end(), it->first);
            p.fenced = false;
        }
        it = busy ? std::next(it) : p.sums.erase(it);
    }
}
// Until at most `left` of the groups that were committed last are under way. All of a warpgroup take part.
template <int left>
void wgmma_wait(int line = __builtin_LINE()) {
    static const char operation = 0;
    collective<char>(~0u, char(0), &operation, line, [&](const GroupView<char, char>& view) {
        const Quiet quiet;
        const auto& groups = products_of(*view.threads[0]).groups;
        while (int(groups.size()) - 1 > left) {
            for (size_t i = 0; i < groups.front().size(); ++i) multiply(groups.front()[i], i, view.threads);
            for (int t = 0; t < 128; ++t) {
                auto& his = products_of(*view.threads[t]).groups;
                his.erase(his.begin());
            }
        }
        for (int t = 0; t < 128; ++t) give_sums_back(products_of(*view.threads[t]), line);
    }, 128);
}

}  // namespace cuda_emulation
