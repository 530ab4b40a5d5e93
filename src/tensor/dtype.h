// dtype.h - the table of number types: how many elements a block holds, how many bytes it takes, how to decode a run of
// blocks.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

constexpr int dtype_count = int(DType::f8_e4m3) + 1;

struct TypeInfo {
    DType dtype;
    std::string_view name;
    int64_t block;    // elements a block (1 for dense types; 2 for nf4 and fp4, whose scales live apart)
    int64_t bytes;                                     // bytes a block
    int ggml;                                          // type id in GGUF, -1 = none
    // count elements, a multiple of block; null for i32, u8, and where scales lie apart: nf4, fp4, nvfp4, f8_e4m3
    void (*decode)(const void* blocks, float* out, int64_t count);
};

const TypeInfo& type_info(DType);
const TypeInfo* type_of_ggml(int id);                  // null for an id that we do not read
int64_t bytes_of(DType, int64_t elements);             // whole blocks; of nf4/fp4 the packed codes only
inline bool is_4bit(DType t) { return t == DType::nf4 || t == DType::fp4; }
inline bool can_decode(DType t) { return t != DType::i32 && t != DType::u8; }           // numbers of a weight

inline int64_t elements_of(const Shape& shape) {
    int64_t n = 1;
    for (int64_t d : shape) n = checked_mul(n, d, "shape");
    return n;
}

}}  // namespace qlora
