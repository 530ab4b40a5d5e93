// score.cpp - continuations of one prompt: it is read once, its keys and values stay in a cache, and each continuation
// is run behind it. Keys and values are held in f32, so that the sums are those of the whole texts.
#include "src/run/score.h"

#include "src/base/stop.h"
#include "src/model/dialogue.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace score_room {

class Reader {
public:
    Reader(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora, int64_t capacity)
        : cache_(make_cache(*model, capacity)), decoders_(model, lora, spec()) {
        decoders_.at(std::min(capacity, most_chunk));
    }
    // Token i, of a text of `length` tokens, goes to position `at` + i; the sum over its targets, where they are not
    // negative.
    double read(std::span<const Token> tokens, int64_t at, int64_t length, std::span<const int32_t> targets) {
        double sum = 0;
        length_ = length;
        for (size_t first = 0; first < tokens.size(); first += size_t(most_chunk)) {
            const size_t count = std::min(tokens.size() - first, size_t(most_chunk));
            sum += piece(tokens.subspan(first, count), at + int64_t(first), targets.subspan(first, count));
        }
        return sum;
    }
private:
    DecoderSpec spec() const {
        DecoderSpec s;
        s.output = DecoderSpec::Output::loss;
        s.cache = &cache_;
        return s;
    }
    double piece(std::span<const Token> tokens, int64_t at, std::span<const int32_t> targets) {
        check_stop();
        Decoder& decoder = decoders_.at(int64_t(tokens.size()));
        DecoderBatch b;
        append_cached(b, tokens, at, 0, length_);
        b.targets.assign(targets.begin(), targets.end());
        pad(b, decoder.spec().rows);
        decoder.run(b);
        const std::vector<float> nll = decoder.nll();
        double sum = 0;
        for (size_t i = 0; i < tokens.size(); ++i) sum -= targets[i] < 0 ? 0 : double(nll[i]);
        return sum;
    }
    KvCache cache_;
    int64_t length_ = 0;
    DecoderPool decoders_;
};

void check_tokens(const ModelImpl& model, std::span<const Token> tokens) {
    for (const Token t : tokens)
        if (t < 0 || t >= model.config.vocabulary)
            fail(Errc::argument, "score: token ", t, " is outside the vocabulary of ", model.config.vocabulary);
}

}  // namespace score_room

std::vector<double> score_continuations(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora,
                                        std::span<const Token> prompt, std::span<const Continuation> continuations) {
    if (prompt.empty()) fail(Errc::argument, "score: the prompt is empty; give it the start-of-text token at least");
    score_room::check_tokens(*model, prompt);
    size_t longest = 0;
    for (size_t i = 0; i < continuations.size(); ++i) {
        if (continuations[i].tokens.empty()) fail(Errc::argument, "score: continuation ", i, " is empty");
        score_room::check_tokens(*model, continuations[i].tokens);
        longest = std::max(longest, continuations[i].tokens.size());
    }
    if (continuations.empty()) return {};
    check_context(model->config, int64_t(prompt.size() + longest), "score");
    score_room::Reader reader(model, lora, int64_t(prompt.size() + longest));
    const size_t before = prompt.size() - 1;           // the last one predicts the first of each continuation
    std::vector<double> scores;
    std::optional<bool> turned;                        // the keys of the prompt are those of a long text
    for (size_t c = 0; c < continuations.size(); ++c) {
        const Continuation& to = continuations[c];
        Tokens tokens{prompt.back()};
        tokens.insert(tokens.end(), to.tokens.begin(), to.tokens.end() - 1);
        std::vector<int32_t> targets(to.tokens.begin(), to.tokens.end());
        for (size_t i = 0; i < to.counted.size(); ++i)
            if (!to.counted[i]) targets[i] = -1;
        const int64_t length = int64_t(before + tokens.size());
        if (const bool by = turns_long(model->config, length); turned != by) {
            reader.read(prompt.first(before), 0, length, std::vector<int32_t>(before, -1));
            turned = by;
        }
        scores.push_back(reader.read(tokens, int64_t(before), length, targets));
        if (!std::isfinite(scores.back()))
            fail(Errc::numeric, "score: the score of continuation ", c, " is ", scores.back(),
                 "; the weights of the model or of the adapter are damaged");
    }
    return scores;
}

std::vector<double> score_replies(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora,
                                  std::span<const Message> chat, std::span<const std::string> replies) {
    if (!model->tokenizer) fail(Errc::argument, "score: the model has no vocabulary; score tokens");
    if (replies.empty()) return {};
    const DialogueRenderer renderer(*model->tokenizer);
    std::vector<TrainingText> whole;
    size_t shared = SIZE_MAX;                          // tokens that all begin with, before any that counts
    for (size_t i = 0; i < replies.size(); ++i) {
        std::vector<Message> dialogue(chat.begin(), chat.end());
        dialogue.push_back({"assistant", replies[i]});
        whole.push_back(renderer.train({to_json(dialogue), {}}));
        const Turn& reply = whole[i].turns.back();
        if (reply.trained == 0)
            fail(Errc::argument, "score: the chat template prints nothing for reply ", i,
                 ", so there is nothing to score");
        const Tokens &a = whole[0].tokens, &b = whole[i].tokens;
        const size_t same = size_t(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
        shared = std::min({shared, same, size_t(reply.first), b.size() - 1});
    }
    if (shared == 0) fail(Errc::argument, "score: the chat template prints nothing before the reply");
    std::vector<Continuation> continuations;
    for (const TrainingText& text : whole) {
        Continuation& c = continuations.emplace_back();
        c.tokens.assign(text.tokens.begin() + int64_t(shared), text.tokens.end());
        c.counted.assign(text.trained.begin() + int64_t(shared), text.trained.end());
    }
    return score_continuations(std::move(model), lora, std::span(whole[0].tokens).first(shared), continuations);
}

std::vector<float> embed_texts(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora,
                               std::span<const std::string> texts, Pooling pooling, bool normalize) {
    if (!model->tokenizer) fail(Errc::argument, "embeddings: the model has no vocabulary");
    if (pooling != Pooling::mean && pooling != Pooling::last)
        fail(Errc::argument, "embeddings: pooling ", int(pooling), " is neither mean nor last");
    const TokenizerImpl& words = *model->tokenizer;
    const size_t hidden = size_t(model->config.hidden);
    DecoderSpec spec;
    spec.output = DecoderSpec::Output::hidden;
    DecoderPool decoders(model, lora, spec);
    std::vector<Tokens> all;
    size_t longest = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
        check_stop();
        all.push_back(encode_text(words, texts[i], words.add_bos, false));
        if (all[i].empty()) fail(Errc::argument, "embeddings: text ", i, " has no tokens");
        longest = std::max(longest, all[i].size());
    }
    check_context(model->config, int64_t(longest), "embeddings");
    if (longest > 0) decoders.at(int64_t(longest));    // the others share its arena
    std::vector<float> out;
    for (size_t i = 0; i < texts.size(); ++i) {
        check_stop();
        const Tokens& tokens = all[i];
        Decoder& decoder = decoders.at(int64_t(tokens.size()));
        const Document document{tokens, {}};
        decoder.run(lay_out(std::span(&document, 1), decoder.spec().rows));
        const std::vector<float> states = decoder.hidden();
        const size_t first = pooling == Pooling::mean ? 0 : tokens.size() - 1;
        std::vector<double> sum(hidden, 0.0);
        for (size_t row = first; row < tokens.size(); ++row)
            for (size_t k = 0; k < hidden; ++k) sum[k] += double(states[row * hidden + k]);
        double factor = 1 / double(tokens.size() - first), squares = 0;
        for (const double v : sum) squares += v * v;
        if (!std::isfinite(squares))
            fail(Errc::numeric, "embeddings: a hidden state of text ", i,
                 " is not finite; the weights of the model or of the adapter are damaged");
        if (normalize) factor = squares > 0 ? 1 / std::sqrt(squares) : 0;
        for (const double v : sum) out.push_back(float(v * factor));
    }
    return out;
}

}}  // namespace qlora
