// hf_float8.cpp - linear layers of a Hugging Face folder whose numbers or scales are e4m3: tensors beside NAME.weight.
//
//   f8_e4m3   NAME.weight F8_E4M3 {out, in}, and NAME.weight_scale_inv or NAME.weight_scale (both are multiplied with):
//             one for the tensor, one for each row, or one for each tile, 128 x 128 unless config.json says otherwise
//   nvfp4     NAME.weight or NAME.weight_packed U8 {out, in / 2}, the low nibble first; NAME.weight_scale F8_E4M3
//             {out, in / 16}; for the tensor NAME.weight_scale_2, which is multiplied with (modelopt), or
//             NAME.weight_global_scale, which is divided by (compressed-tensors)
// f8_e4m3 stays in its file. nvfp4 is copied into the blocks that GGUF has, which hold the same bits in another order.
#include "src/base/file.h"
#include "src/base/limits.h"
#include "src/model/hf_model.h"
#include "src/tensor/float8.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

namespace hf_float8_room {

using Entry = HfTensors::Entry;

constexpr std::string_view weight = ".weight";

std::string stem_of(const std::string& name) { return name.substr(0, name.size() - weight.size()); }

std::vector<float> finite(const Entry& e) {
    std::vector<float> values = e.file->floats(*e.tensor);
    for (const float v : values)
        if (!std::isfinite(v)) fail(Errc::format, e.file->path(), ": tensor ", e.tensor->name, " holds ", v);
    return values;
}

float single(const Entry& e) {
    const std::vector<float> values = finite(e);
    if (values.size() != 1)
        fail(Errc::format, e.file->path(), ": tensor ", e.tensor->name, " has ", values.size(),
             " values, expected one");
    return values[0];
}

// One of two tensors, which exclude each other; Error{format} that names both where there is not exactly one.
const Entry& either(const HfTensors& tensors, const Entry& of, const std::string& first, const std::string& second) {
    const Entry *a = tensors.find(first), *b = tensors.find(second);
    if (!a == !b)
        fail(Errc::format, of.file->path(), ": tensor ", of.tensor->name, " of type ", of.tensor->dtype, " needs ",
             first, " or ", second, " beside it; ", a ? "both are" : "neither is", " there");
    return a ? *a : *b;
}

void check_matrix(const Entry& e) {
    if (e.tensor->shape.size() != 2 || e.tensor->bytes < 1)
        fail(Errc::format, e.file->path(), ": tensor ", e.tensor->name, " of type ", e.tensor->dtype, " has shape ",
             e.tensor->shape, ", expected a matrix");
}

struct Numbers {                                       // what a weight keeps
    std::vector<float> scales;
    std::vector<uint8_t> blocks;
    std::shared_ptr<const SafeTensors> file;
};

Weight read_f8(const HfTensors& tensors, const std::string& name, const Entry& codes, const HfQuantization& said) {
    check_matrix(codes);
    const std::string stem = stem_of(name);
    for (const char* other : {".weight_scale_2", ".weight_global_scale"})
        if (tensors.find(stem + other))
            fail(Errc::format, codes.file->path(), ": ", stem, other, " belongs to 4-bit weights, ", name,
                 " is of type F8_E4M3");
    const Entry& scale = either(tensors, codes, stem + ".weight_scale_inv", stem + ".weight_scale");
    auto kept = std::make_shared<Numbers>();
    kept->scales = finite(scale);
    kept->file = codes.file;
    Weight w;
    w.name = name;
    w.dtype = DType::f8_e4m3;
    w.shape = codes.tensor->shape;
    w.data = codes.tensor->data;
    const int64_t rows = w.shape[0], cols = w.shape[1], tr = said.tile_rows, tc = said.tile_cols;
    const Shape tiles{(rows + tr - 1) / tr, (cols + tc - 1) / tc}, &shape = scale.tensor->shape;
    w.tiles.row = cols;
    if (kept->scales.size() == 1) w.tiles.rows = rows, w.tiles.cols = cols;
    else if (shape == Shape{rows} || shape == Shape{rows, 1}) w.tiles.rows = 1, w.tiles.cols = cols;
    else if (shape == tiles) w.tiles.rows = tr, w.tiles.cols = tc;
    else
        fail(Errc::format, scale.file->path(), ": tensor ", scale.tensor->name, " has shape ", shape, "; for ", name,
             " of shape ", w.shape, " expected one scale, one for each row, or ", tiles, " for tiles of ", tr, " x ",
             tc);
    w.tiles.scale = kept->scales.data();
    w.owner = std::move(kept);
    w.file = codes.file->mapped();
    return w;
}

// The signs of scales would be lost, and what is not a number would count as 0.
void check_scales(const Entry& e) {
    for (int64_t i = 0; i < e.tensor->bytes; ++i)
        if (const uint8_t c = e.tensor->data[i]; c > 126 && c != 128)
            fail(Errc::format, e.file->path(), ": tensor ", e.tensor->name, " holds ", f32_from_e4m3(c), " at ", i,
                 ", expected scales of 0 or more");
}

Weight read_nvfp4(const HfTensors& tensors, const std::string& name, const Entry& codes) {
    check_matrix(codes);
    const std::string stem = stem_of(name), &path = codes.file->path();
    const Entry& scale = tensors.get(stem + ".weight_scale");
    const Entry& global = either(tensors, codes, stem + ".weight_scale_2", stem + ".weight_global_scale");
    const int64_t rows = codes.tensor->shape[0], cols = checked_mul(codes.tensor->shape[1], 2, path);
    if (scale.tensor->dtype != "F8_E4M3" || cols % 16 || scale.tensor->shape != Shape{rows, cols / 16})
        fail(Errc::format, scale.file->path(), ": tensor ", scale.tensor->name, " has type ", scale.tensor->dtype,
             " and shape ", scale.tensor->shape, ", expected F8_E4M3, a scale for each 16 of the ", cols,
             " columns of ", rows, " rows");
    if (cols % 64)
        fail(Errc::unsupported, path, ": tensor ", codes.tensor->name, ": rows of ", cols,
             " elements in nvfp4 are not whole blocks of 64; load the original model in f32, f16 or bf16");
    const bool divide = global.tensor->name.ends_with(".weight_global_scale");
    const std::string what = str(global.file->path(), ": tensor ", global.tensor->name);
    const int64_t elements = rows * cols, bytes = bytes_of(DType::nvfp4, elements);
    if (const int64_t left = available_memory(); bytes > left)
        fail(Errc::memory, "load ", path, ": ", name, " needs ", bytes, " bytes, ", left,
             " are free; use a smaller model");
    check_scales(scale);
    auto kept = std::make_shared<Numbers>();
    kept->scales = nvfp4_scales(single(global), divide, what);
    kept->blocks.resize(size_t(bytes));
    pack_nvfp4(codes.tensor->data, scale.tensor->data, elements, kept->blocks.data());
    codes.file->mapped()->check();
    scale.file->mapped()->check();
    codes.file->mapped()->forget(codes.tensor->data, codes.tensor->bytes);      // else the peak would be both
    Weight w;
    w.name = name;
    w.dtype = DType::nvfp4;
    w.shape = {rows, cols};
    w.data = kept->blocks.data();
    w.quant.absmax_map = kept->scales.data();
    w.owner = std::move(kept);
    return w;
}

// The tensor that holds the numbers of NAME.weight, or null where they are of another kind.
const Entry* codes_of(const HfTensors& tensors, const std::string& name) {
    if (!name.ends_with(weight)) return nullptr;
    const Entry *plain = tensors.find(name), *packed = tensors.find(stem_of(name) + ".weight_packed");
    if (plain && packed)
        fail(Errc::format, packed->file->path(), ": there are both ", name, " and ", packed->tensor->name);
    const Entry* e = packed ? packed : plain;
    return e && (e->tensor->dtype == "U8" || (plain && e->tensor->dtype == "F8_E4M3")) ? e : nullptr;
}

}  // namespace hf_float8_room

std::optional<HfCompanion> hf_companion(std::string_view name) {
    using Role = HfCompanion::Role;
    static constexpr struct { std::string_view suffix; Role role; } known[] = {
        {".weight_packed", Role::weight},          {".weight_scale", Role::weight},
        {".weight_scale_inv", Role::weight},       {".weight_scale_2", Role::weight},
        {".weight_global_scale", Role::weight},    {".input_scale", Role::activations},
        {".activation_scale", Role::activations},  {".input_global_scale", Role::activations},
        {".k_scale", Role::cache},                 {".v_scale", Role::cache},
        {".q_scale", Role::cache}};
    for (const auto& k : known) {
        if (!name.ends_with(k.suffix)) continue;
        std::string stem(name.substr(0, name.size() - k.suffix.size()));
        if (k.role == Role::cache && !stem.ends_with("_proj")) stem += ".k_proj";       // of the attention as a whole
        return HfCompanion{stem + std::string(hf_float8_room::weight), k.role};
    }
    return {};
}

bool has_matrix(const HfTensors& tensors, const std::string& name) {
    return tensors.find(name) || hf_float8_room::codes_of(tensors, name);
}

bool is_float8(const HfTensors& tensors, const std::string& name) { return hf_float8_room::codes_of(tensors, name); }

std::optional<Weight> read_float8(const HfTensors& tensors, const std::string& name, const HfQuantization& said) {
    namespace room = hf_float8_room;
    const HfTensors::Entry* codes = room::codes_of(tensors, name);
    if (!codes) return {};
    return codes->tensor->dtype == "U8" ? room::read_nvfp4(tensors, name, *codes)
                                        : room::read_f8(tensors, name, *codes, said);
}

}}  // namespace qlora
