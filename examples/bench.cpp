// bench.cpp - speed of reading a prompt, of generating, and of training, each beside the peak of this machine measured in the same run.
//
// Work counted: 2 operations a weight and token forward. Training does that three times: forward, forward again (activation checkpointing)
// and the gradient towards the input; frozen weights have no gradient of their own. Generating one token reads every weight once.
#include "examples/common/interrupt.h"
#include "examples/common/load.h"
#include "examples/common/peak.h"
#include "examples/common/synthetic.h"
#include "examples/common/terminal.h"
#include "src/base/file.h"                             // the library's own writers and its view of what this process may use
#include "src/base/json.h"
#include "src/base/limits.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <unistd.h>

using namespace program;
namespace fs = std::filesystem;
using qlora::Json;

static const char* const passage =
    "A language model reads a text from left to right and, at every place, guesses what comes next. To do so it turns each piece of the text into a "
    "list of numbers, mixes those numbers layer by layer with everything that came before, and compares the result with every word that it knows. "
    "Four bits a weight are enough for that, if the levels are chosen well, and a small adapter beside the frozen weights learns what is new. ";

struct Settings {
    ModelFlags model{.quant = "nf4"};
    std::string synthetic, folder = "build";
    int64_t prompt = 512, generate = 64, train = 512, rank = 16, repeats = 3;
    bool json = false;
};

struct Row {
    std::string name, work;
    double tokens_per_second = 0, achieved = 0, peak = 0;          // achieved and peak: GFLOP/s or GB/s
    const char* unit = "";
};

// Weights that a token is multiplied with: the linear layers and the head (a head that is the embedding counts once, as a head).
static double multiplied_weights(const qlora::ModelInfo& i) {
    const double kv = double(i.hidden) / double(i.heads) * double(i.kv_heads);
    return double(i.layers) * (2.0 * double(i.hidden) * double(i.hidden) + 2.0 * double(i.hidden) * kv + 3.0 * double(i.hidden) * double(i.feed_forward)) +
           double(i.vocabulary) * double(i.hidden);
}

static std::string text_of(const qlora::Tokenizer& tokenizer, int64_t tokens) {
    std::string text;
    while (int64_t(tokenizer.encode(text).size()) < tokens) text += text.empty() ? passage : text;
    const qlora::Tokens ids = tokenizer.encode(text);
    return tokenizer.decode(std::span(ids).first(size_t(tokens)));
}

static Row measure_prompt(const Settings& s, const qlora::Model& model, int threads) {
    qlora::Session session(model, s.prompt + 64);
    const std::string text = text_of(model.tokenizer(), s.prompt);
    double best = 0, peak = 0;
    for (int64_t i = 0; i <= s.repeats && !interrupted(); ++i) {   // the first round warms up
        peak = std::max(peak, fma_peak(threads));
        session.complete(std::to_string(i) + text, {.temperature = 0, .max_tokens = 1});   // another start, or the cache would answer
        const qlora::SessionStats t = session.stats();
        if (i > 0 && t.prompt_seconds > 0) best = std::max(best, double(t.prompt_tokens) / t.prompt_seconds);
    }
    return {"prompt", std::to_string(s.prompt) + " tokens", best, best * 2 * multiplied_weights(model.info()) / 1e9, peak / 1e9, "GFLOP/s"};
}

static Row measure_generation(const Settings& s, const qlora::Model& model, int threads) {
    qlora::Session session(model, s.generate + 128);
    const std::string text = text_of(model.tokenizer(), 16);
    double best = 0, peak = 0;
    for (int64_t i = 0; i <= s.repeats && !interrupted(); ++i) {
        peak = std::max(peak, copy_peak(threads));
        session.complete(text, {.temperature = 0, .max_tokens = s.generate});
        const qlora::SessionStats t = session.stats();
        if (i > 0 && t.reply_seconds > 0) best = std::max(best, double(t.reply_tokens) / t.reply_seconds);
    }
    return {"generation", std::to_string(s.generate) + " tokens", best, best * double(model.info().bytes) / 1e9, peak / 1e9, "GB/s"};
}

static Row measure_training(const Settings& s, const qlora::Model& model, int threads) {
    const fs::path file = fs::temp_directory_path() / ("qlora-bench-" + std::to_string(::getpid()) + ".txt");
    qlora::write_file_atomic(file.string(), text_of(model.tokenizer(), s.train * (s.repeats + 2)));
    const qlora::Dataset data = qlora::Dataset::load(file.string(), model, {.context = s.train, .loss = qlora::Loss::all});
    fs::remove(file);
    qlora::Trainer trainer(qlora::Lora::create(model, {.rank = s.rank}), data, {.max_steps = s.repeats + 1, .accumulate = 1, .context = s.train});
    double best = 0, peak = 0;
    for (int64_t i = 0; i <= s.repeats && !interrupted(); ++i) {
        peak = std::max(peak, fma_peak(threads));
        if (!trainer.step()) break;
        const qlora::TrainStep& t = trainer.last();
        if (i > 0 && t.seconds > 0) best = std::max(best, double(t.tokens) / t.seconds);
    }
    return {"training", "rank " + std::to_string(s.rank) + ", " + std::to_string(s.train) + " tokens", best, best * 6 * multiplied_weights(model.info()) / 1e9, peak / 1e9, "GFLOP/s"};
}

static int body(int argc, char** argv) {
    Settings s;
    Flags flags("bench", "-m MODEL | --synthetic tiny|135m|1b [options]", "Measures prompt, generation and training speed, each beside a peak of this machine measured in the same run.");
    s.model.declare(flags, false, false);
    flags.choice("--synthetic", s.synthetic, synthetic_shapes(), "random weights in the shape of a real model, instead of -m");
    flags.section("Measure");
    flags.add("--prompt-tokens", s.prompt, 1, 1 << 20, "tokens of the prompt");
    flags.add("--generate-tokens -n", s.generate, 1, 1 << 20, "tokens to generate");
    flags.add("--train-tokens", s.train, 8, 1 << 20, "tokens of a training row");
    flags.add("--lora-r --rank", s.rank, 1, 4096, "rank of the adapter that is trained");
    flags.add("--repeats", s.repeats, 1, 1000, "measured rounds after a first one that warms up; the best counts");
    flags.add("--folder", s.folder, "DIR", "where synthetic models are kept");
    flags.toggle("--json", s.json, "print one JSON object");
    flags.parse(argc, argv);
    if (s.model.model.empty() == s.synthetic.empty()) throw UsageError("give either -m MODEL or --synthetic SHAPE");
    catch_interrupts();
    if (!s.synthetic.empty()) s.model.model = synthetic_model(s.synthetic, s.folder);

    s.model.threads = chosen_threads(s.model.threads, s.model.force_threads);
    const qlora::Model model = s.model.load();
    const int threads = s.model.threads > 0 ? int(s.model.threads) : qlora::usable_threads();
    if (!s.json) std::printf("%s\n%-11s %-24s %12s %20s %22s\n", base_line(model).c_str(), "", "", "tokens/s", "achieved", "peak here and now");
    Json rows = Json::Array{};
    for (const auto& measure : {measure_prompt, measure_generation, measure_training}) {
        const Row row = measure(s, model, threads);
        if (interrupted()) return 128 + interrupted();
        rows.push(Json{}.set("name", row.name).set("work", row.work).set("tokens_per_second", row.tokens_per_second).set("unit", row.unit)
                      .set("achieved", row.achieved).set("peak", row.peak).set("share", row.peak > 0 ? row.achieved / row.peak : 0.0));
        if (s.json) continue;
        std::printf("%-11s %-24s %12.1f %12.1f %s %8.1f (%s) %4.0f%%\n", row.name.c_str(), row.work.c_str(), row.tokens_per_second, row.achieved, row.unit,
                    row.peak, row.name == "generation" ? "memory copy" : "multiply-add", row.peak > 0 ? row.achieved / row.peak * 100 : 0);
        std::fflush(stdout);
    }
    if (s.json)
        std::printf("%s\n", Json{}.set("model", s.model.model).set("weights", model.info().weights).set("backend", model.backend().name()).set("threads", int64_t(threads))
                                .set("version", QLORA_VERSION_STRING).set("rows", rows).dump().c_str());
    return 0;
}

int main(int argc, char** argv) {
    return run("bench", [&] { return body(argc, argv); });
}
