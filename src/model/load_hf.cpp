// load_hf.cpp - a model out of a Hugging Face folder: config.json, safetensors (one file or shards), tokenizer.json.
// Linear layers may be stored in 4 bits as bitsandbytes writes them, or in f8_e4m3 or nvfp4; each tensor says so
// itself, so that mixed checkpoints load too.
#include "src/base/access.h"
#include "src/model/hf_model.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

namespace load_hf_room {

struct Loader {
    const HfTensors& tensors;
    const Config& config;
    HfQuantization said = {};
    FusedTensor cut = {};

    Weight plain(const std::string& name, const Shape& shape, bool view) {
        const HfTensors::Entry& e = tensors.get(name);
        Weight w = view ? e.file->view(*e.tensor) : e.file->weight(*e.tensor);
        check_shape(w, shape, e.file->path());
        return w;
    }

    RowsInFile place(const Row& row, int64_t layer) const {
        const auto has = [&](const std::string& name) { return has_matrix(tensors, name); };
        return rows_in_file(World::hf, config, row, layer, has);
    }

    Stored whole(const Row& row, const std::string& name, const Shape& shape) {
        const bool linear = row.kind == Kind::linear;
        if (linear || row.slot == Slot::head) {
            std::optional<Weight> w = read_bitsandbytes(tensors, name);
            if (!w) w = read_float8(tensors, name, said);
            if (w) {
                check_shape(*w, shape, tensors.folder());
                return {std::make_shared<const Weight>(std::move(*w))};
            }
        }
        const bool transpose = linear && config.names.transposed;
        const Shape there = transpose ? Shape{shape[1], shape[0]} : shape;
        Weight w = plain(name, there, linear);
        if (row.kind == Kind::norm && config.norms_from_one) w = plus(w, 1);
        return {std::make_shared<const Weight>(std::move(w)), {}, transpose};
    }

    Stored read(const Row& row, int64_t layer) {
        const RowsInFile at = place(row, layer);
        const auto all = [&] { return whole(row, at.name, at.shape); };
        return at.fused ? cut.rows(at, all) : all();
    }

    // Whether the model takes a tensor as a part of a linear layer that has parts.
    bool takes(const HfCompanion& part, const std::string& file) const {
        const TensorPlace place = place_of(World::hf, config, part.tensor, file);
        const Row* row = place.row;
        if (!row || !place.part.empty() || (row->kind != Kind::linear && row->slot != Slot::head)) return false;
        if (part.role == HfCompanion::Role::cache) return true;
        return this->place(*row, place.layer).name == part.tensor && is_float8(tensors, part.tensor);
    }

    // A tensor that no part of the model took would silently change what the model computes.
    void refuse_leftovers() const {
        for (const auto& [name, entry] : tensors.all()) {
            const std::optional<HfCompanion> part = hf_companion(name);
            if (part && takes(*part, entry.file->path())) continue;
            const TensorPlace place = place_of(World::hf, config, name, entry.file->path());
            const Row* row = place.row;
            const bool there = row && (row->exists(config, place.layer) || row->slot == Slot::head) &&
                               this->place(*row, place.layer).name == name.substr(0, name.size() - place.part.size());
            const auto& ignored = config.names.ignored;
            if (place.in_layer == "self_attn.rotary_emb.inv_freq" ||
                std::find(ignored.begin(), ignored.end(), place.in_layer) != ignored.end() ||
                (there && (place.part.empty() || row->kind == Kind::linear)))
                continue;
            if (row && row->kind == Kind::bias && place.part.empty())  // transformers would leave it out
                fail(Errc::format, tensors.folder(), ": there is a tensor ", name, ", but config.json says nothing of ",
                     row->slot <= bias_of(Module::o_proj) ? "attention_bias" : "mlp_bias");
            fail(Errc::unsupported, entry.file->path(), ": the tensor ", name, " is not part of a ", config.family,
                 " model as this library knows it");
        }
    }

    // What the folder asks for beside the weights, each said once.
    std::vector<std::string> notes() const {
        bool activations = false, cache = false;
        for (const auto& [name, entry] : tensors.all()) {
            const std::optional<HfCompanion> part = hf_companion(name);
            activations = activations || (part && part->role == HfCompanion::Role::activations);
            cache = cache || (part && part->role == HfCompanion::Role::cache);
        }
        std::vector<std::string> out;
        if (activations)
            out.push_back(tensors.folder() + " has scales to round activations with (input_scale), which are not "
                                             "used: only its weights are in few bits here");
        if (cache)
            out.push_back(tensors.folder() + " has scales for a cache in 8 bits (k_scale, v_scale), which are not "
                                             "used: the cache is held in the type that is asked for");
        return out;
    }
};

}  // namespace load_hf_room

std::shared_ptr<ModelImpl> load_hf_model(const Source& folder, const LoadOptions& options, const Family* as) {
    const std::string where = path_in(folder, "config.json");
    auto metadata = std::make_shared<Metadata>();
    const Json all = Json::parse(text_of(folder, "config.json", int64_t(16) << 20), where);
    bool sees = false;
    metadata->config = text_configuration(all, where, sees);
    const HfQuantization said = hf_quantization(metadata->config, where);
    auto model = std::make_shared<ModelImpl>();
    model->path = folder.name();
    model->backend = impl_of(options.backend);
    model->config = hf_config(metadata->config, where, as);
    Config& c = model->config;
    HfTensors tensors(folder);
    if (sees) {
        c.names.modules = seeing_layers[0];
        model->notes.push_back(str(folder.name(), " sees as well: ", tensors.keep_text(),
                                   " tensors of that part are left out, only text is read and written"));
    }
    const std::string root(c.names.layers.substr(0, c.names.layers.find('.') + 1)),
        embedding = tensor_name(World::hf, c, row_of(c, Slot::embedding), -1);
    if (!tensors.find(embedding) && embedding.starts_with(root) && tensors.find(embedding.substr(root.size())))
        tensors.put_under(root);
    c.tied = c.tied || !has_matrix(tensors, tensor_name(World::hf, c, row_of(c, Slot::head), -1));
    load_hf_room::Loader load{tensors, c, said};
    load.refuse_leftovers();
    for (std::string& note : load.notes()) model->notes.push_back(std::move(note));
    Loading(options, model->path, c).fill(*model, [&](const Row& row, int64_t layer) { return load.read(row, layer); });
    metadata->files = read_text_files(folder);
    if (const TextFile* file = tokenizer_file(*metadata))
        model->tokenizer = hf_tokenizer(*metadata, path_in(folder, file->name));
    check_text(*model);
    model->metadata = std::move(metadata);
    return model;
}

}}  // namespace qlora
