// decode.cuh - elements of every stored type on the device, bit for bit those of the CPU (src/tensor/blocks.cpp,
// src/tensor/weight.cpp), and rows of a weight as f32, bf16 or f16.
//
//   block types     w = scale q (+ added), q an integer or an entry of a table; 16 elements share scale and added
//   nf4, fp4        w = codebook[code] * absmax(block)
//   f8_e4m3         w = e4m3(code) * scale(tile)
//   f32, f16, bf16  w
// Every product and every sum is rounded by itself, as on the CPU: none may become a fused multiply-add.
//
// A thread decodes 8 elements of one block where the range begins and ends at multiples of 8, else single ones. Stored
// weights begin at a multiple of 4 bytes at least (the backend gives 256); matrices of the graph, anywhere.
#pragma once
#include "src/cuda/nf4.cuh"
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace decode_room {

// ---- Reading blocks. A block of an even number of bytes begins at an even address, and its f16 numbers do.
__device__ inline float half_at(const uint8_t* p) { return f32_of_f16(*reinterpret_cast<const uint16_t*>(p)); }

// Four bytes of a block: in one load where blocks of so many bytes keep them aligned.
template <int block_bytes> __device__ inline uint32_t four_at(const uint8_t* p) {
    if constexpr (block_bytes % 4 == 0) {
        return *reinterpret_cast<const uint32_t*>(p);
    } else if constexpr (block_bytes % 2 == 0) {
        const uint16_t* pair = reinterpret_cast<const uint16_t*>(p);
        return pair[0] | uint32_t(pair[1]) << 16;
    } else {
        return p[0] | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24;
    }
}

// Four bits to the lowest bits of four bytes.
__device__ inline uint32_t bits_to_bytes(uint32_t bits) { return (bits & 15) * 0x204081u & 0x01010101u; }

struct Line { float scale, added; };                   // of 16 elements

// What the block types have in common. Each adds
//   line(p, j)  of the 16 elements around element j of the block at p
//   four(p, j)  the codes of elements j to j + 3 in the bytes of a word; j is a multiple of 4
template <int elements_, int bytes_, int bias = 0, bool has_added_ = false> struct Layout {
    static constexpr int elements = elements_, bytes = bytes_;
    static constexpr bool has_added = has_added_, has_table = false;
    static __device__ float value(uint32_t code) { return float(int(code) - bias); }
    static __device__ uint32_t word(const uint8_t* p) { return four_at<bytes_>(p); }
    // Codes of 32 elements in 16 bytes: elements 0..15 in the low nibbles.
    static __device__ uint32_t nibbles(const uint8_t* p, int j) {
        return word(p + (j & 15)) >> (j & 16 ? 4 : 0) & 0x0f0f0f0fu;
    }
    // Codes of 64 elements in 32 bytes: elements 0..31 in the low nibbles; the next 64 follow.
    static __device__ uint32_t long_nibbles(const uint8_t* p, int j) {
        return word(p + j / 64 * 32 + (j & 31)) >> (j & 32 ? 4 : 0) & 0x0f0f0f0fu;
    }
    // Codes of 128 elements in 32 bytes, two bits for each run of 32; the next 128 follow.
    static __device__ uint32_t pairs(const uint8_t* p, int j) {
        return word(p + j / 128 * 32 + (j & 31)) >> (j / 32 % 4 * 2) & 0x03030303u;
    }
    // A bit for each of 256 elements in 32 bytes: bit r of byte k belongs to element 32 r + k.
    static __device__ uint32_t bits(const uint8_t* p, int j) { return word(p + (j & 31)) >> (j / 32) & 0x01010101u; }
};

template <DType> struct Blocks;

template <> struct Blocks<DType::q4_0> : Layout<32, 18, 8> {
    static __device__ Line line(const uint8_t* p, int) { return {half_at(p), 0}; }
    static __device__ uint32_t four(const uint8_t* p, int j) { return nibbles(p + 2, j); }
};

template <> struct Blocks<DType::q4_1> : Layout<32, 20, 0, true> {
    static __device__ Line line(const uint8_t* p, int) { return {half_at(p), half_at(p + 2)}; }
    static __device__ uint32_t four(const uint8_t* p, int j) { return nibbles(p + 4, j); }
};

template <> struct Blocks<DType::q5_0> : Layout<32, 22, 16> {
    static __device__ Line line(const uint8_t* p, int) { return {half_at(p), 0}; }
    static __device__ uint32_t four(const uint8_t* p, int j) {
        return nibbles(p + 6, j) | bits_to_bytes(p[2 + j / 8] >> (j & 4)) << 4;
    }
};

template <> struct Blocks<DType::q5_1> : Layout<32, 24, 0, true> {
    static __device__ Line line(const uint8_t* p, int) { return {half_at(p), half_at(p + 2)}; }
    static __device__ uint32_t four(const uint8_t* p, int j) {
        return nibbles(p + 8, j) | bits_to_bytes(p[4 + j / 8] >> (j & 4)) << 4;
    }
};

template <> struct Blocks<DType::q8_0> : Layout<32, 34, 128> {             // signed bytes, their sign bit turned
    static __device__ Line line(const uint8_t* p, int) { return {half_at(p), 0}; }
    static __device__ uint32_t four(const uint8_t* p, int j) { return word(p + 2 + j) ^ 0x80808080u; }
};

template <> struct Blocks<DType::q2_k> : Layout<256, 84, 0, true> {
    static __device__ Line line(const uint8_t* p, int j) {
        const int packed = p[j / 16];
        return {__fmul_rn(half_at(p + 80), float(packed & 15)), -__fmul_rn(half_at(p + 82), float(packed >> 4))};
    }
    static __device__ uint32_t four(const uint8_t* p, int j) { return pairs(p + 16, j); }
};

template <> struct Blocks<DType::q3_k> : Layout<256, 110, 4> {
    static __device__ Line line(const uint8_t* p, int j) {
        const uint8_t* s = p + 96;                     // 16 scales: low nibbles in bytes 0..7, two high bits in 8..11
        const int group = j / 16, low = s[group & 7] >> (group & 8 ? 4 : 0) & 15,
                  high = s[8 + (group & 3)] >> (2 * (group >> 2)) & 3;
        return {__fmul_rn(half_at(p + 108), float((low | high << 4) - 32)), 0};
    }
    static __device__ uint32_t four(const uint8_t* p, int j) { return pairs(p + 32, j) | bits(p, j) << 2; }
};

// Scale and minimum of one of the eight groups of q4_k and q5_k: see q4_k_group of src/tensor/blocks.h.
__device__ inline Line k_line(const uint8_t* p, int group) {
    const uint8_t* s = p + 4;
    const int at = group & 3, first = s[at], second = s[at + 4], third = s[at + 8];
    const int scale = group < 4 ? first & 63 : (third & 15) | (first >> 6) << 4,
              least = group < 4 ? second & 63 : third >> 4 | (second >> 6) << 4;
    return {__fmul_rn(half_at(p), float(scale)), -__fmul_rn(half_at(p + 2), float(least))};
}

template <> struct Blocks<DType::q4_k> : Layout<256, 144, 0, true> {
    static __device__ Line line(const uint8_t* p, int j) { return k_line(p, j / 32); }
    static __device__ uint32_t four(const uint8_t* p, int j) { return long_nibbles(p + 16, j); }
};

template <> struct Blocks<DType::q5_k> : Layout<256, 176, 0, true> {
    static __device__ Line line(const uint8_t* p, int j) { return k_line(p, j / 32); }
    static __device__ uint32_t four(const uint8_t* p, int j) {
        return long_nibbles(p + 48, j) | bits(p + 16, j) << 4;
    }
};

template <> struct Blocks<DType::q6_k> : Layout<256, 210, 32> {
    static __device__ Line line(const uint8_t* p, int j) {
        return {__fmul_rn(half_at(p + 208), float(int8_t(p[192 + j / 16]))), 0};
    }
    // Low nibbles: 128 elements in 64 bytes, the first 64 in their low halves.
    static __device__ uint32_t four(const uint8_t* p, int j) {
        const uint32_t low = word(p + j / 128 * 64 + (j & 63)) >> (j & 64 ? 4 : 0) & 0x0f0f0f0fu;
        return low | pairs(p + 128, j) << 4;
    }
};

// As src/tensor/blocks.h, whose arrays device code cannot index.
static __device__ const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                 1,    13,   25,  38,  53,  69,  89,  113};
static __device__ const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

template <> struct Blocks<DType::iq4_nl> : Layout<32, 18> {
    static __device__ float value(uint32_t code) { return iq4_levels[code]; }
    static __device__ Line line(const uint8_t* p, int) { return {half_at(p), 0}; }
    static __device__ uint32_t four(const uint8_t* p, int j) { return nibbles(p + 2, j); }
};

template <> struct Blocks<DType::iq4_xs> : Layout<256, 136> {
    static __device__ float value(uint32_t code) { return iq4_levels[code]; }
    static __device__ Line line(const uint8_t* p, int j) {
        const int group = j / 32, low = p[4 + group / 2] >> (4 * (group & 1)) & 15,
                  high = p[2 + group / 4] >> (2 * (group & 3)) & 3;
        return {__fmul_rn(half_at(p), float((low | high << 4) - 32)), 0};
    }
    static __device__ uint32_t four(const uint8_t* p, int j) { return nibbles(p + 8 + j / 32 * 16, j); }
};

template <> struct Blocks<DType::mxfp4> : Layout<32, 17> {
    static __device__ float value(uint32_t code) { return e2m1_doubled[code]; }
    static __device__ Line line(const uint8_t* p, int) {
        const uint32_t e = p[0];                       // 2^(e - 128): the two smallest are subnormal
        return {__uint_as_float(e < 2 ? 0x200000u << e : (e - 1) << 23), 0};
    }
    static __device__ uint32_t four(const uint8_t* p, int j) { return nibbles(p + 1, j); }
};

// Scales are looked up in the table of the tensor: src/tensor/float8.h.
template <> struct Blocks<DType::nvfp4> : Layout<64, 36> {
    static constexpr bool has_table = true;
    static __device__ float value(uint32_t code) { return e2m1_doubled[code]; }
    static __device__ Line line(const uint8_t* p, int j, const float* scales) { return {scales[p[j / 16]], 0}; }
    static __device__ uint32_t four(const uint8_t* p, int j) {
        return word(p + 4 + j / 16 * 8 + (j & 7)) >> (j & 8 ? 4 : 0) & 0x0f0f0f0fu;
    }
};

#define QLORA_BLOCK_TYPES(use)                                                                                   \
    use(q4_0) use(q4_1) use(q5_0) use(q5_1) use(q8_0) use(q2_k) use(q3_k) use(q4_k) use(q5_k) use(q6_k) use(iq4_nl) \
    use(iq4_xs) use(mxfp4) use(nvfp4)

template <class B> __device__ inline float element_of_line(const Line& line, uint32_t code) {
    const float product = __fmul_rn(line.scale, B::value(code));
    if constexpr (B::has_added) return __fadd_rn(product, line.added);
    else return product;                               // not plus zero: that would lose the sign of a zero
}

template <class B> __device__ inline Line line_of(const uint8_t* p, int j, const float* table) {
    if constexpr (B::has_table) return B::line(p, j, table);
    else return B::line(p, j);
}

// Readers: eight(e, v) gives elements e to e + 7, e a multiple of 8.
template <class B> struct BlockReader {
    const uint8_t* data;
    const float* table;                                // FourBit::absmax_map
    __device__ float one(int64_t i) const {
        const uint8_t* p = data + i / B::elements * B::bytes;
        const int j = int(i % B::elements);
        return element_of_line<B>(line_of<B>(p, j, table), B::four(p, j & ~3) >> (8 * (j & 3)) & 255);
    }
    __device__ void eight(int64_t e, float (&v)[8]) const {
        const uint8_t* p = data + e / B::elements * B::bytes;
        const int j = int(e % B::elements);
        const Line line = line_of<B>(p, j, table);
        const uint32_t codes[2] = {B::four(p, j), B::four(p, j + 4)};
        QLORA_UNROLL
        for (int k = 0; k < 8; ++k) v[k] = element_of_line<B>(line, codes[k / 4] >> (8 * (k & 3)) & 255);
    }
};

// ---- 4-bit types.
// Both are positive; in 32 bits the division is several times faster.
__device__ inline int64_t quotient(int64_t a, int64_t b) {
    return uint64_t(a | b) >> 32 ? a / b : int64_t(uint32_t(a) / uint32_t(b));
}

__device__ inline float scale_of(const FourBit& q, int64_t block) {
    if (q.absmax) return q.absmax[block];
    return __fadd_rn(__fmul_rn(q.absmax_map[q.absmax_code[block]], q.absmax2[quotient(block, q.block2)]), q.offset);
}

// ---- f8_e4m3. The bits, moved to where f32 has them, are 2^-120 times the number, subnormal ones too.
__device__ inline float f32_of_e4m3(uint32_t code) {
    const uint32_t magnitude = code & 127;
    if (magnitude == 127) return __uint_as_float(0x7fc00000u);
    return __fmul_rn(__uint_as_float(magnitude << 20 | (code & 128) << 24), 0x1p120f);
}

struct ByteReader {
    const uint8_t* codes;
    Tiles tiles;
    __device__ float scale(int64_t e) const {
        const int64_t row = quotient(e, tiles.row), col = e - row * tiles.row,
                      across = quotient(tiles.row + tiles.cols - 1, tiles.cols);
        return tiles.scale[quotient(row, tiles.rows) * across + quotient(col, tiles.cols)];
    }
    __device__ float one(int64_t e) const { return __fmul_rn(f32_of_e4m3(codes[e]), scale(e)); }
    __device__ void eight(int64_t e, float (&v)[8]) const {    // of one tile
        const uint32_t* words = reinterpret_cast<const uint32_t*>(codes + e);
        const uint32_t two[2] = {words[0], words[1]};
        const float by = scale(e);
        QLORA_UNROLL
        for (int k = 0; k < 8; ++k) v[k] = __fmul_rn(f32_of_e4m3(two[k / 4] >> (8 * (k & 3)) & 255), by);
    }
};

}  // namespace decode_room

// Element i of a stored tensor of any type but the integers.
__device__ inline float element(const WeightRef& w, int64_t i) {
    const uint8_t* data = static_cast<const uint8_t*>(w.data);
    switch (w.dtype) {
        case DType::f32: return static_cast<const float*>(w.data)[i];
        case DType::f16: return f32_of_f16(static_cast<const uint16_t*>(w.data)[i]);
        case DType::bf16: return f32_of_bf16(static_cast<const uint16_t*>(w.data)[i]);
        case DType::nf4:
        case DType::fp4:
            return __fmul_rn(w.quant.codebook[nf4_room::code_at(data, i)],
                             decode_room::scale_of(w.quant, decode_room::quotient(i, w.quant.block)));
#define QLORA_CASE(type) \
    case DType::type:        \
        return decode_room::BlockReader<decode_room::Blocks<DType::type>>{data, w.quant.absmax_map}.one(i);
        QLORA_BLOCK_TYPES(QLORA_CASE)
#undef QLORA_CASE
        case DType::f8_e4m3: return decode_room::ByteReader{data, w.tiles}.one(i);
        default: return 0;
    }
}

namespace decode_room {

// ---- Ranges of elements: `first` is the flat position of the first one, out[0].
struct Single {
    WeightRef w;
    int64_t first;
    Places out;
    __device__ void operator()(int64_t i) const { out.set(i, element(w, first + i)); }
};

// out[at..at + 7] in whole words; out.data is 16-byte aligned, at a multiple of 8.
__device__ inline void store_eight(const Places& out, int64_t at, const float* v) {
    uint32_t word[8];
    if (out.type == DType::f32) {
        for (int k = 0; k < 8; ++k) word[k] = __float_as_uint(v[k]);
        uint4* to = reinterpret_cast<uint4*>(static_cast<float*>(out.data) + at);
        to[0] = make_uint4(word[0], word[1], word[2], word[3]);
        to[1] = make_uint4(word[4], word[5], word[6], word[7]);
        return;
    }
    for (int k = 0; k < 8; ++k) word[k] = out.type == DType::bf16 ? bf16_bits(v[k]) : f16_bits(v[k]);
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(out.data) + at) =
        make_uint4(word[0] | word[1] << 16, word[2] | word[3] << 16, word[4] | word[5] << 16, word[6] | word[7] << 16);
}

template <class Reader> struct Eights {
    Reader reader;
    int64_t first;
    Places out;
    __device__ void operator()(int64_t i) const {
        float v[8];
        reader.eight(first + 8 * i, v);
        store_eight(out, 8 * i, v);
    }
};

struct EightOfDense {                                  // at a multiple of 16 bytes
    const void* data;
    DType type;
    int64_t first;
    Places out;
    __device__ void operator()(int64_t i) const {
        const int64_t e = first + 8 * i;
        const bool wide = type == DType::f32;
        const uint4* from = reinterpret_cast<const uint4*>(static_cast<const char*>(data) + e * (wide ? 4 : 2));
        const uint4 a = from[0], b = wide ? from[1] : a;
        const uint32_t word[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        float v[8];
        for (int k = 0; k < 8; ++k) {
            const uint32_t half = word[k / 2] >> (16 * (k & 1)) & 0xffffu;
            v[k] = wide ? __uint_as_float(word[k]) : type == DType::bf16 ? f32_of_bf16(half) : f32_of_f16(half);
        }
        store_eight(out, 8 * i, v);
    }
};

// Blocks of scales are whole eights. 16 floats of shared memory are in 16 banks: no conflicts.
static __global__ void eights_of_nibbles(const uint8_t* codes, nf4_room::Scales s, int64_t first, int64_t count,
                                         const int32_t* live, Places out) {
    QLORA_SHARED(float, book, 16);
    if (live && *live == 0) return;
    if (threadIdx.x < 16) book[threadIdx.x] = s.codebook[threadIdx.x];
    __syncthreads();
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        const int64_t e = first + 8 * i;
        const uint32_t word = *reinterpret_cast<const uint32_t*>(codes + e / 2);
        const float scale = nf4_room::scale_at(s, e >> s.shift);
        float v[8];
        for (int k = 0; k < 8; ++k)                    // byte k / 2: the even element in its high nibble
            v[k] = __fmul_rn(book[word >> (8 * (k / 2) + (k & 1 ? 0 : 4)) & 15], scale);
        store_eight(out, 8 * i, v);
    }
}

// start(reader of its blocks or bytes); false for other types.
template <class Start> bool with_reader(const WeightRef& w, const Start& start) {
    const uint8_t* data = static_cast<const uint8_t*>(w.data);
    switch (w.dtype) {
#define QLORA_CASE(type)                                                         \
    case DType::type:                                                            \
        start(BlockReader<Blocks<DType::type>>{data, w.quant.absmax_map});       \
        return true;
        QLORA_BLOCK_TYPES(QLORA_CASE)
#undef QLORA_CASE
        case DType::f8_e4m3: start(ByteReader{data, w.tiles}); return true;
        default: return false;
    }
}

// Whether 8 codes at a time can be taken.
inline bool takes_eights(const WeightRef& w, int64_t first, int64_t count, const Places& out) {
    if (first % 8 || count % 8 || !aligned_to(out.data, 16) || !aligned_to(w.data, 4)) return false;
    if (w.dtype == DType::f8_e4m3)
        return w.tiles.row % 8 == 0 && (w.tiles.cols % 8 == 0 || w.tiles.cols >= w.tiles.row);
    if (!is_4bit(w.dtype)) return type_info(w.dtype).block % 8 == 0;
    return w.quant.block % 8 == 0 && is_power_of_two(w.quant.block) && is_power_of_two(w.quant.block2);
}

}  // namespace decode_room

// Rows of W into out {rows, cols}, without gaps; every pointer is on the device. Nothing where `live` is there and 0.
inline void decode_rows(const Call& call, const WeightRef& w, int64_t first_row, int64_t rows, Places out,
                        const int32_t* live = nullptr) {
    const int64_t first = first_row * w.cols, count = rows * w.cols;
    if (!can_decode(w.dtype)) fail(Errc::unsupported, "decode_rows: type ", name_of(w.dtype), " holds integers");
    if (first_row < 0 || rows < 0 || first_row > w.rows - rows)
        fail(Errc::argument, "decode_rows: rows ", first_row, " to ", first_row + rows, " of ", w.rows);
    if (count == 0) return;
    const TypeInfo& info = type_info(w.dtype);
    if (info.decode && info.block == 1 && first % 8 == 0 && count % 8 == 0 && aligned_to(w.data, 16) &&
        aligned_to(out.data, 16)) {
        each(call, count / 8, decode_room::EightOfDense{w.data, w.dtype, first, out}, live);
        return;
    }
    if (!decode_room::takes_eights(w, first, count, out)) {
        each(call, count, decode_room::Single{w, first, out}, live);
        return;
    }
    const bool started = decode_room::with_reader(w, [&]<class Reader>(const Reader& reader) {
        each(call, count / 8, decode_room::Eights<Reader>{reader, first, out}, live);
    });
    if (started) return;
    constexpr int threads = 256;
    launch("decode_rows", decode_room::eights_of_nibbles, {grid_for(call, count / 8, threads), threads},
           stream_of(call), static_cast<const uint8_t*>(w.data), nf4_room::scales_of(w, "decode_rows"), first,
           count / 8, live, out);
}

}  // namespace cuda
}}  // namespace qlora
