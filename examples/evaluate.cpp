// evaluate.cpp - measures a model, with or without an adapter: perplexity of a text, loss of dialogues, accuracy on
// questions. What FILE holds decides which: plain text; rows that finetune reads; or questions (evaluate/tasks.h). With
// --answers it answers a file of questions. Its rooms are in examples/evaluate: task_rows (forms of questions), tasks
// (what is right), replies (many answers together).
#include "examples/common/held_out.h"
#include "examples/common/interrupt.h"
#include "examples/common/load.h"
#include "examples/common/rows.h"
#include "examples/evaluate/replies.h"
#include "examples/evaluate/tasks.h"

#include <cmath>
#include <cstdio>
#include <filesystem>

using namespace program;
using qlora::Json;

struct Settings {
    ModelFlags model;
    std::string data;
    RowFlags rows;
    int64_t context = 512, stride = 256, limit = 0, max_seq_len = 1024, shots = 0;
    qlora::Sampling sampling{.temperature = 0};
    std::string answers, system, measure = "auto";
    bool json = false;
};

// The rows' answers, one JSON object a line, beside the result.
static Json measure_task(const Settings& s, const Loaded& loaded, const Task& task) {
    std::string lines;
    const TaskOptions options{
        .shots = s.shots, .limit = s.limit, .max_tokens = s.sampling.max_tokens, .on_row = [&](const Json& row) {
            lines += row.dump() + '\n';
        }};
    const Json result = run_task(task, loaded, options);
    if (!s.answers.empty()) qlora::write_file_atomic(s.answers, lines);
    return result;
}

static Json text_perplexity(const Settings& s, const Loaded& loaded, const std::string& text) {
    const qlora::Tokenizer tokenizer = loaded.model.tokenizer();
    const qlora::Tokens tokens = tokenizer.encode(text, true, reads_control(s.rows.special));
    if (int64_t(tokens.size()) < s.context)
        throw qlora::Error(qlora::Errc::argument,
                           s.data + " holds " + std::to_string(tokens.size()) + " tokens, fewer than one context of " +
                               std::to_string(s.context) + "; use --context " +
                               std::to_string(std::max<size_t>(8, tokens.size())) + " or a longer text");
    const qlora::Perplexity p = loaded.with(
        [&](const auto& m) { return qlora::perplexity(m, tokens, s.context, s.stride); });
    return Json{}
        .set("kind", "text")
        .set("perplexity", p.perplexity)
        .set("loss", p.nll)
        .set("tokens", p.tokens)
        .set("context", s.context)
        .set("stride", s.stride);
}

static Json dialogues(const Settings& s, const Loaded& loaded) {
    s.rows.warn();
    const qlora::Dataset data = qlora::Dataset::load(s.data, loaded.model, s.rows.options(s.max_seq_len));
    const double loss = loaded.with([&](const auto& m) { return qlora::evaluate(m, data); });
    const qlora::DatasetInfo info = data.info();
    return Json{}
        .set("kind", "dialogues")
        .set("format", info.format)
        .set("loss", loss)
        .set("perplexity", std::exp(loss))
        .set("tokens", info.trained_tokens)
        .set("rows", info.rows)
        .set("truncated", info.truncated);
}

static Json answered(const Settings& s, const Loaded& loaded, const std::string& text) {
    const int64_t rows = answer_file(loaded, s.data, text, s.sampling, s.limit, s.answers, s.system);
    return Json{}.set("kind", "answered").set("rows", rows).set("file", s.answers);
}

static void print(const Json& r) {
    const auto real = [&](const char* key) { return r.find(key)->number(); };
    const auto whole = [&](const char* key) { return static_cast<long long>(r.find(key)->integer()); };
    const std::string& kind = r.find("kind")->string();
    if (r.find("accuracy"))
        std::printf("accuracy %.4f +- %.4f (%lld of %lld)\n", real("accuracy"), real("standard_error"), whole("right"),
                    whole("questions"));
    else if (kind == "answered")
        std::printf("%lld rows answered, in %s\n", whole("rows"), r.find("file")->string().c_str());
    else if (kind == "text")
        std::printf("perplexity %.4f, loss %.4f (%lld tokens, context %lld, stride %lld)\n", real("perplexity"),
                    real("loss"), whole("tokens"), whole("context"), whole("stride"));
    else
        std::printf("loss %.4f, perplexity %.4f (%lld rows, %lld tokens)\n", real("loss"), real("perplexity"),
                    whole("rows"), whole("tokens"));
}

// A number that is none must not end as a success: scripts read the exit status.
static void check_finite(const Json& result) {
    const Json* loss = result.find("loss");
    if (!loss || std::isfinite(loss->number())) return;
    throw qlora::Error(
        qlora::Errc::numeric,
        "the loss is not a number: the weights of the model or of the adapter hold values that are not finite");
}

static int body(int argc, char** argv) {
    Settings s;
    Flags flags(
        "evaluate", "-m MODEL [--adapter DIR] --data FILE [options]",
        "Measures a model: perplexity of a text, loss of dialogues, accuracy on questions; or answers a file of "
        "questions.");
    s.model.declare(flags, true);
    flags.section("Measure");
    flags
        .add("-f --data --file", s.data, "FILE",
             "plain text; rows as finetune reads them; or questions: {query, choices, gold}, {context_options, "
             "continuation, gold}, {context, continuation}, {subject, input, output}, {question, answer}, and as MMLU, "
             "PIQA and ARC are distributed")
        .required();
    flags.add("-c --context --ctx-size", s.context, 2, 1 << 20, "of a text: tokens a window sees");
    flags.add("--stride", s.stride, 1, 1 << 20, "of a text: tokens each window scores, all but the first");
    flags.add("--max-seq-len --max-seq-length", s.max_seq_len, 8, 1 << 20, "of rows: tokens at most");
    s.rows.declare(flags);
    flags.section("Questions");
    flags.choice("--measure", s.measure, {"auto", "loss", "accuracy"},
                 "of {question, answer}: loss, unless --shots is given; of the others accuracy. An answer is right if "
                 "the reply or its first line is the same but for capitals, punctuation and white space");
    flags.add("--shots --num-fewshot", s.shots, 0, 1000,
              "solved questions of the file shown before each of the others");
    flags.add("--limit", s.limit, 0, int64_t(1) << 40, "questions at most; 0 = all");
    flags.add("--answers", s.answers, "FILE",
              "write what the model says to each row, one JSON object a line; of rows without a known answer ({text}, "
              "{prompt}, {turns}, ...) that is all that is done");
    flags.add("-n --max-tokens --max-new-tokens", s.sampling.max_tokens, 1, int64_t(1) << 40, "of an answer at most");
    flags.add("--temp --temperature", s.sampling.temperature, 0, 100, "of --answers: 0 = always the likeliest token");
    flags.add("--top-p", s.sampling.top_p, 0, 1, "of --answers");
    flags.add("--seed", s.sampling.seed, "of --answers");
    flags.add("-sys --system-prompt", s.system, "TEXT", "of --answers: system text before each question");
    flags.toggle("--json", s.json, "print one JSON object");
    flags.take_config();
    flags.parse(argc, argv);
    if (!flags.given("--stride")) s.stride = std::min(s.stride, (s.context + 1) / 2);
    if (s.stride > s.context) throw UsageError("--stride must not be above --context");
    s.model.follow_adapter(flags);
    catch_interrupts();
    const qlora::StopScope stoppable(go_on);

    const bool rows = holds_rows(s.data);
    // a missing file is told before the model loads
    const std::string text = std::filesystem::is_directory(s.data) ? "" : qlora::read_file(s.data);
    if (!rows && text.empty()) throw qlora::Error(qlora::Errc::format, s.data + " is empty");
    const bool accuracy = s.measure == "accuracy" || flags.given("--shots");
    const std::optional<Task> task = rows && s.measure != "loss" ? read_task(s.data, text, accuracy) : std::nullopt;
    if (accuracy && !task)
        throw qlora::Error(qlora::Errc::format,
                           s.data + ": holds no questions with answers; " + "--help lists the forms");
    const Loaded loaded(s.model);
    if (const int64_t own = loaded.model.info().context; own < s.context && !flags.given("--context")) {
        s.context = own;
        s.stride = std::min(s.stride, own / 2);
    }
    Json result = task                         ? measure_task(s, loaded, *task)
                  : rows && !s.answers.empty() ? answered(s, loaded, text)
                  : rows                       ? dialogues(s, loaded)
                                               : text_perplexity(s, loaded, text);
    check_finite(result);
    if (s.json) {
        result.set("model", s.model.model).set("adapter", s.model.adapter).set("weights", loaded.model.info().weights);
        if (!s.model.why.empty()) result.set("base", s.model.why);
        std::printf("%s\n", result.dump().c_str());
    } else {
        if (!s.model.why.empty()) std::printf("base: %s\n", s.model.why.c_str());
        print(result);
    }
    return interrupted() ? 128 + interrupted() : 0;
}

int main(int argc, char** argv) {
    return run("evaluate", [&] { return body(argc, argv); });
}
