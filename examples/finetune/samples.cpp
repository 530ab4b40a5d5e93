// samples.cpp - two answers of the model, before and after.
#include "examples/finetune/samples.h"

#include "examples/common/interrupt.h"

#include <algorithm>

namespace program {

constexpr int64_t most_tokens = 60;                    // of an answer: a few lines
constexpr size_t most_bytes = 300;

// One line of at most so many bytes, the end of the text or its beginning.
static std::string shown(const std::string& text, bool end) {
    const auto inside = [&](size_t at) {
        return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
    };
    if (text.size() <= most_bytes) return one_line(text);
    size_t at = end ? text.size() - most_bytes : most_bytes;
    while (at > 0 && inside(at)) --at;
    return end ? "... " + one_line(text.substr(at)) : one_line(text.substr(0, at)) + " ...";
}

std::vector<Sample> pick_samples(const Data& data, const qlora::Tokenizer& tokenizer, size_t count) {
    const qlora::Dataset& rows = data.held_out ? *data.held_out : data.train;
    const int64_t size = rows.info().rows;
    std::vector<Sample> samples;
    for (int64_t row = 0; row < size && samples.size() < count; row += std::max<int64_t>(1, size / int64_t(count))) {
        const qlora::Rendered r = rows.row(row);
        const auto first = std::find(r.trained.begin(), r.trained.end(), uint8_t(1));
        const auto last = std::find(first, r.trained.end(), uint8_t(0));
        if (first == r.trained.begin() || first == r.trained.end()) continue;
        const size_t begin = size_t(first - r.trained.begin()), end = size_t(last - r.trained.begin());
        Sample& sample = samples.emplace_back();
        sample.prompt.assign(r.tokens.begin(), r.tokens.begin() + int64_t(begin));
        sample.question = shown(tokenizer.decode(sample.prompt), true);
        sample.expected = shown(tokenizer.decode(std::span(r.tokens).subspan(begin, end - begin)), false);
    }
    return samples;
}

std::string answer(const qlora::Lora& lora, const Sample& sample) {
    qlora::Sampling greedy;
    greedy.temperature = 0;
    greedy.max_tokens = most_tokens;
    qlora::Session session(lora, {.context = int64_t(sample.prompt.size()) + most_tokens});
    const auto go_on = [](std::string_view) { return interrupted() == 0; };
    return shown(session.complete(sample.prompt, greedy, go_on).text, false);
}

}  // namespace program
