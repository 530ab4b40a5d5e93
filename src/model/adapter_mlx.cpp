// adapter_mlx.cpp - adapters as mlx-lm writes them: adapter_config.json with fine_tune_type and lora_parameters, and
// adapters.safetensors with lora_a {in, rank}, lora_b {rank, out} and, of DoRA, m {out} for each layer:
//
//   y = W x + scale (x lora_a) lora_b
//
// Rows and names are those of the Hugging Face folder, of families whose layers are called model.layers there; one rank
// and one scale for all. Layers that have no tensors are new ones to mlx-lm, which change nothing.
#include "src/model/family.h"
#include "src/format/safetensors.h"
#include "src/model/lora_impl.h"

#include <algorithm>
#include <array>
#include <map>

namespace qlora { inline namespace QLORA_ABI {
namespace adapter_mlx_room {

constexpr const char *config_file = "adapter_config.json", *weights_file = "adapters.safetensors";
constexpr std::string_view parts[] = {".lora_a", ".lora_b", ".m"};

std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t columns) {
    std::vector<float> out(values.size());
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) out[size_t(c * rows + r)] = values[size_t(r * columns + c)];
    return out;
}

void check_family(const Config& c, const std::string& what) {
    if (c.names.layers != "model.layers.")
        fail(Errc::unsupported, what, ": mlx-lm has other names for the layers of ", c.family, " than ", c.names.layers,
             "N; use the formats of PEFT or GGUF");
}

double number(const Json& j, const char* key, const std::string& where) {
    const Json* v = j.find(key);
    if (!v) fail(Errc::format, where, ": lora_parameters has no ", key);
    return v->as_number(str(where, ": lora_parameters: ", key));
}

LoraOptions read_config(const Json& j, const std::string& where) {
    const Json* kind = j.find("fine_tune_type");
    const std::string type = kind ? kind->as_string(where + ": fine_tune_type") : "lora";
    if (type != "lora" && type != "dora")
        fail(Errc::unsupported, where, ": fine_tune_type = \"", type, "\" is not supported, only lora and dora");
    const Json* p = j.find("lora_parameters");
    if (!p || !p->is_object()) fail(Errc::format, where, ": lora_parameters is missing: rank, scale, dropout");
    LoraOptions o;
    o.rank = p->find("rank") ? p->find("rank")->as_int(where + ": lora_parameters: rank") : 0;
    if (o.rank < 1 || o.rank > 65536)
        fail(Errc::format, where, ": lora_parameters: rank is ", o.rank, ", expected 1 to 65536");
    const double scale = number(*p, "scale", where);
    // Versions before 2025 multiplied by alpha / rank as well, later ones take no notice of it.
    if (const Json* alpha = p->find("alpha"); alpha && alpha->as_number(where + ": alpha") != double(o.rank))
        fail(Errc::unsupported, where, ": lora_parameters has an alpha that is not the rank: versions of mlx-lm differ "
             "in what it does; write the product scale * alpha / rank into scale and remove alpha");
    o.alpha = float(scale * double(o.rank));
    check_alpha(o.alpha, where + ": lora_parameters: scale * rank");
    o.dropout = p->find("dropout") ? float(number(*p, "dropout", where)) : 0;
    if (!(o.dropout >= 0 && o.dropout < 1))
        fail(Errc::format, where, ": lora_parameters: dropout is ", o.dropout, ", expected 0 to below 1");
    o.dora = type == "dora";
    return o;
}

using Found = std::map<std::pair<int64_t, Module>, std::array<const SafeTensor*, 3>>;

Found find_tensors(const SafeTensors& tensors, const Config& c, const std::string& file) {
    std::map<std::string, std::pair<int64_t, Module>> places;
    for (int64_t layer = 0; layer < c.layers; ++layer)
        for (int m = 0; m < module_count; ++m)
            if (is_module(c, Module(m))) places.emplace(hf_name(c, layer, Module(m)), std::pair(layer, Module(m)));
    Found found;
    for (const SafeTensor& t : tensors.tensors()) {
        const size_t dot = std::min(t.name.rfind('.'), t.name.size());
        const auto part = std::find(std::begin(parts), std::end(parts), std::string_view(t.name).substr(dot));
        const auto place = places.find(t.name.substr(0, dot));
        if (part == std::end(parts) || place == places.end())
            fail(Errc::unsupported, file, ": the tensor ", t.name,
                 " does not belong to a linear layer of the base model (", c.family, ", ", c.layers, " layers)");
        found[place->second][size_t(part - parts)] = &t;
    }
    if (found.empty()) fail(Errc::format, file, ": there are no adapter tensors");
    return found;
}

void check_tensors(const std::array<const SafeTensor*, 3>& of, const LoraTarget& t, bool dora, const Config& c,
                   const std::string& file) {
    const Shape shapes[] = {{t.in, t.rank}, {t.rank, t.out}, {t.out}};
    for (size_t part = 0; part < 3; ++part) {
        const std::string name = hf_name(c, t.layer, t.module) + std::string(parts[part]);
        const bool wanted = part < 2 || dora;
        if (wanted && !of[part]) fail(Errc::format, file, ": the tensor ", name, " is missing");
        if (!wanted && of[part])
            fail(Errc::format, file, ": the tensor ", name, " is there, but fine_tune_type is lora");
        if (wanted && of[part]->shape != shapes[part])
            fail(Errc::shape, file, ": the tensor ", name, " has shape ", of[part]->shape, ", expected ", shapes[part],
                 ": the rank is ", t.rank, ", the base model's layer is ", Shape{t.out, t.in});
    }
}

// One rank and one scale, and the names of the modules: what mlx-lm makes its layers of.
Json config_of(const LoraImpl& lora, const std::string& folder) {
    const Config& c = lora.base->config;
    const LoraTarget& first = lora.targets.front();
    Json keys = Json::Array{};
    std::vector<std::string> known;
    for (const LoraTarget& t : lora.targets) {
        if (t.rank != first.rank || t.scale != first.scale)
            fail(Errc::unsupported, "save ", folder, ": mlx-lm has one rank and one scale for all layers; this adapter "
                 "has rank ", first.rank, ", scale ", first.scale, " and rank ", t.rank, ", scale ", t.scale);
        const std::string name = hf_name(c, t.layer, t.module);
        const std::string key = name.substr(name.find('.', c.names.layers.size()) + 1);
        if (std::find(known.begin(), known.end(), key) != known.end()) continue;
        known.push_back(key);
        keys.push(Json(key));
    }
    return Json().set("fine_tune_type", lora.options.dora ? "dora" : "lora")
        .set("num_layers", c.layers - first.layer)
        .set("lora_parameters", Json().set("rank", first.rank).set("scale", double(first.scale))
                                      .set("dropout", double(lora.options.dropout)).set("keys", std::move(keys)));
}

void write(const LoraImpl& lora, const std::string& folder) {
    const Config& c = lora.base->config;
    check_family(c, "save " + folder);
    const std::string config = config_of(lora, folder).dump(2) + "\n";
    SafeTensorsWriter writer;
    writer.metadata.emplace_back("format", "mlx");
    const auto add = [&](const LoraTarget& t, size_t part, Shape shape, int64_t at, int64_t rows, int64_t columns) {
        const int64_t count = rows * columns;
        const std::string name = hf_name(c, t.layer, t.module) + std::string(parts[part]);
        writer.tensors.push_back({name, "F32", std::move(shape), count * 4, [=, &lora, &t, &c](AtomicFile& file) {
            std::vector<float> values = lora_values(lora, at, count);
            check_finite(values, "save", name);
            if (part > 0) reorder_rows(c, t.module, t.layer, values, columns, true);
            file.write(transposed(values, rows, columns).data(), count * 4);
        }});
    };
    for (const LoraTarget& t : lora.targets) {
        add(t, 0, {t.in, t.rank}, t.a, t.rank, t.in);
        add(t, 1, {t.rank, t.out}, t.b, t.out, t.rank);
        if (t.m >= 0) add(t, 2, {t.out}, t.m, t.out, 1);
    }
    AtomicFolder out(folder, true);
    write_file_atomic(out.path() + "/" + config_file, config);
    write_file_atomic(out.path() + "/" + base_record_file, to_json(base_of(lora)).dump(2) + "\n");
    writer.write(out.path() + "/" + weights_file);
    out.commit();
}

}  // namespace adapter_mlx_room

bool is_mlx_adapter(const Source& folder) {
    return has_file(folder, adapter_mlx_room::weights_file) && !has_file(folder, "adapter_model.safetensors");
}

void save_lora_mlx(const LoraImpl& lora, const std::string& folder) {
    const auto held = lora.lock.read();
    if (lora.start.empty()) adapter_mlx_room::write(lora, folder);
    else adapter_mlx_room::write(*without_start(lora), folder);
}

std::shared_ptr<LoraImpl> load_lora_mlx(std::shared_ptr<const ModelImpl> base, const Source& folder) {
    namespace room = adapter_mlx_room;
    const std::string where = path_in(folder, room::config_file), file = path_in(folder, room::weights_file);
    room::check_family(base->config, "load " + folder.name());
    const LoraOptions options =
        room::read_config(Json::parse(text_of(folder, room::config_file, int64_t(16) << 20), where), where);
    const auto tensors = SafeTensors::open(folder, room::weights_file);
    auto lora = empty_lora(std::move(base), options);
    const Config& c = lora->base->config;
    const room::Found found = room::find_tensors(*tensors, c, file);
    std::string modules;
    for (const auto& [key, of] : found) {
        add_lora_target(*lora, key.first, key.second, options.rank, options.alpha / float(options.rank));
        add_module(modules, c, key.second);
        room::check_tensors(of, lora->targets.back(), options.dora, c, file);
    }
    lora->options.modules = modules;
    std::vector<float> values(size_t(lora->parameters));
    for (const LoraTarget& t : lora->targets) {
        const auto& of = found.at({t.layer, t.module});
        const auto put = [&](size_t part, int64_t at, int64_t rows, int64_t columns) {
            std::vector<float> v = room::transposed(tensors->floats(*of[part]), columns, rows);
            check_finite(v, file, "tensor " + of[part]->name);
            if (part > 0) reorder_rows(c, t.module, t.layer, v, columns, false);
            std::copy(v.begin(), v.end(), values.begin() + at);
        };
        put(0, t.a, t.rank, t.in);
        put(1, t.b, t.out, t.rank);
        if (t.m >= 0) put(2, t.m, t.out, 1);
    }
    start_lora(*lora, nullptr);
    set_lora_values(*lora, values);
    return lora;
}

}}  // namespace qlora
