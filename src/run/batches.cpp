// batches.cpp - packing, shuffling and cutting into micro-batches.
#include "src/run/batches.h"

#include "src/base/rng.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace qlora { inline namespace QLORA_ABI {
namespace batches_room {

constexpr uint64_t shuffle_stream = 0x65706f63680000;  // "epoch" + the epoch's number

}  // namespace batches_room

BatchPlan::BatchPlan(std::shared_ptr<const DatasetImpl> data, const TrainOptions& options, int64_t context)
    : data_(std::move(data)), options_(options), context_(context) {
    std::vector<int64_t> rows;
    for (int64_t row = 0; row < data_->size(); ++row) {
        const auto trained = data_->trained(row);
        if (trained_targets(trained.first(std::min(trained.size(), size_t(context_)))) > 0) rows.push_back(row);
    }
    if (rows.empty())
        fail(Errc::argument, "train: none of the ", data_->size(), " rows has a trained token within the first ",
             context_, " tokens; raise the context");
    if (options_.packing) pack(rows);
    else for (const int64_t row : rows) sequences_.push_back({row});

    const int64_t batches = (int64_t(sequences_.size()) + options_.batch - 1) / options_.batch;
    steps_per_epoch_ = (batches + options_.accumulate - 1) / options_.accumulate;
    steps_ = options_.max_steps > 0
                 ? options_.max_steps
                 : std::max<int64_t>(1, int64_t(std::ceil(options_.epochs * double(steps_per_epoch_) - 1e-9)));

    for (const auto& sequence : sequences_) {
        int64_t length = 0;
        for (const Document& d : documents(sequence)) length += int64_t(d.tokens.size());
        lengths_.push_back(length);
    }
    std::vector<int64_t> lengths = lengths_;
    std::sort(lengths.rbegin(), lengths.rend());
    for (int64_t i = 0; i < std::min(options_.batch, int64_t(lengths.size())); ++i) most_rows_ += lengths[size_t(i)];
}

int64_t BatchPlan::row_counts(int64_t step) const {
    const int64_t possible = (most_rows_ + step - 1) / step;
    if (options_.batch > 1) {    // between the shortest and the longest full batch, and a last one
        const int64_t full = std::min(options_.batch, int64_t(lengths_.size()));
        std::vector<int64_t> lengths = lengths_;
        std::sort(lengths.begin(), lengths.end());
        int64_t least = 0;
        for (int64_t i = 0; i < full; ++i) least += lengths[size_t(i)];
        const bool rest = int64_t(lengths_.size()) % options_.batch != 0;
        return std::min(possible, (most_rows_ + step - 1) / step - (least + step - 1) / step + 1 + rest);
    }
    std::vector<bool> occurs(size_t(possible + 1), false);
    for (const int64_t length : lengths_) occurs[size_t((length + step - 1) / step)] = true;
    return std::count(occurs.begin(), occurs.end(), true);
}

// Best fit, longest first: each row goes to the sequence where it leaves the least room. The same packing in every
// epoch, so that all epochs have the same number of steps; the sequences are shuffled.
void BatchPlan::pack(const std::vector<int64_t>& rows) {
    const auto length = [&](int64_t row) { return std::min(context_, int64_t(data_->tokens(row).size())); };
    std::vector<int64_t> longest_first(rows);
    std::stable_sort(longest_first.begin(), longest_first.end(),
                     [&](int64_t a, int64_t b) { return length(a) > length(b); });
    std::multimap<int64_t, size_t> room;               // free tokens -> sequence
    for (const int64_t row : longest_first) {
        auto fit = room.lower_bound(length(row));
        size_t sequence = sequences_.size();
        int64_t left = context_;
        if (fit == room.end()) sequences_.emplace_back();
        else {
            left = fit->first;
            sequence = fit->second;
            room.erase(fit);
        }
        sequences_[sequence].push_back(row);
        if (left -= length(row); left > 0) room.emplace(left, sequence);
    }
}

std::vector<std::vector<int64_t>> BatchPlan::step(int64_t step) {
    const int64_t epoch = step / steps_per_epoch_, within = step % steps_per_epoch_, count = int64_t(sequences_.size());
    if (epoch != order_epoch_) {
        order_.resize(size_t(count));
        std::iota(order_.begin(), order_.end(), int64_t(0));
        Rng rng{options_.seed, batches_room::shuffle_stream + uint64_t(epoch), 0};
        for (int64_t i = count; i > 1; --i) std::swap(order_[size_t(i - 1)], order_[size_t(rng.below(uint64_t(i)))]);
        if (options_.group_by_length) qlora::group_by_length(order_, lengths_, options_.batch * options_.accumulate);
        order_epoch_ = epoch;
    }
    std::vector<std::vector<int64_t>> batches;
    for (int64_t m = 0; m < options_.accumulate; ++m) {
        const int64_t first = (within * options_.accumulate + m) * options_.batch,
                      last = std::min(first + options_.batch, count);
        if (first >= count) break;
        std::vector<int64_t>& batch = batches.emplace_back();
        for (int64_t i = first; i < last; ++i) {
            const std::vector<int64_t>& rows = sequences_[size_t(order_[size_t(i)])];
            batch.insert(batch.end(), rows.begin(), rows.end());
        }
    }
    return batches;
}

void group_by_length(std::vector<int64_t>& order, std::span<const int64_t> lengths, int64_t step_rows) {
    const int64_t count = int64_t(order.size());
    const int64_t piece = step_rows * std::clamp<int64_t>(count / (4 * step_rows), 1, 50);
    const auto longer = [&](int64_t a, int64_t b) { return lengths[size_t(a)] > lengths[size_t(b)]; };
    int64_t longest = 0;
    for (int64_t from = 0; from < count; from += piece) {
        std::stable_sort(order.begin() + from, order.begin() + std::min(from + piece, count), longer);
        if (longer(order[size_t(from)], order[size_t(longest)])) longest = from;
    }
    if (count > 0) std::swap(order[0], order[size_t(longest)]);
}

std::vector<Document> BatchPlan::documents(const std::vector<int64_t>& rows) const {
    std::vector<Document> documents;
    for (const int64_t row : rows) {
        const auto tokens = data_->tokens(row);
        const size_t length = std::min(tokens.size(), size_t(context_));
        documents.push_back({tokens.first(length), data_->trained(row).first(length), data_->weight(row)});
    }
    return documents;
}

}}  // namespace qlora
