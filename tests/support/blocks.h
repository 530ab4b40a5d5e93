// blocks.h - blocks of stored types with random bits, whose scales are finite.
#pragma once
#include "src/base/half.h"
#include "src/base/rng.h"
#include "src/tensor/float8.h"

#include <cstring>
#include <vector>

namespace blocks_support {

using namespace qlora;

// Where the f16 numbers of a block are: random bits there could be infinite.
inline std::vector<int64_t> halves_of(DType type) {
    switch (type) {
        case DType::f16:
        case DType::q4_0:
        case DType::q5_0:
        case DType::q8_0:
        case DType::iq4_nl:
        case DType::iq4_xs: return {0};
        case DType::q4_1: case DType::q5_1: case DType::q4_k: case DType::q5_k: return {0, 2};
        case DType::q2_k: return {80, 82};
        case DType::q3_k: return {108};
        case DType::q6_k: return {208};
        default: return {};
    }
}

inline std::vector<uint8_t> random_blocks(DType type, int64_t elements) {
    std::vector<uint8_t> bytes(size_t(bytes_of(type, elements)));
    Rng rng{3, uint64_t(type)};
    if (type == DType::f32) {
        for (int64_t i = 0; i < elements; ++i) {
            const float v = rng.normal();
            std::memcpy(bytes.data() + 4 * i, &v, 4);
        }
        return bytes;
    }
    for (uint8_t& b : bytes) b = uint8_t(rng.next());
    if (type == DType::f8_e4m3)
        for (uint8_t& b : bytes) b = (b & 127) == 127 ? uint8_t(b - 1) : b;            // not a number
    const int64_t size = type_info(type).bytes;
    for (int64_t at = 0; at < int64_t(bytes.size()); at += size) {
        for (const int64_t offset : halves_of(type)) {
            // now and then subnormal
            const uint16_t h = f16_from_f32(rng.normal() * (rng.below(8) == 0 ? 1e-6f : 0.1f));
            std::memcpy(bytes.data() + at + offset, &h, 2);
        }
    }
    return bytes;
}

// The scales that such a weight in nvfp4 or f8_e4m3 has beside its blocks, in its care.
inline void add_scales(Weight& w, int64_t tile_rows = 3, int64_t tile_cols = 16) {
    auto scales = std::make_shared<std::vector<float>>();
    if (w.dtype == DType::nvfp4) {
        *scales = nvfp4_scales(0.0037f, false, "scale");
        w.quant.absmax_map = scales->data();
    } else if (w.dtype == DType::f8_e4m3) {
        Rng rng{4, uint64_t(w.elements())};
        w.tiles = {scales->data(), tile_rows, tile_cols, w.cols()};
        const int64_t down = (w.rows() + tile_rows - 1) / tile_rows;
        for (int64_t i = 0; i < down * w.tiles.across(); ++i) scales->push_back(0.01f * (0.5f + rng.uniform()));
        w.tiles.scale = scales->data();
    } else {
        return;
    }
    w.owner = scales;
}

}  // namespace blocks_support
