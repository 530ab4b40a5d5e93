// hf_quantization.cpp - what config.json says of quantization: which methods are read, and what to do about the others.
// Which tensors are quantized, and which were left out, each tensor says itself.
#include "src/model/hf_model.h"

namespace qlora { inline namespace QLORA_ABI {

namespace hf_quantization_room {

// What a user can do about a folder in a layout of its own.
constexpr std::string_view by_llama_cpp =
    "convert the folder with llama.cpp (convert_hf_to_gguf.py DIR --outtype bf16 --outfile MODEL.gguf) and load that";
constexpr std::string_view by_original =
    "load the checkpoint that it was made from, which --quant nf4 (or ./quantize ORIGINAL_DIR NF4_DIR) brings to 4 "
    "bits, or a GGUF file of it";

std::string_view remedy(std::string_view method) {
    return method == "gptq" || method == "mxfp4" || method == "bitnet" ? by_llama_cpp : by_original;
}

std::string text(const Json& of, const char* key, const std::string& where) {
    const Json* v = of.find(key);
    return v && !v->is_null() ? v->as_string(str(where, ".", key)) : "";
}

// Rows and columns of the tiles that share a scale, as a list of two numbers.
void read_tile(const Json* sizes, HfQuantization& out, const std::string& where) {
    if (!sizes || sizes->is_null()) return;
    const Json::Array& two = sizes->as_array(where);
    const auto fits = [](const Json& v) { return v.is_int() && v.integer() > 0 && v.integer() <= (1 << 20); };
    if (two.size() != 2 || !fits(two[0]) || !fits(two[1]))
        fail(Errc::format, where, ": ", sizes->dump(), ", expected the two sizes of a tile, as [128, 128]");
    out.tile_rows = two[0].integer();
    out.tile_cols = two[1].integer();
}

void check_format(const std::string& format, const std::string& where) {
    for (const char* known :
         {"", "float-quantized", "naive-quantized", "nvfp4-pack-quantized", "mixed-precision", "dense"})
        if (format == known) return;
    fail(Errc::unsupported, where, ": compressed-tensors format \"", format,
         "\" is not supported (float-quantized and nvfp4-pack-quantized are); ", by_original);
}

void read_compressed(const Json& q, HfQuantization& out, const std::string& where) {
    check_format(text(q, "format", where), where);
    const Json* groups = q.find("config_groups");
    if (!groups || groups->is_null()) return;
    for (const auto& [name, group] : groups->as_object(where + ".config_groups")) {
        const std::string here = str(where, ".config_groups.", name);
        group.as_object(here);
        check_format(text(group, "format", here), here);
        const Json* weights = group.find("weights");
        if (!weights || weights->is_null()) continue;
        weights->as_object(here + ".weights");
        read_tile(weights->find("block_structure"), out, here + ".weights.block_structure");
    }
}

}  // namespace hf_quantization_room

HfQuantization hf_quantization(const Json& config, const std::string& path) {
    namespace room = hf_quantization_room;
    HfQuantization out;
    const Json* q = config.find("quantization_config");
    if (!q || q->is_null()) return out;
    const std::string where = path + ": quantization_config";
    q->as_object(where);
    const std::string method = room::text(*q, "quant_method", where);
    if (method == "bitsandbytes") {
        const Json* bits8 = q->find("load_in_8bit");
        if (bits8 && !bits8->is_null() && bits8->as_bool(where + ".load_in_8bit"))
            fail(Errc::unsupported, path, ": bitsandbytes in 8 bits is not supported, only in 4");
    } else if (method == "fp8" || method == "fbgemm_fp8") {
        room::read_tile(q->find("weight_block_size"), out, where + ".weight_block_size");
    } else if (method == "compressed-tensors") {
        room::read_compressed(*q, out, where);
    } else if (method == "modelopt") {
        const std::string algorithm = room::text(*q, "quant_algo", where);
        if (algorithm != "NVFP4" && algorithm != "FP8" && algorithm != "MIXED_PRECISION" && !algorithm.empty())
            fail(Errc::unsupported, path, ": modelopt's quant_algo \"", algorithm,
                 "\" is not supported (NVFP4 and FP8 are); ", room::by_original);
    } else {
        fail(Errc::unsupported, path, ": quant_method \"", method,
             "\" is not supported (bitsandbytes in 4 bits, fp8, modelopt and compressed-tensors are); ",
             room::remedy(method));
    }
    return out;
}

}}  // namespace qlora
