// granitemoehybrid.cpp - Granite 4 without experts and without state-space layers: Granite 3 whose gate and up are one
// layer in its class. llama.cpp's files of it are those of Granite 3.
#include "src/model/family.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace granitemoehybrid_room {

constexpr Slot gate_up[] = {Slot::gate_proj, Slot::up_proj};
constexpr Fused fused[] = {{.gguf = "", .hf = "shared_mlp.input_linear", .linears = gate_up, .one = true}};
constexpr Renamed renamed[] = {{Slot::down_proj, "shared_mlp.output_linear"}};
constexpr std::span<const std::string_view> no_targets;

void read_hf(Config& c, const HfFields& f, const Family& family) {
    if (const int64_t experts = f.integer("num_local_experts", 8); experts != 0)
        fail(Errc::unsupported, f.at("num_local_experts"), " is ", experts, ": mixtures of experts are not supported");
    if (!f.find("layer_types"))
        fail(Errc::unsupported, f.at("layer_types"), " is missing: state-space layers are not supported");
    c.feed_forward = f.integer("shared_intermediate_size", 1024);
    check_config(c, f.where);
    const std::string positions = f.text("position_embedding_type", "");
    if (positions != "rope" && !positions.empty())
        fail(Errc::unsupported, f.at("position_embedding_type"), " is \"", positions, "\", expected rope or null");
    if (positions.empty()) c.turned.assign(size_t(c.layers), 0);
    granite_family.read_hf(c, f, family);
}

void write_hf(const Config& c, Json& j) {
    granite_family.write_hf(c, j);
    const bool turns = std::find(c.turned.begin(), c.turned.end(), 0) == c.turned.end();
    if (!turns && std::find(c.turned.begin(), c.turned.end(), 1) != c.turned.end())
        fail(Errc::unsupported, "save: in a granitemoehybrid all layers turn by position, or none");
    j.set("shared_intermediate_size", c.feed_forward).set("num_local_experts", int64_t(0));
    j.set("num_experts_per_tok", int64_t(0)).set("position_embedding_type", turns ? Json("rope") : Json());
    j.set("layer_types", Json(Json::Array(size_t(c.layers), Json("attention"))));
    // of state-space layers, of which there are none; the class checks that they fit
    j.set("mamba_n_heads", int64_t(1)).set("mamba_d_head", 2 * c.hidden).set("mamba_expand", int64_t(2));
}

void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool codes) {
    if (!codes && !c.turned.empty()) refuse_for_llama_cpp(family, "layers that do not turn by position");
    granite_family.write_gguf(c, family, out, codes);
}

void read_gguf(Config& c, const GgufFields& f) { granite_family.read_gguf(c, f); }

}  // namespace granitemoehybrid_room

const Family granitemoehybrid_family{.name = "granitemoehybrid",
                                     .gguf = "granite",
                                     .hf_class = "GraniteMoeHybridForCausalLM",
                                     .defaults = {.vocabulary = 32000,
                                                  .hidden = 4096,
                                                  .layers = 32,
                                                  .heads = 32,
                                                  .kv_heads = 0,
                                                  .head_dim = 0,
                                                  .feed_forward = 1024,
                                                  .context = 2048},
                                     .adjacent_pairs = true,
                                     .rope_freqs = true,
                                     .attention_bias = true,
                                     .gguf_biases = true,
                                     .names = {.tensors = granitemoehybrid_room::renamed,
                                               .fused = granitemoehybrid_room::fused},
                                     .peft_targets = granitemoehybrid_room::no_targets,
                                     .read_hf = granitemoehybrid_room::read_hf,
                                     .write_hf = granitemoehybrid_room::write_hf,
                                     .read_gguf = granitemoehybrid_room::read_gguf,
                                     .write_gguf = granitemoehybrid_room::write_gguf};

}}  // namespace qlora
