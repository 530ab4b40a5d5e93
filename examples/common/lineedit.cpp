// lineedit.cpp - a small line editor: one line that is redrawn after every key, scrolled sideways when it is long. Line
// breaks in it (of a paste, or of history) are shown as a sign, and Enter sends it whole. The keys are readline's:
//
//   arrows, Home, End, Ctrl-A/E/B/F    move            Backspace, Delete, Ctrl-D    delete a character
//   Alt-B/F, Ctrl-Left/Right           move by words   Ctrl-W, Alt-Backspace/D      cut a word
//   Ctrl-U, Ctrl-K                     cut to the start, to the end                 Ctrl-Y  put it back
//   up, down, Ctrl-P/N                 history         Ctrl-R                       search in it
//   Alt-Enter                          a line break    Ctrl-L                       clears the screen
//   Ctrl-C gives up, Ctrl-D on an empty line ends
//
// No library is taken: GNU readline is under the GPL, which would bind programs that are under the MIT licence, and two
// editors, one where another library was found, would be two sets of keys to test.
#include "examples/common/lineedit.h"

#include "examples/common/graphemes.h"
#include "examples/common/keys.h"
#include "examples/common/streams.h"
#include "examples/common/terminal.h"

#include <cstdio>

namespace program {

namespace lineedit {

constexpr int ctrl(char letter) { return letter - 'A' + 1; }

std::string shown(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == '\n' ? "\u21B5" : c == '\t' ? " " : std::string(1, c);
    return out;
}

// Shows the part of the line around the cursor that fits. The terminal itself remembers where the cursor belongs: what
// it thinks of the width of an emoji does not matter then.
void redraw(const std::string& prompt, const std::string& line, size_t cursor) {
    int room = std::max(8, columns(1) - width(prompt, 0, prompt.size()) - 1);
    std::vector<size_t> starts;                        // of clusters, with the end
    for (size_t at = 0; at < line.size(); at = after_cluster(line, at)) starts.push_back(at);
    starts.push_back(line.size());
    size_t here = 0;
    while (starts[here] < cursor) ++here;
    size_t first = here, last = here;
    const auto fits = [&](size_t i) {
        const int own = width(line, starts[i], starts[i + 1]);
        if (own > room) return false;
        room -= own;
        return true;
    };
    while (first > 0 && fits(first - 1)) --first;
    while (last + 1 < starts.size() && fits(last)) ++last;
    const std::string left = line.substr(starts[first], cursor - starts[first]),
                      right = line.substr(cursor, starts[last] - cursor);
    const std::string out =
        "\r" + styled(prompt, Style::green) + shown(left) + "\0337" + shown(right) + "\033[K\0338";
    std::fwrite(out.data(), 1, out.size(), stdout);
    std::fflush(stdout);
}

struct Line {                                          // what is edited
    std::string text = {};
    size_t cursor = 0;
    void insert(const std::string& piece) {
        text.insert(cursor, piece);
        cursor += piece.size();
    }
    std::string cut(size_t from, size_t to) {
        std::string piece = text.substr(from, to - from);
        text.erase(from, to - from);
        cursor = from;
        return piece;
    }
    void set(const std::string& whole) {
        text = whole;
        cursor = text.size();
    }
};

size_t before_blank_word(const std::string& s, size_t at) {            // Ctrl-W: up to a blank
    const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t'; };
    while (at > 0 && blank(s[at - 1])) --at;
    while (at > 0 && !blank(s[at - 1])) --at;
    return at;
}

// Ctrl-R: the newest entry that holds what is typed; Ctrl-R again the one before it. Enter sends it, Ctrl-G and Ctrl-C
// leave the line as it was, any other key goes on editing what was found. The key that ended it is returned.
int search(const std::vector<std::string>& entries, Line& line) {
    const Line before = line;
    std::string query, text;
    size_t at = entries.size();                        // the entry that is shown; size() = none yet
    const auto find = [&](size_t from) {               // at or before `from`
        for (size_t i = from + 1; i-- > 0;) {
            if (i >= entries.size() || query.empty() || entries[i].find(query) == std::string::npos) continue;
            at = i;
            line.text = entries[i];
            line.cursor = entries[i].find(query);
            return true;
        }
        return false;
    };
    bool found = true;
    for (;;) {
        redraw(std::string(found ? "" : "no match ") + "(search '" + query + "') ", line.text, line.cursor);
        const int key = read_key(text);
        if (key == ctrl('R')) {
            found = at > 0 && find(at == entries.size() ? at : at - 1);
        } else if ((key >= 32 && key < 127) || key == key_text) {
            query += key == key_text ? text : std::string(1, char(key));
            found = find(at);
        } else if (key == 8 || key == 127) {
            query.erase(before_cluster(query, query.size()));
            at = entries.size();
            found = query.empty() || find(at);
            if (query.empty()) line = before;
        } else {
            if (key == ctrl('G') || key == ctrl('C')) line = before;
            return key == ctrl('C') ? key_none : key;
        }
    }
}

}  // namespace lineedit

LineEditor::LineEditor() : interactive_(is_terminal(0) && is_terminal(1)) { if (interactive_) use_locale(); }

LineEditor::Result LineEditor::edit(const std::string& prompt, std::string& out) {
    using lineedit::ctrl;
    const RawMode raw;
    const std::vector<std::string>& past = history_.entries();
    size_t entry = past.size();                        // which is shown; size() = the new one
    lineedit::Line line;
    std::string unsent, text;
    const auto recall = [&](size_t wanted) {
        if (entry == past.size()) unsent = line.text;
        entry = wanted;
        line.set(entry == past.size() ? unsent : past[entry]);
    };
    const auto cut = [&](size_t from, size_t to) { if (to > from) killed_ = line.cut(from, to); };
    const auto leave = [&](Result result) {
        lineedit::redraw(prompt, line.text, line.text.size());
        std::fputs("\n", stdout);
        std::fflush(stdout);
        out = line.text;
        return result;
    };
    for (;;) {
        lineedit::redraw(prompt, line.text, line.cursor);
        int key = read_key(text);
        if (key == ctrl('R')) key = lineedit::search(past, line);
        const size_t at = line.cursor, end = line.text.size();
        switch (key) {
            case -1: return leave(Result::end);
            case '\r': case '\n': return leave(Result::text);
            case ctrl('C'): return leave(Result::cancelled);
            case ctrl('D'):
                if (line.text.empty()) return leave(Result::end);
                [[fallthrough]];
            case key_delete: (void)line.cut(at, after_cluster(line.text, at)); break;
            case 8: case 127: (void)line.cut(before_cluster(line.text, at), at); break;
            case ctrl('A'): case key_home: line.cursor = 0; break;
            case ctrl('E'): case key_end: line.cursor = end; break;
            case ctrl('B'): case key_left: line.cursor = before_cluster(line.text, at); break;
            case ctrl('F'): case key_right: line.cursor = after_cluster(line.text, at); break;
            case key_word_left: line.cursor = before_word(line.text, at); break;
            case key_word_right: line.cursor = after_word(line.text, at); break;
            case ctrl('K'): cut(at, end); break;
            case ctrl('U'): cut(0, at); break;
            case ctrl('W'): cut(lineedit::before_blank_word(line.text, at), at); break;
            case key_kill_word_back: cut(before_word(line.text, at), at); break;
            case key_kill_word: cut(at, after_word(line.text, at)); break;
            case ctrl('Y'): line.insert(killed_); break;
            case ctrl('L'): std::fputs("\033[H\033[2J", stdout); break;
            case ctrl('P'): case key_up: if (entry > 0) recall(entry - 1); break;
            case ctrl('N'): case key_down: if (entry < past.size()) recall(entry + 1); break;
            case key_new_line: line.insert("\n"); break;
            case '\t': line.insert(" "); break;
            case key_paste: case key_text: line.insert(text); break;
            default: if (key >= 32 && key < 127) line.insert(std::string(1, char(key)));
        }
    }
}

LineEditor::Result LineEditor::read_line(const std::string& prompt, std::string& line) {
    if (!interactive_ || !RawMode::available) {
        if (interactive_) std::fputs(prompt.c_str(), stdout), std::fflush(stdout);
        if (!program::read_line(line)) return Result::end;
        if (!line.empty() && line.back() == '\r') line.pop_back();
        return Result::text;
    }
    return edit(prompt, line);
}

LineEditor::Result LineEditor::read(const std::string& prompt, std::string& text) {
    Result result = read_line(prompt, text);
    if (result != Result::text) return result;
    const std::string more(prompt.size() > 4 ? 4 : prompt.size(), '.');
    const std::string fence = "\"\"\"";
    std::string line;
    if (text.rfind(fence, 0) == 0) {
        text.erase(0, fence.size());
        bool open = true, first = true;
        while (open) {
            if (const size_t close = text.find(fence); close != std::string::npos) { text.resize(close); break; }
            if (result = read_line(more + ' ', line); result != Result::text) {
                if (result == Result::cancelled) return result;
                break;
            }
            if (const size_t close = line.find(fence); close != std::string::npos) { line.resize(close); open = false; }
            if (!open && line.empty()) break;
            text += (first && text.empty() ? "" : "\n") + line;
            first = false;
        }
    } else {
        while (!text.empty() && text.back() == '\\') {
            text.pop_back();
            result = read_line(more + ' ', line);
            if (result == Result::cancelled) return result;
            if (result == Result::end) break;
            text += '\n' + line;
        }
    }
    if (interactive_) history_.add(text);
    return Result::text;
}

}  // namespace program
