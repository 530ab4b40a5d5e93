// weight.cpp - decoding any part of any stored tensor.
#include "src/tensor/float8.h"

#include "src/base/mapped_file.h"

#include <algorithm>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace weight_room {

constexpr int64_t largest_block = 256;

// Blocks cut by the ends of the range are decoded aside; those between, in one call of whole_blocks(at, out, count).
template <class Decode>
void decode_blocks(const TypeInfo& info, const uint8_t* data, const Decode& whole_blocks, int64_t first, int64_t count,
                   float* out) {
    const auto at = [&](int64_t element) { return data + element / info.block * info.bytes; };
    float whole[largest_block];
    if (const int64_t skip = first % info.block; skip != 0 && count > 0) {
        const int64_t take = std::min(count, info.block - skip);
        whole_blocks(at(first), whole, info.block);
        std::copy_n(whole + skip, take, out);
        first += take;
        count -= take;
        out += take;
    }
    const int64_t middle = count / info.block * info.block;
    if (middle > 0) whole_blocks(at(first), out, middle);
    if (middle == count) return;
    whole_blocks(at(first + middle), whole, info.block);
    std::copy_n(whole, count - middle, out + middle);
}

// One scale: its 16 products are computed once, so that an element is a lookup.
void decode_run(const uint8_t* codes, const float* codebook, float scale, int64_t first, int64_t count, float* out) {
    float value[16];
    for (int c = 0; c < 16; ++c) value[c] = codebook[c] * scale;
    if ((first & 1) && count > 0) {
        *out++ = value[codes[first / 2] & 15];
        ++first;
        --count;
    }
    const uint8_t* p = codes + first / 2;
    for (int64_t i = 0; i < count / 2; ++i) {
        out[2 * i] = value[p[i] >> 4];
        out[2 * i + 1] = value[p[i] & 15];
    }
    if (count & 1) out[count - 1] = value[p[count / 2] >> 4];
}

void decode_4bit(const WeightRef& w, int64_t first, int64_t count, float* out) {
    const uint8_t* codes = static_cast<const uint8_t*>(w.data);
    while (count > 0) {
        const int64_t block = first / w.quant.block, take = std::min(count, (block + 1) * w.quant.block - first);
        decode_run(codes, w.quant.codebook, w.quant.scale(block), first, take, out);
        first += take;
        count -= take;
        out += take;
    }
}

}  // namespace weight_room

void decode(const WeightRef& w, int64_t first, int64_t count, float* out) {
    const TypeInfo& info = type_info(w.dtype);
    const int64_t elements = checked_mul(w.rows, w.cols, "decode");
    if (first < 0 || count < 0 || first > elements - count)
        fail(Errc::argument, "decode: ", count, " elements from position ", first, " of a [", w.rows, ", ", w.cols,
             "] tensor of type ", info.name);
    const uint8_t* data = static_cast<const uint8_t*>(w.data);
    const auto nvfp4 = [&](const void* blocks, float* to, int64_t n) {
        decode_nvfp4(blocks, w.quant.absmax_map, to, n);
    };
    if (is_4bit(w.dtype)) weight_room::decode_4bit(w, first, count, out);
    else if (w.dtype == DType::f8_e4m3) decode_f8_e4m3(w, first, count, out);
    else if (w.dtype == DType::nvfp4) weight_room::decode_blocks(info, data, nvfp4, first, count, out);
    else if (info.decode) weight_room::decode_blocks(info, data, info.decode, first, count, out);
    else fail(Errc::unsupported, "decode: type ", info.name, " holds integers");
}

int64_t WeightRef::bytes() const {
    const TypeInfo& info = type_info(dtype);
    const int64_t n = rows * cols, codes = (n + info.block - 1) / info.block * info.bytes;
    if (!is_4bit(dtype)) return codes + tiles.count(n) * int64_t(sizeof(float));
    const int64_t blocks = (n + quant.block - 1) / quant.block, blocks2 = (blocks + quant.block2 - 1) / quant.block2;
    return codes + (quant.absmax ? blocks * int64_t(sizeof(float)) : blocks + blocks2 * int64_t(sizeof(float)));
}

std::vector<float> Weight::decoded() const {
    if (held) return held->download().decoded();
    std::vector<float> out(static_cast<size_t>(elements()));
    decode(flat(), 0, elements(), out.data());
    check();
    return out;
}

WeightPtr on_host(WeightPtr w) {
    return w && w->held ? std::make_shared<const Weight>(w->held->download()) : w;
}

void Weight::check() const { if (file) file->check(); }

void align(Weight& w) {
    // the widest number that a kernel reads from these types as one
    const uintptr_t unit = w.dtype == DType::f32 ? 4 : is_4bit(w.dtype) || w.dtype == DType::f8_e4m3 ? 1 : 2;
    if (reinterpret_cast<uintptr_t>(w.data) % unit == 0) return;
    const int64_t bytes = bytes_of(w.dtype, w.elements());
    auto copy = std::make_shared<std::vector<uint32_t>>(size_t(bytes + 3) / 4);
    if (bytes) std::memcpy(copy->data(), w.data, size_t(bytes));
    w.check();                                         // the copy is whole, or an error
    w.data = reinterpret_cast<const uint8_t*>(copy->data());
    w.owner = std::move(copy);
    w.file = nullptr;
}

Weight dense_weight(std::string name, Shape shape, std::vector<float> values) {
    Weight w;
    w.name = std::move(name);
    w.shape = std::move(shape);
    if (w.elements() != int64_t(values.size()))
        fail(Errc::shape, w.name, ": ", values.size(), " values for the shape ", w.shape);
    auto owner = std::make_shared<const std::vector<float>>(std::move(values));
    w.data = reinterpret_cast<const uint8_t*>(owner->data());
    w.owner = std::move(owner);
    return w;
}

}}  // namespace qlora
