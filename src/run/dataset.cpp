// dataset.cpp - a file to rows, what there is to say about them, and their split.
#include "src/run/rows.h"

#include "src/base/file.h"
#include "src/base/rng.h"
#include "src/base/stop.h"

#include <algorithm>
#include <numeric>

namespace qlora {
inline namespace QLORA_ABI {
namespace dataset_room {

constexpr uint64_t split_stream = 0x73706c6974;        // "split": apart from the streams that training draws from

void load_text_file(RowBuilder& builder, std::string_view text) {
    std::string unix_lines;
    unix_lines.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i) {
        if ((i & 0xFFFFF) == 0) check_stop();
        if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') unix_lines += text[i];
    }
    builder.add_text(unix_lines);
}

// What a row itself may be the cause of; everything else ends the load.
bool is_of_the_row(const Error& error) {
    return error.code == Errc::format || error.code == Errc::unsupported || error.code == Errc::argument;
}

struct Loader {
    RowBuilder& builder;
    const DatasetOptions& options;
    const std::string& file;
    std::string format = {};
    int64_t first_line = 0;

    void add(const Record& record, const std::string& where) {
        Json row = record.text.empty() ? record.row : Json::parse(record.text, where);
        std::vector<std::string> unused;
        if (!options.columns.empty()) row = renamed_columns(row, options.columns, unused, where);
        std::vector<Example> examples = read_record(row, where);
        if (!examples.empty()) examples[0].unused.insert(examples[0].unused.end(), unused.begin(), unused.end());
        for (Example& e : examples) {
            if (format.empty()) {
                format = e.format;
                first_line = record.line;
            }
            if (e.format != format)
                fail(Errc::format, where, ": a record of format ", e.format, " in a file that began with ", format,
                     " (line ", first_line, "); use one format a file");
            try {
                builder.add(e);
            } catch (const Error& error) { throw Error(error.code, str(where, ": ", error.what())); }
        }
    }
    void load(std::string_view text) {
        std::vector<Record> records = split_records(text, file);
        if (options.columns.empty()) records = gather_trees(std::move(records), file);
        for (const Record& record : records) {
            check_stop();
            const std::string where = str("dataset ", file, ":", record.line);
            builder.at(str(file, ":", record.line));
            try {
                add(record, where);
            } catch (const Error& error) {
                if (!options.skip_bad_rows || !is_of_the_row(error)) throw;
                builder.add_bad(std::string(error.what()).substr(std::string_view("dataset ").size()));
            }
        }
    }
};

DatasetInfo describe(const DatasetImpl& data, DatasetInfo info) {
    info.rows = data.size();
    info.tokens = info.trained_tokens = info.longest = 0;
    info.turns = info.trained_turns = info.silent_turns = info.excluded_turns = info.cut_turns = 0;
    for (int64_t row = 0; row < data.size(); ++row) {
        const int64_t length = int64_t(data.tokens(row).size());
        info.tokens += length;
        info.trained_tokens += trained_targets(data.trained(row));
        info.longest = std::max(info.longest, length);
        if (data.rows->turns.empty()) continue;
        const TurnCounts& t = data.rows->turns[size_t(data.index[size_t(row)])];
        info.turns += t.turns;
        info.trained_turns += t.trained;
        info.silent_turns += t.silent;
        info.excluded_turns += t.excluded;
        info.cut_turns += t.cut;
    }
    return info;
}

// What was counted while the rows were read; describe() counts the rest.
void add_info(DatasetInfo& sum, const DatasetInfo& more) {
    if (sum.format.find(more.format) == std::string::npos)
        sum.format += (sum.format.empty() ? "" : " + ") + more.format;
    for (int64_t DatasetInfo::*count : {&DatasetInfo::truncated, &DatasetInfo::dropped, &DatasetInfo::templated,
                                        &DatasetInfo::control_tokens, &DatasetInfo::spelled, &DatasetInfo::long_dropped,
                                        &DatasetInfo::long_split, &DatasetInfo::bad, &DatasetInfo::merged_systems})
        sum.*count += more.*count;
    for (std::vector<std::string> DatasetInfo::*places :
         {&DatasetInfo::truncated_at, &DatasetInfo::dropped_at, &DatasetInfo::long_at, &DatasetInfo::bad_at})
        for (const std::string& place : more.*places)
            if ((sum.*places).size() < most_places) (sum.*places).push_back(place);
    for (const auto& [name, times] : more.unused) {
        const auto same = [&key = name](const auto& entry) { return entry.first == key; };
        const auto known = std::find_if(sum.unused.begin(), sum.unused.end(), same);
        if (known == sum.unused.end()) sum.unused.emplace_back(name, times);
        else known->second += times;
    }
}

void append_row(DatasetRows& rows, const DatasetImpl& data, int64_t row) {
    const auto tokens = data.tokens(row);
    const auto trained = data.trained(row);
    rows.tokens.insert(rows.tokens.end(), tokens.begin(), tokens.end());
    rows.trained.insert(rows.trained.end(), trained.begin(), trained.end());
    rows.begin.push_back(int64_t(rows.tokens.size()));
    rows.turns.push_back(data.rows->turns.empty() ? TurnCounts{} : data.rows->turns[size_t(data.index[size_t(row)])]);
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
        const float w = weight(row);
        if (weighted()) h = hash_bytes(&w, sizeof w, h);
    }
    return h;
}

int64_t trained_targets(std::span<const uint8_t> trained) {
    return trained.empty() ? 0 : std::count(trained.begin() + 1, trained.end(), uint8_t(1));
}

void check_dataset_options(const TokenizerImpl* tokenizer, const DatasetOptions& options, const std::string& from) {
    if (!tokenizer)
        fail(Errc::argument, "dataset ", from, ": the model has no tokenizer; load one with Tokenizer::load");
    if (options.context < 2)
        fail(Errc::argument, "dataset ", from, ": context ", options.context, "; a row needs at least 2 tokens");
    if (int(options.loss) < 0 || options.loss > Loss::all)
        fail(Errc::argument, "dataset ", from, ": loss ", int(options.loss), " is none of assistant, completion, all");
}

std::shared_ptr<const DatasetImpl> dataset_of(std::shared_ptr<const TokenizerImpl> tokenizer,
                                              const DatasetOptions& options, RowBuilder& builder,
                                              const std::string& format, const std::string& from) {
    DatasetInfo info = builder.info();
    info.format = format;
    if (info.rows == 0 && info.bad > 0)
        fail(Errc::format, "dataset ", from, ": nothing to train on: ", info.bad,
             " records are bad, the first: ", info.bad_at[0]);
    if (info.rows == 0 && info.long_dropped > 0)
        fail(Errc::format, "dataset ", from, ": nothing to train on: ", info.long_dropped, " records are longer than ",
             options.context, " tokens and were left out; raise the context, or cut or split them");
    if (info.rows == 0)
        fail(Errc::format, "dataset ", from, ": nothing to train on: ", info.dropped,
             " records read, none has an answer within ", options.context, " tokens (", info.truncated,
             " were cut); check the format, or raise the context");
    auto data = std::make_shared<DatasetImpl>();
    data->index.resize(size_t(info.rows));
    std::iota(data->index.begin(), data->index.end(), int64_t(0));
    data->rows = std::make_shared<DatasetRows>(builder.take_rows());
    data->tokenizer = std::move(tokenizer);
    data->info = dataset_room::describe(*data, info);
    return data;
}

std::shared_ptr<const DatasetImpl> load_dataset(const std::string& path, std::shared_ptr<const TokenizerImpl> tokenizer,
                                                const DatasetOptions& options) {
    check_dataset_options(tokenizer.get(), options, path);
    const std::string file = dataset_file(path, options.split);
    // read whole; more than this is not trained on in one piece
    const std::string text = dataset_text(read_file(file, int64_t(8) << 30), file);
    RowBuilder builder(*tokenizer, options);
    if (file.ends_with(".txt")) {
        dataset_room::load_text_file(builder, text);
        return dataset_of(std::move(tokenizer), options, builder, "text", file);
    }
    dataset_room::Loader loader{builder, options, file};
    loader.load(text);
    return dataset_of(std::move(tokenizer), options, builder, loader.format, file);
}

std::shared_ptr<const DatasetImpl> join_datasets(std::span<const std::shared_ptr<const DatasetImpl>> parts) {
    if (parts.empty()) fail(Errc::argument, "dataset: nothing to join");
    for (size_t i = 1; i < parts.size(); ++i)
        if (parts[i]->tokenizer != parts[0]->tokenizer)
            fail(Errc::argument, "dataset: part ", i,
                 " was tokenized by another tokenizer than part 0; load all for "
                 "one model");
    if (parts.size() == 1) return parts[0];
    auto all = std::make_shared<DatasetImpl>();
    auto rows = std::make_shared<DatasetRows>();
    const bool weighted = std::any_of(parts.begin(), parts.end(), [](const auto& part) { return part->weighted(); });
    DatasetInfo info;
    for (const auto& part : parts) {
        for (int64_t row = 0; row < part->size(); ++row) {
            dataset_room::append_row(*rows, *part, row);
            if (weighted) rows->weights.push_back(part->weight(row));
        }
        dataset_room::add_info(info, part->info);
    }
    all->index.resize(rows->begin.size() - 1);
    std::iota(all->index.begin(), all->index.end(), int64_t(0));
    all->rows = std::move(rows);
    all->tokenizer = parts[0]->tokenizer;
    all->info = dataset_room::describe(*all, info);
    return all;
}

// Rows are few beside their tokens, which are shared no longer.
std::shared_ptr<const DatasetImpl> weighted_dataset(const DatasetImpl& data, std::span<const float> weights) {
    if (int64_t(weights.size()) != data.size())
        fail(Errc::argument, "Dataset::weighted: ", weights.size(), " weights for ", data.size(), " rows");
    for (size_t i = 0; i < weights.size(); ++i)
        if (!(weights[i] >= 1e-6f && weights[i] <= 1e6f))
            fail(Errc::argument, "Dataset::weighted: the weight of row ", i, " is ", weights[i],
                 ", expected 1e-6 to 1e6; leave out rows that are not to count");
    auto rows = std::make_shared<DatasetRows>(*data.rows);
    rows->weights.resize(rows->begin.size() - 1, 1.0f);
    for (size_t i = 0; i < weights.size(); ++i) rows->weights[size_t(data.index[i])] = weights[i];
    auto out = std::make_shared<DatasetImpl>(data);
    out->rows = std::move(rows);
    return out;
}

std::shared_ptr<const DatasetImpl> picked_rows(const DatasetImpl& data, std::span<const int64_t> rows) {
    auto out = std::make_shared<DatasetImpl>(data);
    out->index.clear();
    for (const int64_t row : rows) {
        if (row < 0 || row >= data.size()) fail(Errc::argument, "Dataset::pick: row ", row, " of ", data.size());
        out->index.push_back(data.index[size_t(row)]);
    }
    if (rows.empty()) fail(Errc::argument, "Dataset::pick: no rows");
    out->info = dataset_room::describe(*out, data.info);
    return out;
}

std::pair<std::shared_ptr<const DatasetImpl>, std::shared_ptr<const DatasetImpl>> split_dataset(const DatasetImpl& data,
                                                                                                float fraction,
                                                                                                uint64_t seed) {
    if (!(fraction >= 0 && fraction <= 1))
        fail(Errc::argument, "Dataset::split: fraction ", fraction, ", expected 0 to 1");
    std::vector<int64_t> order(data.index.size());
    std::iota(order.begin(), order.end(), int64_t(0));
    Rng rng{seed, dataset_room::split_stream, 0};
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[size_t(rng.below(i))]);
    // Asked for both parts, none may be empty: a tenth of four rows is one row.
    const size_t wanted = size_t(std::llround(double(fraction) * double(order.size())));
    const size_t held = fraction > 0 && fraction < 1 && order.size() > 1
                            ? std::clamp<size_t>(wanted, 1, order.size() - 1)
                            : wanted;
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

}
}    // namespace qlora
