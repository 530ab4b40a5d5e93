// models.cpp - the public classes of what is loaded and held: arguments in, one call down, results out. Graph and
// Tensor live in src/ops/graph_api.cpp, all but Graph::weight, which needs to know what a model is.
#include "src/api/api.h"
#include "src/base/source.h"
#include "src/cpu/cpu.h"
#include "src/cuda/plan/planned.h"
#include "src/model/base_record.h"
#include "src/model/dialogue.h"
#include "src/model/draft.h"
#include "src/model/head.h"
#include "src/model/lora_impl.h"
#include "src/model/recommended.h"
#include "src/run/merge.h"

#include <algorithm>
#include <mutex>

namespace qlora { inline namespace QLORA_ABI {

namespace api_room {

// One run of all rows. The graph is built for this length, so this is for tests and short inputs.
std::vector<float> logits(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora, std::span<const Token> tokens) {
    if (tokens.empty()) return {};
    check_context(model->config, int64_t(tokens.size()), "logits");
    DecoderSpec spec;
    spec.rows = int64_t(tokens.size());
    Decoder decoder(std::move(model), lora, spec);
    const Document document{tokens, {}};
    decoder.run(lay_out(std::span(&document, 1), spec.rows));
    return decoder.logits();
}

void check_compute(const char* what, Compute compute) {
    if (int(compute) < 0 || compute > Compute::mixed)
        fail(Errc::argument, what, ": compute ", int(compute), " is not f32, bf16 or mixed");
}

}  // namespace api_room

// ---- Backend. While anyone holds the default CPU backend it is shared: one pool of threads, not one for each model.
Backend Backend::cpu(int threads, Compute compute, std::string_view instructions) {
    if (threads < 0) fail(Errc::argument, "Backend::cpu: ", threads, " threads, expected 0 (every core) or more");
    api_room::check_compute("Backend::cpu", compute);
    if (threads > 0 || compute != Compute::f32 || !instructions.empty())
        return Backend(make_cpu_backend(threads, compute, instructions));
    static std::mutex mutex;
    static std::weak_ptr<BackendImpl> shared;
    const std::lock_guard lock(mutex);
    std::shared_ptr<BackendImpl> backend = shared.lock();
    if (!backend) shared = backend = make_cpu_backend(0, Compute::f32);
    return Backend(backend);
}

Backend Backend::cuda([[maybe_unused]] int device, Compute compute) {
    api_room::check_compute("Backend::cuda", compute);
#ifdef QLORA_CUDA
    return Backend(make_cuda_backend(device, compute));
#else
    fail(Errc::device,
         "Backend::cuda: this program was built without CUDA; compile with -DQLORA_CUDA and add qlora-cuda.cu (make "
         "CUDA=1, cmake -DQLORA_CUDA=ON), or use Backend::cpu() (--device cpu)");
#endif
}

Backend Backend::planned_cuda(Compute compute) {
    api_room::check_compute("Backend::planned_cuda", compute);
    return Backend(make_planned_cuda_backend(any_device(compute)));
}

Backend Backend::best() {
#ifdef QLORA_CUDA
    try {
        return cuda(0);
    } catch (const Error&) {                           // no device here: the CPU is the best there is
        return cpu();
    }
#else
    return cpu();
#endif
}

std::string Backend::name() const { return api_room::checked(impl_, "Backend").name(); }
Compute Backend::compute() const { return api_room::checked(impl_, "Backend").compute(); }
Compute Backend::gradients() const { return api_room::checked(impl_, "Backend").gradients(); }
Work Backend::work() const { return api_room::checked(impl_, "Backend").work(); }
size_t Backend::memory_free() const { return size_t(api_room::checked(impl_, "Backend").memory_left()); }
size_t Backend::memory_used() const { return size_t(api_room::checked(impl_, "Backend").limit->used()); }
void Backend::limit_memory(int64_t bytes) {
    if (bytes < 0) fail(Errc::argument, "Backend::limit_memory: ", bytes, " bytes, expected 0 (no limit) or more");
    api_room::checked(impl_, "Backend").limit->set(bytes);
}

// ---- Tokenizer
Tokenizer Tokenizer::load(const Source& source) { return Tokenizer(load_tokenizer(source)); }

Tokens Tokenizer::encode(std::string_view text, bool add_bos, bool control) const {
    return encode_text(api_room::checked(impl_, "Tokenizer"), text, add_bos, control);
}

namespace api_room {

const TokenizerImpl& of_these(const std::shared_ptr<const TokenizerImpl>& impl, std::span<const Token> tokens,
                              const char* what) {
    const TokenizerImpl& t = checked(impl, "Tokenizer");
    for (const Token id : tokens)
        if (id < 0 || id >= t.size())
            fail(Errc::argument, what, ": token ", id, " is outside the vocabulary of ", t.size());
    return t;
}

}  // namespace api_room

std::string Tokenizer::decode(std::span<const Token> tokens, bool control) const {
    return api_room::of_these(impl_, tokens, "decode").decode(tokens, control);
}
std::string Tokenizer::piece(Token token, bool control) const {
    return api_room::of_these(impl_, std::span(&token, 1), "piece").piece(token, control);
}
bool Tokenizer::is_control(Token token) const {
    return api_room::of_these(impl_, std::span(&token, 1), "is_control").is_control(token);
}

Rendered Tokenizer::render(std::span<const Message> chat, const RenderOptions& options) const {
    return render_chat(api_room::checked(impl_, "Tokenizer"), chat, options);
}
Rendered Tokenizer::render(std::span<const Message> chat, bool reply_next) const {
    return render(chat, RenderOptions{.reply_next = reply_next});
}
bool Tokenizer::has_system_role() const {
    return DialogueRenderer(api_room::checked(impl_, "Tokenizer")).takes_system();
}
bool Tokenizer::has_chat_template() const { return !api_room::checked(impl_, "Tokenizer").chat_template.empty(); }
int64_t Tokenizer::size() const { return api_room::checked(impl_, "Tokenizer").size(); }
Token Tokenizer::bos() const { return api_room::checked(impl_, "Tokenizer").bos; }
Token Tokenizer::eos() const { return api_room::checked(impl_, "Tokenizer").eos; }
std::vector<std::string> Tokenizer::notes() const { return api_room::checked(impl_, "Tokenizer").notes; }

bool Tokenizer::ends_reply(Token token) const {
    const std::vector<Token>& ends = api_room::checked(impl_, "Tokenizer").end_of_reply;
    return std::find(ends.begin(), ends.end(), token) != ends.end();
}

// ---- Model
namespace api_room {

void refuse_outline(const ModelImpl& model) {
    if (model.backend && model.backend->is_outline()) (void)record_of(model);           // says why
}

void save_model(const ModelImpl& model, const LoraImpl* lora, const std::string& path, const SaveOptions& o) {
    refuse_outline(model);
    if (o.shard_bytes < 1)
        fail(Errc::argument, "save ", path, ": shard_bytes is ", o.shard_bytes, ", expected 1 or more");
    if (lora || o.as) {
        const Format to = o.as.value_or(DType::f32);
        save_model_as(model, lora, path, to.type, to.double_quant, o.on_progress, o.shard_bytes);
    } else if (path.ends_with(".gguf")) {
        save_gguf_model(model, path);
    } else {
        save_hf_model(model, path, o.shard_bytes);
    }
}

std::shared_ptr<ModelImpl> load_model(const Source& source, const LoadOptions& options) {
    if (!is_in_memory(source) && !exists(source.name()))
        fail(Errc::io, "Model::load: ", source.name(), ": no such file or folder");
    return has_files(source) ? load_hf_model(source, options) : load_gguf_model(source, options);
}

}  // namespace api_room

Model Model::load(const Source& source, const LoadOptions& options) {
    if (!impl_of(options.backend)) fail(Errc::argument, "Model::load: the backend is an empty handle");
    if (impl_of(options.backend)->is_outline())
        fail(Errc::argument, "Model::load: ", source.name(), ": the backend is that of an outline, which holds no "
             "weights; use Backend::cpu(), or Model::outline for another one");
    return Model(api_room::load_model(source, options));
}

Model Model::outline(const Source& source, const LoadOptions& options) {
    if (!impl_of(options.backend)) fail(Errc::argument, "Model::outline: the backend is an empty handle");
    LoadOptions without = options;
    if (!impl_of(options.backend)->is_outline())
        without.backend = handle_of<Backend>(impl_of(options.backend)->outline());
    return Model(api_room::load_model(source, without));
}

void Model::save(const std::string& path, const SaveOptions& options) const {
    api_room::save_model(api_room::checked(impl_, "Model"), nullptr, path, options);
}

Model Model::with_head(DType type) const {
    return Model(model_with_head(api_room::checked(impl_, "Model"), type));
}

Model Model::convert(Format to) const {
    api_room::refuse_outline(api_room::checked(impl_, "Model"));
    return Model(convert_model(*impl_, to.type, to.double_quant));
}
ModelInfo Model::info() const { return describe(api_room::checked(impl_, "Model")); }
Sampling Model::sampling() const { return recommended_sampling(api_room::checked(impl_, "Model")); }
Tokenizer Model::tokenizer() const {
    return handle_of<Tokenizer>(api_room::tokenizer_of(api_room::checked(impl_, "Model")));
}
Backend Model::backend() const { return handle_of<Backend>(api_room::checked(impl_, "Model").backend); }

std::vector<float> Model::logits(std::span<const Token> tokens) const {
    api_room::checked(impl_, "Model");
    return api_room::logits(impl_, nullptr, tokens);
}

// ---- Lora
Lora Lora::create(Model base, const LoraOptions& options) {
    return Lora(create_lora(api_room::held(base, "Model"), options));
}

Lora Lora::load(Model base, const Source& source, OnBase on_base) {
    return Lora(load_lora(api_room::held(base, "Model"), source, on_base));
}

std::optional<AdapterBase> Lora::recorded_base(const Source& source) {
    const std::optional<BaseRecord> record = qlora::recorded_base(adapter_folder(source));
    return record ? std::optional(record->base) : std::nullopt;
}

void Lora::save(const std::string& path, const SaveOptions& options) const {
    const LoraImpl& lora = api_room::checked(impl_, "Lora");
    if (options.merged) return api_room::save_model(*lora.base, &lora, path, options);
    if (options.as)
        fail(Errc::argument, "save ", path, ": an adapter is written in f32, not as ", name_of(options.as->type),
             "; with SaveOptions::merged its base is written so, with the adapter inside");
    if (options.mlx) save_lora_mlx(lora, path);
    else if (path.ends_with(".gguf")) save_lora_gguf(lora, path);
    else save_lora_peft(lora, path);
}

Files Lora::files() const { return lora_files(api_room::checked(impl_, "Lora")); }

Model Lora::merge(Format to) const {
    api_room::refuse_outline(*api_room::checked(impl_, "Lora").base);
    return handle_of<Model>(merge_lora(*impl_, to.type, to.double_quant));
}
Model Lora::base() const { return handle_of<Model>(api_room::checked(impl_, "Lora").base); }
int64_t Lora::parameters() const { return api_room::checked(impl_, "Lora").parameters; }
uint64_t Lora::fingerprint() const {
    const LoraImpl& lora = api_room::checked(impl_, "Lora");
    const auto held = lora.lock.read();
    return fingerprint_of(lora);
}
Lora Lora::copy() const { return Lora(copy_lora(api_room::checked(impl_, "Lora"))); }
Lora Lora::sum(std::span<const Lora> loras, std::span<const float> scales) {
    std::vector<std::shared_ptr<LoraImpl>> impls;
    for (const Lora& lora : loras) impls.push_back(api_room::held(lora, "Lora"));
    return Lora(sum_loras(impls, scales));
}
LoraOptions Lora::options() const { return api_room::checked(impl_, "Lora").options; }
std::vector<float> Lora::logits(std::span<const Token> tokens) const {
    const LoraImpl& lora = api_room::checked(impl_, "Lora");
    const auto held = lora.lock.read();
    return api_room::logits(lora.base, &lora, tokens);
}

// ---- The floor below
Tensor Graph::weight(const Model& model, std::string_view name) {
    const ModelImpl& m = *api_room::held(model, "Model");
    GraphImpl& graph = api_room::live(impl_, "Graph");
    const Exclusive use(graph.busy, "Graph::weight");
    if (m.backend != graph.backend)
        fail(Errc::argument, "Graph::weight: the model is on ", m.backend->name(), ", the graph on ",
             graph.backend->name(), "; make the graph with model.backend()");
    WeightPtr found;
    for_each_weight(m, [&](const Row&, const WeightPtr& w) {
        if (!found && w->name == name) found = w;
    });
    if (found) return graph.weight(found);
    fail(Errc::argument, "Graph::weight: ", m.path, " has no tensor \"", name,
         "\"; its first layer's query matrix is called \"", m.at(Slot::q_proj, 0)->name, "\"");
}

}}  // namespace qlora
