// measure.cpp - the rows or the text that an export is measured on.
#include "examples/export/measure.h"

#include "examples/common/held_out.h"

#include <filesystem>

namespace program {

static constexpr int64_t most_tokens = 4096;           // seconds on a small machine with a small model

// Prose, a list, code and numbers, so that no single habit of a model decides.
static constexpr const char* built_in_text =
    "The harbour was quiet when the first boats came in. Anna counted the crates twice, wrote 48 on the slate, and "
    "asked the old man what the storm "
    "had cost him. \"Two nets and a night's sleep,\" he said, \"but the engine held.\"\n\n"
    "Water boils at 100 degrees Celsius at sea level; every 300 metres higher it boils about one degree sooner. To "
    "make tea on a mountain:\n"
    "1. Warm the pot.\n2. Use one more spoon of leaves.\n3. Wait five minutes instead of three.\n\n"
    "for (int i = 0; i < n; ++i) {\n    if (values[i] > best) best = values[i];\n}\n\n"
    "Question: What is the capital of France?\nAnswer: The capital of France is Paris.\n";

void Measure::take_rows(qlora::Dataset rows, const std::string& what, const std::string& path) {
    const qlora::DatasetInfo all = rows.info();
    if (all.tokens > most_tokens && all.rows > 1)
        rows = rows.split(float(double(most_tokens) / double(all.tokens))).second;
    const int64_t count = rows.info().rows;
    name_ = std::to_string(count) + (count < all.rows ? " of " + std::to_string(all.rows) : "") + ' ' + what + " (" +
            path + ')';
    rows_ = std::move(rows);
}

std::optional<Measure> Measure::choose(const std::string& file, const std::string& adapter,
                                       const qlora::Tokenizer& tokenizer, std::string& reason) {
    Measure m;
    if (!file.empty() && holds_rows(file)) {
        m.take_rows(qlora::Dataset::load(file, tokenizer), "rows", file);
        return m;
    }
    if (!file.empty() || adapter.empty()) {
        m.tokens_ = tokenizer.encode(file.empty() ? built_in_text : qlora::read_file(file, 1 << 24), true);
        if (int64_t(m.tokens_.size()) > most_tokens) m.tokens_.resize(size_t(most_tokens));
        if (m.tokens_.size() < 2)
            throw qlora::Error(qlora::Errc::argument, file + " holds " + std::to_string(m.tokens_.size()) +
                                                          " tokens; at least 2 are needed to measure");
        m.name_ = std::to_string(m.tokens_.size()) + " tokens of " + (file.empty() ? "a short built-in text" : file);
        return m;
    }
    const HeldOut h = read_held_out(adapter);
    if (h.paths.empty()) {
        reason = adapter + " records no held-out rows";
        return {};
    }
    std::string names;
    for (const std::string& path : h.paths) {
        if (!std::filesystem::is_regular_file(path) && !std::filesystem::is_directory(path)) {
            reason = "the run's held-out rows, " + path + ", are not there";
            return {};
        }
        names += (names.empty() ? "" : ", ") + path;
    }
    m.take_rows(load_held_out(h, tokenizer), "held-out rows of the run", names);
    return m;
}

}  // namespace program
