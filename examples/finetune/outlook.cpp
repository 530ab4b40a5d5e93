// outlook.cpp - what a run will take.
#include "examples/finetune/outlook.h"

#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"
#include "examples/finetune/fit.h"
#include "examples/finetune/preset.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace program {

using qlora::Json;

// A step that is left before the adapter changes: only its micro-batches are timed.
static double time_micro_batch(qlora::Trainer& trainer) {
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    constexpr double enough = 1.5;
    int64_t made = 0;
    unless_cancelled([&] {
        trainer.step([&](int64_t done, int64_t of) {
            made = done;
            return done < of && !interrupted() && elapsed() < enough;
        });
    });
    return made ? elapsed() / double(made) : 0;
}

static int64_t bytes_of(const qlora::MemoryPlan& plan, const char* name) {
    for (const auto& item : plan.items) if (item.name == name) return item.bytes;
    return 0;
}

// A checkpoint holds the factors, the optimizer's states, and the adapter as a program loads it; a new one is complete
// before an old one goes.
static void count_disk(Outlook& o, const Settings& s, const qlora::MemoryPlan& plan) {
    const int64_t factors = bytes_of(plan, "adapter");
    o.adapter_bytes = s.lora.init == qlora::LoraInit::pissa ? 2 * factors : factors;
    o.checkpoint_bytes =
        factors + (s.train.optimizer.bits == 8 ? factors / 4 * 2 + factors / 128 : 2 * factors) + o.adapter_bytes;
    int64_t saves = s.save_every > 0 ? o.steps / s.save_every : 0;
    if (s.save_minutes > 0) saves += int64_t(o.seconds / (60 * s.save_minutes));
    const bool saving = s.save_every > 0 || s.save_minutes > 0;
    // stopping saves one in any case
    const int64_t most = saving ? std::clamp<int64_t>(saves + 1, 1, s.keep + 1) : 1;
    o.disk_during = 2 * o.adapter_bytes + most * o.checkpoint_bytes;
    o.disk_after = o.adapter_bytes + (s.keep_checkpoints && saving ? std::min(most, s.keep) * o.checkpoint_bytes : 0);
}

Outlook look_ahead(const Settings& s, const qlora::Lora& lora, const Data& data, qlora::Trainer& trainer,
                   const qlora::MemoryPlan& plan) {
    Outlook o;
    const qlora::DatasetInfo info = data.train.info();
    o.rows = info.rows;
    o.steps = trainer.last().steps;
    o.epochs = trainer.last().epochs;
    const int64_t needed = still_needed(plan), free = int64_t(lora.base().backend().memory_free());
    if (free > 0 && needed > free)
        o.warning = "the plan needs " + human_bytes(needed) + " beside the weights, and " + human_bytes(free) +
                    " are free: a smaller --max-seq-len, --batch-size or --lora-r, or --optim adamw_8bit";
    else if (!s.model.planned) o.micro_batch_seconds = time_micro_batch(trainer);
    const double batches = s.train.packing ? double(o.steps * s.train.accumulate)
                                           : o.epochs * double((info.rows + s.train.batch - 1) / s.train.batch);
    o.seconds = o.micro_batch_seconds * batches;
    if (data.held_out) {                               // a measurement has no gradients: a third of the work
        const double measures = 1 + std::ceil(o.epochs) + (s.eval_every > 0 ? double(o.steps / s.eval_every) : 0);
        const double token_seconds = o.micro_batch_seconds / (double(s.train.batch) * double(info.tokens) /
                                                              double(std::max<int64_t>(1, info.rows)));
        o.seconds += measures * double(data.held_out->info().tokens) * token_seconds / 3;
    }
    count_disk(o, s, plan);
    return o;
}

// Of a product in f32 with a square matrix as wide as the model's, up to 2048: the panels that stored weights are
// decoded into run as fast.
static double operations_per_second(const qlora::Backend& backend, int64_t hidden) {
    const int64_t n = std::min<int64_t>(hidden, 2048), rows = 512;
    qlora::Graph g(backend);
    const qlora::Tensor x = g.param({rows, n}), w = g.param({n, n}), y = sum(matmul(x, w));
    g.write(x, std::vector<float>(size_t(rows * n), 0.5f));
    g.write(w, std::vector<float>(size_t(n * n), 0.25f));
    g.run();                                           // the first one loads and plans
    const auto start = std::chrono::steady_clock::now();
    double seconds = 0;
    int64_t runs = 0;
    while (seconds < 0.5 && !interrupted()) {
        g.run();
        (void)g.read(y);
        ++runs;
        seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    return runs ? double(runs) * 2 * double(rows) * double(n) * double(n) / seconds : 0;
}

// A multiply-add is two operations. Each weight meets each token forward and backward, and once more where its layer is
// recomputed; causal attention has half of all pairs, two products forward and five backward.
static double operations_of_step(const Settings& s, const qlora::ModelInfo& m) {
    const double tokens = double(s.train.context), head = double(m.vocabulary) * double(m.hidden);
    const double queries = double(m.hidden) * double(m.hidden), heads = double(m.kv_heads) / double(m.heads);
    const double layers = double(m.layers) *           // queries and output, keys and values, a gated feed-forward
                          (2 * queries * (1 + heads) + 3 * double(m.hidden) * double(m.feed_forward));
    const double again = !s.train.checkpoint_activations
                             ? 0
                             : double(std::max<int64_t>(0, m.layers - s.train.kept_layers)) / double(m.layers);
    const double pairs = tokens * tokens / 2 * double(m.hidden) * double(m.layers);
    const double row = 2 * tokens * (layers * (2 + again) + 2 * head) + 2 * pairs * (7 + 2 * again);
    return row * double(s.train.batch) * double(s.train.accumulate);
}

Outlook look_ahead_of_shape(const Settings& s, const qlora::Model& outline, const std::optional<qlora::Backend>& real,
                            const qlora::MemoryPlan& plan) {
    Outlook o;
    o.steps = std::max<int64_t>(1, s.train.max_steps);
    o.operations = operations_of_step(s, outline.info());
    if (real) o.operations_per_second = operations_per_second(*real, outline.info().hidden);
    if (o.operations_per_second > 0) o.seconds = double(o.steps) * o.operations / o.operations_per_second;
    count_disk(o, s, plan);
    return o;
}

static void print_of_shape(const Outlook& o, const Settings& s) {
    std::printf("%lld step%s of %lld rows: %s operations each; time: %s; disk: %s while it runs, %s after\n\n",
                static_cast<long long>(o.steps), o.steps == 1 ? "" : "s",
                static_cast<long long>(s.train.batch * s.train.accumulate), human_count(o.operations).c_str(),
                o.seconds > 0 ? ("about " + human_time(o.seconds) + " here, where products run at " +
                                 human_count(o.operations_per_second) + " operations a second")
                                    .c_str()
                              : "not measured",
                human_bytes(o.disk_during).c_str(), human_bytes(o.disk_after).c_str());
}

void print_outlook(const Outlook& o, const Settings& s) {
    if (o.operations > 0) return print_of_shape(o, s);
    const bool packed = s.train.packing;
    std::printf("This run: %lld rows, %g epoch%s, %lld step%s of %lld %s; time: %s; disk: %s while it runs, %s after\n",
                static_cast<long long>(o.rows), o.epochs, o.epochs == 1 ? "" : "s", static_cast<long long>(o.steps),
                o.steps == 1 ? "" : "s", static_cast<long long>(s.train.batch * s.train.accumulate),
                packed ? "packed sequences" : "rows",
                o.seconds > 0 ? ("about " + human_time(o.seconds)).c_str() : "not measured",
                human_bytes(o.disk_during).c_str(), human_bytes(o.disk_after).c_str());
    if (!o.warning.empty()) std::printf("%s\n", styled("warning: " + o.warning, Style::yellow).c_str());
    if (o.steps < few_steps && s.preset != "small")
        std::printf("%s\n", styled("Few steps teach little. For " + std::to_string(o.rows) +
                                       " rows rather: --preset small, which is " + small_flags(o.rows),
                                   Style::yellow)
                                .c_str());
    std::printf("\n");
}

Json as_json(const Outlook& o) {
    Json json;
    json.set("rows", o.rows)
        .set("steps", o.steps)
        .set("epochs", o.epochs)
        .set("seconds", o.seconds > 0 ? Json(o.seconds) : Json());
    json.set("disk_bytes", o.disk_during).set("disk_bytes_after", o.disk_after);
    if (!o.warning.empty()) json.set("warning", o.warning);
    return json;
}

}  // namespace program
