// encode.cpp - floats to stored numbers. f16 and bf16 round to the nearest, ties to even; the blocks of 32 are those of
// blocks.cpp:
//
//   q8_0           d = the best of 129 scales from max|x| / 127 to max|x| / 95, the nearest code of each element
//   q4_0, iq4_nl   d = the best there is (best_scale.cpp), the nearest code of each element
#include "src/tensor/encode.h"
#include "src/base/half.h"
#include "src/tensor/best_scale.h"
#include "src/tensor/blocks.h"
#include "src/tensor/nf4.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace encode_room {

constexpr int64_t block = 32, piece = 4096;            // piece: elements a task, a multiple of every block

void put_half(uint8_t* p, float value) {
    const uint16_t h = f16_from_f32(value);
    std::memcpy(p, &h, 2);
}

using Encode = void (*)(const float*, void*, int64_t);
struct Row { DType type; Encode encode; float largest; };              // largest magnitude that stays finite
constexpr Row table[] = {
    {DType::f32, encode_f32, FLT_MAX},
    {DType::f16, encode_f16, 65504},
    {DType::bf16, encode_bf16, 3.38e38f},
    {DType::q8_0, encode_q8_0, 65504.0f * 127},
    {DType::q4_0, encode_q4_0, 65504.0f * 8},
    {DType::iq4_nl, encode_iq4_nl, 65504.0f * 127},
};

const Row* row_of(DType type) {
    for (const Row& row : table)
        if (row.type == type) return &row;
    return nullptr;
}

// A block under the scale that f16 makes of d: codes, error, and the least-squares scale of those codes.
struct Bytes { float error = 0, least_squares = 0; uint16_t half = 0; int8_t code[block]; };
void code_bytes(const float* x, float d, Bytes& out) {
    out.half = f16_from_f32(std::min(d, 65504.0f));
    const float held = f32_from_f16(out.half), inverse = held > 0 ? 1 / held : 0;
    float q[block], error[8] = {}, lx[8] = {}, ll[8] = {};
    // the sum with 1.5 * 2^23 has no room for a fraction: rounded, ties to even
    for (int64_t i = 0; i < block; ++i) {
        const float clipped = std::clamp(x[i] * inverse, -127.0f, 127.0f), shifted = clipped + 12582912.0f;
        q[i] = shifted - 12582912.0f;
    }
    for (int64_t i = 0; i < block; i += 8)
        for (int64_t j = 0; j < 8; ++j) {              // eight sums each, so that the compiler uses vectors
            const float v = x[i + j], difference = v - held * q[i + j];
            error[j] += difference * difference;
            lx[j] += v * q[i + j];
            ll[j] += q[i + j] * q[i + j];
        }
    const auto sum = [](const float* s) { return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])); };
    out.error = sum(error);
    out.least_squares = sum(ll) > 0 ? sum(lx) / sum(ll) : 0;
    for (int64_t i = 0; i < block; ++i) out.code[i] = int8_t(q[i]);
}

float largest(const float* x) {                        // magnitude in a block
    float most = 0;
    for (int64_t i = 0; i < block; ++i) most = std::max(most, std::fabs(x[i]));
    return most;
}

void put(const Bytes& from, uint8_t* to) {
    std::memcpy(to, &from.half, 2);
    std::memcpy(to + 2, from.code, sizeof from.code);
}

// d and 16 bytes of codes: low nibbles are elements 0..15, high nibbles 16..31.
void nibbles(const Levels& levels, const float* in, void* blocks, int64_t count) {
    static_assert(block == scale_block);
    uint8_t* p = static_cast<uint8_t*>(blocks);
    for (int64_t first = 0; first < count; first += block, in += block, p += 18) {
        uint16_t half;
        int32_t code[block];
        best_scale(levels, in, &half, code);
        std::memcpy(p, &half, 2);
        for (int64_t i = 0; i < block / 2; ++i) p[2 + i] = uint8_t(code[i] | code[i + 16] << 4);
    }
}

void check_range(std::string_view what, std::string_view name, const Row& row, const float* x, int64_t first,
                 int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        if (!(std::fabs(x[i]) <= row.largest))
            fail(Errc::numeric, what, name, ": element ", first + i, " is ", x[i], ", which ", name_of(row.type),
                 " cannot hold", std::isfinite(x[i]) ? "; choose bf16 or f32" : "");
}

}  // namespace encode_room

void encode_f32(const float* in, void* blocks, int64_t count) {
    if (count > 0) std::memcpy(blocks, in, size_t(count) * sizeof(float));
}

void encode_f16(const float* in, void* blocks, int64_t count) {
    uint8_t* p = static_cast<uint8_t*>(blocks);
    for (int64_t i = 0; i < count; ++i) encode_room::put_half(p + 2 * i, in[i]);
}

void encode_bf16(const float* in, void* blocks, int64_t count) {
    uint8_t* p = static_cast<uint8_t*>(blocks);
    for (int64_t i = 0; i < count; ++i) {
        const uint16_t h = bf16_from_f32(in[i]);
        std::memcpy(p + 2 * i, &h, 2);
    }
}

// Scales from max|x| / 127 upwards, a quarter of a level apart, and for the best of them once more the least-squares
// scale of its codes. Of weights that have few values, as those held in NF4, some scale fits them all: half the error
// of the first one.
void encode_q8_0(const float* in, void* blocks, int64_t count) {
    constexpr int scales = 128;
    uint8_t* p = static_cast<uint8_t*>(blocks);
    for (int64_t first = 0; first < count; first += encode_room::block, in += encode_room::block, p += 34) {
        const float most = encode_room::largest(in);
        encode_room::Bytes best, next;
        for (int s = 0; s <= scales; ++s) {
            encode_room::code_bytes(in, s < scales ? most / (127 - 0.25f * float(s)) : best.least_squares, next);
            if (s == 0 || next.error < best.error) best = next;
        }
        encode_room::put(best, p);
    }
}

void encode_q4_0(const float* in, void* blocks, int64_t count) {
    static constexpr Levels levels(-8, 16, 3.5f, 12.5f, true);
    encode_room::nibbles(levels, in, blocks, count);
}

void encode_iq4_nl(const float* in, void* blocks, int64_t count) {
    static constexpr Levels levels(iq4_curve, 40, 195, false);
    encode_room::nibbles(levels, in, blocks, count);
}

void encode_plain(DType type, std::string_view what, const float* in, void* blocks, int64_t count) {
    namespace room = encode_room;
    if (type == DType::f32) return encode_f32(in, blocks, count);
    const room::Row* row = room::row_of(type);
    if (!row || (type != DType::f16 && type != DType::bf16 && type != DType::q8_0))
        fail(Errc::unsupported, what, ": not held as ", name_of(type), "; choose f32, f16, bf16 or q8_0");
    room::check_range(what, "", *row, in, 0, count);
    if (type != DType::q8_0) return row->encode(in, blocks, count);
    uint8_t* p = static_cast<uint8_t*>(blocks);
    for (int64_t first = 0; first < count; first += room::block, in += room::block, p += 34) {
        room::Bytes bytes;
        room::code_bytes(in, room::largest(in) / 127, bytes);
        room::put(bytes, p);
    }
}

bool can_encode(DType type) { return is_4bit(type) || encode_room::row_of(type); }

Weight convert_weight(const Weight& source, DType type, bool double_quant, ThreadPool* pool) {
    if (source.held) return convert_weight(source.held->download(), type, double_quant, pool);
    namespace room = encode_room;
    if (source.dtype == type) return source;
    if (is_4bit(type)) return quantize_4bit(source, type, double_quant, pool);
    const room::Row* row = room::row_of(type);
    if (!row)
        fail(Errc::unsupported, "convert ", source.name, ": weights are not written as ", name_of(type), "; choose ",
             written_types);
    const TypeInfo& info = type_info(type);
    if (source.cols() % info.block)
        fail(Errc::shape, "convert ", source.name, ": rows of ", source.cols(), " are not whole blocks of ", info.block,
             " as ", info.name, " needs");
    const int64_t n = source.elements();
    const WeightRef flat = source.flat();
    auto bytes = std::make_shared<std::vector<uint8_t>>(size_t(bytes_of(type, n)));
    const auto task = [&](int64_t number, int) {
        const int64_t first = number * room::piece, count = std::min(room::piece, n - first);
        float x[room::piece];
        decode(flat, first, count, x);
        room::check_range("convert ", source.name, *row, x, first, count);
        row->encode(x, bytes->data() + first / info.block * info.bytes, count);
    };
    const int64_t tasks = (n + room::piece - 1) / room::piece;
    if (pool) pool->run(tasks, task);
    else for (int64_t t = 0; t < tasks; ++t) task(t, 0);
    source.check();
    Weight result;
    result.name = source.name;
    result.dtype = type;
    result.shape = source.shape;
    result.data = bytes->data();
    result.owner = std::move(bytes);
    return result;
}

}}  // namespace qlora
