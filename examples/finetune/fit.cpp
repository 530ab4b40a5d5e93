// fit.cpp - settings that fit. What changes no number comes first: recomputation, what is recomputed from and states of
// the optimizer elsewhere, smaller micro-batches of the same steps; last a head and states of fewer bits, which change
// the numbers a little.
#include "examples/finetune/fit.h"

#include "examples/common/synthetic.h"
#include "examples/common/terminal.h"
#include "examples/finetune/outlook.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <unistd.h>

namespace program {

static constexpr const char head_in_8_bits[] = "the head has 8 bits: other numbers (a weight moves by 0.4 % of the "
                                               "largest of its 32 at most)";
static constexpr const char head_in_4_bits[] = "the head has 4 bits: other numbers (SmolLM2-135M, whose embedding it "
                                               "is too: loss 2.92 before training becomes 3.00)";

int64_t bytes_of_size(const char* flag, const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    const std::string unit = end ? end : "";
    const double scale = unit == "M" || unit == "MB"   ? 1e6
                         : unit == "G" || unit == "GB" ? 1e9
                         : unit == "MiB"               ? double(1 << 20)
                         : unit == "GiB"               ? double(1 << 30)
                                                       : 0;
    if (text.empty() || text[0] < '0' || text[0] > '9' || scale == 0 || !(value > 0 && value * scale < 1e18))
        throw UsageError(std::string(flag) + ": \"" + text + "\" is no size; expected e.g. 900M, 6G or 5.5GiB");
    return int64_t(value * scale);
}

MemoryBudget parse_budget(const std::string& text) {
    if (text.empty()) return {};
    const size_t comma = text.find(',');
    MemoryBudget budget{bytes_of_size("--memory-limit", text.substr(0, comma))};
    if (comma != std::string::npos) budget.device = bytes_of_size("--memory-limit", text.substr(comma + 1));
    return budget;
}

void check_budget(const Settings& s, const qlora::Backend& on) {
    if (parse_budget(s.memory_limit).device == 0 || on.name().starts_with("cuda")) return;
    throw UsageError("--memory-limit " + s.memory_limit +
                     ": the second size is for a CUDA device, and this computes on " + on.name() +
                     ": leave it out, or plan for one with --dry-run and --device cuda");
}

void say_planned(const Settings& s) {
    if (!s.model.planned) return;
    std::fprintf(stderr, "note: %s\n", s.model.why_planned.c_str());
    std::printf("%s: no card was asked%s\n", s.model.planned->name().c_str(),
                parse_budget(s.memory_limit).device > 0
                    ? ""
                    : "; its memory has no limit here (--memory-limit HOST,DEVICE gives one)");
}

int64_t still_needed(const qlora::MemoryPlan& plan) {
    int64_t there = 0;
    for (const auto& item : plan.items)
        for (const char* name : {"weights of the layers", "embedding and head", "adapter", "start of the adapter",
                                 "row norms", "rows of the data", "text and vocabulary", "program"})
            if (!item.device && item.name == name) there += item.bytes;
    return plan.peak - there;
}

// What is missing to the budget with these settings; 0 or less: they fit.
static int64_t missing(const qlora::Lora& lora, const qlora::Dataset& data, const qlora::TrainOptions& train,
                       const MemoryBudget& budget) {
    const qlora::MemoryPlan plan = qlora::Trainer(lora, data, train).plan();
    int64_t most = budget.device > 0 ? plan.device_peak - budget.device : -1;
    if (budget.host > 0) most = std::max(most, (budget.free_only ? still_needed(plan) : plan.peak) - budget.host);
    return most;
}

struct Change {
    std::string what;
    qlora::TrainOptions train;
    std::optional<qlora::DType> head = {};
};

// The changes, each made beside those before it.
struct Changes {
    std::vector<Change> list = {};
    qlora::TrainOptions train;
    std::string so_far = {};
    void instead(const std::string& what) {
        so_far = what;
        list.push_back({what, train});
    }
    void also(const std::string& what) { instead(so_far + (so_far.empty() ? "" : "; ") + what); }
};

static void recompute(Changes& c, int64_t layers) {
    const bool apart = c.train.inputs_apart;
    c.train.checkpoint_activations = c.train.light_recomputation = c.train.inputs_apart = false;
    c.instead("activations are kept: nothing is recomputed");
    c.train.checkpoint_activations = c.train.light_recomputation = true;
    c.train.inputs_apart = apart;
    c.train.kept_layers = layers;
    c.instead("only norms and gated products are recomputed in the backward pass: the same bytes, hardly more time");
    for (const int64_t kept : {layers / 2, layers / 4})
        if (c.train.kept_layers = kept; kept > 0)
            c.instead("all but the last " + std::to_string(kept) +
                      " layers are recomputed in the backward pass, of those norms and gated products: the same bytes, "
                      "about " + std::to_string(int(30 * double(layers - kept) / double(layers))) + " % more time");
    c.train.kept_layers = 0;
    c.train.light_recomputation = false;
    c.instead("layers are recomputed in the backward pass: the same bytes, about 30 % more time");
}

// From what costs least to what costs most.
static std::vector<Change> changes(const Settings& s, const Flags& flags, const qlora::Model& model,
                                   const MemoryBudget& budget) {
    const bool device = model.backend().name().starts_with("cuda"), checkpoint = flags.given("--grad-checkpoint");
    Changes c{.train = s.train};
    // where nobody asked for speed, recomputation is the default
    if (!checkpoint && flags.given("--memory-limit")) recompute(c, model.info().layers);
    else c.instead("");
    const bool recomputes = c.train.checkpoint_activations && c.train.kept_layers < model.info().layers;
    if (recomputes && (!device || budget.device > 0)) {
        c.train.inputs_apart = true;
        c.also(device ? "what layers are recomputed from waits in the host's memory: the same bytes, copied beside "
                        "the computing"
                      : "what layers are recomputed from waits in a file: the same bytes, which each micro-batch "
                        "writes and reads");
    }
    if (c.train.optimizer.paged && c.train.optimizer.page_budget == 0) {
        c.train.optimizer.page_budget = 1;             // the least window
        c.also(device ? "states of the optimizer are paged to the host: the same bytes, a second a step at most"
                      : "states of the optimizer are paged to a file: the same bytes, a few seconds of disk a step at "
                        "most");
    }
    const std::string before = c.so_far;
    while (c.train.batch > 1) {
        const int64_t half = (c.train.batch + 1) / 2;
        c.train.accumulate = c.train.accumulate * c.train.batch / half;
        c.train.batch = half;
        c.so_far = before;
        c.also("micro-batches of " + std::to_string(half) + ", " + std::to_string(c.train.accumulate) +
               " a step: the same rows a step");
    }
    if (c.train.loss_rows == 0) {
        c.train.loss_rows = 64;
        c.also("logits of 64 rows at a time: the head is read more often, and sums may round otherwise");
    }
    const bool may_shrink = s.model.adapter.empty() && !flags.given("--head-bits");
    const auto head = [&](qlora::DType type, const char* what) {
        if (!may_shrink) return;
        c.also(what);
        c.list.back().head = type;
    };
    head(qlora::DType::q8_0, head_in_8_bits);
    if (c.train.optimizer.bits == 32) {
        c.train.optimizer.bits = 8;
        c.also("states of the optimizer have 8 bits: other numbers (135 M parameters, 200 steps: loss moved by 0.2 %)");
        if (may_shrink) c.list.back().head = qlora::DType::q8_0;
    }
    head(qlora::DType::iq4_nl, head_in_4_bits);
    return std::move(c.list);
}

// What would help where nothing does: each asked of the planner too.
static std::string help(const Settings& s, const qlora::Lora& lora, const qlora::Dataset& data,
                        const qlora::TrainOptions& least, const MemoryBudget& budget, int64_t lacking) {
    std::string text;
    const auto add = [&](const std::string& what, int64_t then) {
        if (then < lacking)
            text += (text.empty() ? "" : "; ") + what + " saves " + human_bytes(lacking - then) +
                    (then <= 0 ? ", which is enough" : "");
    };
    if (s.train.context >= 16) {
        qlora::TrainOptions t = least;
        t.context = s.train.context / 2;
        try {
            add("--max-seq-len " + std::to_string(t.context), missing(lora, data, t, budget));
        } catch (const qlora::Error&) {}               // no row has a trained token that early
    }
    const bool may_shrink = s.model.adapter.empty() && s.lora.rank >= 2 && s.lora.rank_pattern.empty();
    if (may_shrink && s.lora.init != qlora::LoraInit::pissa) {
        // all that an adapter takes goes with its rank
        const qlora::MemoryPlan plan = qlora::Trainer(lora, data, least).plan();
        int64_t with_rank = 0;
        for (const auto& item : plan.items)
            if (item.name == "adapter" || item.name == "gradients") with_rank += item.bytes / 2;
        add("--lora-r " + std::to_string(s.lora.rank / 2), lacking - with_rank);
    }
    return text.empty() ? "a smaller model would help" : text;
}

std::vector<std::string> fit(Settings& s, const Flags& flags, qlora::Model& model, qlora::Lora& lora,
                             const qlora::Dataset& data, const MemoryBudget& budget) {
    int64_t lacking = 0;
    const std::vector<Change> list = changes(s, flags, model, budget);
    qlora::Model held = model;
    qlora::Lora adapter = lora;
    std::optional<qlora::DType> head;
    for (const Change& change : list) {
        try {
            if (change.head != head) {
                head = change.head;
                held = model.with_head(*head);
                adapter = qlora::Lora::create(held, s.lora);
            }
            lacking = missing(adapter, data, change.train, budget);
        } catch (const qlora::Error& error) {
            if (error.code != qlora::Errc::memory) throw;
            lacking = budget.host;
            continue;
        }
        if (lacking > 0) continue;
        s.train = change.train;
        if (head) s.model.head_bits = *head == qlora::DType::q8_0 ? "8" : "4";
        model = held;
        lora = adapter;
        return change.what.empty() ? std::vector<std::string>{} : std::vector<std::string>{change.what};
    }
    const std::string limit = human_bytes(budget.host) + (budget.free_only ? " that are free" : "") +
                              (budget.device ? " and " + human_bytes(budget.device) + " of the device" : "");
    throw qlora::Error(qlora::Errc::memory,
                       "memory: no settings fit into " + limit + "; with all layers recomputed, micro-batches of one "
                       "row, paged states of 8 bits" + (head ? " and a head of 4 bits " : " ") + human_bytes(lacking) +
                           " are missing: " + help(s, adapter, data, list.back().train, budget, lacking));
}

// By how many percent a run is faster that keeps so many bytes of panels: with all of them as if its micro-batches had
// `decoding` rows less, as measured with NF4 (docs/benchmarks.md; Q4_1 gains more), and with fewer their share of that.
static double percent_faster(const Settings& s, const qlora::Model& model, const qlora::Dataset& data, int64_t kept) {
    const int forward = model.backend().compute() == qlora::Compute::bf16 ? 2 : 4,
              back = model.backend().gradients() == qlora::Compute::bf16 ? 2 : 4;  // bytes of an element
    const double share = std::min(1.0, double(kept) / (double(model.info().parameters) * (forward + back)));
    const qlora::DatasetInfo info = data.info();
    const double row = s.train.packing || info.tokens == 0
                           ? double(s.train.context)
                           : std::min(double(s.train.context), double(info.tokens) / double(info.rows));
    const double decoding = forward + back < 8 ? 11 : 8, rows = std::max(32.0, row * double(s.train.batch));
    return 100 * share * decoding / rows;
}

std::string keep_panels(Settings& s, const Flags& flags, const qlora::Model& model, const qlora::Lora& lora,
                        const qlora::Dataset& data) {
    if (flags.given("--keep-panels") || model.backend().name().starts_with("cuda")) return {};
    const qlora::MemoryPlan plan = qlora::Trainer(lora, data, s.train).plan();
    int64_t left = parse_budget(s.memory_limit).host - plan.peak;
    if (s.shape.empty()) left = std::min(left, int64_t(model.backend().memory_free()) - still_needed(plan));
    if (left <= 0) return {};
    qlora::TrainOptions train = s.train;
    train.panel_budget = left;
    int64_t kept = 0;
    for (const auto& item : qlora::Trainer(lora, data, train).plan().items)
        if (item.name == "decoded panels") kept = item.bytes;
    const int percent = int(percent_faster(s, model, data, kept) + 0.5);
    if (percent < 1) return {};
    s.train = train;
    return human_bytes(kept) + " of decoded panels are kept: the same bytes, about " + std::to_string(percent) +
           " % faster";
}

int plan_shape(Settings& s, const Flags& flags) {
    namespace fs = std::filesystem;
    const qlora::Backend on = s.model.backend();
    check_budget(s, on);
    const fs::path folder = fs::temp_directory_path() / ("qlora-outline-" + std::to_string(::getpid()));
    std::optional<qlora::Model> made;
    try {
        const std::string path = outline_of_model(s.shape, "bf16", folder.string());
        qlora::LoadOptions options{
            .backend = on, .double_quant = s.model.double_quant, .head = s.model.head()};
        if (s.model.quant != "none") options.quantize = s.model.quant == "fp4" ? qlora::DType::fp4 : qlora::DType::nf4;
        made = qlora::Model::outline(path, options);
    } catch (...) {
        qlora::remove_tree(folder.string());
        throw;
    }
    qlora::remove_tree(folder.string());
    qlora::Model model = *made;
    s.train.context = std::min(s.train.context, model.info().context);
    // full rows: what the longest data can ask for
    const qlora::Rendered row{"", qlora::Tokens(size_t(s.train.context), 1),
                              std::vector<uint8_t>(size_t(s.train.context), 1)};
    const std::vector<qlora::Rendered> rows(size_t(s.train.batch), row);
    const qlora::Dataset data = qlora::Dataset::from_rows(rows, model, {.context = s.train.context});
    qlora::Lora lora = qlora::Lora::create(model, s.lora);
    std::vector<std::string> chosen;
    if (!s.memory_limit.empty()) chosen = fit(s, flags, model, lora, data, parse_budget(s.memory_limit));
    const std::string kept = s.memory_limit.empty() ? "" : keep_panels(s, flags, model, lora, data);
    const qlora::MemoryPlan plan = qlora::Trainer(lora, data, s.train).plan();
    const Outlook outlook = look_ahead_of_shape(s, model, s.model.planned ? std::nullopt : std::optional(on), plan);
    if (s.json) {
        qlora::Json lines{qlora::Json::Array()};
        for (const std::string& line : chosen) lines.push(line);
        if (!kept.empty()) lines.push(kept);
        std::printf("%s\n", qlora::Json{}.set("shape", s.shape).set("backend", on.name()).set("memory", as_json(plan))
                                .set("chosen", lines).set("run", as_json(outlook)).dump().c_str());
        return 0;
    }
    std::printf("%s, %s parameters in %s, adapters with %s, rows of %lld tokens, %lld at a time\n", s.shape.c_str(),
                human_count(double(model.info().parameters)).c_str(), model.info().weights.c_str(),
                human_count(double(lora.parameters())).c_str(), static_cast<long long>(s.train.context),
                static_cast<long long>(s.train.batch));
    say_planned(s);
    for (const std::string& line : chosen) std::printf("to fit into %s: %s\n", s.memory_limit.c_str(), line.c_str());
    if (!kept.empty()) std::printf("of what is left of %s: %s\n", s.memory_limit.c_str(), kept.c_str());
    print_plan(plan);
    print_outlook(outlook, s);
    return 0;
}

}  // namespace program
