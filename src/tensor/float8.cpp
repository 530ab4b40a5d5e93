// float8.cpp - e4m3 numbers and scales as floats, and the two stored types that are made of them.
#include "src/tensor/float8.h"

#include "src/tensor/blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace float8_room {

constexpr int64_t block = 64, block_bytes = 36, group = 16, groups = block / group;
constexpr int table_size = 256, not_a_number = 127, one = 0x38;

// scale(e4m3) of each code, halved: the levels of a block are twice those of e2m1.
template <class Scale>
std::vector<float> table_of(const Scale& scale) {
    std::vector<float> table(table_size, 0.0f);
    for (int c = 0; c < table_size; ++c)
        if (c != not_a_number) table[size_t(c)] = 0.5f * scale(c == 255 ? 480.0f : f32_from_e4m3(uint8_t(c & 127)));
    return table;
}

}  // namespace float8_room

const float* nvfp4_scales() {
    static const std::vector<float> table = float8_room::table_of([](float scale) { return scale; });
    return table.data();
}

std::vector<float> nvfp4_scales(float by, bool divide, const std::string& what) {
    if (!(by > 0) || !std::isfinite(by)) fail(Errc::format, what, " is ", by, ", expected a positive number");
    auto table = float8_room::table_of([&](float scale) { return divide ? scale / by : scale * by; });
    for (const float scale : table)
        if (!std::isfinite(scale)) fail(Errc::format, what, " is ", by, ", which makes scales of blocks infinite");
    return table;
}

float nvfp4_tensor_scale(const float* scales) { return 2 * scales[float8_room::one]; }

void decode_nvfp4(const void* blocks, const float* scales, float* out, int64_t count) {
    namespace room = float8_room;
    const uint8_t* p = static_cast<const uint8_t*>(blocks);
    for (int64_t done = 0; done < count; done += room::block, p += room::block_bytes)
        for (int64_t g = 0; g < room::groups; ++g, out += room::group) {
            const float scale = scales[p[g]];
            const uint8_t* q = p + room::groups + g * room::group / 2;
            for (int64_t j = 0; j < 8; ++j) {
                out[j] = scale * float(e2m1_twice[q[j] & 15]);
                out[j + 8] = scale * float(e2m1_twice[q[j] >> 4]);
            }
        }
}

void decode_f8_e4m3(const WeightRef& w, int64_t first, int64_t count, float* out) {
    const uint8_t* codes = static_cast<const uint8_t*>(w.data) + first;
    const Tiles& t = w.tiles;
    for (int64_t row = first / t.row, col = first % t.row; count > 0;) {       // a run of one tile at a time
        const int64_t tile = col / t.cols, end = std::min((tile + 1) * t.cols, t.row);
        const int64_t take = std::min(count, end - col);
        const float scale = t.scale[row / t.rows * t.across() + tile];
        for (int64_t i = 0; i < take; ++i) out[i] = f32_from_e4m3(codes[i]) * scale;
        codes += take;
        out += take;
        count -= take;
        col += take;
        if (col == t.row) ++row, col = 0;
    }
}

void pack_nvfp4(const uint8_t* codes, const uint8_t* scales, int64_t elements, uint8_t* blocks) {
    namespace room = float8_room;
    for (int64_t done = 0; done < elements; done += room::block, blocks += room::block_bytes, scales += room::groups) {
        std::memcpy(blocks, scales, size_t(room::groups));
        uint8_t* q = blocks + room::groups;
        for (int64_t g = 0; g < room::groups; ++g, codes += 8, q += 8)
            for (int64_t j = 0; j < 4; ++j) {          // elements 2j and 2j + 1, and those 8 behind them
                q[2 * j] = uint8_t((codes[j] & 15) | (codes[j + 4] & 15) << 4);
                q[2 * j + 1] = uint8_t(codes[j] >> 4 | (codes[j + 4] >> 4) << 4);
            }
    }
}

}}  // namespace qlora
