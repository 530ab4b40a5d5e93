// trainer.cpp - one optimizer step after another.
#include "src/run/trainer.h"

#include "src/base/stop.h"
#include "src/ops/panel_uses.h"
#include "src/run/evaluate.h"
#include "src/run/neftune.h"
#include "src/run/schedule.h"

#include <cmath>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace trainer_room {

void require(bool ok, const char* option, double value, const char* expected) {
    if (!ok) fail(Errc::argument, "train: ", option, " is ", value, ", expected ", expected);
}

void check(const AdamW& o) {
    require(o.weight_decay >= 0 && std::isfinite(o.weight_decay), "optimizer.weight_decay", o.weight_decay,
            "0 or more");
    require(o.beta1 >= 0 && o.beta1 < 1, "optimizer.beta1", o.beta1, "0 to below 1");
    require(o.beta2 >= 0 && o.beta2 < 1, "optimizer.beta2", o.beta2, "0 to below 1");
    require(o.epsilon > 0 && std::isfinite(o.epsilon), "optimizer.epsilon", o.epsilon, "more than 0");
    require(o.max_grad_norm >= 0 && std::isfinite(o.max_grad_norm), "optimizer.max_grad_norm", o.max_grad_norm,
            "0 (no clipping) or more");
    require(o.bits == 32 || o.bits == 8, "optimizer.bits", o.bits, "32 or 8");
    require(o.page_budget >= 0, "optimizer.page_budget", double(o.page_budget), "0 (as it fits) or more");
}

TrainOptions checked(const TrainOptions& o) {
    check(o.optimizer);
    require(o.epochs > 0 && o.epochs < 1e9, "epochs", o.epochs, "more than 0");
    require(o.max_steps >= 0 && o.max_steps <= int64_t(1) << 40, "max_steps", double(o.max_steps),
            "0 (as the epochs say) to 2^40");
    require(o.max_seconds >= 0 && std::isfinite(o.max_seconds), "max_seconds", o.max_seconds, "0 (no limit) or more");
    // of rows or micro-batches: more than any run can want, and no product of these overflows
    constexpr int64_t most = 1 << 20;
    require(o.batch >= 1 && o.batch <= most, "batch", double(o.batch), "1 to 2^20");
    require(o.accumulate >= 1 && o.accumulate <= most, "accumulate", double(o.accumulate), "1 to 2^20");
    require(o.context >= 2 && o.context <= std::numeric_limits<int32_t>::max(), "context", double(o.context),
            "2 to 2^31 - 1");
    require(o.learning_rate >= 0 && std::isfinite(o.learning_rate), "learning_rate", o.learning_rate, "0 or more");
    require(o.min_learning_rate >= 0 && o.min_learning_rate <= o.learning_rate, "min_learning_rate",
            o.min_learning_rate, "0 to learning_rate");
    require(o.warmup_ratio >= 0 && o.warmup_ratio <= 1, "warmup_ratio", o.warmup_ratio, "0 to 1");
    require(o.warmup_steps >= 0, "warmup_steps", double(o.warmup_steps), "0 or more");
    require(o.warmup_start == -1 || (o.warmup_start >= 0 && o.warmup_start <= 1), "warmup_start", o.warmup_start,
            "0 to 1, or -1 (1 / (warm-up steps + 1))");
    require(o.lora_plus_ratio > 0 && std::isfinite(o.lora_plus_ratio), "lora_plus_ratio", o.lora_plus_ratio,
            "more than 0");
    require(o.neftune_alpha >= 0 && std::isfinite(o.neftune_alpha), "neftune_alpha", o.neftune_alpha,
            "0 (none) or more");
    require(!o.group_by_length || !o.packing, "group_by_length", 1,
            "0 with packing, which fills sequences by length already");
    require(o.panel_budget >= 0, "panel_budget", double(o.panel_budget), "0 (none) or more");
    require(o.max_bad_steps >= 1, "max_bad_steps", double(o.max_bad_steps), "1 or more");
    require(o.kept_layers >= 0, "kept_layers", double(o.kept_layers), "0 or more");
    require(!o.light_recomputation || (o.checkpoint_activations && o.kept_layers > 0), "light_recomputation", 1,
            "0: it is of kept_layers, where checkpoint_activations are on");
    require(!o.inputs_apart || o.checkpoint_activations, "inputs_apart", 1,
            "0: without checkpoint_activations nothing is recomputed from them");
    require(o.loss_rows >= 0, "loss_rows", double(o.loss_rows), "0 (as is fastest) or more");
    require(int(o.schedule) >= 0 && o.schedule <= Schedule::cosine, "schedule", double(int(o.schedule)),
            "a value of the enum");
    return o;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Before any of it is taken: untouched memory costs nothing, so the pieces, asked for one by one, would all seem to
// fit.
BufferRef gradients_of(const LoraImpl& lora, const TrainOptions& o) {
    if (!lora.base->backend->is_outline())
        require_memory(*lora.base->backend,
                       lora.parameters * 4 + (o.optimizer.paged ? 0 : optimizer_bytes(o.optimizer, lora.parameters)),
                       "train: gradients and optimizer states",
                       "a lower rank, fewer modules, or paged or 8-bit states");
    return lora.base->backend->allocate(lora.parameters * 4);
}

int64_t context_of(const LoraImpl& lora, const TrainOptions& o) {
    const int64_t own = lora.base->config.context;
    return own > 0 ? std::min(own, o.context) : o.context;
}

DecoderSpec training_spec(const LoraImpl& lora, const TrainOptions& o, const BufferRef& gradients, bool weighted,
                          int64_t most_rows) {
    DecoderSpec spec;
    spec.output = DecoderSpec::Output::loss;
    spec.backward = true;
    spec.weighted = weighted;
    spec.checkpoint = o.checkpoint_activations;
    spec.kept_layers = o.kept_layers;
    spec.light = o.light_recomputation;
    spec.loss_rows = o.loss_rows;
    const Config& c = lora.base->config;
    if (o.inputs_apart && o.checkpoint_activations)
        if (const int64_t bytes = inputs_apart(c, padded_rows(*lora.base, most_rows), o.kept_layers); bytes > 0)
            spec.apart = lora.base->backend->apart(bytes, o.optimizer.page_folder);
    spec.dropout = lora.options.dropout > 0;
    spec.noise = o.neftune_alpha > 0;
    spec.seed = o.seed;
    spec.gradients = gradients;
    return spec;
}

// Of the products of the largest graph: the others have the same ones, with fewer rows. Of what was taken before,
// `untouched` bytes are still to come.
std::shared_ptr<PanelStore> panels_of(LoraImpl& lora, DecoderPool& decoders, int64_t most_rows, int64_t budget,
                                      int64_t untouched) {
    if (budget == 0) return nullptr;
    BackendImpl& backend = *lora.base->backend;
    if (!backend.has_host_memory())
        fail(Errc::unsupported, "train: panel_budget is ", budget, ", expected 0: ", backend.name(),
             " decodes weights on their way into its products");
    const auto training = lora.lock.train("Trainer");
    const std::vector<PanelUse> uses = panel_uses(decoders.at(most_rows).graph());
    return std::make_shared<PanelStore>(backend.host(), uses, budget, [&](int64_t bytes) {
        const int64_t needed = bytes + untouched + decoders.arena()->bytes;
        if (!backend.is_outline() && needed > backend.memory_free())
            fail(Errc::memory, "train: ", bytes, " bytes of decoded panels and ", needed - bytes,
                 " of all else are needed, ", backend.memory_free(), " are free; use a smaller panel_budget");
        const BufferRef memory = backend.allocate(bytes);
        return std::shared_ptr<char>(memory, static_cast<char*>(memory->data));
    });
}

void check_vocabulary(const DatasetImpl& data, const Config& config) {
    for (const Token t : data.rows->tokens)
        if (t < 0 || t >= config.vocabulary)
            fail(Errc::argument, "train: the data set has token ", t, ", the model's vocabulary ends at ",
                 config.vocabulary, "; load the data set with this model's tokenizer");
}

// Rows are cut to options.context because somebody said so; that the model's own context is shorter, nobody may have
// noticed.
void check_lengths(const DatasetImpl& data, const Config& config, const TrainOptions& o) {
    if (o.context <= config.context) return;
    for (int64_t row = 0; row < data.size(); ++row)
        if (const int64_t length = int64_t(data.tokens(row).size()); length > config.context)
            fail(Errc::argument, "train: row ", row, " has ", length, " tokens, the model's context is ",
                 config.context,
                 "; load the data set with this model, which cuts it to that length, or train with a context of ",
                 config.context, " or less");
}

}  // namespace trainer_room

TrainerImpl::TrainerImpl(std::shared_ptr<LoraImpl> l, std::shared_ptr<const DatasetImpl> d, const TrainOptions& o)
    : lora(std::move(l)),
      data(std::move(d)),
      before_(memory_before(*lora, *data)),
      options(trainer_room::checked(o)),
      context(trainer_room::context_of(*lora, options)),
      batches(data, options, context),
      gradients(trainer_room::gradients_of(*lora, options)),
      optimizer(lora->base->backend, lora->values, gradients, lora->parameters, options.optimizer),
      lora_plus(*lora, options.lora_plus_ratio),
      decoders(lora->base, lora.get(),
               trainer_room::training_spec(*lora, options, gradients, data->weighted(), batches.most_rows())) {
    trainer_room::check_vocabulary(*data, lora->base->config);
    trainer_room::check_lengths(*data, lora->base->config, options);
    panels = trainer_room::panels_of(*lora, decoders, batches.most_rows(), options.panel_budget,
                                     gradients->bytes + optimizer.held_bytes());
    decoders.use_panels(panels);
    progress.last.steps = batches.steps();
    progress.last.epochs = batches.epoch_after(batches.steps());
}

bool TrainerImpl::out_of_time() const {
    return options.max_seconds > 0 && trainer_room::seconds_since(*began_) >= options.max_seconds;
}

std::optional<TrainerImpl::Sum> TrainerImpl::run_micro_batches(const std::vector<std::vector<int64_t>>& micro_batches,
                                                               const OnMicroBatch& on_micro_batch) {
    decoders.at(batches.most_rows());
    lora->base->backend->zero(*gradients, 0, gradients->bytes);
    Sum sum;
    uint64_t micro = uint64_t(progress.step) * uint64_t(options.accumulate);
    const int64_t of = int64_t(micro_batches.size());
    int64_t done = 0;
    for (const std::vector<int64_t>& rows : micro_batches) {
        if (on_micro_batch && !on_micro_batch(done++, of)) cancelled("Trainer::step");
        if (out_of_time()) return {};
        const std::vector<Document> documents = batches.documents(rows);
        int64_t count = 0;
        for (const Document& d : documents) count += int64_t(d.tokens.size());
        Decoder& decoder = decoders.at(count);
        DecoderBatch batch = lay_out(documents, decoder.spec().rows);
        batch.dropout_step = micro++;
        if (options.neftune_alpha > 0)
            batch.noise = neftune_noise(documents, decoder.spec().rows, lora->base->config.hidden,
                                        options.neftune_alpha, options.seed, batch.dropout_step);
        decoder.run(batch);
        const std::vector<float> nll = decoder.nll();
        for (size_t i = 0; i < nll.size(); ++i) {
            if (batch.targets[i] < 0) continue;
            sum.loss += double(nll[i]) * double(batch.weights[i]);
            sum.weight += double(batch.weights[i]);
            ++sum.trained;
        }
        sum.tokens += count;
    }
    if (on_micro_batch && !on_micro_batch(of, of)) cancelled("Trainer::step");
    return sum;
}

bool TrainerImpl::step(const OnMicroBatch& on_micro_batch) {
    const auto training = lora->lock.train("Trainer::step");
    const auto start = std::chrono::steady_clock::now();
    if (!began_) began_ = start;
    if (progress.step >= batches.steps() || out_of_time()) return false;
    const auto micro_batches = batches.step(progress.step);
    const std::optional<Sum> run = run_micro_batches(micro_batches, on_micro_batch);
    if (!run) return false;
    const Sum& sum = *run;
    const float factor = float(1.0 / sum.weight), norm = optimizer.norm();
    const int64_t paged = optimizer.paged_bytes();

    TrainStep s;
    s.step = progress.step + 1;
    s.steps = batches.steps();
    s.epochs = progress.last.epochs;
    s.epoch = batches.epoch_after(s.step);
    s.loss = sum.loss / sum.weight;
    s.grad_norm = double(norm) * double(factor);
    TrainOptions now = options;
    if (progress.rate >= 0) now.learning_rate = float(progress.rate);
    now.min_learning_rate = std::min(now.min_learning_rate, now.learning_rate);
    s.learning_rate = learning_rate(now, s.step, s.steps);
    s.tokens = sum.tokens;
    s.trained_tokens = sum.trained;
    s.skipped = !std::isfinite(s.loss) || !std::isfinite(s.grad_norm);
    if (!s.skipped) {
        const auto writing = lora->lock.write();
        lora_plus.before();
        optimizer.step(float(s.learning_rate), progress.updates + 1, factor, norm);
        s.paged_bytes = optimizer.paged_bytes() - paged;
        lora_plus.after();
        ++lora->version;
    }

    progress.step = s.step;
    progress.updates += s.skipped ? 0 : 1;
    progress.skipped += s.skipped ? 1 : 0;
    progress.bad_in_a_row = s.skipped ? progress.bad_in_a_row + 1 : 0;
    s.skipped_steps = progress.skipped;
    s.seconds = trainer_room::seconds_since(start);
    progress.last = s;
    if (progress.bad_in_a_row >= options.max_bad_steps) give_up(s, micro_batches);
    return true;
}

std::string TrainerImpl::first_bad_gradient() const {
    std::vector<float> g(size_t(lora->parameters));
    lora->base->backend->download(*gradients, 0, g.data(), lora->parameters * 4);
    for (const LoraTarget& t : lora->targets) {
        for (const auto& [name, at, count] : {std::tuple{"A", t.a, t.rank * t.in}, std::tuple{"B", t.b, t.out * t.rank},
                                              std::tuple{"magnitudes", t.m, t.m < 0 ? int64_t(0) : t.out}})
            for (int64_t i = at; i < at + count; ++i)
                if (!std::isfinite(g[size_t(i)]))
                    return str("layer ", t.layer, " ", module_name(lora->base->config, t.module), " ", name);
    }
    return "none (the loss alone is not finite)";
}

void TrainerImpl::give_up(const TrainStep& s, const std::vector<std::vector<int64_t>>& micro_batches) {
    std::string rows;
    for (const auto& batch : micro_batches)
        for (const int64_t row : batch) rows += (rows.empty() ? "" : ", ") + std::to_string(row);
    if (rows.size() > 200) rows = rows.substr(0, 200) + " ...";
    fail(Errc::numeric, "train: ", progress.bad_in_a_row,
         " steps in a row had a non-finite loss or gradient; the last: step ", s.step, ", loss ", s.loss,
         ", gradient norm ", s.grad_norm, ", learning rate ", s.learning_rate,
         ", first non-finite gradient: ", first_bad_gradient(), ", rows ", rows,
         "; start again from an earlier adapter with a lower learning_rate, or look at these rows");
}

void TrainerImpl::set_learning_rate(float rate) {
    if (!(rate >= 0) || !std::isfinite(rate))
        fail(Errc::argument, "Trainer::set_learning_rate: ", rate, ", expected 0 or more");
    progress.rate = double(rate);
}

double TrainerImpl::evaluate(const DatasetImpl& other, const std::function<bool()>& go_on) {
    DecoderPool pool = measuring_pool(lora->base, lora.get());
    const auto training = lora->lock.train("Trainer::evaluate");       // never both at once: they share the arena
    pool.use_arena(decoders.arena());
    pool.use_panels(panels);
    return dataset_loss(pool, other, options.context, go_on);
}

}}  // namespace qlora
