// adapter_peft.cpp - adapters as PEFT writes them: adapter_config.json (adapter_config.cpp) and
// adapter_model.safetensors.
//
// Files are in Hugging Face row order. Where the base is a GGUF file with permuted q and k rows (adjacent rotary
// pairs), or has parts of a fused layer that take turns in the file, the rows of B are permuted on the way out and back
// on the way in; A acts on the input side and stays as it is. Loading is strict: every tensor must find its
// place and its partners.
#include "src/model/family.h"
#include "src/model/hf_model.h"
#include "src/model/lora_impl.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

namespace qlora { inline namespace QLORA_ABI {

// B {out, rank} between the order of the file and that of the model.
void reorder_rows(const Config& c, Module m, int64_t layer, std::vector<float>& b, int64_t rank, bool to_file) {
    const std::vector<int64_t> rows = model_rows(World::hf, c, m, layer, false);
    if (rows.empty()) return;
    std::vector<float> out(b.size());
    for (size_t r = 0; r < rows.size(); ++r) {
        const int64_t file = int64_t(r), from = to_file ? rows[r] : file, to = to_file ? file : rows[r];
        std::copy_n(b.begin() + from * rank, rank, out.begin() + to * rank);
    }
    b = std::move(out);
}

namespace adapter_peft_room {

constexpr std::string_view prefix = "base_model.model.";

// A pissa adapter is saved as the plain one that it is on the original base; the note is its configuration as it was
// made.
constexpr const char* pissa_note = "qlora_pissa";
constexpr const char *config_file = "adapter_config.json", *weights_file = "adapter_model.safetensors";

// Borrows the adapter.
SafeTensorsWriter writer_of(const LoraImpl& lora, const std::string& note) {
    SafeTensorsWriter writer;
    if (!note.empty()) writer.metadata.emplace_back(pissa_note, note);
    // One tensor at a time is copied, when its turn comes: saving must not need memory that training did not plan.
    const auto add = [&](std::string name, Shape shape, int64_t at, const LoraTarget& t, int64_t width) {
        const int64_t count = elements_of(shape);
        writer.tensors.push_back(
            {std::move(name), "F32", std::move(shape), count * 4, [&lora, &t, at, count, width](AtomicFile& file) {
                 std::vector<float> values = lora_values(lora, at, count);
                 check_finite(values, "save", hf_name(lora.base->config, t.layer, t.module));
                 if (width > 0) reorder_rows(lora.base->config, t.module, t.layer, values, width, true);
                 file.write(values.data(), count * 4);
             }});
    };
    for (const LoraTarget& t : lora.targets) {
        const std::string name = std::string(prefix) + hf_name(lora.base->config, t.layer, t.module);
        add(name + ".lora_A.weight", {t.rank, t.in}, t.a, t, 0);
        add(name + ".lora_B.weight", {t.out, t.rank}, t.b, t, t.rank);
        if (t.m >= 0) add(name + ".lora_magnitude_vector", {t.out}, t.m, t, 1);
    }
    return writer;
}

// The small files of the folder.
Files texts_of(const LoraImpl& lora) {
    return {{config_file, peft_config(lora).dump(2) + "\n"}, {base_record_file, to_json(base_of(lora)).dump(2) + "\n"}};
}

// f(the adapter as it is written, the note for its tensors)
template <class F>
auto as_written(const LoraImpl& lora, const F& f) {
    const auto held = lora.lock.read();
    return lora.start.empty() ? f(lora, std::string()) : f(*without_start(lora), peft_config(lora).dump());
}

// The tensors of a file, by place. PEFT calls the magnitudes lora_magnitude_vector, and reads them with .weight behind
// it as well.
constexpr std::string_view part_names[] = {".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector",
                                           ".lora_magnitude_vector.weight"};
struct Parts { const SafeTensor *a = nullptr, *b = nullptr, *m = nullptr; };
using Found = std::map<std::pair<int64_t, Module>, Parts>;

// base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight -> where it belongs; null = nowhere
const SafeTensor** place_of(std::string_view full, const Config& c, Found& found) {
    const std::string start = str(prefix, c.names.modules.empty() ? c.names.layers : c.names.modules);
    if (!full.starts_with(start)) return nullptr;
    int64_t layer = -1;
    const auto [end, error] = std::from_chars(full.data() + start.size(), full.data() + full.size(), layer);
    if (error != std::errc() || layer < 0 || layer >= c.layers) return nullptr;
    const std::string_view name = full.substr(prefix.size());
    for (int m = 0; m < module_count; ++m)
        for (int part = 0; part < 4; ++part)
            if (is_module(c, Module(m)) && name == hf_name(c, layer, Module(m)) + std::string(part_names[part])) {
                Parts& p = found[{layer, Module(m)}];
                return part == 0 ? &p.a : part == 1 ? &p.b : &p.m;
            }
    return nullptr;
}

// The configuration with the names that modules have in this file: one that was trained on a class that sees as well
// fits the model of its text part, and the other way round.
Config as_named(const SafeTensors& tensors, const Config& base) {
    Config c = base;
    const auto begins = [&](std::string_view layers) {
        const std::string start = str(prefix, layers);
        return std::any_of(tensors.tensors().begin(), tensors.tensors().end(),
                           [&](const SafeTensor& t) { return t.name.starts_with(start); });
    };
    c.names.modules = {};
    for (const std::string_view layers : seeing_layers)
        if (layers.ends_with(base.names.layers.substr(base.names.layers.find('.') + 1)) && begins(layers))
            c.names.modules = layers;
    return c;
}

// Whether a tensor is one of an adapter's on the part that sees, where that adapter changes nothing: one that was only
// trained on text has no more there than what it began with.
bool left_out(const SafeTensors& tensors, const SafeTensor& t, const Config& c, const std::string& file) {
    const std::string_view name = std::string_view(t.name).substr(std::min(prefix.size(), t.name.size()));
    const bool other = !c.names.modules.empty() && (name.find("vision_tower.") != name.npos ||
                                                    name.find("multi_modal_projector.") != name.npos);
    if (!other) return false;
    const std::vector<float> values = tensors.floats(t);
    const bool zero = std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
    if (!name.ends_with(part_names[0]) && !(name.ends_with(part_names[1]) && zero))
        fail(Errc::unsupported, file, ": the tensor ", t.name, " changes the part of the model that sees, which is "
             "left out here; train the adapter on the text part alone");
    return true;
}

Found find_tensors(const SafeTensors& tensors, const Config& c, const std::string& file) {
    Found found;
    for (const SafeTensor& t : tensors.tensors()) {
        if (left_out(tensors, t, c, file)) continue;
        const SafeTensor** place = place_of(t.name, c, found);
        if (!place)
            fail(Errc::unsupported, file, ": the tensor ", t.name,
                 " does not belong to a linear layer of the base model (", c.family, ", ", c.layers, " layers)");
        if (*place) fail(Errc::format, file, ": the tensors ", (*place)->name, " and ", t.name, " are for one place");
        *place = &t;
    }
    if (found.empty()) fail(Errc::format, file, ": there are no adapter tensors");
    return found;
}

// The layers that the configuration names, all of which must be there; what it names and cannot be adapted here is
// refused.
std::vector<std::pair<int64_t, Module>> adapted(const Json& config, const LoraOptions& o, const Config& c,
                                                const std::string& where) {
    for (const Slot other : {Slot::head, Slot::embedding, Slot::positions}) {
        if (other == Slot::head && c.tied && !c.names.tied_head) continue;
        const std::string tensor = tensor_name(World::hf, c, row_of(c, other), -1);
        const std::string name = tensor.substr(0, tensor.rfind('.'));  // without .weight
        if (peft_adapts(c, config, o, name, where))
            fail(Errc::unsupported, where, ": target_modules names ", name,
                 "; adapters on the head and the embedding are not supported");
    }
    std::vector<std::pair<int64_t, Module>> out;
    for (int64_t layer = 0; layer < c.layers; ++layer)
        for (int m = 0; m < module_count; ++m)
            if (is_module(c, Module(m)) && peft_adapts(c, config, o, hf_name(c, layer, Module(m)), where))
                out.emplace_back(layer, Module(m));
    return out;
}

// Every layer that the configuration names has what its kind of adapter consists of, and no other has anything. All
// that is missing is listed at once.
void check_complete(const Found& found, const std::vector<std::pair<int64_t, Module>>& wanted, const LoraOptions& o,
                    const Config& c, const std::string& where, const std::string& file) {
    for (const auto& [key, parts] : found)
        if (std::find(wanted.begin(), wanted.end(), key) == wanted.end())
            fail(Errc::format, file, ": there are tensors for ", hf_name(c, key.first, key.second),
                 ", which target_modules, layers_to_transform or exclude_modules of ", where, " rules out");
    std::string names;
    int64_t missing = 0;
    for (const auto& [layer, m] : wanted) {
        const auto at = found.find({layer, m});
        const Parts parts = at == found.end() ? Parts{} : at->second;
        const struct {
            bool missing;
            std::string_view name;
        } all[] = {{!parts.a, part_names[0]}, {!parts.b, part_names[1]}, {o.dora && !parts.m, part_names[2]}};
        for (const auto& part : all)
            if (part.missing && ++missing <= 12)
                names += str(missing > 1 ? ", " : "", prefix, hf_name(c, layer, m), part.name);
    }
    if (missing > 12) names += str(" and ", missing - 12, " more");
    if (missing)
        fail(Errc::format, file, ": ", missing, missing == 1 ? " tensor is" : " tensors are",
             " missing that target_modules", o.dora ? " and use_dora of " : " of ", where,
             o.dora ? " ask for: " : " asks for: ", names);
}

void check_shapes(const Parts& p, int64_t layer, Module m, const LoraOptions& local, const Config& c,
                  const std::string& where, const std::string& file) {
    const Shape shape = module_shape(c, m, layer);
    if (p.m && !local.dora)
        fail(Errc::format, file, ": the tensor ", p.m->name, " is there, but use_dora of ", where, " is false");
    const struct {
        const SafeTensor* tensor;
        Shape shape;
    } all[] = {{p.a, {local.rank, shape[1]}}, {p.b, {shape[0], local.rank}}, {p.m, {shape[0]}}};
    for (const auto& part : all)
        if (part.tensor && part.tensor->shape != part.shape)
            fail(Errc::shape, file, ": the tensor ", part.tensor->name, " has shape ", part.tensor->shape,
                 ", expected ", part.shape, ": the rank in ", where, " is ", local.rank, ", ", hf_name(c, layer, m),
                 " of the base model has the shape ", shape);
}

std::vector<float> finite_floats(const SafeTensors& tensors, const SafeTensor& t, const std::string& file) {
    std::vector<float> values = tensors.floats(t);
    check_finite(values, file, "tensor " + t.name);
    return values;
}

// On a base that cannot be split (its own file is in 4 bits) the adapter stays the plain one that the file holds.
std::shared_ptr<LoraImpl> with_note(std::shared_ptr<LoraImpl> plain, const std::string& note,
                                    const std::string& where) {
    LoraOptions options = read_peft_config(Json::parse(note, where), where);
    options.modules = plain->options.modules;
    if (options.init != LoraInit::pissa)
        fail(Errc::format, where, ": expected a configuration with init_lora_weights = pissa");
    return can_split(*plain) ? with_start(*plain, options) : plain;
}

}  // namespace adapter_peft_room

void save_lora_peft(const LoraImpl& lora, const std::string& folder) {
    namespace room = adapter_peft_room;
    room::as_written(lora, [&](const LoraImpl& plain, const std::string& note) {
        AtomicFolder out(folder, true);
        for (const auto& [name, text] : room::texts_of(plain)) write_file_atomic(out.path() + "/" + name, text);
        room::writer_of(plain, note).write(out.path() + "/" + room::weights_file);
        out.commit();
    });
}

Files lora_files(const LoraImpl& lora) {
    namespace room = adapter_peft_room;
    return room::as_written(lora, [&](const LoraImpl& plain, const std::string& note) {
        Files files = room::texts_of(plain);
        files[room::weights_file] = room::writer_of(plain, note).bytes();
        return files;
    });
}

std::shared_ptr<LoraImpl> load_lora_peft(std::shared_ptr<const ModelImpl> base, const Source& folder) {
    namespace room = adapter_peft_room;
    const std::string where = path_in(folder, room::config_file), file = path_in(folder, room::weights_file);
    const Json j = Json::parse(text_of(folder, room::config_file, int64_t(16) << 20), where);
    const std::string_view path = base->config.names.layers, list = path.substr(0, path.size() - 1);
    const LoraOptions options = read_peft_config(j, where, list.substr(list.rfind('.') + 1));
    if (!has_file(folder, room::weights_file) && has_file(folder, "adapter_model.bin"))
        fail(Errc::unsupported, "load ", folder.name(), ": only adapter_model.bin is there; convert it to "
             "safetensors first");
    for (const int64_t layer : options.layers)
        if (layer < 0 || layer >= base->config.layers)
            fail(Errc::format, where, ": layers_to_transform names layer ", layer, ", the base model has 0 to ",
                 base->config.layers - 1);
    const auto tensors = SafeTensors::open(folder, room::weights_file);
    auto lora = empty_lora(std::move(base), options);
    const Config c = room::as_named(*tensors, lora->base->config);
    const room::Found found = room::find_tensors(*tensors, c, file);
    room::check_complete(found, room::adapted(j, options, c, where), options, c, where, file);
    std::string modules;
    for (const auto& [key, parts] : found) {
        const auto& [layer, m] = key;
        const LoraOptions local = options_at(c, options, layer, m);
        room::check_shapes(parts, layer, m, local, c, where, file);
        add_lora_target(*lora, layer, m, local.rank, lora_scale(local));
        add_module(modules, c, m);
    }
    lora->options.modules = modules;
    std::vector<float> values(size_t(lora->parameters));
    for (const LoraTarget& t : lora->targets) {
        const room::Parts& parts = found.at({t.layer, t.module});
        const auto put = [&](const SafeTensor& tensor, int64_t at, int64_t width) {
            std::vector<float> v = room::finite_floats(*tensors, tensor, file);
            if (width > 0) reorder_rows(c, t.module, t.layer, v, width, false);
            std::copy(v.begin(), v.end(), values.begin() + at);
        };
        put(*parts.a, t.a, 0);
        put(*parts.b, t.b, t.rank);
        if (t.m >= 0) put(*parts.m, t.m, 1);
    }
    const auto note = std::find_if(tensors->metadata().begin(), tensors->metadata().end(),
                                   [](const auto& entry) { return entry.first == room::pissa_note; });
    if (note == tensors->metadata().end()) start_lora(*lora, nullptr);
    set_lora_values(*lora, values);
    return note == tensors->metadata().end() ? lora : room::with_note(lora, note->second, str(file, ": ", note->first));
}

}}  // namespace qlora
