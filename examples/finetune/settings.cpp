// settings.cpp - the flags of finetune, and what follows from several of them.
#include "examples/finetune/settings.h"

#include "examples/common/run_folder.h"
#include "examples/common/synthetic.h"
#include "examples/finetune/fit.h"
#include "examples/finetune/habits.h"
#include "examples/finetune/mix.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>

namespace program {

namespace fs = std::filesystem;

void declare(Flags& flags, Settings& s) {
    s.model.declare(flags, false, false);
    flags.section("Data");
    flags
        .add("-f --data --dataset", s.data, "FILE|DIR",
             ".jsonl, .json, .csv or .txt, or a folder with train.jsonl (and valid.jsonl); may be given several times, "
             "FILE:0.7 for its share of a mix")
        .note("");
    flags.add("--valid --val-data --eval-data", s.valid, "FILE", "held-out rows from a file of their own");
    flags.add("--val-split --val-set-size", s.val_split, 0, 0.9,
              "held-out share of the rows, where there is no file for them");
    flags.add("-c --max-seq-len --max-seq-length --max-length --sequence-len --cutoff-len", s.train.context, 8, 1 << 20,
              "tokens a row at most; longer rows are cut");
    s.rows.declare(flags);
    flags.toggle("--group-by-length", s.train.group_by_length,
                 "rows of like length share a batch: less padding where --batch-size is above 1");
    flags.toggle("--packing --sample-packing", s.train.packing,
                 "put several short rows into one sequence; they do not see each other");
    flags.section("Adapter");
    flags.add("--lora-r --lora-rank --rank", s.lora.rank, 1, 4096, "rank of the adapter");
    flags.add("--lora-alpha", s.lora.alpha, 1e-3, 1e6, "scale of the adapter: alpha / rank");
    flags.add("--lora-dropout", s.lora.dropout, 0, 0.99, "dropout before the adapter");
    flags.add("--lora-modules --target-modules --lora-target-modules", s.lora.modules, "all|attention|LIST",
              "layers that get one, as in q_proj,v_proj");
    flags
        .add("--lora-exclude --exclude-modules", s.exclude, "LIST",
             "names that get none, as in down_proj,layers.0.mlp.up_proj")
        .note("none");
    flags.add("--lora-layers --layers-to-transform", s.layers, "LIST", "only these layers of the model, as in 0-3,7")
        .note("all");
    flags
        .add("--lora-rank-pattern --rank-pattern", s.ranks, "LIST",
             "ranks of their own, as in down_proj=8,layers.0.self_attn.q_proj=4")
        .note("none");
    flags.add("--lora-alpha-pattern --alpha-pattern", s.alphas, "LIST", "the same for alpha").note("none");
    flags.choice("--lora-init --init-lora-weights", s.init, {"default", "loftq", "pissa"},
                 "start: loftq makes up for the quantization, pissa takes over the largest directions");
    flags.toggle("--rslora --use-rslora", s.lora.rank_stabilized, "scale alpha / sqrt(rank)");
    flags.toggle("--use-dora --dora", s.lora.dora, "train the magnitude of every row beside its direction (DoRA)");
    flags
        .add("--adapter --adapter-name-or-path --resume-adapter-file", s.model.adapter, "DIR",
             "go on with this adapter, a PEFT folder or a GGUF adapter, instead of a new one")
        .note("");
    s.model.declare_any_base(flags);
    flags.section("Training");
    flags
        .choice("--preset", s.preset, {"none", "small"},
                "small: for a few dozen to a thousand rows; flags given beside it count more")
        .note("the QLoRA paper's recipe");
    flags.add("--iters --max-steps --num-steps", s.train.max_steps, 0, int64_t(1) << 40,
              "optimizer steps; 0 = as --epochs says");
    flags.add("--epochs --num-epochs --num-train-epochs", s.train.epochs, 1e-6, 1e6, "passes over the data");
    flags.add("-b --batch-size --per-device-train-batch-size --micro-batch-size", s.train.batch, 1, 65536,
              "rows computed together");
    flags.add("--grad-accum --grad-accumulation-steps --gradient-accumulation-steps", s.train.accumulate, 1, 65536,
              "batches a step");
    flags.add("--learning-rate --lr", s.train.learning_rate, 0, 10, "peak learning rate");
    flags.add("--lr-min --min-lr", s.train.min_learning_rate, 0, 10, "where linear and cosine schedules end");
    flags.choice("--lr-scheduler --lr-scheduler-type --lr-schedule", s.scheduler, {"constant", "linear", "cosine"},
                 "shape of the learning rate");
    flags.add("--warmup-ratio", s.train.warmup_ratio, 0, 1, "share of the steps in which the learning rate rises");
    flags.add("--warmup-steps", s.train.warmup_steps, 0, int64_t(1) << 40,
              "the same in steps; 0 = as --warmup-ratio says");
    flags
        .add("--warmup-start", s.train.warmup_start, 0, 1,
             "share of the rate in the first of n warm-up steps; 0 as Hugging Face has it")
        .note("1/(n+1)");
    flags.choice("--optim --optimizer", s.optimizer,
                 {"paged_adamw", "adamw", "paged_adamw_32bit", "adamw_8bit", "paged_adamw_8bit"}, "optimizer");
    flags.add("--page-budget", s.page_megabytes, 0, 1 << 20,
              "megabytes that a paged optimizer holds at a time, of a GPU or of the CPU's memory, the rest being moved "
              "to the host or to a file in -o; 0 = page only what does not fit");
    flags
        .add("--memory-limit", s.memory_limit, "HOST[,DEVICE]",
             "as in 6G or 16G,40G: choose the cheapest settings that fit: recomputation, from inputs elsewhere, "
             "smaller micro-batches of the same steps, paged or 8-bit optimizer, head in 8 or 4 bits")
        .note("what is free");
    flags
        .add("--keep-panels", s.kept_panels, "SIZE",
             "as in 500M or 2G, on the CPU: keep so much of the weights decoded for the next products: the same bytes "
             "in less time, most of all where rows are short; 0 = none")
        .note("with --memory-limit what is left, else none");
    flags.add("--lora-plus-ratio --loraplus-lr-ratio", s.train.lora_plus_ratio, 1e-3, 1e3,
              "LoRA+: the learning rate of B over that of A; the paper has 16, with a lower --lr");
    flags.add("--neftune-alpha --neftune-noise-alpha", s.train.neftune_alpha, 0, 1000,
              "NEFTune: noise on the embeddings; the paper has 5, 10 or 15; 0 = none");
    flags.add("--adam-beta2", s.train.optimizer.beta2, 0, 0.999999, "decay of AdamW's second moment");
    flags.add("--weight-decay --wd", s.train.optimizer.weight_decay, 0, 10, "AdamW's weight decay");
    flags.add("--max-grad-norm --grad-clip", s.train.optimizer.max_grad_norm, 0, 1e6,
              "gradients are clipped to this norm; 0 = never");
    flags.toggle("--grad-checkpoint --gradient-checkpointing", s.train.checkpoint_activations,
                 "recompute activations instead of keeping them");
    flags.toggle("--light-recomputation", s.light,
                 "keep them but for those of norms and gated products, which cost hardly any time to recompute");
    flags.toggle("--inputs-apart", s.train.inputs_apart,
                 "what is recomputed from waits in the host's memory, or on the CPU in a file in -o: the same bytes");
    flags.add("--loss-rows", s.train.loss_rows, 0, 1 << 20, "rows of logits that exist at a time; 0 = as is fastest");
    flags
        .add("--max-time", s.max_time, "TIME", "stop after this time, saved, as Ctrl-C does: 90s, 30m, 8h or 2d")
        .note("none");
    flags.add("--patience --early-stopping-patience", s.patience, 0, 1 << 30,
              "end after so many measurements without a better held-out loss; 0 = never");
    flags.add("--max-bad-steps", s.train.max_bad_steps, 1, 1 << 30,
              "steps in a row without a finite loss before giving up");
    flags.add("--seed", s.train.seed, "seed of the order of the rows, of the adapter's start and of dropout");
    flags.section("Output");
    flags.add("-o --output --output-dir --out", s.out, "DIR", "folder of the adapter, the checkpoints and the metrics")
        .note("");
    flags.add("--eval-every --eval-steps --steps-per-eval", s.eval_every, 0, int64_t(1) << 40,
              "steps between measurements of the held-out loss; also at the start and after each epoch");
    flags.add("--sample-every --sample-steps", s.sample_every, 0, int64_t(1) << 40,
              "steps between showing answers to two of the rows; 0 = never");
    flags.add("--save-every --save-steps", s.save_every, 0, int64_t(1) << 40, "steps between checkpoints; 0 = none");
    flags.add("--save-minutes", s.save_minutes, 0, 1e6, "a checkpoint also after this time without one; 0 = never");
    flags.add("--keep --save-total-limit", s.keep, 1, 100000,
              "newest checkpoints that stay; without this and --save-every none stays behind a complete run");
    flags.add("--log-every --logging-steps --steps-per-report", s.log_every, 1, int64_t(1) << 40,
              "steps between plain progress lines");
    flags.add("--resume --resume-from-checkpoint", s.resume, "auto|DIR",
              "go on from the newest checkpoint in -o, or from one of your choice");
    flags.toggle("--overwrite --overwrite-output-dir", s.overwrite,
                 "replace the earlier run in -o, once this one has something to go on from");
    flags
        .choice("--shape", s.shape, synthetic_shapes(),
                "with --dry-run: plan for a model of this size, without one; with --device cuda for a CUDA device, "
                "there or not")
        .note("");
    flags.toggle("--dry-run", s.dry_run, "print the data, the memory plan, steps, time and disk, and stop");
    flags.toggle("--json", s.json, "one JSON object a line instead of text");
    declare_habits(flags, s);
}

// The entries of a list flag; "a,,b" and "," are slips of the pen, not lists.
static std::vector<std::string> words(const std::string& list, char separator, const char* flag) {
    std::vector<std::string> out;
    for (size_t from = 0; !list.empty() && from <= list.size();) {
        const size_t to = std::min(list.find(separator, from), list.size());
        if (to == from) throw UsageError(std::string(flag) + ": \"" + list + "\" has an empty entry");
        out.push_back(list.substr(from, to - from));
        from = to + 1;
    }
    return out;
}

// A number of a list flag, all of `text`.
static double number(const std::string& text, const char* flag, double low, double high, bool whole) {
    char* end = nullptr;
    const bool plain = text.find_first_not_of(whole ? "0123456789" : "0123456789.eE+-") == std::string::npos;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || !plain || *end || !(value >= low && value <= high))
        throw UsageError(std::string(flag) + ": \"" + text + "\" is no " + (whole ? "whole " : "") +
                         "number it can take");
    return value;
}

// The flags that choose among the layers are lists of their own.
static void finish_scope(Settings& s) {
    s.lora.exclude = words(s.exclude, ',', "--lora-exclude");
    for (const std::string& range : words(s.layers, ',', "--lora-layers")) {
        const std::vector<std::string> ends = words(range, '-', "--lora-layers");
        if (ends.empty() || ends.size() > 2)
            throw UsageError("--lora-layers: \"" + range + "\" is no layer and no range; expected e.g. 0-3,7");
        const int64_t first = int64_t(number(ends.front(), "--lora-layers", 0, 1e5, true)),
                      last = int64_t(number(ends.back(), "--lora-layers", double(first), 1e5, true));
        for (int64_t layer = first; layer <= last; ++layer) s.lora.layers.push_back(layer);
    }
    const auto pattern = [](const std::string& entry, const char* flag, bool whole) {
        const size_t at = entry.find('=');
        if (at == std::string::npos || at == 0)
            throw UsageError(std::string(flag) + ": \"" + entry + "\" needs NAME=NUMBER");
        return std::pair(entry.substr(0, at), number(entry.substr(at + 1), flag, whole ? 1 : 1e-3, 1e6, whole));
    };
    for (const std::string& entry : words(s.ranks, ',', "--lora-rank-pattern"))
        s.lora.rank_pattern.emplace_back(pattern(entry, "--lora-rank-pattern", true));
    for (const std::string& entry : words(s.alphas, ',', "--lora-alpha-pattern"))
        s.lora.alpha_pattern.emplace_back(pattern(entry, "--lora-alpha-pattern", false));
}

// An adapter that exists has its rank and everything else from its own configuration, and its base in the type it was
// trained on.
static void finish_adapter(Settings& s, const Flags& flags) {
    if (s.model.adapter.empty()) return;
    for (const char* flag :
         {"--lora-r", "--lora-alpha", "--lora-dropout", "--lora-modules", "--lora-exclude", "--lora-layers",
          "--lora-rank-pattern", "--lora-alpha-pattern", "--lora-init", "--rslora", "--use-dora"})
        if (flags.given(flag))
            throw UsageError(std::string(flag) + " shapes a new adapter, and --adapter goes on with " +
                             s.model.adapter + ", which has its own shape: leave one of them out");
    s.model.follow_adapter(flags);
}

// "90s", "1.5h": seconds.
static double seconds_of(const std::string& time) {
    const std::string units = "smhd";
    const size_t unit = time.empty() ? std::string::npos : units.find(time.back());
    if (unit == std::string::npos)
        throw UsageError("--max-time needs a unit, is \"" + one_line(time) + "\": 90s, 30m, 8h or 2d");
    constexpr double lengths[] = {1, 60, 3600, 86400};
    return number(time.substr(0, time.size() - 1), "--max-time", 1e-3, 1e6, false) * lengths[unit];
}

void finish(Settings& s, const Flags& flags) {
    finish_habits(s, flags);
    s.config = flags.config();
    s.shares = take_shares(s.data);
    finish_scope(s);
    finish_adapter(s, flags);
    s.train.schedule = s.scheduler == "cosine"   ? qlora::Schedule::cosine
                       : s.scheduler == "linear" ? qlora::Schedule::linear
                                                 : qlora::Schedule::constant;
    if (s.light) s.train.kept_layers = std::numeric_limits<int64_t>::max();
    if (!s.train.checkpoint_activations && (s.light || s.train.inputs_apart))
        throw UsageError(std::string("--no-grad-checkpoint recomputes nothing: leave it or ") +
                         (s.light ? "--light-recomputation out" : "--inputs-apart out"));
    if (s.light && s.train.inputs_apart)
        throw UsageError("--light-recomputation keeps every layer: nothing waits for it that --inputs-apart could put "
                         "elsewhere; leave one out");
    s.train.light_recomputation = s.light;
    s.train.optimizer.bits = s.optimizer.ends_with("_8bit") ? 8 : 32;
    s.train.optimizer.paged = s.optimizer.starts_with("paged_");
    s.train.optimizer.page_budget = s.page_megabytes * 1'000'000;
    s.train.optimizer.page_folder = s.out;
    if (s.page_megabytes > 0 && !s.train.optimizer.paged)
        throw UsageError("--page-budget is for a paged optimizer: --optim paged_adamw or paged_adamw_8bit");
    if (!s.memory_limit.empty()) (void)parse_budget(s.memory_limit);
    if (flags.given("--keep-panels") && s.kept_panels != "0")
        s.train.panel_budget = bytes_of_size("--keep-panels", s.kept_panels);
    if (!s.shape.empty() && (!s.dry_run || !s.model.model.empty() || !s.data.empty() || !s.model.adapter.empty()))
        throw UsageError(
            "--shape plans for a model that is not there: with --dry-run, without -m, --data and --adapter");
    if (s.shape.empty() && s.model.model.empty())
        throw UsageError("missing -m MODEL: a GGUF file or a Hugging Face folder");
    if (s.shape.empty() && s.data.empty()) throw UsageError("missing --data FILE: the rows to train on");
    s.lora.init = s.init == "loftq"   ? qlora::LoraInit::loftq
                  : s.init == "pissa" ? qlora::LoraInit::pissa
                                      : qlora::LoraInit::standard;
    s.lora.seed = s.train.seed;
    if (s.preset == "small" && s.valid.empty() && !flags.given("--val-split")) s.val_split = -1;
    if (s.save_every == 0 && !flags.given("--save-minutes")) s.save_minutes = 0;
    s.keep_checkpoints = flags.given("--save-every") || flags.given("--keep") || flags.given("--save-minutes");
    if (!s.max_time.empty()) s.train.max_seconds = seconds_of(s.max_time);
    if (s.train.group_by_length && s.train.packing)
        throw UsageError("--packing fills sequences by length already: leave --group-by-length out");
    if (s.out.empty() && !s.dry_run) throw UsageError("missing -o DIR: the folder of the adapter");
    if (s.overwrite && !s.resume.empty()) throw UsageError("--overwrite starts anew and --resume goes on: choose one");
    if (!s.valid.empty() && s.val_split > 0)
        throw UsageError("--valid and --val-split both name held-out rows: choose one");
    if (s.train.min_learning_rate > s.train.learning_rate)
        throw UsageError("--lr-min must not be above --learning-rate");
}

}  // namespace program
