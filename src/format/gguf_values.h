// gguf_values.h - values as they lie in a GGUF file, for the reader and for those who ask it.
#pragma once
#include "src/format/gguf.h"

#include <cstring>

namespace qlora { inline namespace QLORA_ABI {

template <class T>
T gguf_value(const uint8_t* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}
int64_t gguf_value_bytes(uint32_t type);               // 0 for strings and arrays, whose length lies in the file

}}  // namespace qlora
