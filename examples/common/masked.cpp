// masked.cpp - see masked.h.
#include "examples/common/masked.h"

#include "examples/common/terminal.h"

#include <algorithm>

namespace program {

std::string show_masked(const qlora::Rendered& row, const qlora::Tokenizer& tokenizer, int fd) {
    std::vector<std::string> pieces;
    std::string all;
    for (const qlora::Token token : row.tokens) all += pieces.emplace_back(tokenizer.piece(token, true));
    // the space that SPM puts in front of a text
    size_t skip = all.ends_with(row.text) ? all.size() - row.text.size() : 0;
    std::string out;
    bool open = false;
    const bool coloured = colours(fd);
    for (size_t i = 0; i < pieces.size();) {
        const bool trained = row.trained[i], control = coloured && tokenizer.is_control(row.tokens[i]);
        std::string run;
        for (; i < pieces.size() && bool(row.trained[i]) == trained &&
               (coloured && tokenizer.is_control(row.tokens[i])) == control;
             ++i)
            run += pieces[i];
        const size_t cut = std::min(skip, run.size());
        skip -= cut;
        run.erase(0, cut);
        if (run.empty()) continue;
        if (coloured) {
            out += styled(run,
                          control   ? trained ? Style::yellow : Style::cyan
                          : trained ? Style::green
                                    : Style::dim,
                          fd);
            continue;
        }
        if (trained != open) out += trained ? "[[" : "]]";
        open = trained;
        out += run;
    }
    return open ? out + "]]" : out;
}

std::string control_note(const qlora::Rendered& row, const qlora::Tokenizer& tokenizer) {
    const auto count = [&](const qlora::Tokens& tokens) {
        return std::count_if(tokens.begin(), tokens.end(), [&](qlora::Token t) { return tokenizer.is_control(t); });
    };
    const auto held = count(row.tokens), written = count(tokenizer.encode(row.text, false, true));
    std::string note = std::to_string(held) + " control tokens";
    if (written > held) note += "; " + std::to_string(written - held) + " more only spelled: they stay text";
    return note;
}

}  // namespace program
