// adapter_gguf.cpp - adapters as llama.cpp's --lora reads them: tensors NAME.weight.lora_a {rank, in} and .lora_b {out,
// rank} beside the keys of a GGUF file of type "adapter". Rows are in GGUF's order: B of q and k is permuted where the
// family has adjacent rotary pairs and the base came from a Hugging Face folder.
#include "src/format/gguf.h"
#include "src/model/family.h"
#include "src/model/lora_impl.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

namespace qlora { inline namespace QLORA_ABI {

namespace adapter_gguf_room {

// how many linear layers have factors: other programs do not ask, nor say
constexpr const char* count_key = "qlora.adapter.layers";

// Does the model hold q and k in another row order than a GGUF file of its family?
bool differs(const Config& c, Module m) {
    return family_named(c.family)->adjacent_pairs != c.adjacent_pairs && (m == Module::q_proj || m == Module::k_proj);
}

void reorder(const Config& c, Module m, std::vector<float>& b, int64_t rank, bool to_file) {
    if (!differs(c, m)) return;
    std::vector<float> out(b.size());
    // A model in Hugging Face order: row r of the file is row hf_row_of_gguf(r) of the model.
    for (int64_t r = 0; r < int64_t(b.size()) / rank; ++r) {
        const int64_t from = to_file ? hf_row_of_gguf(r, c.head_dim) : gguf_row_of_hf(r, c.head_dim);
        std::copy_n(b.begin() + from * rank, rank, out.begin() + r * rank);
    }
    b = std::move(out);
}

GgufWriter::Tensor tensor(std::string name, Shape shape, std::vector<float> values) {
    const int64_t bytes = int64_t(values.size()) * 4;
    return {std::move(name), 0, std::move(shape), bytes,
            [v = std::move(values)](AtomicFile& f) { f.write(v.data(), int64_t(v.size()) * 4); }};
}

// blk.3.attn_q.weight.lora_a -> layer, module, A or B
struct Name { int64_t layer; Module module; bool is_a; };
std::optional<Name> parse_name(std::string_view name, int64_t layers) {
    Name out{};
    if (name.substr(0, 4) != "blk.") return {};
    const auto [end, error] = std::from_chars(name.data() + 4, name.data() + name.size(), out.layer);
    if (error != std::errc() || out.layer < 0 || out.layer >= layers) return {};
    for (int m = 0; m < module_count; ++m)
        for (const bool is_a : {true, false})
            if (name == gguf_name(out.layer, Module(m), is_a ? "weight.lora_a" : "weight.lora_b"))
                return Name{out.layer, Module(m), is_a};
    return {};
}

}  // namespace adapter_gguf_room

void save_lora_gguf(const LoraImpl& lora, const std::string& path) {
    using Type = GgufWriter::Type;
    const Config& c = lora.base->config;
    if (lora.targets.empty()) fail(Errc::argument, "save ", path, ": the adapter has no layers");
    const auto held = lora.lock.read();
    if (!lora.start.empty()) return save_lora_gguf(*without_start(lora), path);
    if (lora.options.dora)
        fail(Errc::unsupported, "save ", path,
             ": llama.cpp's adapters have no magnitudes (DoRA); merge the adapter into the model, or save a PEFT "
             "folder");
    // The file has one alpha for all layers, and the scale of a layer is alpha / its rank: what is left of another
    // scale goes into its B.
    const float alpha = lora.targets[0].scale * float(lora.targets[0].rank);
    if (alpha == 0)
        fail(Errc::unsupported, "save ", path,
             ": an adapter of alpha 0, which changes nothing, cannot be written to a GGUF file");
    const std::vector<float> values = lora_values(lora);
    GgufWriter w;
    w.set("general.type", Type::string, Json("adapter"));
    w.set("general.architecture", Type::string, Json(family_named(c.family)->gguf));
    w.set("adapter.type", Type::string, Json("lora"));
    w.set("adapter.lora.alpha", Type::f32, Json(double(alpha)));
    w.set(base_record_key, Type::string, Json(to_json(base_of(lora)).dump()));
    w.set(adapter_gguf_room::count_key, Type::u32, Json(int64_t(lora.targets.size())));
    check_alpha(alpha, "alpha");
    check_finite(values, "save " + path, "the adapter");
    for (const LoraTarget& t : lora.targets) {
        std::vector<float> b(values.begin() + t.b, values.begin() + t.b + t.out * t.rank);
        adapter_gguf_room::reorder(c, t.module, b, t.rank, true);
        const float rest = t.scale * float(t.rank) / alpha;
        if (std::fabs(rest - 1) > 1e-6f)
            for (float& v : b) v *= rest;
        check_finite(b, "save " + path, gguf_name(t.layer, t.module, "weight.lora_b"));
        w.add(adapter_gguf_room::tensor(gguf_name(t.layer, t.module, "weight.lora_a"), {t.rank, t.in},
                                        {values.begin() + t.a, values.begin() + t.a + t.rank * t.in}));
        w.add(adapter_gguf_room::tensor(gguf_name(t.layer, t.module, "weight.lora_b"), {t.out, t.rank}, std::move(b)));
    }
    w.write(path);
}

std::shared_ptr<LoraImpl> load_lora_gguf(std::shared_ptr<const ModelImpl> base, const Source& source) {
    namespace room = adapter_gguf_room;
    const auto file = Gguf::open(source);
    const std::string& path = source.name();
    if (file->string("general.type", "") != "adapter" || file->string("adapter.type", "") != "lora")
        fail(Errc::format, "load ", path, ": not a LoRA adapter (general.type and adapter.type must say so)");
    const Config& c = base->config;
    if (const std::string a = file->string("general.architecture", ""); a != family_named(c.family)->gguf)
        fail(Errc::argument, "load ", path, ": the adapter is for architecture \"", a, "\", the base model is \"",
             family_named(c.family)->gguf, "\"");
    if (file->pair("adapter.alora.invocation_tokens"))
        fail(Errc::unsupported, "load ", path, ": activated adapters are not supported");
    std::map<std::pair<int64_t, Module>, std::pair<const GgufTensor*, const GgufTensor*>> found;
    for (const GgufTensor& t : file->tensors()) {
        const auto name = room::parse_name(t.name, c.layers);
        if (!name)
            fail(Errc::unsupported, path, ": the tensor ", t.name,
                 " does not belong to a linear layer of the base model (", c.family, ", ", c.layers, " layers)");
        auto& pair = found[{name->layer, name->module}];
        (name->is_a ? pair.first : pair.second) = &t;
    }
    if (found.empty()) fail(Errc::format, path, ": there are no adapter tensors");
    if (const int64_t layers = int64_t(file->number(room::count_key, double(found.size())));
        layers != int64_t(found.size()))
        fail(Errc::format, path, ": there are factors for ", found.size(), " linear layers, ", room::count_key,
             " says ", layers);
    LoraOptions options;
    options.alpha = float(file->number("adapter.lora.alpha", 0));
    for (const auto& [key, ab] : found)
        if (!ab.first || !ab.second || ab.second->shape.size() != 2)
            fail(Errc::format, path, ": ", gguf_name(key.first, key.second, "weight"),
                 " needs both lora_a and lora_b, as matrices");
    options.rank = found.begin()->second.second->shape[1];
    if (options.alpha == 0) options.alpha = float(options.rank);       // llama.cpp: no alpha means scale 1
    std::string modules;
    auto lora = empty_lora(base, options);
    for (const auto& [key, ab] : found) {
        const auto& [layer, m] = key;
        const int64_t rank = ab.second->shape[1];
        const Shape shape = shape_of(c, m, layer), a{rank, shape[1]}, b{shape[0], rank};
        if (ab.first->shape != a || ab.second->shape != b)
            fail(Errc::shape, path, ": ", gguf_name(layer, m, "weight"), " has A of shape ", ab.first->shape,
                 " and B of shape ", ab.second->shape, ", expected ", a, " and ", b);
        add_lora_target(*lora, layer, m, rank,
                        file->number("adapter.lora.alpha", 0) == 0 ? 1.0f : options.alpha / float(rank));
        if (modules.find(name_of(m)) == modules.npos) modules += (modules.empty() ? "" : ",") + std::string(name_of(m));
    }
    lora->options.modules = modules;
    std::vector<float> values(size_t(lora->parameters));
    for (const LoraTarget& t : lora->targets) {
        const auto& [a, b] = found[{t.layer, t.module}];
        const std::vector<float> fa = file->weight(*a).decoded();
        std::vector<float> fb = file->weight(*b).decoded();
        check_finite(fa, path, gguf_name(t.layer, t.module, "weight.lora_a"));
        check_finite(fb, path, gguf_name(t.layer, t.module, "weight.lora_b"));
        room::reorder(c, t.module, fb, t.rank, false);
        std::copy(fa.begin(), fa.end(), values.begin() + t.a);
        std::copy(fb.begin(), fb.end(), values.begin() + t.b);
    }
    set_lora_values(*lora, values);
    return lora;
}

// A checkpoint holds the adapter in a folder of its own; of weights that are named themselves their folder is meant.
Source adapter_folder(const Source& source) {
    const std::string& path = source.name();
    if (is_in_memory(source)) return source;
    if (is_folder(path))
        return exists(path + "/manifest.json") && !exists(path + "/adapter_config.json") ? path + "/adapter" : path;
    constexpr std::string_view weights = "adapter_model.safetensors";
    if (!path.ends_with(weights)) return path;
    return path.size() == weights.size() ? "." : path.substr(0, path.size() - weights.size());
}

std::shared_ptr<LoraImpl> load_lora(std::shared_ptr<const ModelImpl> base, const Source& given, OnBase on_base) {
    const Source source = adapter_folder(given);
    if (const std::optional<BaseRecord> record = recorded_base(source))
        base = follow_record(std::move(base), *record, on_base, source.name());
    return has_files(source) ? load_lora_peft(std::move(base), source) : load_lora_gguf(std::move(base), source);
}

}}  // namespace qlora
