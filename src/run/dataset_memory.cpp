// dataset_memory.cpp - data sets out of memory: the rows that a file with the same records would give.
#include "src/run/rows.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace dataset_memory_room {

// add(builder, index): the record of that index
template <class Add>
std::shared_ptr<const DatasetImpl> build(std::shared_ptr<const TokenizerImpl> tokenizer, const DatasetOptions& options,
                                         const char* format, size_t count, const Add& add) {
    check_dataset_options(tokenizer.get(), options, "from memory");
    RowBuilder builder(*tokenizer, options);
    for (size_t i = 0; i < count; ++i) {
        try {
            add(builder, i);
        } catch (const Error& error) {
            throw Error(error.code, str("dataset from memory, record ", i, ": ", error.what()));
        }
    }
    return dataset_of(std::move(tokenizer), options, builder, format, "from memory");
}

void add_record(RowBuilder& builder, const Json& record) {
    for (Example& e : read_record(record, "record")) builder.add(e);
}

}  // namespace dataset_memory_room

std::shared_ptr<const DatasetImpl> dataset_of_dialogues(std::span<const std::vector<Message>> dialogues,
                                                        std::shared_ptr<const TokenizerImpl> tokenizer,
                                                        const DatasetOptions& options) {
    namespace room = dataset_memory_room;
    return room::build(std::move(tokenizer), options, "messages", dialogues.size(), [&](RowBuilder& b, size_t i) {
        room::add_record(b, Json().set("messages", to_json(dialogues[i])));
    });
}

std::shared_ptr<const DatasetImpl> dataset_of_texts(std::span<const std::string> texts,
                                                    std::shared_ptr<const TokenizerImpl> tokenizer,
                                                    const DatasetOptions& options) {
    namespace room = dataset_memory_room;
    return room::build(std::move(tokenizer), options, "text", texts.size(), [&](RowBuilder& b, size_t i) {
        room::add_record(b, Json().set("text", texts[i]));
    });
}

std::shared_ptr<const DatasetImpl> dataset_of_rows(std::span<const Rendered> rows,
                                                   std::shared_ptr<const TokenizerImpl> tokenizer, int64_t vocabulary,
                                                   const DatasetOptions& options) {
    return dataset_memory_room::build(
        std::move(tokenizer), options, "tokens", rows.size(), [&](RowBuilder& builder, size_t i) {
            const Rendered& row = rows[i];
            if (row.trained.size() != row.tokens.size())
                fail(Errc::argument, row.tokens.size(), " tokens and ", row.trained.size(), " loss flags");
            for (const Token t : row.tokens)
                if (t < 0 || t >= vocabulary)
                    fail(Errc::argument, "token ", t, " is outside the vocabulary of ", vocabulary);
            builder.add_tokens(row.tokens, row.trained);
        });
}

}}  // namespace qlora
