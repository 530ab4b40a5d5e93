// gguf_four_bit.cpp - nf4 and fp4 tensors in a GGUF file, out of it and into it, bit for bit. The layout is described
// in gguf_model.h.
#include "src/model/gguf_model.h"

#include "src/tensor/nf4.h"

#include <array>
#include <cmath>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {

namespace gguf_four_bit_room {

struct Reader {
    const Gguf& file;
    const std::string& name;

    const GgufTensor* find(const char* suffix, int type, int64_t bytes, bool required) const {
        const std::string full = name + suffix;
        const GgufTensor* t = file.tensor(full);
        if (!t && !required) return nullptr;
        if (!t) fail(Errc::format, "gguf: ", file.path(), ": the tensor ", full, " is missing");
        if (t->ggml_type != type || t->bytes != bytes)
            fail(Errc::format, "gguf: ", file.path(), ": tensor ", full, " has type ", t->ggml_type, " and ", t->bytes,
                 " bytes, expected type ", type, " and ", bytes);
        return t;
    }
    const float* floats(const char* suffix, int64_t count, bool required = true) const {
        const GgufTensor* t = find(suffix, 0, count * 4, required);
        if (!t) return nullptr;
        const float* values = reinterpret_cast<const float*>(file.data(*t));
        if (t->offset % 4)
            fail(Errc::format, "gguf: ", file.path(), ": tensor ", name, suffix, " lies at byte ", t->offset,
                 ", not at a multiple of 4 as our writer puts it");
        for (int64_t i = 0; i < count; ++i)
            if (!std::isfinite(values[i]))
                fail(Errc::format, "gguf: ", file.path(), ": tensor ", name, suffix, " holds ", values[i], " at ", i);
        return values;
    }
};

void add(GgufWriter& w, std::string name, int type, Shape shape, const void* data, int64_t bytes, WeightPtr owner) {
    w.add({std::move(name), type, std::move(shape), bytes, [data, bytes, owner](AtomicFile& f) {
        f.write(data, bytes);
        owner->check();
    }});
}

}  // namespace gguf_four_bit_room

Weight read_four_bit(const Gguf& file, const std::string& name) {
    const gguf_four_bit_room::Reader read{file, name};
    const GgufTensor* codes = file.tensor(name);
    if (!codes || codes->ggml_type != ggml_i8 || codes->shape.size() != 2)
        fail(Errc::format, "gguf: ", file.path(), ": tensor ", name, " must be a matrix of I8 codes");
    const std::string type = file.string("qlora.type", "");
    if (type != "nf4" && type != "fp4")
        fail(Errc::unsupported, "gguf: ", file.path(), ": qlora.type \"", type,
             "\" is not known; was the file written by a newer version?");
    Weight w;
    w.name = name;
    w.dtype = type == "nf4" ? DType::nf4 : DType::fp4;
    w.shape = {codes->shape[0], checked_mul(codes->shape[1], 2, "gguf: " + file.path())};
    w.data = file.data(*codes);
    w.owner = file.file_of(*codes);
    w.file = file.file_of(*codes).get();
    FourBit& q = w.quant;
    q.block = file.integer("qlora.block");
    q.block2 = file.integer("qlora.block2", 256);
    if (const float* own = read.floats(".blocks", 2, false)) {
        q.block = own[0] >= 1 && own[0] <= 65536 ? int64_t(own[0]) : 0;
        q.block2 = own[1] >= 1 && own[1] <= 65536 ? int64_t(own[1]) : 0;
    }
    // parts of a fused layer may have groups of few blocks
    for (const auto& [b, least] : {std::pair<int64_t, int64_t>{q.block, 16}, {q.block2, 1}})
        if (b < least || b > 65536 || (b & (b - 1)))
            fail(Errc::format, "gguf: ", file.path(), ": a quantization block of ", b,
                 " elements, expected a power of two from ", least, " to 65536");
    const int64_t blocks = (w.elements() + q.block - 1) / q.block;
    q.codebook = read.floats(".codebook", 16, false);
    if (!q.codebook) q.codebook = w.dtype == DType::nf4 ? nf4_codebook : fp4_codebook;
    if (file.tensor(name + ".absmax")) {
        q.absmax = read.floats(".absmax", blocks);
        return w;
    }
    q.absmax_code = file.data(*read.find(".absmax_code", ggml_i8, blocks, true));
    q.absmax2 = read.floats(".absmax2", (blocks + q.block2 - 1) / q.block2);
    q.offset = *read.floats(".offset", 1);
    q.absmax_map = read.floats(".absmax_map", 256, false);
    if (!q.absmax_map) q.absmax_map = dynamic_map_signed();
    return w;
}

void write_four_bit(GgufWriter& out, const std::string& name, WeightPtr weight, const FourBit& said) {
    const Weight& w = *weight;
    const FourBit& q = w.quant;
    if (w.shape.size() != 2 || w.shape[1] % 2)
        fail(Errc::unsupported, "save: the 4-bit tensor ", name, " of shape ", w.shape,
             " has rows of an odd length, which GGUF cannot hold");
    const int64_t blocks = (w.elements() + q.block - 1) / q.block;
    auto add = [&](const char* suffix, int type, Shape shape, const void* data, int64_t bytes) {
        gguf_four_bit_room::add(out, name + suffix, type, std::move(shape), data, bytes, weight);
    };
    add("", ggml_i8, {w.shape[0], w.shape[1] / 2}, w.data, w.elements() / 2);
    if (q.block != said.block || q.block2 != said.block2) {
        const std::array<float, 2> blocks_of_it{float(q.block), float(q.block2)};
        out.add({name + ".blocks", 0, {2}, 8, [blocks_of_it](AtomicFile& f) { f.write(blocks_of_it.data(), 8); }});
    }
    if (std::memcmp(q.codebook, w.dtype == DType::nf4 ? nf4_codebook : fp4_codebook, 64) != 0)
        add(".codebook", 0, {16}, q.codebook, 64);
    if (q.absmax) {
        add(".absmax", 0, {blocks}, q.absmax, blocks * 4);
        return;
    }
    const int64_t groups = (blocks + q.block2 - 1) / q.block2;
    add(".absmax_code", ggml_i8, {blocks}, q.absmax_code, blocks);
    add(".absmax2", 0, {groups}, q.absmax2, groups * 4);
    add(".offset", 0, {1}, &q.offset, 4);
    if (std::memcmp(q.absmax_map, dynamic_map_signed(), 1024) != 0) add(".absmax_map", 0, {256}, q.absmax_map, 1024);
}

}}  // namespace qlora
