// data.cpp - loading the rows, and showing them and the memory plan.
#include "examples/finetune/data.h"

#include "examples/common/masked.h"
#include "examples/common/terminal.h"
#include "examples/finetune/mix.h"
#include "examples/finetune/preset.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <tuple>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;

// Held-out rows are drawn of each file before the files are mixed, so that no row is in both.
static Data load_mix(const Settings& s, const qlora::Tokenizer& tokenizer, HeldOut h) {
    std::vector<qlora::Dataset> parts, held;
    int64_t rows = 0;
    for (const std::string& path : s.data) {
        parts.push_back(qlora::Dataset::load(path, tokenizer, h.options));
        rows += parts.back().info().rows;
    }
    if (h.paths.empty() && s.val_split != 0) h.fraction = s.val_split < 0 ? small_share(rows) : s.val_split;
    if (h.fraction > 0) {
        h.each = true;
        h.paths = s.data;
        for (qlora::Dataset& part : parts) {
            auto [rest, out] = part.split(h.fraction, h.seed);
            part = rest;
            held.push_back(out);
        }
    }
    Mix mix = mixed(parts, s.data, s.shares, s.train.seed);
    Data data{std::move(mix.rows), {}, std::move(mix.said), h};
    if (!held.empty()) data.held_out = qlora::Dataset::join(held);
    else if (!h.paths.empty()) data.held_out = load_held_out(h, tokenizer);
    return data;
}

static Data load_all(const Settings& s, const qlora::Tokenizer& tokenizer, HeldOut h) {
    Data data{load_rows(s.data, tokenizer, h.options)};
    if (h.paths.empty() && s.val_split != 0)
        h.fraction = s.val_split < 0 ? small_share(data.train.info().rows) : s.val_split;
    if (h.fraction > 0) {
        h.paths = s.data;
        std::tie(data.train, data.held_out) = data.train.split(h.fraction, h.seed);
        if (data.train.info().rows == 0)
            throw UsageError("--val-split leaves no row to train on: a smaller share, or more rows");
    } else if (!h.paths.empty()) data.held_out = load_held_out(h, tokenizer);
    data.record = h;
    return data;
}

Data load_data(const Settings& s, const qlora::Model& model) {
    const qlora::DatasetOptions options = s.rows.options(s.train.context);
    s.rows.warn();
    HeldOut h{.seed = s.train.seed, .options = options};
    if (!s.valid.empty()) h.paths = {s.valid};
    else
        for (const std::string& path : s.data)
            if (fs::exists(fs::path(path) / "valid.jsonl")) h.paths.push_back(path);
    if (s.valid.empty() && !h.paths.empty()) h.split = "valid";
    Data data = s.shares.empty() ? load_all(s, model.tokenizer(), h) : load_mix(s, model.tokenizer(), h);
    if (s.eval_every > 0 && !data.held_out)
        throw UsageError("--eval-every has nothing to measure on: hold rows out with --val-split 0.05 or --valid FILE");
    if (s.patience > 0 && !data.held_out)
        throw UsageError("--patience has nothing to measure on: hold rows out with --val-split 0.05 or --valid FILE");
    return data;
}

Json as_json(const qlora::DatasetInfo& info) {
    Json json, unused = Json::Object{};
    for (const auto& [name, count] : info.unused) unused.set(name, count);
    return json.set("format", info.format)
        .set("rows", info.rows)
        .set("tokens", info.tokens)
        .set("trained_tokens", info.trained_tokens)
        .set("longest", info.longest)
        .set("truncated", info.truncated)
        .set("dropped", info.dropped)
        .set("long_dropped", info.long_dropped)
        .set("long_split", info.long_split)
        .set("bad", info.bad)
        .set("merged_systems", info.merged_systems)
        .set("turns", info.turns)
        .set("trained_turns", info.trained_turns)
        .set("excluded_turns", info.excluded_turns)
        .set("cut_turns", info.cut_turns)
        .set("silent_turns", info.silent_turns)
        .set("templated", info.templated)
        .set("control_tokens", info.control_tokens)
        .set("spelled", info.spelled)
        .set("unused", unused);
}

Json as_json(const qlora::MemoryPlan& plan) {
    Json items = Json::Object{};
    for (const auto& item : plan.items) items.set(item.name, item.bytes);
    Json json = Json{}.set("peak_bytes", plan.peak).set("items", items);
    if (plan.device_peak > 0) json.set("device_peak_bytes", plan.device_peak);
    return json;
}

void print_data(const std::string& label, const qlora::DatasetInfo& info) {
    std::printf("%s: %s\n", label.c_str(), rows_line(info).c_str());
}

void print_sample(const Data& data, const qlora::Model& model) {
    const qlora::Rendered row = data.train.row(0);
    std::string text = show_masked(row, model.tokenizer());
    std::printf("\nThe first row as the model sees it; trained on is what is %s (%s):\n",
                colours(1) ? "green, and yellow where it is a control token" : "in [[ ]]",
                control_note(row, model.tokenizer()).c_str());
    constexpr size_t most = 1600;                      // characters: a screen
    if (text.size() > most) {
        size_t cut = most;
        while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
        text = text.substr(0, cut) + styled(" ...", Style::plain);
    }
    for (size_t from = 0; from < text.size();) {
        const size_t to = std::min(text.find('\n', from), text.size());
        std::printf("  | %s\n", text.substr(from, to - from).c_str());
        from = to + 1;
    }
}

void print_plan(const qlora::MemoryPlan& plan) {
    for (const bool device : {false, true}) {
        if (device && plan.device_peak == 0) break;
        std::printf("\nMemory plan%s:\n", device ? " of the device" : "");
        for (const auto& item : plan.items)
            if (item.device == device)
                std::printf("  %-36s %12s\n", item.name.c_str(), human_bytes(item.bytes).c_str());
        std::printf("  %-36s %12s\n", "peak", human_bytes(device ? plan.device_peak : plan.peak).c_str());
    }
    std::printf("\n");
}

}  // namespace program
