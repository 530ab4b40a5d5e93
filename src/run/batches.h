// batches.h - which rows form which micro-batch of which step: a function of the data, the options and the step number
// only, so that a run can be continued from its step number.
#pragma once
#include "src/run/dataset.h"
#include "src/model/decoder.h"

namespace qlora { inline namespace QLORA_ABI {

class BatchPlan {
public:
    // Rows are cut to `context`; a row with no trained token left is not used.
    BatchPlan(std::shared_ptr<const DatasetImpl>, const TrainOptions&, int64_t context);
    int64_t steps() const { return steps_; }           // of the whole run
    int64_t steps_per_epoch() const { return steps_per_epoch_; }
    int64_t row_counts(int64_t step) const;            // how many of them there are, rounded up to multiples of step
    int64_t most_rows() const { return most_rows_; }   // of any micro-batch
    double epoch_after(int64_t step) const { return double(step) / double(steps_per_epoch_); }
    // The micro-batches of a step (0-based), each a list of rows of the data set. The last step of an epoch may have
    // fewer.
    std::vector<std::vector<int64_t>> step(int64_t step);
    std::vector<Document> documents(const std::vector<int64_t>& rows) const;
private:
    void pack(const std::vector<int64_t>& rows);
    std::shared_ptr<const DatasetImpl> data_;
    TrainOptions options_;
    int64_t context_ = 0, steps_ = 0, steps_per_epoch_ = 0, most_rows_ = 0;
    std::vector<std::vector<int64_t>> sequences_;      // rows that share a sequence: one, or several with packing
    std::vector<int64_t> lengths_;                     // of each sequence
    std::vector<int64_t> order_;                       // of the sequences in epoch order_epoch_
    int64_t order_epoch_ = -1;
};

// A random order of rows, so that rows of like length come together: pieces of up to 50 steps, each from its longest
// row to its shortest, and the longest of all first, where a lack of memory shows. As transformers'
// LengthGroupedSampler.
void group_by_length(std::vector<int64_t>& order, std::span<const int64_t> lengths, int64_t step_rows);

}}  // namespace qlora
