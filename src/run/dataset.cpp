// dataset.cpp - examples to rows: rendered through the chat template, encoded, masked, cut to the context.
#include "src/run/dataset.h"

#include "src/base/file.h"
#include "src/base/rng.h"
#include "src/model/dialogue.h"

#include <algorithm>
#include <numeric>

namespace qlora::inline v0_1 {
namespace dataset_room {

constexpr uint64_t split_stream = 0x73706c6974;        // "split": apart from the streams that training draws from

void keep_last_run(std::vector<uint8_t>& trained) {
    size_t end = trained.size();
    while (end > 0 && !trained[end - 1]) --end;
    size_t begin = end;
    while (begin > 0 && trained[begin - 1]) --begin;
    std::fill(trained.begin(), trained.begin() + int64_t(begin), uint8_t(0));
}

// Brings tool calls into the form that the template prints: the field tool_calls where it knows that, else the call as text.
void tool_calls(Json& messages, bool template_knows) {
    for (Json& m : messages.array()) {
        const bool text_is_call = m.find("function_call") != nullptr;
        const Json* calls = m.find("tool_calls");
        if (!text_is_call && !calls) continue;
        std::string content = m.find("content")->string();
        Json plain = Json().set("role", "assistant");
        if (calls && template_knows) continue;
        if (calls) {
            for (const Json& call : calls->array()) {
                const Json* function = call.find("function");
                content += (content.empty() ? "" : "\n") + str("<tool_call>\n", (function ? *function : call).dump(), "\n</tool_call>");
            }
            plain.set("content", content);
        } else {
            bool parsed = false;
            if (template_knows) {
                try {
                    Json call = Json::parse(content, "function_call");
                    parsed = call.find("name") != nullptr;
                    if (parsed) plain.set("content", "").set("tool_calls", Json().push(Json().set("type", "function").set("function", std::move(call))));
                } catch (const Error&) {
                    parsed = false;                    // not JSON: kept as the text it is
                }
            }
            if (!parsed) plain.set("content", content);
        }
        m = std::move(plain);
    }
}

struct Builder {
    const TokenizerImpl& tokenizer;
    const DatasetOptions& options;
    DialogueRenderer renderer;
    DatasetRows rows;
    DatasetInfo info;

    Builder(const TokenizerImpl& t, const DatasetOptions& o) : tokenizer(t), options(o), renderer(t) {}

    void add_row(std::span<const Token> tokens, std::span<const uint8_t> trained) {
        const int64_t targets = trained_targets(trained);
        if (targets == 0) {
            ++info.dropped;
            return;
        }
        rows.tokens.insert(rows.tokens.end(), tokens.begin(), tokens.end());
        rows.trained.insert(rows.trained.end(), trained.begin(), trained.end());
        rows.begin.push_back(int64_t(rows.tokens.size()));
        ++info.rows;
        info.tokens += int64_t(tokens.size());
        info.trained_tokens += targets;
        info.longest = std::max(info.longest, int64_t(tokens.size()));
    }

    // Text is cut into pieces; the last token of a piece is the first of the next, so that every token is predicted once.
    void add_text(std::string_view text) {
        Tokens tokens;
        if (tokenizer.add_bos && tokenizer.bos >= 0) tokens.push_back(tokenizer.bos);
        tokenizer.encode(text, tokens);
        if (tokenizer.eos >= 0 && !text.empty()) tokens.push_back(tokenizer.eos);
        const std::vector<uint8_t> trained(tokens.size(), 1);
        const int64_t count = int64_t(tokens.size());
        if (count < 2 || text.empty()) {
            ++info.dropped;
            return;
        }
        for (int64_t at = 0; at + 1 < count; at += options.context - 1) {
            const int64_t length = std::min(options.context, count - at);
            add_row(std::span(tokens).subspan(size_t(at), size_t(length)), std::span(trained).subspan(size_t(at), size_t(length)));
        }
    }

    void count_turns(const TrainingText& r) {
        for (const Turn& turn : r.turns) {
            if (!turn.assistant) continue;
            ++info.turns;
            info.trained_turns += turn.trained > 0;
            info.silent_turns += turn.begin == turn.end;
        }
    }

    Rendered print(Example& e) {
        if (e.plain && !renderer.own_template()) {
            Rendered r;
            if (tokenizer.add_bos && tokenizer.bos >= 0) r.tokens.push_back(tokenizer.bos);
            tokenizer.encode(e.prompt, r.tokens);
            r.trained.assign(r.tokens.size(), 0);
            tokenizer.encode(e.completion, r.tokens);
            if (tokenizer.eos >= 0) r.tokens.push_back(tokenizer.eos);
            r.trained.resize(r.tokens.size(), 1);
            return r;
        }
        tool_calls(e.messages, renderer.knows("tool_calls"));
        Dialogue dialogue{std::move(e.messages), {}};
        if (!e.tools.is_null()) dialogue.variables.set("tools", e.tools);
        TrainingText r = renderer.train(dialogue);
        count_turns(r);
        // A reply whose turn nothing closes would teach the model never to stop.
        const auto ends = [&](Token t) { return std::find(tokenizer.end_of_reply.begin(), tokenizer.end_of_reply.end(), t) != tokenizer.end_of_reply.end(); };
        if (!r.trained.empty() && r.trained.back() && !ends(r.tokens.back()) && tokenizer.eos >= 0) {
            r.tokens.push_back(tokenizer.eos);
            r.trained.push_back(1);
        }
        return r;
    }

    void add_dialogue(Example& e) {
        const bool labelled = e.plain ? !e.completion.empty() : std::any_of(e.messages.array().begin(), e.messages.array().end(), [](const Json& m) {
            return m.find("role")->string() == "assistant" && (!m.find("content")->string().empty() || m.find("tool_calls"));
        });
        if (!labelled) {
            ++info.dropped;
            return;
        }
        Rendered r = print(e);
        if (options.loss == Loss::completion) keep_last_run(r.trained);
        if (options.loss == Loss::all) std::fill(r.trained.begin(), r.trained.end(), uint8_t(1));
        if (int64_t(r.tokens.size()) > options.context) {
            ++info.truncated;
            r.tokens.resize(size_t(options.context));
            r.trained.resize(size_t(options.context));
        }
        add_row(r.tokens, r.trained);
    }
};

void load_text_file(Builder& builder, std::string_view text) {
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    std::string unix_lines;
    unix_lines.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i)
        if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') unix_lines += text[i];
    builder.info.format = "text";
    builder.add_text(unix_lines);
}

void load_records(Builder& builder, std::string_view text, const std::string& file) {
    int64_t first_line = 0;
    for (const Record& record : split_records(text, file)) {
        const std::string where = str("dataset ", file, ":", record.line);
        Example e = read_example(Json::parse(record.text, where), where);
        if (builder.info.format.empty()) {
            builder.info.format = e.format;
            first_line = record.line;
        }
        if (e.format != builder.info.format)
            fail(Errc::format, where, ": a record of format ", e.format, " in a file that began with ", builder.info.format, " (line ", first_line, "); use one format a file");
        try {
            if (e.is_text) builder.add_text(e.text);
            else builder.add_dialogue(e);
        } catch (const Error& error) {
            throw Error(error.code, str(where, ": ", error.what()));
        }
    }
}

DatasetInfo describe(const DatasetImpl& data, DatasetInfo info) {
    info.rows = data.size();
    info.tokens = info.trained_tokens = info.longest = 0;
    for (int64_t row = 0; row < data.size(); ++row) {
        const int64_t length = int64_t(data.tokens(row).size());
        info.tokens += length;
        info.trained_tokens += trained_targets(data.trained(row));
        info.longest = std::max(info.longest, length);
    }
    return info;
}

}  // namespace dataset_room

std::span<const Token> DatasetImpl::tokens(int64_t row) const {
    const int64_t r = index[size_t(row)], begin = rows->begin[size_t(r)];
    return std::span(rows->tokens).subspan(size_t(begin), size_t(rows->begin[size_t(r) + 1] - begin));
}

std::span<const uint8_t> DatasetImpl::trained(int64_t row) const {
    const int64_t r = index[size_t(row)], begin = rows->begin[size_t(r)];
    return std::span(rows->trained).subspan(size_t(begin), size_t(rows->begin[size_t(r) + 1] - begin));
}

uint64_t DatasetImpl::fingerprint() const {
    uint64_t h = hash_bytes(nullptr, 0, uint64_t(size()));
    for (int64_t row = 0; row < size(); ++row) {
        h = hash_bytes(tokens(row).data(), int64_t(tokens(row).size_bytes()), h);
        h = hash_bytes(trained(row).data(), int64_t(trained(row).size()), h);
    }
    return h;
}

int64_t trained_targets(std::span<const uint8_t> trained) {
    return trained.empty() ? 0 : std::count(trained.begin() + 1, trained.end(), uint8_t(1));
}

std::shared_ptr<const DatasetImpl> load_dataset(const std::string& path, std::shared_ptr<const TokenizerImpl> tokenizer, const DatasetOptions& options) {
    if (!tokenizer) fail(Errc::argument, "dataset ", path, ": the model has no tokenizer; load one with Tokenizer::load");
    if (options.context < 2) fail(Errc::argument, "dataset ", path, ": context ", options.context, "; a row needs at least 2 tokens");
    if (int(options.loss) < 0 || options.loss > Loss::all) fail(Errc::argument, "dataset ", path, ": loss ", int(options.loss), " is none of assistant, completion, all");
    const std::string file = dataset_file(path, options.split);
    const std::string text = read_file(file, int64_t(8) << 30);        // read whole; more than this is not trained on in one piece
    dataset_room::Builder builder(*tokenizer, options);
    if (file.ends_with(".txt")) dataset_room::load_text_file(builder, text);
    else dataset_room::load_records(builder, text, file);
    if (builder.info.rows == 0)
        fail(Errc::format, "dataset ", file, ": nothing to train on: ", builder.info.dropped, " records read, none has an answer within ", options.context,
            " tokens (", builder.info.truncated, " were cut); check the format, or raise the context");
    auto data = std::make_shared<DatasetImpl>();
    data->index.resize(size_t(builder.info.rows));
    std::iota(data->index.begin(), data->index.end(), int64_t(0));
    data->rows = std::make_shared<DatasetRows>(std::move(builder.rows));
    data->tokenizer = std::move(tokenizer);
    data->info = builder.info;
    return data;
}

std::pair<std::shared_ptr<const DatasetImpl>, std::shared_ptr<const DatasetImpl>> split_dataset(const DatasetImpl& data, float fraction, uint64_t seed) {
    if (!(fraction >= 0 && fraction <= 1)) fail(Errc::argument, "Dataset::split: fraction ", fraction, ", expected 0 to 1");
    std::vector<int64_t> order(data.index.size());
    std::iota(order.begin(), order.end(), int64_t(0));
    Rng rng{seed, dataset_room::split_stream, 0};
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[size_t(rng.below(i))]);
    // Asked for both parts, none may be empty: a tenth of four rows is one row.
    const size_t wanted = size_t(std::llround(double(fraction) * double(order.size())));
    const size_t held = fraction > 0 && fraction < 1 && order.size() > 1 ? std::clamp<size_t>(wanted, 1, order.size() - 1) : wanted;
    std::sort(order.begin(), order.begin() + int64_t(held));           // both parts keep the order of the file
    std::sort(order.begin() + int64_t(held), order.end());
    auto rest = std::make_shared<DatasetImpl>(data), part = std::make_shared<DatasetImpl>(data);
    rest->index.clear();
    part->index.clear();
    for (size_t i = 0; i < order.size(); ++i) (i < held ? part : rest)->index.push_back(data.index[size_t(order[i])]);
    rest->info = dataset_room::describe(*rest, data.info);
    part->info = dataset_room::describe(*part, data.info);
    return {rest, part};
}

}  // namespace qlora
