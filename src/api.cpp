// api.cpp - the public classes of qlora.h over the rooms: arguments in, one call down, results out.
// Graph and Tensor live in src/ops/graph_api.cpp, all but Graph::weight, which needs to know what a model is.
#include "src/base/source.h"
#include "src/cpu/cpu.h"
#include "src/model/base_record.h"
#include "src/model/draft.h"
#include "src/model/lora_impl.h"
#include "src/run/batch.h"
#include "src/run/checkpoint.h"
#include "src/run/evaluate.h"
#include "src/run/merge.h"
#include "src/run/score.h"
#include "src/run/session.h"

#include <algorithm>
#include <mutex>

namespace qlora { inline namespace QLORA_ABI {
#ifdef QLORA_CUDA
std::shared_ptr<BackendImpl> make_cuda_backend(int device);    // src/cuda; throws Error{device} if there is none
#endif

namespace api_room {

template <class Impl>
const Impl& checked(const std::shared_ptr<Impl>& impl, const char* what) {
    if (!impl) fail(Errc::argument, what, ": an empty handle; use one that load() or create() has returned");
    return *impl;
}

template <class Impl>
Impl& live(const std::unique_ptr<Impl>& impl, const char* what) {
    if (!impl) fail(Errc::argument, what, ": this object was moved from; use the one that it was moved to");
    return *impl;
}

std::shared_ptr<const TokenizerImpl> tokenizer_of(const ModelImpl& model) {
    if (!model.tokenizer)
        fail(Errc::argument, "tokenizer: ", model.path, " has no vocabulary; load one with Tokenizer::load");
    return model.tokenizer;
}

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

}  // namespace api_room

// ---- Backend. While anyone holds the default CPU backend it is shared: one pool of threads, not one for each model.
Backend Backend::cpu(int threads, Compute compute, std::string_view instructions) {
    if (threads < 0) fail(Errc::argument, "Backend::cpu: ", threads, " threads, expected 0 (every core) or more");
    if (int(compute) < 0 || compute > Compute::mixed)
        fail(Errc::argument, "Backend::cpu: compute ", int(compute), " is not f32, bf16 or mixed");
    if (threads > 0 || compute != Compute::f32 || !instructions.empty())
        return Backend(make_cpu_backend(threads, compute, instructions));
    static std::mutex mutex;
    static std::weak_ptr<BackendImpl> shared;
    const std::lock_guard lock(mutex);
    std::shared_ptr<BackendImpl> backend = shared.lock();
    if (!backend) shared = backend = make_cpu_backend(0, Compute::f32);
    return Backend(backend);
}

Backend Backend::cuda([[maybe_unused]] int device) {
#ifdef QLORA_CUDA
    return Backend(make_cuda_backend(device));
#else
    fail(Errc::device,
         "Backend::cuda: this program was built without CUDA; compile with -DQLORA_CUDA and add qlora-cuda.cu, or use "
         "Backend::cpu()");
#endif
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
Work Backend::work() const { return api_room::checked(impl_, "Backend").work(); }
size_t Backend::memory_free() const { return size_t(api_room::checked(impl_, "Backend").memory_free()); }

// ---- Tokenizer
Tokenizer Tokenizer::load(const Source& source) { return Tokenizer(load_tokenizer(source)); }

Tokens Tokenizer::encode(std::string_view text, bool add_bos, bool control) const {
    return encode_text(api_room::checked(impl_, "Tokenizer"), text, add_bos, control);
}

std::string Tokenizer::decode(std::span<const Token> tokens, bool control) const {
    const TokenizerImpl& t = api_room::checked(impl_, "Tokenizer");
    for (const Token id : tokens)
        if (id < 0 || id >= t.size())
            fail(Errc::argument, "decode: token ", id, " is outside the vocabulary of ", t.size());
    return t.decode(tokens, control);
}

Rendered Tokenizer::render(std::span<const Message> chat, const RenderOptions& options) const {
    return render_chat(api_room::checked(impl_, "Tokenizer"), chat, options);
}
Rendered Tokenizer::render(std::span<const Message> chat, bool reply_next) const {
    return render(chat, RenderOptions{.reply_next = reply_next});
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

void save_model(const ModelImpl& model, const LoraImpl* lora, const std::string& path, const SaveOptions& o) {
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

}  // namespace api_room

Model Model::load(const Source& source, const LoadOptions& options) {
    if (!options.backend.impl()) fail(Errc::argument, "Model::load: the backend is an empty handle");
    if (!is_in_memory(source) && !exists(source.name()))
        fail(Errc::io, "Model::load: ", source.name(), ": no such file or folder");
    if (has_files(source)) return Model(load_hf_model(source, options));
    return Model(load_gguf_model(source, options));
}

void Model::save(const std::string& path, const SaveOptions& options) const {
    api_room::save_model(api_room::checked(impl_, "Model"), nullptr, path, options);
}

Model Model::convert(Format to) const {
    return Model(convert_model(api_room::checked(impl_, "Model"), to.type, to.double_quant));
}
ModelInfo Model::info() const { return describe(api_room::checked(impl_, "Model")); }
Tokenizer Model::tokenizer() const { return Tokenizer(api_room::tokenizer_of(api_room::checked(impl_, "Model"))); }
Backend Model::backend() const { return Backend(api_room::checked(impl_, "Model").backend); }

std::vector<float> Model::logits(std::span<const Token> tokens) const {
    api_room::checked(impl_, "Model");
    return api_room::logits(impl_, nullptr, tokens);
}

// ---- Lora
Lora Lora::create(Model base, const LoraOptions& options) {
    api_room::checked(base.impl(), "Model");
    return Lora(create_lora(base.impl(), options));
}

Lora Lora::load(Model base, const Source& source, OnBase on_base) {
    api_room::checked(base.impl(), "Model");
    return Lora(load_lora(base.impl(), source, on_base));
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
    if (path.ends_with(".gguf")) save_lora_gguf(lora, path);
    else save_lora_peft(lora, path);
}

Files Lora::files() const { return lora_files(api_room::checked(impl_, "Lora")); }

Model Lora::merge(Format to) const {
    return Model(merge_lora(api_room::checked(impl_, "Lora"), to.type, to.double_quant));
}
Model Lora::base() const { return Model(api_room::checked(impl_, "Lora").base); }
int64_t Lora::parameters() const { return api_room::checked(impl_, "Lora").parameters; }
uint64_t Lora::fingerprint() const {
    const LoraImpl& lora = api_room::checked(impl_, "Lora");
    const auto held = lora.lock.read();
    return fingerprint_of(lora);
}
Lora Lora::copy() const { return Lora(copy_lora(api_room::checked(impl_, "Lora"))); }
Lora Lora::sum(std::span<const Lora> loras, std::span<const float> scales) {
    std::vector<std::shared_ptr<LoraImpl>> impls;
    for (const Lora& lora : loras) {
        api_room::checked(lora.impl(), "Lora");
        impls.push_back(lora.impl());
    }
    return Lora(sum_loras(impls, scales));
}
LoraOptions Lora::options() const { return api_room::checked(impl_, "Lora").options; }
std::vector<float> Lora::logits(std::span<const Token> tokens) const {
    const LoraImpl& lora = api_room::checked(impl_, "Lora");
    const auto held = lora.lock.read();
    return api_room::logits(lora.base, &lora, tokens);
}

// ---- Dataset
Dataset Dataset::load(const std::string& path, const Tokenizer& tokenizer, const DatasetOptions& options) {
    api_room::checked(tokenizer.impl(), "Tokenizer");
    return Dataset(load_dataset(path, tokenizer.impl(), options));
}

namespace api_room {

DatasetOptions within(const Model& model, DatasetOptions options) {
    options.context = std::min(options.context, checked(model.impl(), "Model").config.context);
    return options;
}

}  // namespace api_room

Dataset Dataset::load(const std::string& path, const Model& model, const DatasetOptions& options) {
    return load(path, model.tokenizer(), api_room::within(model, options));
}

Dataset Dataset::from_dialogues(std::span<const std::vector<Message>> dialogues, const Model& model,
                                const DatasetOptions& options) {
    return Dataset(dataset_of_dialogues(dialogues, model.tokenizer().impl(), api_room::within(model, options)));
}

Dataset Dataset::from_texts(std::span<const std::string> texts, const Model& model, const DatasetOptions& options) {
    return Dataset(dataset_of_texts(texts, model.tokenizer().impl(), api_room::within(model, options)));
}

Dataset Dataset::from_rows(std::span<const Rendered> rows, const Model& model, const DatasetOptions& options) {
    return Dataset(dataset_of_rows(rows, model.tokenizer().impl(), model.info().vocabulary,
                                   api_room::within(model, options)));
}

Dataset Dataset::weighted(std::span<const float> weights) const {
    return Dataset(weighted_dataset(api_room::checked(impl_, "Dataset"), weights));
}

Dataset Dataset::join(std::span<const Dataset> parts) {
    std::vector<std::shared_ptr<const DatasetImpl>> impls;
    for (const Dataset& part : parts) {
        api_room::checked(part.impl(), "Dataset");
        impls.push_back(part.impl());
    }
    return Dataset(join_datasets(impls));
}

DatasetInfo Dataset::info() const { return api_room::checked(impl_, "Dataset").info; }

Rendered Dataset::row(int64_t index) const {
    const DatasetImpl& data = api_room::checked(impl_, "Dataset");
    if (index < 0 || index >= data.size()) fail(Errc::argument, "Dataset::row: row ", index, " of ", data.size());
    const auto tokens = data.tokens(index);
    const auto trained = data.trained(index);
    return {data.tokenizer->decode(tokens, true), Tokens(tokens.begin(), tokens.end()),
            std::vector<uint8_t>(trained.begin(), trained.end())};
}

std::pair<Dataset, Dataset> Dataset::split(float fraction, uint64_t seed) const {
    auto [rest, part] = split_dataset(api_room::checked(impl_, "Dataset"), fraction, seed);
    return {Dataset(std::move(rest)), Dataset(std::move(part))};
}

// ---- Trainer
Trainer::Trainer(Lora lora, Dataset data, const TrainOptions& options) {
    api_room::checked(lora.impl(), "Lora");
    api_room::checked(data.impl(), "Dataset");
    impl_ = std::make_unique<TrainerImpl>(lora.impl(), data.impl(), options);
}

Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;

namespace api_room {

struct Training {                                      // the trainer of a public call, for as long as the call lasts
    TrainerImpl& impl;
    Exclusive use;
    Training(const std::unique_ptr<TrainerImpl>& i, const char* what) : impl(live(i, what)), use(impl.busy, what) {}
};

struct Talking {                                       // the same of a session
    SessionImpl& impl;
    Exclusive use;
    Talking(const std::unique_ptr<SessionImpl>& i, const char* what) : impl(live(i, what)), use(impl.busy, what) {}
};

// A session that is dropped by its own callback is still running: its memory is left to that call rather than taken
// from under it.
void drop(std::unique_ptr<SessionImpl>& impl) {
    if (impl && impl->busy.test()) impl.release();
    impl.reset();
}

}  // namespace api_room

MemoryPlan Trainer::plan() const { return api_room::Training(impl_, "Trainer::plan").impl.plan(); }
bool Trainer::step(const std::function<bool(int64_t, int64_t)>& on_micro_batch) {
    return api_room::Training(impl_, "Trainer::step").impl.step(on_micro_batch);
}
const TrainStep& Trainer::last() const { return api_room::live(impl_, "Trainer::last").progress.last; }
void Trainer::set_learning_rate(float rate) {
    api_room::Training(impl_, "Trainer::set_learning_rate").impl.set_learning_rate(rate);
}
double Trainer::evaluate(const Dataset& data, const std::function<bool()>& go_on) const {
    return api_room::Training(impl_, "Trainer::evaluate")
        .impl.evaluate(api_room::checked(data.impl(), "Dataset"), go_on);
}
void Trainer::save(const std::string& folder) const {
    save_checkpoint(api_room::Training(impl_, "Trainer::save").impl, folder);
}
std::vector<std::string> Trainer::resume(const std::string& folder) {
    return load_checkpoint(api_room::Training(impl_, "Trainer::resume").impl, folder);
}
std::optional<RunMachine> Trainer::machine_of(const std::string& checkpoint) {
    return machine_of_checkpoint(checkpoint);
}

// ---- Session
Session::Session(Adapted of, const SessionOptions& options) {
    api_room::checked(of.model().impl(), "Model");
    impl_ = std::make_unique<SessionImpl>(of.model().impl(), of.lora() ? of.lora()->impl() : nullptr, options);
}

Session::Session(std::unique_ptr<SessionImpl> impl) : impl_(std::move(impl)) {}
Session::~Session() { api_room::drop(impl_); }
Session::Session(Session&&) noexcept = default;

Session& Session::operator=(Session&& other) noexcept {
    if (this == &other) return *this;
    api_room::drop(impl_);
    impl_ = std::move(other.impl_);
    return *this;
}

Reply Session::chat(std::string_view user, const Sampling& sampling, const OnText& on_text) {
    const Message message{"user", std::string(user)};
    return chat(std::span(&message, 1), {}, sampling, on_text);
}

Reply Session::chat(std::span<const Message> more, const RenderOptions& options, const Sampling& sampling,
                    const OnText& on_text) {
    return api_room::Talking(impl_, "Session::chat").impl.chat(more, options, sampling, on_text);
}

Reply Session::complete(std::string_view prompt, const Sampling& sampling, const OnText& on_text, bool control) {
    return api_room::Talking(impl_, "Session::complete").impl.complete(prompt, sampling, on_text, control);
}

Reply Session::complete(std::span<const Token> prompt, const Sampling& sampling, const OnText& on_text) {
    return api_room::Talking(impl_, "Session::complete").impl.complete(prompt, sampling, on_text);
}

void Session::adapt(Adapted to, float scale) {
    const api_room::Talking session(impl_, "Session::adapt");
    api_room::checked(to.model().impl(), "Model");
    if (to.lora() && scale != 1) to = Lora::sum(std::span(&*to.lora(), 1), std::span(&scale, 1));
    session.impl.adapt(to.model().impl(), to.lora() ? to.lora()->impl() : nullptr);
}

Session Session::fork() const { return Session(api_room::Talking(impl_, "Session::fork").impl.fork()); }
std::string Session::save() const { return api_room::Talking(impl_, "Session::save").impl.save(); }
void Session::restore(std::string_view saved) { api_room::Talking(impl_, "Session::restore").impl.restore(saved); }

const std::vector<Message>& Session::history() const { return api_room::live(impl_, "Session::history").history; }
void Session::set_history(std::vector<Message> history) {
    api_room::Talking(impl_, "Session::set_history").impl.history = std::move(history);
}
SessionStats Session::stats() const { return api_room::live(impl_, "Session::stats").stats; }

void Session::reset(std::string_view system) {
    std::vector<Message> fresh;
    if (!system.empty()) fresh.push_back({"system", std::string(system)});
    set_history(std::move(fresh));
}

// ---- Batch
Batch::Batch(Model model, const BatchOptions& options) {
    api_room::checked(model.impl(), "Model");
    impl_ = std::make_unique<BatchImpl>(model.impl(), options);
}

Batch::~Batch() = default;
Batch::Batch(Batch&&) noexcept = default;

namespace api_room {

struct Batching {                                      // the batch of a public call, for as long as the call lasts
    BatchImpl& impl;
    Exclusive use;
    Batching(const std::unique_ptr<BatchImpl>& i, const char* what) : impl(live(i, what)), use(impl.busy, what) {}
};

}  // namespace api_room

int64_t Batch::add(std::span<const Token> prompt, const Sampling& sampling, std::optional<Lora> lora) {
    if (lora) api_room::checked(lora->impl(), "Lora");
    return api_room::Batching(impl_, "Batch::add").impl.add(prompt, sampling, lora ? lora->impl() : nullptr);
}

bool Batch::step(const std::function<bool(int64_t, std::string_view)>& on_text) {
    return api_room::Batching(impl_, "Batch::step").impl.step(on_text);
}

Reply Batch::remove(int64_t slot) { return api_room::Batching(impl_, "Batch::remove").impl.remove(slot); }
bool Batch::running(int64_t slot) const { return api_room::live(impl_, "Batch::running").running(slot); }
int64_t Batch::free_slots() const { return api_room::live(impl_, "Batch::free_slots").free_slots(); }

// ---- Measuring
namespace api_room {

// What a public call runs, its factors held still for as long as the call lasts.
struct Running {
    std::shared_ptr<const ModelImpl> model;
    const LoraImpl* lora;
    std::shared_lock<std::shared_mutex> held;
    explicit Running(const Adapted& a)
        : model(a.model().impl()), lora(a.lora() ? a.lora()->impl().get() : nullptr) {
        checked(model, "Model");
        if (lora) held = lora->lock.read();
    }
    DecoderPool measuring() const { return measuring_pool(model, lora); }
};

}  // namespace api_room

Perplexity perplexity(const Adapted& of, std::span<const Token> tokens, int64_t context, int64_t stride) {
    const api_room::Running run(of);
    DecoderPool pool = run.measuring();
    return measure_perplexity(pool, tokens, context, stride);
}

Difference difference(const Adapted& expected, const Adapted& actual, std::span<const Token> tokens) {
    const api_room::Running e(expected);
    // a lock that this thread has is not taken twice
    const bool same = expected.lora() && actual.lora() && expected.lora()->impl() == actual.lora()->impl();
    if (same) return measure_difference(e.model, e.lora, e.model, e.lora, tokens);
    const api_room::Running a(actual);
    return measure_difference(e.model, e.lora, a.model, a.lora, tokens);
}

double evaluate(const Adapted& of, const Dataset& data) {
    const api_room::Running run(of);
    DecoderPool pool = run.measuring();
    return dataset_loss(pool, api_room::checked(data.impl(), "Dataset"));
}

int64_t best_choice(const Adapted& of, std::string_view query, std::span<const std::string> choices) {
    const api_room::Running run(of);
    DecoderPool pool = run.measuring();
    return choose_best(pool, *api_room::tokenizer_of(*run.model), query, choices);
}

std::vector<double> score(const Adapted& of, std::span<const Token> prompt, std::span<const Tokens> continuations) {
    const api_room::Running run(of);
    std::vector<Continuation> list;
    for (const Tokens& tokens : continuations) list.push_back({tokens, {}});
    return score_continuations(run.model, run.lora, prompt, list);
}

std::vector<double> score(const Adapted& of, std::span<const Message> chat, std::span<const std::string> replies) {
    const api_room::Running run(of);
    return score_replies(run.model, run.lora, chat, replies);
}

std::vector<float> embeddings(const Adapted& of, std::span<const std::string> texts, Pooling pooling, bool normalize) {
    const api_room::Running run(of);
    return embed_texts(run.model, run.lora, texts, pooling, normalize);
}

// ---- The floor below
Tensor Graph::weight(const Model& model, std::string_view name) {
    const ModelImpl& m = api_room::checked(model.impl(), "Model");
    GraphImpl& graph = api_room::live(impl_, "Graph");
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
