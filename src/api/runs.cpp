// runs.cpp - the public classes of what works on models: data, training, generating, measuring.
#include "src/api/api.h"
#include "src/model/lora_impl.h"
#include "src/run/batch.h"
#include "src/run/checkpoint.h"
#include "src/run/evaluate.h"
#include "src/run/merge.h"
#include "src/run/score.h"
#include "src/run/session.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

// ---- Dataset
Dataset Dataset::load(const std::string& path, const Tokenizer& tokenizer, const DatasetOptions& options) {
    return Dataset(load_dataset(path, api_room::held(tokenizer, "Tokenizer"), options));
}

namespace api_room {

DatasetOptions within(const Model& model, DatasetOptions options) {
    options.context = std::min(options.context, held(model, "Model")->config.context);
    return options;
}

}  // namespace api_room

Dataset Dataset::load(const std::string& path, const Model& model, const DatasetOptions& options) {
    return load(path, model.tokenizer(), api_room::within(model, options));
}

Dataset Dataset::from_dialogues(std::span<const std::vector<Message>> dialogues, const Model& model,
                                const DatasetOptions& options) {
    return Dataset(dataset_of_dialogues(dialogues, impl_of(model.tokenizer()), api_room::within(model, options)));
}

Dataset Dataset::from_texts(std::span<const std::string> texts, const Model& model, const DatasetOptions& options) {
    return Dataset(dataset_of_texts(texts, impl_of(model.tokenizer()), api_room::within(model, options)));
}

Dataset Dataset::from_rows(std::span<const Rendered> rows, const Model& model, const DatasetOptions& options) {
    return Dataset(dataset_of_rows(rows, impl_of(model.tokenizer()), model.info().vocabulary,
                                   api_room::within(model, options)));
}

Dataset Dataset::weighted(std::span<const float> weights) const {
    return Dataset(weighted_dataset(api_room::checked(impl_, "Dataset"), weights));
}

Dataset Dataset::join(std::span<const Dataset> parts) {
    std::vector<std::shared_ptr<const DatasetImpl>> impls;
    for (const Dataset& part : parts) impls.push_back(api_room::held(part, "Dataset"));
    return Dataset(join_datasets(impls));
}

Dataset Dataset::pick(std::span<const int64_t> rows) const {
    return Dataset(picked_rows(api_room::checked(impl_, "Dataset"), rows));
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
    impl_ = std::make_unique<TrainerImpl>(api_room::held(lora, "Lora"), api_room::held(data, "Dataset"), options);
}

namespace api_room {

// What a public call works on, for as long as the call lasts. Its callback may drop it: then it goes with the call.
template <class Impl>
class InUse {
public:
    InUse(const std::unique_ptr<Impl>& i, const char* what) : impl(live(i, what)) { impl.busy.take(what); }
    ~InUse() { if (impl.busy.leave()) delete &impl; }
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;
    Impl& impl;
};
using Training = InUse<TrainerImpl>;
using Talking = InUse<SessionImpl>;
using Batching = InUse<BatchImpl>;

// For calls that only look: f(impl), within a callback of a call that works too.
template <class Impl, class F>
auto look(const std::unique_ptr<Impl>& i, const char* what, const F& f) {
    if (live(i, what).busy.taken_here()) return f(*i);
    return f(InUse<Impl>(i, what).impl);
}

// What is dropped by its own callback is still running: it is left to that call rather than taken from under it.
template <class Impl>
void drop(std::unique_ptr<Impl>& impl) {
    if (impl && impl->busy.abandon()) impl.release();
    impl.reset();
}

template <class Impl>
void replace(std::unique_ptr<Impl>& impl, std::unique_ptr<Impl>& by) {
    if (&impl == &by) return;
    drop(impl);
    impl = std::move(by);
}

}  // namespace api_room

Trainer::~Trainer() { api_room::drop(impl_); }
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&& other) noexcept { return api_room::replace(impl_, other.impl_), *this; }

MemoryPlan Trainer::plan() const { return api_room::Training(impl_, "Trainer::plan").impl.plan(); }
bool Trainer::step(const std::function<bool(int64_t, int64_t)>& on_micro_batch) {
    return api_room::Training(impl_, "Trainer::step").impl.step(on_micro_batch);
}
TrainStep Trainer::last() const {
    return api_room::look(impl_, "Trainer::last", [](const TrainerImpl& t) { return t.progress.last; });
}
void Trainer::set_learning_rate(float rate) {
    api_room::Training(impl_, "Trainer::set_learning_rate").impl.set_learning_rate(rate);
}
double Trainer::evaluate(const Dataset& data, const std::function<bool()>& go_on) const {
    return api_room::Training(impl_, "Trainer::evaluate")
        .impl.evaluate(*api_room::held(data, "Dataset"), go_on);
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
    impl_ = std::make_unique<SessionImpl>(api_room::held(of.model(), "Model"), api_room::adapter_of(of.lora()),
                                          options);
}

Session::Session(std::unique_ptr<SessionImpl> impl) : impl_(std::move(impl)) {}
Session::~Session() { api_room::drop(impl_); }
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&& other) noexcept { return api_room::replace(impl_, other.impl_), *this; }

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
    const std::shared_ptr<const ModelImpl> base = api_room::held(to.model(), "Model");
    if (to.lora() && scale != 1) to = Lora::sum(std::span(&*to.lora(), 1), std::span(&scale, 1));
    session.impl.adapt(base, api_room::adapter_of(to.lora()));
}

Session Session::fork() const { return Session(api_room::Talking(impl_, "Session::fork").impl.fork()); }
std::string Session::save() const { return api_room::Talking(impl_, "Session::save").impl.save(); }
void Session::restore(std::string_view saved) { api_room::Talking(impl_, "Session::restore").impl.restore(saved); }

std::vector<Message> Session::history() const {
    return api_room::look(impl_, "Session::history", [](const SessionImpl& s) { return s.history; });
}
void Session::set_history(std::vector<Message> history) {
    api_room::Talking(impl_, "Session::set_history").impl.history = std::move(history);
}
SessionStats Session::stats() const {
    return api_room::look(impl_, "Session::stats", [](const SessionImpl& s) { return s.stats; });
}

void Session::reset(std::string_view system) {
    std::vector<Message> fresh;
    if (!system.empty()) fresh.push_back({"system", std::string(system)});
    set_history(std::move(fresh));
}

// ---- Batch
Batch::Batch(Model model, const BatchOptions& options) {
    impl_ = std::make_unique<BatchImpl>(api_room::held(model, "Model"), options);
}

Batch::~Batch() { api_room::drop(impl_); }
Batch::Batch(Batch&&) noexcept = default;
Batch& Batch::operator=(Batch&& other) noexcept { return api_room::replace(impl_, other.impl_), *this; }

int64_t Batch::add(std::span<const Token> prompt, const Sampling& sampling, std::optional<Lora> lora) {
    return api_room::Batching(impl_, "Batch::add").impl.add(prompt, sampling, api_room::adapter_of(lora));
}

bool Batch::step(const std::function<bool(int64_t, std::string_view)>& on_text) {
    return api_room::Batching(impl_, "Batch::step").impl.step(on_text);
}

Reply Batch::remove(int64_t slot) { return api_room::Batching(impl_, "Batch::remove").impl.remove(slot); }
bool Batch::running(int64_t slot) const {
    return api_room::look(impl_, "Batch::running", [&](const BatchImpl& b) { return b.running(slot); });
}
int64_t Batch::free_slots() const {
    return api_room::look(impl_, "Batch::free_slots", [](const BatchImpl& b) { return b.free_slots(); });
}

// ---- Measuring
namespace api_room {

// What a public call runs, its factors held still for as long as the call lasts.
struct Running {
    std::shared_ptr<const ModelImpl> model;
    const LoraImpl* lora;
    std::shared_lock<std::shared_mutex> held;
    explicit Running(const Adapted& a)
        : model(api_room::held(a.model(), "Model")), lora(adapter_of(a.lora()).get()) {
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
    const auto adapter = [](const Adapted& a) { return api_room::adapter_of(a.lora()).get(); };
    // a lock that this thread has is not taken twice
    if (adapter(expected) && adapter(expected) == adapter(actual)) {
        const api_room::Running both(expected);
        return measure_difference(both.model, both.lora, both.model, both.lora, tokens);
    }
    // two are taken in one order by everybody, or each of two threads could wait for the other
    const bool turned = std::less<const LoraImpl*>()(adapter(actual), adapter(expected));
    const api_room::Running first(turned ? actual : expected), second(turned ? expected : actual);
    const api_room::Running &e = turned ? second : first, &a = turned ? first : second;
    return measure_difference(e.model, e.lora, a.model, a.lora, tokens);
}

double evaluate(const Adapted& of, const Dataset& data) {
    const api_room::Running run(of);
    DecoderPool pool = run.measuring();
    return dataset_loss(pool, *api_room::held(data, "Dataset"));
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

}}  // namespace qlora
