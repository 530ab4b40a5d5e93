// encode.cpp - floats to stored numbers. f16 and bf16 round to the nearest, ties to even; the blocks of 32 are those of blocks.cpp:
//
//   q8_0  d = max|x| / 127, q = x / d to the nearest, halves away from zero
//   q4_0  d = m / -8 for the x of largest magnitude m (the first of equals), so that m itself becomes code 0 exactly; q = x / d + 8.5 cut
//         off, at most 15: one end of the range is met exactly and the other may be cut by one step
#include "src/tensor/encode.h"
#include "src/base/half.h"
#include "src/tensor/nf4.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

namespace qlora::inline v0_1 {
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
};

const Row* row_of(DType type) {
    for (const Row& row : table)
        if (row.type == type) return &row;
    return nullptr;
}

void check_range(const Weight& w, const Row& row, const float* x, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        if (!(std::fabs(x[i]) <= row.largest))
            fail(Errc::numeric, "convert ", w.name, ": element ", first + i, " is ", x[i], ", which ", name_of(row.type), " cannot hold", std::isfinite(x[i]) ? "; choose bf16 or f32" : "");
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

void encode_q8_0(const float* in, void* blocks, int64_t count) {
    uint8_t* p = static_cast<uint8_t*>(blocks);
    for (int64_t first = 0; first < count; first += encode_room::block, in += encode_room::block, p += 34) {
        float most = 0;
        for (int64_t i = 0; i < encode_room::block; ++i) most = std::max(most, std::fabs(in[i]));
        const float d = most / 127, inverse = d > 0 ? 1 / d : 0;
        encode_room::put_half(p, d);
        // A d so small that its inverse is infinite makes 0 * inf: such a block is zeros in f16 anyway.
        for (int64_t i = 0; i < encode_room::block; ++i) p[2 + i] = std::isinf(inverse) ? 0 : uint8_t(int8_t(std::round(in[i] * inverse)));
    }
}

void encode_q4_0(const float* in, void* blocks, int64_t count) {
    uint8_t* p = static_cast<uint8_t*>(blocks);
    for (int64_t first = 0; first < count; first += encode_room::block, in += encode_room::block, p += 18) {
        float most = 0;
        for (int64_t i = 0; i < encode_room::block; ++i)
            if (std::fabs(in[i]) > std::fabs(most)) most = in[i];
        const float d = most / -8;
        float inverse = d != 0 ? 1 / d : 0;
        if (std::isinf(inverse)) inverse = 0;
        encode_room::put_half(p, d);
        const auto code = [inverse](float x) { return uint8_t(std::min(int(x * inverse + 8.5f), 15)); };
        for (int64_t i = 0; i < encode_room::block / 2; ++i) p[2 + i] = uint8_t(code(in[i]) | code(in[i + 16]) << 4);
    }
}

bool can_encode(DType type) { return is_4bit(type) || encode_room::row_of(type); }

Weight convert_weight(const Weight& source, DType type, bool double_quant, ThreadPool* pool) {
    namespace room = encode_room;
    if (source.dtype == type) return source;
    if (is_4bit(type)) return quantize_4bit(source, type, double_quant, pool);
    const room::Row* row = room::row_of(type);
    if (!row) fail(Errc::unsupported, "convert ", source.name, ": weights are not written as ", name_of(type), "; choose f32, f16, bf16, q8_0, q4_0, nf4 or fp4");
    const TypeInfo& info = type_info(type);
    if (source.cols() % info.block) fail(Errc::shape, "convert ", source.name, ": rows of ", source.cols(), " are not whole blocks of ", info.block, " as ", info.name, " needs");
    const int64_t n = source.elements();
    const WeightRef flat{source.dtype, source.data, source.quant, 1, n};
    auto bytes = std::make_shared<std::vector<uint8_t>>(size_t(bytes_of(type, n)));
    const auto task = [&](int64_t number, int) {
        const int64_t first = number * room::piece, count = std::min(room::piece, n - first);
        float x[room::piece];
        decode(flat, first, count, x);
        room::check_range(source, *row, x, first, count);
        row->encode(x, bytes->data() + first / info.block * info.bytes, count);
    };
    const int64_t tasks = (n + room::piece - 1) / room::piece;
    if (pool) pool->run(tasks, task);
    else for (int64_t t = 0; t < tasks; ++t) task(t, 0);
    Weight result;
    result.name = source.name;
    result.dtype = type;
    result.shape = source.shape;
    result.data = bytes->data();
    result.owner = std::move(bytes);
    return result;
}

}  // namespace qlora
