// rows.h - how rows of training data are read, the same in every program: its flags, and one line about what was found.
#pragma once
#include "examples/common/flags.h"

#include "qlora.h"

namespace program {

// How flags and files spell them. `where` ("--loss", "held_out.json: loss") is what the error about an unknown name
// begins with.
const char* name_of(qlora::Loss);
const char* name_of(qlora::Special);
qlora::Loss loss_of(const std::string& name, const std::string& where);
qlora::Special special_of(const std::string& name, const std::string& where);

const char* name_of(qlora::SystemRule);
const char* name_of(qlora::LongRows);
qlora::SystemRule system_rule_of(const std::string& name, const std::string& where);
qlora::LongRows long_rows_of(const std::string& name, const std::string& where);
// "question=prompt,answer=completion"
std::vector<std::pair<std::string, std::string>> columns_of(const std::string& list);

struct RowFlags {
    std::string loss = "assistant", special = "auto", system = "merge", bad = "error", lengthy = "cut", columns;

    void declare(Flags& flags);
    qlora::DatasetOptions options(int64_t context) const;
    void warn() const;                                 // on stderr, where the flags ask for something unsafe
};

// The rows of all files and folders, one after another.
qlora::Dataset load_rows(const std::vector<std::string>& paths, const qlora::Tokenizer& tokenizer,
                         const qlora::DatasetOptions& options);

// The flag alone, for programs that read text but no rows. -> does text that the user gives hold control tokens?
void declare_special(Flags& flags, std::string& special, const std::string& where);
inline bool reads_control(const std::string& special) { return special != "text"; }

// "200 rows (sharegpt), 103.1 k tokens, 21.0 k of them trained on, 662 assistant turns, 662 trained; ..."
std::string rows_line(const qlora::DatasetInfo& info);

}  // namespace program
