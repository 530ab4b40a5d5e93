// evaluate.cpp - measures a model, with or without an adapter: perplexity of a text, loss of dialogues, accuracy on
// multiple choice. What FILE holds decides which: plain text; rows that finetune reads; or rows {query, choices, gold}.
#include "examples/common/held_out.h"
#include "examples/common/interrupt.h"
#include "examples/common/load.h"
#include "examples/common/rows.h"
#include "examples/common/terminal.h"

#include <cmath>
#include <cstdio>
#include <filesystem>

using namespace program;
using qlora::Json;

struct Settings {
    ModelFlags model;
    std::string data;
    RowFlags rows;
    int64_t context = 512, stride = 256, limit = 0, max_seq_len = 1024;
    bool json = false;
};

// the next line that is not blank; empty at the end
static std::string next_line(const std::string& text, size_t& from) {
    while (from < text.size()) {
        const size_t to = std::min(text.find('\n', from), text.size());
        std::string line = text.substr(from, to - from);
        from = to + 1;
        if (line.find_first_not_of(" \t\r\xEF\xBB\xBF") != std::string::npos) return line;
    }
    return {};
}

static bool ends_with(const std::string& path, const std::string& ending) {
    return path.size() >= ending.size() && path.compare(path.size() - ending.size(), ending.size(), ending) == 0;
}

static bool is_choices(const std::string& path, const std::string& text) {
    if (!ends_with(path, ".jsonl")) return false;
    size_t from = 0;
    const std::string line = next_line(text, from);
    if (line.empty()) return false;
    const Json row = Json::parse(line, path + ": line 1");
    return row.find("query") && row.find("choices");
}

static Json choices(const Settings& s, const Loaded& loaded, const std::string& text) {
    int64_t right = 0, count = 0, number = 0;
    Progress progress(2);
    for (size_t from = 0; from < text.size() && (s.limit == 0 || count < s.limit) && !interrupted();) {
        const size_t to = std::min(text.find('\n', from), text.size());
        const std::string line = text.substr(from, to - from), where = s.data + ": line " + std::to_string(++number);
        from = to + 1;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const Json row = Json::parse(line, where);
        const Json *query = row.find("query"), *list = row.find("choices"), *gold = row.find("gold");
        if (!query || !list || !gold)
            throw qlora::Error(qlora::Errc::format, where + ": needs query, choices and gold");
        std::vector<std::string> answers;
        for (const Json& choice : list->as_array(where + ": choices"))
            answers.push_back(choice.as_string(where + ": choices"));
        const int64_t truth = gold->as_int(where + ": gold");
        if (answers.empty() || truth < 0 || truth >= int64_t(answers.size()))
            throw qlora::Error(qlora::Errc::format, where + ": gold is " + std::to_string(truth) + " of " +
                                                        std::to_string(answers.size()) + " choices, counted from 0");
        const std::string& question = query->as_string(where + ": query");
        try {
            right += loaded.with([&](const auto& m) { return qlora::best_choice(m, question, answers); }) == truth;
        } catch (const qlora::Error&) {
            if (interrupted()) break;                  // the accuracy so far is printed
            throw;
        }
        ++count;
        if (progress.live()) progress.update(std::to_string(count) + " questions, " + std::to_string(right) + " right");
    }
    if (progress.live()) progress.update("");
    if (count == 0) throw qlora::Error(qlora::Errc::format, s.data + " holds no questions");
    const double share = double(right) / double(count);
    return Json{}
        .set("kind", "choices")
        .set("accuracy", share)
        .set("standard_error", std::sqrt(share * (1 - share) / double(count)))
        .set("right", right)
        .set("questions", count);
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

static void print(const Json& r) {
    const auto real = [&](const char* key) { return r.find(key)->number(); };
    const auto whole = [&](const char* key) { return static_cast<long long>(r.find(key)->integer()); };
    const std::string& kind = r.find("kind")->string();
    if (kind == "choices")
        std::printf("accuracy %.4f +- %.4f (%lld of %lld)\n", real("accuracy"), real("standard_error"), whole("right"),
                    whole("questions"));
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
    Flags flags("evaluate", "-m MODEL [--adapter DIR] --data FILE [options]",
                "Measures a model: perplexity of a text, loss of dialogues, accuracy on {query, choices, gold}.");
    s.model.declare(flags, true);
    flags.section("Measure");
    flags
        .add("-f --data --file", s.data, "FILE",
             "plain text; rows as finetune reads them; or rows {query, choices, gold}")
        .required();
    flags.add("-c --context --ctx-size", s.context, 2, 1 << 20, "of a text: tokens a window sees");
    flags.add("--stride", s.stride, 1, 1 << 20, "of a text: tokens each window scores, all but the first");
    flags.add("--max-seq-len --max-seq-length", s.max_seq_len, 8, 1 << 20, "of rows: tokens at most");
    s.rows.declare(flags);
    flags.add("--limit", s.limit, 0, int64_t(1) << 40, "of choices: questions at most; 0 = all");
    flags.toggle("--json", s.json, "print one JSON object");
    flags.parse(argc, argv);
    if (s.stride > s.context) throw UsageError("--stride must not be above --context");
    s.model.follow_adapter(flags);
    catch_interrupts();
    const qlora::StopScope stoppable(go_on);

    const bool rows = holds_rows(s.data);
    // a missing file is told before the model loads
    const std::string text = std::filesystem::is_directory(s.data) ? "" : qlora::read_file(s.data);
    if (!rows && text.empty()) throw qlora::Error(qlora::Errc::format, s.data + " is empty");
    const bool multiple_choice = rows && is_choices(s.data, text);
    const Loaded loaded(s.model);
    if (const int64_t own = loaded.model.info().context; own < s.context && !flags.given("--context")) {
        s.context = own;
        s.stride = std::min(s.stride, own / 2);
    }
    Json result = multiple_choice ? choices(s, loaded, text)
                  : rows          ? dialogues(s, loaded)
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
