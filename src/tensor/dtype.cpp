// dtype.cpp - the table of number types, in the order of the enum.
#include "src/tensor/dtype.h"
#include "src/tensor/blocks.h"

namespace qlora { inline namespace QLORA_ABI {
namespace dtype_room {

constexpr TypeInfo table[dtype_count] = {
    //          name      block bytes ggml decode
    {DType::f32, "f32", 1, 4, 0, decode_f32},
    {DType::f16, "f16", 1, 2, 1, decode_f16},
    {DType::bf16, "bf16", 1, 2, 30, decode_bf16},
    {DType::i32, "i32", 1, 4, 26, nullptr},
    {DType::nf4, "nf4", 2, 1, -1, nullptr},
    {DType::fp4, "fp4", 2, 1, -1, nullptr},
    {DType::q4_0, "q4_0", 32, 18, 2, decode_q4_0},
    {DType::q4_1, "q4_1", 32, 20, 3, decode_q4_1},
    {DType::q5_0, "q5_0", 32, 22, 6, decode_q5_0},
    {DType::q5_1, "q5_1", 32, 24, 7, decode_q5_1},
    {DType::q8_0, "q8_0", 32, 34, 8, decode_q8_0},
    {DType::q2_k, "q2_k", 256, 84, 10, decode_q2_k},
    {DType::q3_k, "q3_k", 256, 110, 11, decode_q3_k},
    {DType::q4_k, "q4_k", 256, 144, 12, decode_q4_k},
    {DType::q5_k, "q5_k", 256, 176, 13, decode_q5_k},
    {DType::q6_k, "q6_k", 256, 210, 14, decode_q6_k},
    {DType::iq4_nl, "iq4_nl", 32, 18, 20, decode_iq4_nl},
    {DType::iq4_xs, "iq4_xs", 256, 136, 23, decode_iq4_xs},
    {DType::mxfp4, "mxfp4", 32, 17, 39, decode_mxfp4},
    {DType::u8, "u8", 1, 1, -1, nullptr},
    {DType::nvfp4, "nvfp4", 64, 36, 40, nullptr},
    {DType::f8_e4m3, "f8_e4m3", 1, 1, -1, nullptr},
};

constexpr bool in_order() {
    for (int i = 0; i < dtype_count; ++i)
        if (int(table[i].dtype) != i) return false;
    return true;
}
static_assert(in_order());

}  // namespace dtype_room

const TypeInfo& type_info(DType t) {
    if (int(t) >= dtype_count) fail(Errc::argument, "no number type has the value ", int(t));
    return dtype_room::table[int(t)];
}

const TypeInfo* type_of_ggml(int id) {
    for (const TypeInfo& info : dtype_room::table)
        if (info.ggml == id && id >= 0) return &info;
    return nullptr;
}

int64_t bytes_of(DType t, int64_t elements) {
    const TypeInfo& info = type_info(t);
    if (!is_4bit(t) && elements % info.block != 0)
        fail(Errc::shape, elements, " elements of type ", info.name, ": not a multiple of its block of ", info.block);
    return checked_mul(elements / info.block + (elements % info.block != 0), info.bytes, info.name);
}

std::string_view name_of(DType t) { return type_info(t).name; }

}}  // namespace qlora
