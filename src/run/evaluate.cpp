// evaluate.cpp - every measure is the loss of some documents with some of their tokens marked.
#include "src/run/evaluate.h"

#include "src/base/stop.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace evaluate_room {

void check_tokens(std::span<const Token> tokens, const ModelImpl& model, const char* what) {
    for (const Token t : tokens)
        if (t < 0 || t >= model.config.vocabulary)
            fail(Errc::argument, what, ": token ", t, " is outside the vocabulary of ", model.config.vocabulary);
}

}  // namespace evaluate_room

DecoderPool measuring_pool(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora) {
    DecoderSpec spec;
    spec.output = DecoderSpec::Output::loss;
    return {std::move(model), lora, spec};
}

LossSum loss_of(DecoderPool& pool, std::span<const Document> documents, int64_t rows,
                const std::function<bool()>& go_on) {
    LossSum sum;
    for (size_t first = 0; first < documents.size();) {
        if (go_on && !go_on()) cancelled("evaluate");
        check_stop();
        int64_t count = int64_t(documents[first].tokens.size());
        size_t last = first + 1;
        while (last < documents.size() && count + int64_t(documents[last].tokens.size()) <= rows)
            count += int64_t(documents[last++].tokens.size());
        Decoder& decoder = pool.at(count);
        const DecoderBatch batch = lay_out(documents.subspan(first, last - first), decoder.spec().rows);
        decoder.run(batch);
        const std::vector<float> nll = decoder.nll();
        for (size_t i = 0; i < nll.size(); ++i) {
            if (batch.targets[i] < 0) continue;
            sum.nll += double(nll[i]);
            ++sum.tokens;
        }
        first = last;
    }
    return sum;
}

double dataset_loss(DecoderPool& pool, const DatasetImpl& data, int64_t context, const std::function<bool()>& go_on) {
    std::vector<Document> documents;
    int64_t longest = 0, total = 0;
    for (int64_t row = 0; row < data.size(); ++row) {
        Document d{data.tokens(row), data.trained(row)};
        if (context > 0 && int64_t(d.tokens.size()) > context)
            d = {d.tokens.first(size_t(context)), d.trained.first(size_t(context))};
        evaluate_room::check_tokens(d.tokens, pool.model(), "evaluate");
        longest = std::max(longest, int64_t(d.tokens.size()));
        total += int64_t(d.tokens.size());
        documents.push_back(d);
    }
    check_context(pool.model().config, longest, "evaluate");
    pool.at(std::max(longest, std::min<int64_t>(total, 1024)));
    const LossSum sum = loss_of(pool, documents, 1024, go_on);
    if (sum.tokens == 0) fail(Errc::argument, "evaluate: the data set has ", data.size(), " rows and no trained token");
    return sum.nll / double(sum.tokens);
}

Perplexity measure_perplexity(DecoderPool& pool, std::span<const Token> tokens, int64_t context, int64_t stride) {
    if (context < 2 || stride < 1 || stride >= context)
        fail(Errc::argument, "perplexity: context ", context, ", stride ", stride,
             "; expected context >= 2 and 1 <= stride < context");
    if (tokens.size() < 2) fail(Errc::argument, "perplexity: ", tokens.size(), " tokens; at least 2 are needed");
    evaluate_room::check_tokens(tokens, pool.model(), "perplexity");
    const int64_t count = int64_t(tokens.size()), own = pool.model().config.context;
    if (std::min(context, count) > own)
        fail(Errc::argument, "perplexity: context ", context, ", but the model was trained for ", own, " tokens; use ",
             own, " or less");
    pool.at(std::min(context, count));
    LossSum sum;
    int64_t scored = 1;                                // tokens before it are done; the first is never predicted
    for (int64_t begin = 0; scored < count; begin += stride) {
        const int64_t end = std::min(begin + context, count);
        std::vector<uint8_t> trained(size_t(end - begin), 0);
        std::fill(trained.begin() + (scored - begin), trained.end(), uint8_t(1));
        const Document window{tokens.subspan(size_t(begin), size_t(end - begin)), trained};
        const LossSum part = loss_of(pool, std::span(&window, 1));
        sum.nll += part.nll;
        sum.tokens += part.tokens;
        scored = end;
    }
    Perplexity result;
    result.tokens = sum.tokens;
    result.nll = sum.nll / double(sum.tokens);
    result.perplexity = std::exp(result.nll);
    return result;
}

int64_t choose_best(DecoderPool& pool, const TokenizerImpl& tokenizer, std::string_view query,
                    std::span<const std::string> choices) {
    if (choices.empty()) fail(Errc::argument, "best_choice: no choices");
    // The text may be a printed dialogue: its control tokens are control tokens, and the start of text is not put
    // before its own.
    const auto encode = [&](std::string_view text) { return encode_text(tokenizer, text, tokenizer.add_bos, true); };
    const Tokens asked = encode(query);
    int64_t best = -1;
    double best_score = 0;
    for (size_t c = 0; c < choices.size(); ++c) {
        if (choices[c].empty()) fail(Errc::argument, "best_choice: choice ", c, " is empty");
        const Tokens whole = encode(str(query, choices[c]));
        check_context(pool.model().config, int64_t(whole.size()), "best_choice");
        const size_t common = size_t(std::mismatch(asked.begin(), asked.end(), whole.begin(), whole.end()).second -
                                     whole.begin());
        std::vector<uint8_t> trained(whole.size(), 0);
        std::fill(trained.begin() + int64_t(common), trained.end(), uint8_t(1));
        const Document document{whole, trained};
        const LossSum sum = loss_of(pool, std::span(&document, 1));
        const double score = -sum.nll / double(choices[c].size());
        if (!std::isfinite(score))
            fail(Errc::numeric, "best_choice: the score of choice ", c, " is ", score,
                 "; the weights of the model or of the adapter are damaged");
        if (best < 0 || score > best_score) {
            best = int64_t(c);
            best_score = score;
        }
    }
    return best;
}

}}  // namespace qlora
