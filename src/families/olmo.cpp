// olmo.cpp - OLMo 1 (arXiv:2402.00838): layer norms without weights; queries, keys and values clamped where the file
// says so.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace olmo_room {

void configure(Config& c) { c.norm = Norm::layer_plain; }

void check(const Config& c, const std::string& where) {
    if (!(c.clip_qkv >= 0 && c.clip_qkv <= 1e6f))
        fail(Errc::format, where, ": the clamp of queries, keys and values is ", c.clip_qkv, ", expected 0 to 1000000");
}

void read_hf(Config& c, const HfFields& f, const Family&) {
    c.clip_qkv = float(f.number("clip_qkv", 0));
    check(c, f.at("clip_qkv"));
}

void write_hf(const Config& c, Json& j) {
    j.set("clip_qkv", c.clip_qkv > 0 ? Json(double(c.clip_qkv)) : Json());
}

void read_gguf(Config& c, const GgufFields& f) {
    c.clip_qkv = float(f.number("attention.clamp_kqv", 0));
    check(c, "gguf: " + f.where);
}

void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool) {
    if (c.clip_qkv > 0)
        out.set(std::string(family.gguf) + ".attention.clamp_kqv", GgufWriter::Type::f32, Json(double(c.clip_qkv)));
}

}  // namespace olmo_room

const Family olmo_family{.name = "olmo",
                         .gguf = "olmo",
                         .hf_class = "OlmoForCausalLM",
                         .defaults = {.vocabulary = 50304,
                                      .hidden = 4096,
                                      .layers = 32,
                                      .heads = 32,
                                      .kv_heads = 0,
                                      .head_dim = 0,
                                      .feed_forward = 11008,
                                      .context = 2048,
                                      .eps = 1e-5},
                         .adjacent_pairs = true,
                         .attention_bias = true,
                         .eps_key = "",
                         .configure = olmo_room::configure,
                         .read_hf = olmo_room::read_hf,
                         .write_hf = olmo_room::write_hf,
                         .read_gguf = olmo_room::read_gguf,
                         .write_gguf = olmo_room::write_gguf};

}}  // namespace qlora
