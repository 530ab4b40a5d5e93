// dataset.h - training data: files in, rows of tokens and loss masks out.
//
// Formats, told by the first record (a record of another format later in the file is an error that names its line):
//   messages            {"messages": [{"role", "content"}, ...], "tools"?}           OpenAI, TRL
//   prompt/completion   {"prompt", "completion" or "response"}                       strings or lists of messages
//                       {"question", "answer"}, {"query", "response"}, {"input", "output"}
//   text/label          {"text", "label"}                                            the label a string
//   alpaca              {"instruction", "input"?, "output", "system"?, "history"?}
//                       {"instruction", "instances": [{"input", "output"}, ...]}     self-instruct
//   sharegpt            {"conversations" or "conversation": [{"from", "value"}, ...], "system"?, "tools"?}
//   oasst tree          {"prompt": {"text", "role", "replies": [...]}}               the best-ranked replies
//   human/assistant     {"chosen": "\n\nHuman: ...\n\nAssistant: ..."}               HH-RLHF
//   human/bot           {"text": "<human>: ...\n<bot>: ..."}                         OIG, chip2
//   text                {"text"}, or a .txt file
// The table is in records.cpp, a room for each form beside it. Containers: .jsonl, .json (an array, one in an object,
// or objects over several lines), .csv, .tsv, .txt, or a folder with train/valid/test files.
// Dialogues, prompts and instructions go through the model's chat template; where the model has none of its own,
// prompts are put before completions as they are and instructions are printed in Alpaca's layout.
#pragma once
#include "src/model/model.h"

namespace qlora { inline namespace QLORA_ABI {

struct TurnCounts {                                    // of one row; as in DatasetInfo
    int64_t turns = 0, trained = 0, silent = 0, excluded = 0, cut = 0;
};
struct DatasetRows {                                   // all rows, one after another; shared by the parts of a split
    Tokens tokens;
    std::vector<uint8_t> trained;                      // per token
    std::vector<int64_t> begin{0};                     // of row i; one more entry than rows
    std::vector<TurnCounts> turns;                     // of row i; empty where the rows came from no file
    std::vector<float> weights;                        // of row i; empty = all 1
};

struct DatasetImpl {
    std::shared_ptr<const DatasetRows> rows;
    std::vector<int64_t> index;                        // which of the rows, in which order
    std::shared_ptr<const TokenizerImpl> tokenizer;
    DatasetInfo info;
    int64_t size() const { return int64_t(index.size()); }
    std::span<const Token> tokens(int64_t row) const;
    std::span<const uint8_t> trained(int64_t row) const;
    float weight(int64_t row) const { return rows->weights.empty() ? 1 : rows->weights[size_t(index[size_t(row)])]; }
    bool weighted() const { return !rows->weights.empty(); }
    uint64_t fingerprint() const;                      // of every token and mask, in order
};

std::shared_ptr<const DatasetImpl> load_dataset(const std::string& path, std::shared_ptr<const TokenizerImpl>,
                                                const DatasetOptions&);
// Out of memory (dataset_memory.cpp); vocabulary: ids are below it.
std::shared_ptr<const DatasetImpl> dataset_of_dialogues(std::span<const std::vector<Message>>,
                                                        std::shared_ptr<const TokenizerImpl>, const DatasetOptions&);
std::shared_ptr<const DatasetImpl> dataset_of_texts(std::span<const std::string>, std::shared_ptr<const TokenizerImpl>,
                                                    const DatasetOptions&);
std::shared_ptr<const DatasetImpl> dataset_of_rows(std::span<const Rendered>, std::shared_ptr<const TokenizerImpl>,
                                                   int64_t vocabulary, const DatasetOptions&);
// The rows of each, one data set after another; all of one tokenizer.
std::shared_ptr<const DatasetImpl> join_datasets(std::span<const std::shared_ptr<const DatasetImpl>> parts);
std::shared_ptr<const DatasetImpl> weighted_dataset(const DatasetImpl&, std::span<const float> weights);
std::shared_ptr<const DatasetImpl> picked_rows(const DatasetImpl&, std::span<const int64_t> rows);
std::pair<std::shared_ptr<const DatasetImpl>, std::shared_ptr<const DatasetImpl>> split_dataset(const DatasetImpl&,
                                                                                                float fraction,
                                                                                                uint64_t seed);

// Tokens of a row that are predicted and trained: the first is never predicted.
int64_t trained_targets(std::span<const uint8_t> trained);

}}  // namespace qlora
