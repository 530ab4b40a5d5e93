// bench.cpp - speed of reading a prompt, of generating, and of training, each beside a peak of this machine measured in
// the same run.
//
// The backend counts what it does (Backend::work): operations of products and attention, recomputed ones where they are
// recomputed, the head once for a prompt; bytes of weights, keys and values as they are read. Rates are medians of the
// rounds with the least and the most beside them. The peak is that of the work's own kind: multiply-adds of the
// instruction set and precision in use, or reading as many bytes as one token reads. It is the best of everything that
// this run saw, the measured rounds included: no share can be above 100 %.
#include "examples/common/interrupt.h"
#include "examples/common/load.h"
#include "examples/common/peak.h"
#include "examples/common/synthetic.h"
#include "examples/common/terminal.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <unistd.h>

using namespace program;
namespace fs = std::filesystem;
using qlora::Json;

static const char* const passage =
    "A language model reads a text from left to right and, at every place, guesses what comes next. To do so it turns "
    "each piece of the text into a "
    "list of numbers, mixes those numbers layer by layer with everything that came before, and compares the result "
    "with every word that it knows. "
    "Four bits a weight are enough for that, if the levels are chosen well, and a small adapter beside the frozen "
    "weights learns what is new. ";

struct Settings {
    ModelFlags model{.quant = "nf4"};
    std::string synthetic, type = "nf4", cache = "auto", folder = "build", positions = "16", batches, compare;
    int64_t prompt = 512, generate = 64, train = 512, rank = 16, repeats = 5;
    bool json = false;
};

struct Machine {                                       // what the work runs on: the peaks are measured for it
    int threads;
    std::string isa;
    qlora::Compute compute, gradients;
    bool device = false;                               // not the CPU: tests/gpu_check.sh has the peaks of one
    double operations(bool backward) const {
        if (device) return 0;
        if (!backward && compute == qlora::Compute::mixed && isa == "amx")
            return multiply_add_peak(threads, isa, true) / 3;          // three products of bf16 for one of floats
        return multiply_add_peak(threads, isa, (backward ? gradients : compute) == qlora::Compute::bf16);
    }
    double bytes(double read) const { return device ? 0 : read_peak(threads, int64_t(read)); }
};

struct Round { double seconds; int64_t tokens; double amount; };       // amount: operations or bytes

struct Row {
    std::string name, work;
    const char* unit = "GFLOP/s";
    double median = 0, least = 0, most = 0;            // tokens a second
    double achieved = 0, peak = 0;                     // in `unit`: of the median round, and the best of the whole run
    double share() const { return peak > 0 ? achieved / peak : 0; }
};

// Rounds to a row. `peak` is what the yardstick reached; a round that did more is a better yardstick.
static Row row_of(std::string name, std::string work, const char* unit, std::vector<Round> rounds, double peak) {
    Row row{std::move(name), std::move(work), unit};
    if (rounds.empty()) return row;
    std::sort(rounds.begin(), rounds.end(), [](const Round& a, const Round& b) {
        return double(a.tokens) / a.seconds < double(b.tokens) / b.seconds;
    });
    const auto speed = [](const Round& r) { return double(r.tokens) / r.seconds; };
    const Round& middle = rounds[rounds.size() / 2];
    row.median = speed(middle);
    row.least = speed(rounds.front());
    row.most = speed(rounds.back());
    row.achieved = middle.amount / middle.seconds / 1e9;
    row.peak = peak / 1e9;
    if (peak > 0)
        for (const Round& r : rounds) row.peak = std::max(row.peak, r.amount / r.seconds / 1e9);
    return row;
}

static std::string text_of(const qlora::Tokenizer& tokenizer, int64_t tokens) {
    std::string text;
    while (int64_t(tokenizer.encode(text).size()) < tokens) text += text.empty() ? passage : text;
    const qlora::Tokens ids = tokenizer.encode(text);
    return tokenizer.decode(std::span(ids).first(size_t(tokens)));
}

static Row measure_prompt(const Settings& s, const qlora::Model& model, const Machine& machine) {
    qlora::Session session(model, session_options(s.prompt + 64, s.cache));
    const std::string text = text_of(model.tokenizer(), s.prompt);
    std::vector<Round> rounds;
    double peak = 0;
    for (int64_t i = 0; i <= s.repeats && !interrupted(); ++i) {       // the first round warms up
        peak = std::max(peak, machine.operations(false));
        const int64_t before = model.backend().work().operations;
        session.complete(std::to_string(i) + text,
                         {.temperature = 0, .max_tokens = 1});    // another start, or the cache would answer
        const qlora::SessionStats t = session.stats();
        if (i > 0 && t.prompt_seconds > 0)
            rounds.push_back({t.prompt_seconds, t.prompt_tokens, double(model.backend().work().operations - before)});
    }
    return row_of("prompt", std::to_string(s.prompt) + " tokens", "GFLOP/s", std::move(rounds), peak);
}

// Tokens after a text of `position` tokens. What a token reads is known after the first round: the yardstick then reads
// as much.
template <class Source>    // a model, or an adapter on it
static Row measure_generation(const Settings& s, const Source& source, const qlora::Model& model,
                              const Machine& machine, int64_t position, std::string name) {
    qlora::Session session(source, session_options(position + s.generate + 128, s.cache));
    const std::string text = text_of(model.tokenizer(), position);
    std::vector<Round> rounds;
    double peak = 0;
    for (int64_t i = 0; i <= s.repeats && !interrupted(); ++i) {
        session.complete(text, {.temperature = 0, .max_tokens = 1});   // fills the cache: what is timed starts after it
        const int64_t before = model.backend().work().bytes;
        session.complete(text, {.temperature = 0, .max_tokens = s.generate});
        const qlora::SessionStats t =
            session.stats();    // one token of the prompt and all of the reply but its last went through the model
        if (t.reply_tokens < 1)
            throw qlora::Error(qlora::Errc::argument,
                               "the model gives no answer to measure; use another model or --synthetic SHAPE");
        const double bytes = double(model.backend().work().bytes - before);
        peak = std::max(peak, machine.bytes(bytes / double(t.reply_tokens)));
        if (i > 0) rounds.push_back({t.prompt_seconds + t.reply_seconds, t.reply_tokens, bytes});
    }
    if (position != 16) name += " at " + std::to_string(position);
    return row_of(std::move(name), std::to_string(s.generate) + " tokens", "GB/s", std::move(rounds), peak);
}

// `count` sequences together; tokens of all of them.
static Row measure_batch(const Settings& s, const qlora::Model& model, const Machine& machine, int64_t count) {
    const qlora::Tokens prompt = model.tokenizer().encode(text_of(model.tokenizer(), 16));
    const qlora::SessionOptions held = session_options(int64_t(prompt.size()) + s.generate + 8, s.cache);
    qlora::Batch batch(model, {.slots = count, .context = held.context, .cache = held.cache});
    std::vector<Round> rounds;
    double peak = 0;
    for (int64_t i = 0; i <= s.repeats && !interrupted(); ++i) {
        std::vector<int64_t> slots;
        for (int64_t n = 0; n < count; ++n)
            slots.push_back(batch.add(prompt, {.temperature = 0, .max_tokens = s.generate}));
        const int64_t before = model.backend().work().bytes;
        const auto start = std::chrono::steady_clock::now();
        while (batch.step()) {}
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        const double bytes = double(model.backend().work().bytes - before);
        int64_t tokens = 0;
        for (const int64_t slot : slots) tokens += batch.remove(slot).stats.reply_tokens;
        peak = std::max(peak, machine.bytes(bytes * double(count) / double(tokens)));
        if (i > 0) rounds.push_back({seconds, tokens, bytes});
    }
    return row_of("batch of " + std::to_string(count), std::to_string(s.generate) + " tokens each", "GB/s",
                  std::move(rounds), peak);
}

static Row measure_training(const Settings& s, const qlora::Model& model, const Machine& machine) {
    const fs::path file = fs::temp_directory_path() / ("qlora-bench-" + std::to_string(::getpid()) + ".txt");
    qlora::write_file_atomic(file.string(), text_of(model.tokenizer(), s.train * (s.repeats + 2)));
    const qlora::Dataset data =
        qlora::Dataset::load(file.string(), model, {.context = s.train, .loss = qlora::Loss::all});
    fs::remove(file);
    qlora::Trainer trainer(qlora::Lora::create(model, {.rank = s.rank}), data,
                           {.max_steps = s.repeats + 2, .accumulate = 1, .context = s.train});
    std::vector<Round> rounds;
    double peak = 0;
    // one more than is asked for, as a row may be the short rest of the text
    for (int64_t i = 0; i <= s.repeats + 1 && int64_t(rounds.size()) < s.repeats && !interrupted(); ++i) {
        peak = std::max(peak, machine.operations(true));
        const int64_t before = model.backend().work().operations;
        if (!trainer.step()) break;
        const qlora::TrainStep& t = trainer.last();
        if (i > 0 && t.seconds > 0 && t.tokens > s.train / 2)
            rounds.push_back({t.seconds, t.tokens, double(model.backend().work().operations - before)});
    }
    return row_of("training", "rank " + std::to_string(s.rank) + ", " + std::to_string(s.train) + " tokens", "GFLOP/s",
                  std::move(rounds), peak);
}

static std::vector<int64_t> numbers_of(const char* flag, const std::string& list) {
    std::vector<int64_t> numbers;
    for (size_t at = 0; at <= list.size();) {
        const size_t end = std::min(list.find(',', at), list.size());
        const std::string item = list.substr(at, end - at);
        if (item.empty() || item.size() > 7 || item.find_first_not_of("0123456789") != item.npos ||
            std::stoll(item) < 1)
            throw UsageError(std::string(flag) + " takes numbers such as 16,1024, not \"" + list + "\"");
        numbers.push_back(std::stoll(item));
        at = end + 1;
    }
    return numbers;
}

static Json to_json(const Row& row) {
    return Json{}
        .set("name", row.name)
        .set("work", row.work)
        .set("tokens_per_second", row.median)
        .set("least", row.least)
        .set("most", row.most)
        .set("unit", row.unit)
        .set("achieved", row.achieved)
        .set("peak", row.peak)
        .set("share", row.share());
}

// The speed of a row in a file that --json wrote, or 0.
static double speed_in(const Json& old, const std::string& name) {
    const Json* rows = old.find("rows");
    if (!rows || !rows->is_array()) return 0;
    for (const Json& row : rows->array()) {
        const Json *row_name = row.find("name"), *speed = row.find("tokens_per_second");
        if (row_name && row_name->is_string() && row_name->string() == name && speed && speed->is_number())
            return speed->number();
    }
    return 0;
}

static void print(const Row& row, const Json* old) {
    std::printf("%-20s %-24s %10.1f  (%.1f to %.1f) %10.1f", row.name.c_str(), row.work.c_str(), row.median, row.least,
                row.most, row.achieved);
    if (row.peak > 0) std::printf(" of %.1f %s %4.0f%%", row.peak, row.unit, row.share() * 100);
    else std::printf(" %s", row.unit);
    if (const double before = old ? speed_in(*old, row.name) : 0; before > 0)
        std::printf("  %.2f times %.1f", row.median / before, before);
    else if (old) std::printf("  (no such row in the old file)");
    std::printf("\n");
    std::fflush(stdout);
}

static Machine machine_of(const Settings& s, const qlora::Model& model) {
    const std::string name = model.backend().name();   // "cpu, 2 threads, avx512"
    const int threads = s.model.threads > 0 ? int(s.model.threads) : qlora::usable_threads();
    const size_t comma = name.rfind(", ");
    return {threads, comma == name.npos ? name : name.substr(comma + 2), model.backend().compute(),
            model.backend().gradients(), name.starts_with("cuda")};
}

static void declare(Settings& s, Flags& flags) {
    s.model.declare(flags, false, false);
    flags.choice("--synthetic", s.synthetic, synthetic_shapes(),
                 "random weights in the shape of a real model, instead of -m");
    flags.choice("--type", s.type, synthetic_types(), "with --synthetic: the type of its weights");
    declare_cache(flags, s.cache);
    flags.section("Measure");
    flags.add("--prompt-tokens", s.prompt, 1, 1 << 20, "tokens of the prompt");
    flags.add("--generate-tokens -n", s.generate, 1, 1 << 20, "tokens to generate");
    flags.add("--positions", s.positions, "LIST", "generate after texts of so many tokens, such as 16,1024,7900");
    flags.add("--batch", s.batches, "LIST", "also generate so many sequences together, such as 4,16");
    flags.add("--train-tokens", s.train, 8, 1 << 20, "tokens of a training row");
    flags.add("--lora-r --rank", s.rank, 1, 4096,
              "rank of the adapter that is trained, and that lies unmerged beside the weights in \"with an adapter\"");
    flags.add("--repeats", s.repeats, 1, 1000, "measured rounds after a first one that warms up; the median counts");
    flags.add("--folder", s.folder, "DIR", "where synthetic models are kept");
    flags.toggle("--json", s.json, "print one JSON object");
    flags.add("--compare", s.compare, "FILE",
              "what --json printed before: shows how many times as fast each row is now");
}

static int body(int argc, char** argv) {
    Settings s;
    Flags flags(
        "bench", "-m MODEL | --synthetic SHAPE [options]",
        "Measures prompt, generation and training speed, each beside a peak of this machine measured in the same run.");
    declare(s, flags);
    flags.parse(argc, argv);
    if (s.model.model.empty() == s.synthetic.empty()) throw UsageError("give either -m MODEL or --synthetic SHAPE");
    if (flags.given("--type") && s.synthetic.empty())
        throw UsageError("--type belongs to --synthetic; --quant nf4|fp4|none says how the weights of -m are held");
    const std::vector<int64_t> positions = numbers_of("--positions", s.positions);
    const std::vector<int64_t> batches = s.batches.empty() ? std::vector<int64_t>() : numbers_of("--batch", s.batches);
    const Json old = s.compare.empty() ? Json{} : Json::parse(qlora::read_file(s.compare), s.compare);
    catch_interrupts();
    if (!s.synthetic.empty()) {
        s.model.model = synthetic_model(s.synthetic, s.type, s.folder);
        s.model.quant = s.type == "nf4" || s.type == "fp4" ? s.type : "none";
    }
    s.model.threads = chosen_threads(s.model.threads, s.model.force_threads);
    const qlora::Model model = s.model.load();
    const Machine machine = machine_of(s, model);
    if (!s.json)
        std::printf("%s\n%-20s %-24s %10s  %-20s %s\n", base_line(model).c_str(), "", "", "tokens/s", "(least to most)",
                    "achieved of the peak here and now");

    Json rows = Json::Array{};
    const auto take = [&](const Row& row) {
        if (interrupted()) return;
        rows.push(to_json(row));
        if (!s.json) print(row, s.compare.empty() ? nullptr : &old);
    };
    take(measure_prompt(s, model, machine));
    for (const int64_t position : positions) take(measure_generation(s, model, model, machine, position, "generation"));
    for (const int64_t count : batches) take(measure_batch(s, model, machine, count));
    const qlora::Lora adapter = qlora::Lora::create(model, {.rank = s.rank});
    take(measure_generation(s, adapter, model, machine, positions[0], "with an adapter"));
    take(measure_training(s, model, machine));
    if (interrupted()) return 128 + interrupted();
    if (s.json)
        std::printf("%s\n", Json{}
                                .set("model", s.model.model)
                                .set("weights", model.info().weights)
                                .set("backend", model.backend().name())
                                .set("threads", int64_t(machine.threads))
                                .set("compute", std::string(qlora::name_of(machine.compute)))
                                .set("cache", s.cache)
                                .set("version", QLORA_VERSION_STRING)
                                .set("rows", rows)
                                .dump()
                                .c_str());
    return 0;
}

int main(int argc, char** argv) {
    return run("bench", [&] { return body(argc, argv); });
}
