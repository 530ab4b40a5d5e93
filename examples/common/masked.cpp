// masked.cpp - lines tokens up with the text that they came from. decode() prints nothing for control tokens, so their text is
// whatever lies between the decoded runs of ordinary tokens; the runs are searched for in order.
#include "examples/common/masked.h"

#include "examples/common/terminal.h"

namespace program {

std::string show_masked(const qlora::Rendered& row, const qlora::Tokenizer& tokenizer, int fd) {
    const size_t count = row.tokens.size();
    std::vector<bool> control(count);
    for (size_t i = 0; i < count; ++i) control[i] = tokenizer.decode(std::span(&row.tokens[i], 1)).empty();

    std::string out;
    size_t at = 0;
    bool open = false;
    const auto emit = [&](std::string text, bool trained) {
        if (text.empty()) return;
        if (colours(fd)) { out += trained ? styled(text, Style::green, fd) : styled(text, Style::dim, fd); return; }
        if (trained != open) out += trained ? "[[" : "]]";
        open = trained;
        out += text;
    };
    for (size_t i = 0; i < count;) {
        size_t end = i;
        const bool trained = row.trained[i];
        while (end < count && control[end] == control[i] && bool(row.trained[end]) == trained) ++end;
        if (control[i]) {                              // up to where the next ordinary run starts
            size_t next = end;
            while (next < count && control[next]) ++next;
            size_t stop = row.text.size();
            if (next < count) {
                size_t last = next;
                while (last < count && !control[last] && row.trained[last] == row.trained[next]) ++last;
                const std::string run = tokenizer.decode(std::span(row.tokens).subspan(next, last - next));
                if (const size_t found = row.text.find(run, at); found != std::string::npos) stop = found;
            }
            if (next != end) {                         // control tokens of both kinds in a row: give the first group its share in whole tags
                const size_t tag = row.text.find('>', at);
                if (tag != std::string::npos && tag < stop) stop = tag + 1;
            }
            emit(row.text.substr(at, stop - at), trained);
            at = stop;
        } else {
            const std::string run = tokenizer.decode(std::span(row.tokens).subspan(i, end - i));
            const size_t found = row.text.find(run, at);
            if (found == std::string::npos) {
                emit(run, trained);
            } else {
                emit(row.text.substr(at, found + run.size() - at), trained);
                at = found + run.size();
            }
        }
        i = end;
    }
    if (open) out += "]]";
    return out;
}

}  // namespace program
