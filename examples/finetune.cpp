// finetune.cpp - QLoRA fine-tuning from the command line. The work is the library's (qlora.h: Dataset, Lora, Trainer); this file is what a person
// sees of it: what will be trained on, what memory it takes, how it goes, how to stop and go on, and what to type next.
#include "examples/common/interrupt.h"
#include "examples/common/load.h"
#include "examples/common/masked.h"
#include "examples/common/run_folder.h"
#include "examples/common/terminal.h"
#include "src/base/json.h"                             // the library's own JSON writer, for --json and metrics.jsonl

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>

using namespace program;
namespace fs = std::filesystem;
using qlora::Json;

struct Settings {
    ModelFlags model{.quant = "nf4"};                  // QLoRA: the base is held in NF4
    qlora::LoraOptions lora;
    qlora::TrainOptions train;
    std::string data, valid, out, resume, exclude, layers, ranks, alphas, init = "default", scheduler = "constant", optimizer = "paged_adamw", loss = "assistant", command;
    float val_split = 0;
    int64_t eval_every = 0, save_every = 250, keep = 3, log_every = 1;
    bool overwrite = false, dry_run = false, json = false;
};

static void declare(Flags& flags, Settings& s) {
    s.model.declare(flags, false);
    flags.section("Data");
    flags.add("-f --data --dataset", s.data, "FILE|DIR", ".jsonl, .json or .txt, or a folder with train.jsonl (and valid.jsonl)").required();
    flags.add("--valid --val-data --eval-data", s.valid, "FILE", "held-out rows from a file of their own");
    flags.add("--val-split --val-set-size", s.val_split, 0, 0.9, "held-out share of the rows, where there is no file for them");
    flags.add("-c --max-seq-len --max-seq-length --max-length --sequence-len --cutoff-len", s.train.context, 8, 1 << 20, "tokens a row at most; longer rows are cut");
    flags.choice("--loss", s.loss, {"assistant", "completion", "all"}, "train on the assistant's turns, on its last one, or on everything");
    flags.toggle("--packing --sample-packing", s.train.packing, "put several short rows into one sequence; they do not see each other");
    flags.section("Adapter");
    flags.add("--lora-r --lora-rank --rank", s.lora.rank, 1, 4096, "rank of the adapter");
    flags.add("--lora-alpha", s.lora.alpha, 1e-3, 1e6, "scale of the adapter: alpha / rank");
    flags.add("--lora-dropout", s.lora.dropout, 0, 0.99, "dropout before the adapter");
    flags.add("--lora-modules --target-modules --lora-target-modules", s.lora.modules, "all|attention|LIST", "layers that get one, as in q_proj,v_proj");
    flags.add("--lora-exclude --exclude-modules", s.exclude, "LIST", "names that get none, as in down_proj,layers.0.mlp.up_proj").note("none");
    flags.add("--lora-layers --layers-to-transform", s.layers, "LIST", "only these layers of the model, as in 0-3,7").note("all");
    flags.add("--lora-rank-pattern --rank-pattern", s.ranks, "LIST", "ranks of their own, as in down_proj=8,layers.0.self_attn.q_proj=4").note("none");
    flags.add("--lora-alpha-pattern --alpha-pattern", s.alphas, "LIST", "the same for alpha").note("none");
    flags.choice("--lora-init --init-lora-weights", s.init, {"default", "loftq", "pissa"}, "start: loftq makes up for the quantization, pissa takes over the largest directions");
    flags.toggle("--rslora --use-rslora", s.lora.rank_stabilized, "scale alpha / sqrt(rank)");
    flags.toggle("--use-dora --dora", s.lora.dora, "train the magnitude of every row beside its direction (DoRA)");
    flags.add("--adapter --adapter-path --adapter-name-or-path --resume-adapter-file", s.model.adapter, "DIR", "go on with this adapter, a PEFT folder or a GGUF adapter, instead of a new one").note("");
    flags.section("Training");
    flags.add("--iters --max-steps --num-steps", s.train.max_steps, 0, int64_t(1) << 40, "optimizer steps; 0 = as --epochs says");
    flags.add("--epochs --num-epochs --num-train-epochs", s.train.epochs, 1e-6, 1e6, "passes over the data");
    flags.add("-b --batch-size --per-device-train-batch-size --micro-batch-size", s.train.batch, 1, 65536, "rows computed together");
    flags.add("--grad-accum --grad-accumulation-steps --gradient-accumulation-steps", s.train.accumulate, 1, 65536, "batches a step");
    flags.add("--learning-rate --lr", s.train.learning_rate, 0, 10, "peak learning rate");
    flags.add("--lr-min --min-lr", s.train.min_learning_rate, 0, 10, "where linear and cosine schedules end");
    flags.choice("--lr-scheduler --lr-scheduler-type --lr-schedule", s.scheduler, {"constant", "linear", "cosine"}, "shape of the learning rate");
    flags.add("--warmup-ratio", s.train.warmup_ratio, 0, 1, "share of the steps in which the learning rate rises");
    flags.add("--warmup-steps", s.train.warmup_steps, 0, int64_t(1) << 40, "the same in steps; 0 = as --warmup-ratio says");
    flags.choice("--optim --optimizer", s.optimizer, {"paged_adamw", "adamw", "paged_adamw_32bit", "adamw_8bit", "paged_adamw_8bit"}, "optimizer");
    flags.add("--adam-beta2", s.train.beta2, 0, 0.999999, "decay of AdamW's second moment");
    flags.add("--weight-decay --wd", s.train.weight_decay, 0, 10, "AdamW's weight decay");
    flags.add("--max-grad-norm --grad-clip", s.train.max_grad_norm, 0, 1e6, "gradients are clipped to this norm; 0 = never");
    flags.toggle("--grad-checkpoint --gradient-checkpointing", s.train.checkpoint_activations, "recompute activations instead of keeping them");
    flags.add("--max-bad-steps", s.train.max_bad_steps, 1, 1 << 30, "steps in a row without a finite loss before giving up");
    flags.add("--seed", s.train.seed, "seed of the order of the rows, of the adapter's start and of dropout");
    flags.section("Output");
    flags.add("-o --output --output-dir --out", s.out, "DIR", "folder of the adapter, the checkpoints and the metrics").note("");
    flags.add("--eval-every --eval-steps --steps-per-eval", s.eval_every, 0, int64_t(1) << 40, "steps between measurements of the held-out loss; 0 = start and end");
    flags.add("--save-every --save-steps", s.save_every, 0, int64_t(1) << 40, "steps between checkpoints; 0 = none");
    flags.add("--keep --save-total-limit", s.keep, 1, 100000, "newest checkpoints that stay");
    flags.add("--log-every --logging-steps --steps-per-report", s.log_every, 1, int64_t(1) << 40, "steps between plain progress lines");
    flags.add("--resume --resume-from-checkpoint", s.resume, "auto|DIR", "go on from the newest checkpoint in -o, or from one of your choice");
    flags.toggle("--overwrite --overwrite-output-dir", s.overwrite, "start anew in a folder that holds an earlier run");
    flags.toggle("--dry-run", s.dry_run, "print the data and the memory plan, and stop");
    flags.toggle("--json", s.json, "one JSON object a line instead of text");
}

static std::vector<std::string> words(const std::string& list, char separator) {
    std::vector<std::string> out;
    for (size_t from = 0; from < list.size();) {
        const size_t to = std::min(list.find(separator, from), list.size());
        if (to > from) out.push_back(list.substr(from, to - from));
        from = to + 1;
    }
    return out;
}

// A number of a list flag, all of `text`.
static double number(const std::string& text, const char* flag, double low, double high) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end || !(value >= low && value <= high)) throw UsageError(std::string(flag) + ": \"" + text + "\" is no number it can take");
    return value;
}

// The flags that choose among the layers are lists of their own.
static void finish_scope(Settings& s) {
    s.lora.exclude = words(s.exclude, ',');
    for (const std::string& range : words(s.layers, ',')) {
        const std::vector<std::string> ends = words(range, '-');
        if (ends.empty() || ends.size() > 2) throw UsageError("--lora-layers: \"" + range + "\" is no layer and no range; expected e.g. 0-3,7");
        const int64_t first = int64_t(number(ends.front(), "--lora-layers", 0, 1e5)), last = int64_t(number(ends.back(), "--lora-layers", double(first), 1e5));
        for (int64_t layer = first; layer <= last; ++layer) s.lora.layers.push_back(layer);
    }
    const auto pattern = [](const std::string& entry, const char* flag) {
        const size_t at = entry.find('=');
        if (at == std::string::npos) throw UsageError(std::string(flag) + ": \"" + entry + "\" needs NAME=NUMBER");
        return std::pair(entry.substr(0, at), number(entry.substr(at + 1), flag, 1e-3, 1e6));
    };
    for (const std::string& entry : words(s.ranks, ',')) s.lora.rank_pattern.emplace_back(pattern(entry, "--lora-rank-pattern"));
    for (const std::string& entry : words(s.alphas, ',')) s.lora.alpha_pattern.emplace_back(pattern(entry, "--lora-alpha-pattern"));
}

// An adapter that exists has its rank and everything else from its own configuration, and its base in the type it was trained on.
static void finish_adapter(Settings& s, const Flags& flags) {
    if (s.model.adapter.empty()) return;
    for (const char* flag : {"--lora-r", "--lora-alpha", "--lora-dropout", "--lora-modules", "--lora-exclude", "--lora-layers", "--lora-rank-pattern", "--lora-alpha-pattern", "--lora-init", "--rslora", "--use-dora"})
        if (flags.given(flag)) throw UsageError(std::string(flag) + " shapes a new adapter, and --adapter goes on with " + s.model.adapter + ", which has its own shape: leave one of them out");
    if (!fs::exists(s.model.adapter)) throw qlora::Error(qlora::Errc::io, "--adapter: there is no " + s.model.adapter);
    if (fs::exists(fs::path(s.model.adapter) / "base.json")) s.model.follow_adapter(flags);
}

static void finish(Settings& s, const Flags& flags) {
    finish_scope(s);
    finish_adapter(s, flags);
    s.train.schedule = s.scheduler == "cosine" ? qlora::Schedule::cosine : s.scheduler == "linear" ? qlora::Schedule::linear : qlora::Schedule::constant;
    s.train.optimizer = s.optimizer == "adamw" ? qlora::Optimizer::adamw
                        : s.optimizer == "adamw_8bit" ? qlora::Optimizer::adamw_8bit
                        : s.optimizer == "paged_adamw_8bit" ? qlora::Optimizer::paged_adamw_8bit : qlora::Optimizer::paged_adamw;
    s.lora.init = s.init == "loftq" ? qlora::LoraInit::loftq : s.init == "pissa" ? qlora::LoraInit::pissa : qlora::LoraInit::standard;
    s.lora.seed = s.train.seed;
    if (s.out.empty() && !s.dry_run) throw UsageError("missing -o DIR: the folder of the adapter");
    if (s.overwrite && !s.resume.empty()) throw UsageError("--overwrite starts anew and --resume goes on: choose one");
    if (!s.valid.empty() && s.val_split > 0) throw UsageError("--valid and --val-split both name held-out rows: choose one");
    if (s.train.min_learning_rate > s.train.learning_rate) throw UsageError("--lr-min must not be above --learning-rate");
}

// The command that goes on with this run, as it can be pasted into a shell.
static std::string resume_command(int argc, char** argv) {
    const auto quoted = [](const std::string& word) {
        if (!word.empty() && word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%") == std::string::npos) return word;
        std::string out = "'";
        for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
        return out + '\'';
    };
    std::string command;
    for (int i = 0; i < argc; ++i) {
        const std::string word = argv[i];
        std::string name = word.substr(0, word.find('='));
        std::replace(name.begin(), name.end(), '_', '-');
        if (name == "--resume" || name == "--resume-from-checkpoint") { i += word.find('=') == std::string::npos; continue; }
        if (name.rfind("--overwrite", 0) == 0) continue;
        command += (i ? " " : "") + quoted(word);
    }
    return command + " --resume auto";
}

struct Data {
    qlora::Dataset train;
    std::optional<qlora::Dataset> held_out;
};

static Data load_data(const Settings& s, const qlora::Model& model) {
    qlora::DatasetOptions options{.context = s.train.context};
    options.loss = s.loss == "all" ? qlora::Loss::all : s.loss == "completion" ? qlora::Loss::completion : qlora::Loss::assistant;
    const bool folder = fs::is_directory(s.data);
    if (folder) options.split = "train";
    Data data{qlora::Dataset::load(s.data, model, options), {}};
    if (!s.valid.empty()) {
        options.split.clear();
        data.held_out = qlora::Dataset::load(s.valid, model, options);
    } else if (folder && fs::exists(fs::path(s.data) / "valid.jsonl")) {
        options.split = "valid";
        data.held_out = qlora::Dataset::load(s.data, model, options);
    } else if (s.val_split > 0) {
        auto [rest, held_out] = data.train.split(s.val_split, s.train.seed);
        data = {rest, held_out};
    }
    return data;
}

static Json as_json(const qlora::DatasetInfo& info) {
    Json json;
    return json.set("format", info.format).set("rows", info.rows).set("tokens", info.tokens).set("trained_tokens", info.trained_tokens)
        .set("longest", info.longest).set("truncated", info.truncated).set("dropped", info.dropped);
}

static Json as_json(const qlora::MemoryPlan& plan) {
    Json items = Json::Object{};
    for (const auto& item : plan.items) items.set(item.name, item.bytes);
    return Json{}.set("peak_bytes", plan.peak).set("items", items);
}

static void print_data(const std::string& label, const qlora::DatasetInfo& info) {
    std::printf("%s: %lld rows (%s), %s tokens, %s of them trained on; longest row %lld, truncated %lld", label.c_str(), static_cast<long long>(info.rows),
                info.format.c_str(), human_count(double(info.tokens)).c_str(), human_count(double(info.trained_tokens)).c_str(),
                static_cast<long long>(info.longest), static_cast<long long>(info.truncated));
    if (info.dropped) std::printf(", dropped %lld with nothing to train on", static_cast<long long>(info.dropped));
    std::printf("\n");
}

static void print_sample(const Data& data, const qlora::Model& model) {
    std::string text = show_masked(data.train.row(0), model.tokenizer());
    std::printf("\nThe first row as the model sees it; trained on is what is %s:\n", colours(1) ? "green" : "in [[ ]]");
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

static void print_plan(const qlora::MemoryPlan& plan) {
    std::printf("\nMemory plan:\n");
    for (const auto& item : plan.items) std::printf("  %-36s %12s\n", item.name.c_str(), human_bytes(item.bytes).c_str());
    std::printf("  %-36s %12s\n\n", "peak", human_bytes(plan.peak).c_str());
}

// One run: the trainer, its folder, and what is shown of it.
class Run {
public:
    Run(Settings& s, qlora::Lora lora, Data data, RunFolder& folder, std::string command)
        : s_(s), lora_(lora), data_(std::move(data)), trainer_(lora, data_.train, s.train), folder_(folder), command_(std::move(command)) {}

    qlora::Trainer& trainer() { return trainer_; }

    int train() {
        resume();
        folder_.open_metrics(step_);
        check_space();
        if (data_.held_out && folder_.held_out().empty()) measure();
        started_ = std::chrono::steady_clock::now();
        first_ = step_;
        try {
            while (true) {
                if (const int signal = interrupted()) return stop(signal);
                if (!trainer_.step()) break;
                report(trainer_.last());
                if (s_.eval_every > 0 && step_ % s_.eval_every == 0 && data_.held_out) measure();
                if (s_.save_every > 0 && step_ % s_.save_every == 0) save_checkpoint();
            }
        } catch (const qlora::Error& error) {
            progress_.finish();
            const auto steps = folder_.checkpoints();
            if (error.code != qlora::Errc::numeric || steps.empty()) throw;
            throw qlora::Error(error.code, std::string(error.what()) + "; the last checkpoint is " + folder_.checkpoint(steps[0]));
        }
        return conclude();
    }

private:
    void say(const std::string& text) { if (!s_.json) progress_.print(text); }
    void emit(const Json& event) {
        if (s_.json) std::printf("%s\n", event.dump().c_str()), std::fflush(stdout);
    }
    void warn(const std::string& text) {
        if (s_.json) emit(Json{}.set("event", "warning").set("text", text));
        else progress_.print(styled("warning: " + text, Style::yellow));
    }
    void record(const Json& line) {
        if (!folder_.write_metrics(line.dump()) && !metrics_failed_) {
            metrics_failed_ = true;
            warn("metrics.jsonl cannot be written; the run goes on without it");
        }
    }

    // Tries the checkpoint that was asked for, then every older one; each that does not load is named, and put aside so that it stays out of the way.
    void resume() {
        if (s_.resume.empty()) return;
        std::vector<std::string> candidates;
        if (s_.resume != "auto") candidates.push_back(s_.resume);
        const auto steps = folder_.checkpoints();
        for (const int64_t step : steps) {
            std::error_code error;
            if (s_.resume == "auto" || !fs::equivalent(s_.resume, folder_.checkpoint(step), error)) candidates.push_back(folder_.checkpoint(step));
        }
        if (candidates.empty()) return say("no checkpoint in " + s_.out + " yet: starting from the beginning");
        std::string first_error;
        for (const std::string& candidate : candidates) {
            try {
                trainer_.resume(candidate);
            } catch (const qlora::Error& error) {
                if (first_error.empty()) first_error = error.what();
                warn(one_line(error.what()) + "; falling back to the checkpoint before");
                continue;
            }
            step_ = trainer_.last().step;
            for (const int64_t step : steps) if (step > step_) folder_.set_aside(step);
            say("going on from " + candidate + ", step " + std::to_string(step_));
            return;
        }
        throw qlora::Error(qlora::Errc::format, "no usable checkpoint: " + first_error + "; start anew with --overwrite");
    }

    // Better now than after an hour: two checkpoints (the new one is complete before the old one goes) and the adapter must fit.
    void check_space() const {
        std::error_code error;
        const fs::space_info space = fs::space(s_.out, error);
        const int64_t adapter = lora_.parameters() * 4, needed = adapter + (s_.save_every > 0 ? 2 * 3 * adapter : 0);
        if (!error && space.available < uintmax_t(needed))
            throw qlora::Error(qlora::Errc::io, s_.out + " has " + human_bytes(int64_t(space.available)) + " free, the adapter and its checkpoints need " +
                                                    human_bytes(needed) + "; free some, choose another -o, or --save-every 0");
    }

    void measure() {
        if (progress_.live() && !s_.json) progress_.update("measuring the held-out loss ...");
        const double loss = trainer_.evaluate(*data_.held_out);
        folder_.add_held_out(step_, loss);
        record(Json{}.set("step", step_).set("eval_loss", loss).set("time", int64_t(std::time(nullptr))));
        emit(Json{}.set("event", "eval").set("step", step_).set("eval_loss", loss));
        char text[96];
        std::snprintf(text, sizeof text, "step %lld: held-out loss %.4f", static_cast<long long>(step_), loss);
        say(styled(text, Style::cyan));
        measured_ = step_;
    }

    void report(const qlora::TrainStep& t) {
        step_ = t.step;
        tokens_ += t.tokens;
        trained_ += t.trained_tokens;
        const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
        const double left = elapsed / double(t.step - first_) * double(t.steps - t.step), speed = t.seconds > 0 ? double(t.tokens) / t.seconds : 0;
        Json line;
        line.set("step", t.step).set("total_steps", t.steps).set("epoch", t.epoch).set("loss", std::isfinite(t.loss) ? Json(t.loss) : Json());
        line.set("lr", t.learning_rate).set("grad_norm", std::isfinite(t.grad_norm) ? Json(t.grad_norm) : Json()).set("tokens_per_sec", speed);
        line.set("total_tokens", tokens_).set("supervised_tokens", trained_).set("elapsed_s", elapsed).set("remaining_s", left);
        line.set("peak_mem_bytes", peak_memory()).set("skipped_steps", t.skipped_steps).set("time", int64_t(std::time(nullptr)));
        record(line);
        if (s_.json) emit(Json(line).set("event", "step"));
        if (!t.skipped) folder_.add_train(t.step, t.loss);
        if (t.skipped && !s_.json) say("step " + std::to_string(t.step) + " skipped: its loss or gradient is not finite (" + std::to_string(t.skipped_steps) + " so far)");
        if (s_.json || (!progress_.live() && t.step % s_.log_every != 0 && t.step != t.steps)) return;
        char text[256];
        std::snprintf(text, sizeof text, "step %lld/%lld  loss %.4f  lr %.2e  grad %.3f  %s tok/s  peak %s  left %s", static_cast<long long>(t.step),
                      static_cast<long long>(t.steps), t.loss, t.learning_rate, t.grad_norm, human_count(speed).c_str(), human_bytes(peak_memory()).c_str(),
                      human_time(left).c_str());
        progress_.update(text);
    }

    // A save that fails leaves the run and the older checkpoints alone; the next interval tries again.
    bool save_checkpoint() {
        const std::string where = folder_.checkpoint(step_);
        try {
            fs::create_directories(fs::path(where).parent_path());
            trainer_.save(where);
        } catch (const std::exception& error) {
            warn("checkpoint not saved: " + one_line(error.what()));
            return false;
        }
        saved_ = step_;
        folder_.keep_newest(s_.keep);
        emit(Json{}.set("event", "checkpoint").set("step", step_).set("path", where));
        return true;
    }

    void draw() {
        try {
            folder_.write_curve(fs::path(s_.out).filename().string() + ": loss");
        } catch (const qlora::Error& error) {
            warn("loss.svg not written: " + one_line(error.what()));
        }
    }

    int stop(int signal) {
        progress_.finish();
        const bool saved = saved_ == step_ || step_ == 0 || save_checkpoint();
        draw();
        emit(Json{}.set("event", "stopped").set("step", step_).set("resume", command_));
        if (step_ == 0) say("stopped before the first step");
        else if (saved) say("stopped after step " + std::to_string(step_) + "; saved. To go on:\n  " + command_);
        return 128 + signal;
    }

    int conclude() {
        if (data_.held_out && measured_ != step_) measure();
        progress_.finish();
        if (s_.save_every > 0 && saved_ != step_ && step_ > first_) save_checkpoint();
        folder_.take_adapter([&](const std::string& where) { lora_.save(where); });
        folder_.write_base_record({s_.model.model, s_.model.quant, s_.model.double_quant});
        draw();
        Json done;
        done.set("event", "done").set("steps", step_).set("adapter", s_.out).set("peak_mem_bytes", peak_memory());
        if (const Curve& curve = folder_.held_out(); !curve.empty()) {
            char text[160];
            std::snprintf(text, sizeof text, "held-out loss %.4f before, %.4f after", curve.front().second, curve.back().second);
            say(styled(text, Style::bold));
            done.set("eval_loss_before", curve.front().second).set("eval_loss_after", curve.back().second);
        }
        emit(done);
        say("adapter: " + s_.out + " (" + human_count(double(lora_.parameters())) + " parameters); curve: " + (fs::path(s_.out) / "loss.svg").string());
        say("next:    ./chat -m " + s_.model.model + " --adapter " + s_.out);
        return 0;
    }

    Settings& s_;
    qlora::Lora lora_;
    Data data_;
    qlora::Trainer trainer_;
    RunFolder& folder_;
    std::string command_;
    Progress progress_{1};
    int64_t step_ = 0, first_ = 0, saved_ = -1, measured_ = -1, tokens_ = 0, trained_ = 0;
    bool metrics_failed_ = false;
    std::chrono::steady_clock::time_point started_;
};

static int body(int argc, char** argv) {
    Settings s;
    Flags flags("finetune", "-m MODEL --data FILE|DIR -o OUT [options]", "Fine-tunes LoRA adapters on a model held in 4 bits (QLoRA). Defaults are the recipe of the paper.");
    declare(flags, s);
    flags.parse(argc, argv);
    finish(s, flags);
    catch_interrupts();

    std::optional<RunFolder> folder;
    if (!s.dry_run) folder.emplace(s.out, s.overwrite || !s.resume.empty());    // before the minutes of loading, not after
    const qlora::Model model = s.model.load();
    s.train.context = model.info().context > 0 ? std::min(s.train.context, model.info().context) : s.train.context;
    Data data = load_data(s, model);
    const qlora::Lora lora = s.model.adapter.empty() ? qlora::Lora::create(model, s.lora) : qlora::Lora::load(model, s.model.adapter);
    if (!s.model.adapter.empty()) s.lora = lora.options();
    if (!s.json) {
        std::printf("%s\n", base_line(model).c_str());
        print_data("training data", data.train.info());
        if (data.held_out) print_data("held-out data", data.held_out->info());
        else std::printf("held-out data: none (--val-split 0.05 or --valid FILE)\n");
        if (!s.model.adapter.empty()) std::printf("going on with the adapter %s\n", s.model.adapter.c_str());
        std::printf("adapter: rank %lld on %s, %s parameters\n", static_cast<long long>(s.lora.rank), s.lora.modules.c_str(), human_count(double(lora.parameters())).c_str());
        print_sample(data, model);
    }
    if (s.dry_run) {
        const qlora::MemoryPlan plan = qlora::Trainer(lora, data.train, s.train).plan();
        if (s.json) std::printf("%s\n", Json{}.set("data", as_json(data.train.info())).set("memory", as_json(plan)).dump().c_str());
        else print_plan(plan);
        return 0;
    }
    if (s.overwrite) folder->forget_run();
    Run run(s, lora, data, *folder, resume_command(argc, argv));
    if (s.json) {
        const Json start = Json{}.set("event", "start").set("model", s.model.model).set("data", as_json(data.train.info())).set("memory", as_json(run.trainer().plan()));
        std::printf("%s\n", start.dump().c_str());
    } else {
        print_plan(run.trainer().plan());
    }
    std::fflush(stdout);
    return run.train();
}

int main(int argc, char** argv) {
    return run("finetune", [&] { return body(argc, argv); });
}
