// ministral3.cpp - Ministral 3: Mistral whose frequencies are stretched by yarn and whose queries grow with the
// position, once for each length of the original context.
#include "src/model/family.h"

namespace qlora { inline namespace QLORA_ABI {
namespace ministral3_room {

// Of a class that was given none. (max_position_embeddings in there is not used.)
constexpr std::string_view rope_by_class =
    R"({"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "original_max_position_embeddings": 16384,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1})";

void check(const Config& c, const std::string& where) {
    if (!(c.query_growth >= 0 && c.query_growth <= 1000))
        fail(Errc::format, where, ": the growth of queries is ", c.query_growth, ", expected 0 to 1000");
    if (c.query_growth_every < 1 || c.query_growth_every > (int64_t(1) << 31))
        fail(Errc::format, where, ": queries grow every ", c.query_growth_every, " positions");
}

void read_hf(Config& c, const HfFields& f, const Family& family) {
    const Json* window = f.json.find("sliding_window");
    c.window = window && window->is_null() ? 0 : f.integer("sliding_window", 0);
    if (c.window == 0 && f.find("sliding_window")) refuse_window(c, f);
    const Json by_class = Json::parse(family.rope_parameters, "the defaults of the class");
    const Json *newer = f.find("rope_parameters"), *older = f.find("rope_scaling");
    const std::string place = f.at("rope_parameters");
    const HfFields rope{newer ? *newer : older ? *older : by_class, place};
    c.query_growth = float(rope.number("llama_4_scaling_beta", 0));
    c.query_growth_every = rope.integer("original_max_position_embeddings", c.context);
    check(c, place);
}

// This class is of version 5, which has everything in rope_parameters.
void write_hf(const Config& c, Json& j) {
    j.set("sliding_window", c.window ? Json(c.window) : Json());
    Json rope = *j.find("rope_scaling");
    if (rope.is_null()) rope.set("rope_type", "default");
    const Json* original = rope.find("original_max_position_embeddings");
    if (original && original->integer() != c.query_growth_every)
        fail(Errc::unsupported, "save: a config.json of Ministral3ForCausalLM has one original context for frequencies "
             "and queries; here they are ", original->integer(), " and ", c.query_growth_every);
    rope.set("rope_theta", *j.find("rope_theta"));
    rope.set("llama_4_scaling_beta", double(c.query_growth));
    rope.set("original_max_position_embeddings", c.query_growth_every);
    std::erase_if(j.object(),
                  [](const Json::Member& m) { return m.first == "rope_scaling" || m.first == "rope_theta"; });
    j.set("rope_parameters", std::move(rope));
}

void read_gguf(Config& c, const GgufFields& f) {
    c.window = f.integer("attention.sliding_window", 0);
    c.query_growth = float(f.number("attention.temperature_scale", 0));
    c.query_growth_every = f.integer("rope.scaling.original_context_length", c.context);
    check(c, "gguf: " + f.where);
}

void write_gguf(const Config& c, const Family& family, GgufWriter& out, bool codes) {
    const std::string prefix = std::string(family.gguf) + ".";
    if (c.query_growth > 0)
        out.set(prefix + "attention.temperature_scale", GgufWriter::Type::f32, Json(double(c.query_growth)));
    out.set(prefix + "rope.scaling.original_context_length", GgufWriter::Type::u32, Json(c.query_growth_every));
    const bool yarn = c.rope_scaling.kind == RopeScaling::Kind::yarn;
    if (!codes)
        refuse_for_llama_cpp(family, c.window ? "a sliding window"
                                     : yarn && int64_t(c.rope_scaling.original_context) != c.query_growth_every
                                         ? "queries that grow at another length than yarn's original context"
                                         : nullptr);
}

}  // namespace ministral3_room

const Family ministral3_family{.name = "ministral3",
                               .gguf = "mistral3",
                               .hf_class = "Ministral3ForCausalLM",
                               .defaults = {.vocabulary = 131072,
                                            .hidden = 4096,
                                            .layers = 34,
                                            .heads = 32,
                                            .kv_heads = 8,
                                            .head_dim = 128,
                                            .feed_forward = 14336,
                                            .context = 262144,
                                            .eps = 1e-5},
                               .adjacent_pairs = true,
                               .rope_freqs = true,
                               .rope_parameters = ministral3_room::rope_by_class,
                               .read_hf = ministral3_room::read_hf,
                               .write_hf = ministral3_room::write_hf,
                               .read_gguf = ministral3_room::read_gguf,
                               .write_gguf = ministral3_room::write_gguf};

}}  // namespace qlora
