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

// B between the order of the file and that of the model.
void reorder(const Config& c, Module m, int64_t layer, std::vector<float>& b, int64_t rank, bool to_file) {
    const std::vector<int64_t> rows = model_rows(World::gguf, c, m, layer, family_named(c.family)->adjacent_pairs);
    if (rows.empty()) return;
    std::vector<float> out(b.size());
    for (size_t r = 0; r < rows.size(); ++r) {
        const int64_t file = int64_t(r), from = to_file ? rows[r] : file, to = to_file ? file : rows[r];
        std::copy_n(b.begin() + from * rank, rank, out.begin() + to * rank);
    }
    b = std::move(out);
}

// The tensors that a module is in a GGUF file: itself, or its parts where llama.cpp has them apart. Each has the A of
// the module and its own rows of B.
std::vector<Slot> tensors_of(const Config& c, Module m) {
    const std::span<const Slot> parts = parts_of(c, m);
    if (is_one(World::gguf, c, m)) return {m};
    return {parts.begin(), parts.end()};
}

Shape shape_of_tensor(const Config& c, Slot s, int64_t layer) {
    return is_one(World::gguf, c, s) ? module_shape(c, module_of(c, s), layer) : shape_of(c, s, layer);
}

GgufWriter::Tensor tensor(std::string name, Shape shape, std::vector<float> values) {
    const int64_t bytes = int64_t(values.size()) * 4;
    return {std::move(name), 0, std::move(shape), bytes,
            [v = std::move(values)](AtomicFile& f) { f.write(v.data(), int64_t(v.size()) * 4); }};
}

// blk.3.attn_q.weight.lora_a -> layer, tensor, A or B
struct Name { int64_t layer; Slot linear; bool is_a; };
std::optional<Name> parse_name(const Config& c, std::string_view name) {
    Name out{};
    if (name.substr(0, 4) != "blk.") return {};
    const auto [end, error] = std::from_chars(name.data() + 4, name.data() + name.size(), out.layer);
    if (error != std::errc() || out.layer < 0 || out.layer >= c.layers) return {};
    for (int m = 0; m < module_count; ++m)
        if (is_module(c, Module(m)))
            for (const Slot linear : tensors_of(c, Module(m)))
                for (const bool is_a : {true, false})
                    if (name == gguf_name(c, out.layer, linear, is_a ? "weight.lora_a" : "weight.lora_b"))
                        return Name{out.layer, linear, is_a};
    return {};
}

using Pair = std::pair<const GgufTensor*, const GgufTensor*>;
using Found = std::map<std::pair<int64_t, Slot>, Pair>;

Found find_tensors(const Gguf& file, const Config& c) {
    Found found;
    for (const GgufTensor& t : file.tensors()) {
        const auto name = parse_name(c, t.name);
        if (!name)
            fail(Errc::unsupported, file.path(), ": the tensor ", t.name,
                 " does not belong to a linear layer of the base model (", c.family, ", ", c.layers, " layers)");
        Pair& pair = found[{name->layer, name->linear}];
        (name->is_a ? pair.first : pair.second) = &t;
    }
    if (found.empty()) fail(Errc::format, file.path(), ": there are no adapter tensors");
    if (const int64_t layers = int64_t(file.number(count_key, double(found.size())));
        layers != int64_t(found.size()))
        fail(Errc::format, file.path(), ": there are factors for ", found.size(), " linear layers, ", count_key,
             " says ", layers);
    for (const auto& [key, ab] : found)
        if (!ab.first || !ab.second || ab.second->shape.size() != 2)
            fail(Errc::format, file.path(), ": ", gguf_name(c, key.first, key.second, "weight"),
                 " needs both lora_a and lora_b, as matrices");
    return found;
}

// The rank of a module's adapter, whose tensors must be of its shape.
int64_t rank_of(const Found& found, const Config& c, int64_t layer, Module m, const std::string& path) {
    int64_t rank = -1;
    for (const Slot linear : tensors_of(c, m)) {
        const auto at = found.find({layer, linear});
        if (at == found.end())
            fail(Errc::unsupported, path, ": there is no ", gguf_name(c, layer, linear, "weight.lora_a"), ", and ",
                 module_name(c, m), " of a ", c.family, " model has one adapter for all of its parts");
        const auto& [a, b] = at->second;
        if (rank < 0) rank = b->shape[1];
        const Shape shape = shape_of_tensor(c, linear, layer), wanted_a{rank, shape[1]}, wanted_b{shape[0], rank};
        if (a->shape != wanted_a || b->shape != wanted_b)
            fail(Errc::shape, path, ": ", gguf_name(c, layer, linear, "weight"), " has A of shape ", a->shape,
                 " and B of shape ", b->shape, ", expected ", wanted_a, " and ", wanted_b);
    }
    return rank;
}

// A and B of a module, as the model has them.
void read_factors(const Gguf& file, const Found& found, const Config& c, const LoraTarget& t, float* values) {
    std::vector<float> b;
    for (const Slot linear : tensors_of(c, t.module)) {
        const Pair& pair = found.at({t.layer, linear});
        const std::vector<float> fa = file.weight(*pair.first).decoded(), fb = file.weight(*pair.second).decoded();
        check_finite(fa, file.path(), gguf_name(c, t.layer, linear, "weight.lora_a"));
        check_finite(fb, file.path(), gguf_name(c, t.layer, linear, "weight.lora_b"));
        if (!b.empty() && !std::equal(fa.begin(), fa.end(), values + t.a))
            fail(Errc::unsupported, file.path(), ": ", gguf_name(c, t.layer, linear, "weight.lora_a"),
                 " differs from that of the other parts of ", module_name(c, t.module), ", which has one adapter in a ",
                 c.family, " model");
        std::copy(fa.begin(), fa.end(), values + t.a);
        b.insert(b.end(), fb.begin(), fb.end());
    }
    reorder(c, t.module, t.layer, b, t.rank, false);
    std::copy(b.begin(), b.end(), values + t.b);
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
    int64_t count = 0;
    for (const LoraTarget& t : lora.targets) count += int64_t(adapter_gguf_room::tensors_of(c, t.module).size());
    w.set(adapter_gguf_room::count_key, Type::u32, Json(count));
    check_alpha(alpha, "alpha");
    check_finite(values, "save " + path, "the adapter");
    for (const LoraTarget& t : lora.targets) {
        std::vector<float> b(values.begin() + t.b, values.begin() + t.b + t.out * t.rank);
        adapter_gguf_room::reorder(c, t.module, t.layer, b, t.rank, true);
        const float rest = t.scale * float(t.rank) / alpha;
        if (std::fabs(rest - 1) > 1e-6f)
            for (float& v : b) v *= rest;
        check_finite(b, "save " + path, gguf_name(c, t.layer, t.module, "weight.lora_b"));
        for (const float* at = b.data(); const Slot linear : adapter_gguf_room::tensors_of(c, t.module)) {
            const int64_t rows = adapter_gguf_room::shape_of_tensor(c, linear, t.layer)[0];
            w.add(adapter_gguf_room::tensor(gguf_name(c, t.layer, linear, "weight.lora_a"), {t.rank, t.in},
                                            {values.begin() + t.a, values.begin() + t.a + t.rank * t.in}));
            w.add(adapter_gguf_room::tensor(gguf_name(c, t.layer, linear, "weight.lora_b"), {rows, t.rank},
                                            {at, at + rows * t.rank}));
            at += rows * t.rank;
        }
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
    const room::Found found = room::find_tensors(*file, c);
    LoraOptions options;
    options.alpha = float(file->number("adapter.lora.alpha", 0));
    const bool no_alpha = options.alpha == 0;
    options.rank = found.begin()->second.second->shape[1];
    if (no_alpha) options.alpha = float(options.rank);                 // llama.cpp: no alpha means scale 1
    std::string modules;
    auto lora = empty_lora(base, options);
    for (const auto& [key, ab] : found) {
        const Module m = module_of(c, key.second);
        if (lora->find(key.first, m)) continue;        // by an earlier part of it
        const int64_t rank = room::rank_of(found, c, key.first, m, path);
        add_lora_target(*lora, key.first, m, rank, no_alpha ? 1.0f : options.alpha / float(rank));
        add_module(modules, c, m);
    }
    lora->options.modules = modules;
    std::vector<float> values(size_t(lora->parameters));
    for (const LoraTarget& t : lora->targets) room::read_factors(*file, found, c, t, values.data());
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
    if (!has_files(source)) return load_lora_gguf(std::move(base), source);
    return is_mlx_adapter(source) ? load_lora_mlx(std::move(base), source) : load_lora_peft(std::move(base), source);
}

}}  // namespace qlora
