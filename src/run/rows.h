// rows.h - the second half of loading training data: examples to rows of tokens and loss masks, cut to the context,
// with what there is to say of them.
#pragma once
#include "src/run/dataset.h"
#include "src/run/marked_text.h"
#include "src/run/tool_form.h"

namespace qlora { inline namespace QLORA_ABI {

class RowBuilder {
public:
    RowBuilder(const TokenizerImpl&, const DatasetOptions&);           // borrowed
    void add(Example&);
    void add_text(std::string_view text);              // cut into pieces
    void at(std::string place) { place_ = std::move(place); }          // of what is added next: "chats.jsonl:12"
    void add_bad(const std::string& what);             // a record that was left out
    int64_t bad() const { return info_.bad; }
    void add_tokens(std::span<const Token> tokens, std::span<const uint8_t> trained);
    DatasetRows take_rows() { return std::move(rows_); }
    DatasetInfo info();                                // its format is the caller's

private:
    struct Use { std::string name; int64_t count = 0; bool used = false; };            // of a key, over the whole file
    struct Row { Tokens tokens; std::vector<uint8_t> trained; TurnCounts turns; };

    void add_row(std::span<const Token> tokens, std::span<const uint8_t> trained, const TurnCounts& turns);
    void add_whole(Row row);                           // cut at the context, or as LongRows says
    void add_pieces(std::span<const Token> tokens, std::span<const uint8_t> trained, const TurnCounts& turns);
    void drop();
    void note(std::vector<std::string>& places) const;
    void apply_system_rule(Example&);
    void add_dialogue(Example&);
    void add_prompt(const Example&, bool marked);
    Row printed(Example&);
    TrainingText rendered(Example&);
    void count_turns(const Example&, const TrainingText&, Row&);
    void count_uses(const Example&, const TrainingText&);
    void use(const std::string& name, bool used);
    bool reads_control() const { return options_.special != Special::text; }
    const TurnMarks& marks();

    const TokenizerImpl& tokenizer_;
    const DatasetOptions& options_;
    DialogueRenderer renderer_;
    std::optional<TurnMarks> marks_;    // found when first needed: a template that is not used is not printed
    std::optional<ToolForm> form_;
    std::vector<Use> uses_;
    DatasetRows rows_;
    DatasetInfo info_;
    std::string place_;
};

constexpr size_t most_places = 8;                      // that DatasetInfo names of each kind

// Where the rows came from is named in the errors of both.
void check_dataset_options(const TokenizerImpl*, const DatasetOptions&, const std::string& from);
std::shared_ptr<const DatasetImpl> dataset_of(std::shared_ptr<const TokenizerImpl>, const DatasetOptions&, RowBuilder&,
                                              const std::string& format, const std::string& from);

}}  // namespace qlora
