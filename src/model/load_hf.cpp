// load_hf.cpp - a model out of a Hugging Face folder: config.json, safetensors (one file or shards), tokenizer.json.
// Linear layers may be stored in 4 bits as bitsandbytes writes them; each tensor says so itself, so that mixed
// checkpoints load too.
#include "src/base/access.h"
#include "src/model/hf_model.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

namespace load_hf_room {

struct Loader {
    const HfTensors& tensors;
    const Config& config;
    FusedTensor cut = {};

    Weight plain(const std::string& name, const Shape& shape, bool view) {
        const HfTensors::Entry& e = tensors.get(name);
        Weight w = view ? e.file->view(*e.tensor) : e.file->weight(*e.tensor);
        check_shape(w, shape, e.file->path());
        return w;
    }

    RowsInFile place(const Row& row, int64_t layer) const {
        return rows_in_file(World::hf, config, row, layer, [&](const std::string& n) { return tensors.find(n); });
    }

    Stored whole(const Row& row, const std::string& name, const Shape& shape) {
        const bool linear = row.kind == Kind::linear;
        if (linear || row.slot == Slot::head)
            if (std::optional<Weight> w = read_bitsandbytes(tensors, name)) {
                check_shape(*w, shape, tensors.folder());
                return {std::make_shared<const Weight>(std::move(*w))};
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

    // A tensor that no part of the model took would silently change what the model computes.
    void refuse_leftovers() const {
        for (const auto& [name, entry] : tensors.all()) {
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
};

void check_quantization(const Json& json, const std::string& where) {
    const Json* q = json.find("quantization_config");
    if (!q || q->is_null()) return;
    q->as_object(where + ": quantization_config");
    const Json *method = q->find("quant_method"), *bits8 = q->find("load_in_8bit");
    const std::string name = method && !method->is_null()
                                 ? method->as_string(where + ": quantization_config.quant_method")
                                 : "";
    if (name != "bitsandbytes")
        fail(Errc::unsupported, where, ": quant_method \"", name,
             "\" is not supported; load the original checkpoint, or one in bitsandbytes 4-bit or GGUF");
    if (bits8 && !bits8->is_null() && bits8->as_bool(where + ": quantization_config.load_in_8bit"))
        fail(Errc::unsupported, where, ": bitsandbytes in 8 bits is not supported, only in 4");
}

}  // namespace load_hf_room

std::shared_ptr<ModelImpl> load_hf_model(const Source& folder, const LoadOptions& options, const Family* as) {
    const std::string where = path_in(folder, "config.json");
    auto metadata = std::make_shared<Metadata>();
    metadata->config = Json::parse(text_of(folder, "config.json", int64_t(16) << 20), where);
    load_hf_room::check_quantization(metadata->config, where);
    auto model = std::make_shared<ModelImpl>();
    model->path = folder.name();
    model->backend = impl_of(options.backend);
    model->config = hf_config(metadata->config, where, as);
    Config& c = model->config;
    HfTensors tensors(folder);
    const std::string root(c.names.layers.substr(0, c.names.layers.find('.') + 1)),
        embedding = tensor_name(World::hf, c, row_of(c, Slot::embedding), -1);
    if (!tensors.find(embedding) && embedding.starts_with(root) && tensors.find(embedding.substr(root.size())))
        tensors.put_under(root);
    c.tied = c.tied || !tensors.find(tensor_name(World::hf, c, row_of(c, Slot::head), -1));
    load_hf_room::Loader load{tensors, c};
    load.refuse_leftovers();
    Loading(options, model->path, c).fill(*model, [&](const Row& row, int64_t layer) { return load.read(row, layer); });
    metadata->files = read_text_files(folder);
    if (const TextFile* file = tokenizer_file(*metadata))
        model->tokenizer = hf_tokenizer(*metadata, path_in(folder, file->name));
    check_text(*model);
    model->metadata = std::move(metadata);
    return model;
}

}}  // namespace qlora
