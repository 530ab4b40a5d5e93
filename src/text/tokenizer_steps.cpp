// tokenizer_steps.cpp - the normalizers and pre-tokenizers of a tokenizer.json.
#include "src/text/tokenizer_parts.h"

namespace qlora { inline namespace QLORA_ABI {
namespace tokenizer_steps_room {

inline bool starts_with(std::string_view text, std::string_view front) { return text.substr(0, front.size()) == front; }

struct Reader : TokenizerParts {
    BpeOptions& options;
    bool byte_level = false;                           // ByteLevel has been met: nothing may follow it

    // -- normalizer
    void read_normalizer(const Json& n) {
        const std::string type = text(n, "type");
        if (type == "Sequence") {
            for (const Json& part : list(n, "normalizers")) read_normalizer(part);
        } else if (type == "NFC") {
            options.normalizers.push_back([](NormalText& t) { t.compose(); });
        } else if (type == "Lowercase") {
            options.normalizers.push_back([](NormalText& t) { t.lower(); });
        } else if (type == "Replace") {
            options.normalizers.push_back(
                [from = literal(n, "Replace"), to = text(n, "content")](NormalText& t) { t.replace(from, to); });
        } else if (type == "Prepend") {
            options.normalizers.push_back([front = text(n, "prepend")](NormalText& t) { t.prepend(front); });
        } else if (type == "Strip") {
            options.normalizers.push_back([left = flag(n, "strip_left", true), right = flag(n, "strip_right", true)](
                                              NormalText& t) { t.strip(left, right); });
        } else {
            unsupported("normalizer", type);
        }
    }

    // -- pre_tokenizer
    void read_pre_tokenizer(const Json& p) {
        const std::string type = text(p, "type");
        if (byte_level) unsupported("a pre-tokenizer after ByteLevel:", type);
        if (type == "Sequence") {
            for (const Json& part : list(p, "pretokenizers")) read_pre_tokenizer(part);
        } else if (type == "ByteLevel") {
            byte_level = true;
            if (flag(p, "add_prefix_space", true)) {
                if (!options.words.empty())
                    unsupported("ByteLevel.add_prefix_space after another pre-tokenizer:", "true");
                options.changes.push_back([](std::string& s, bool) {
                    if (!s.empty() && s[0] != ' ') s.insert(0, 1, ' ');
                });
            }
            if (flag(p, "use_regex", true)) options.words.push_back(scan_gpt2);
        } else if (type == "Split") {
            read_split(p);
        } else if (type == "Digits") {
            options.words.push_back(flag(p, "individual_digits", false) ? scan_digit : scan_digits);
        } else if (type == "Metaspace") {
            read_metaspace(p);
        } else {
            unsupported("pre-tokenizer", type);
        }
    }

    void read_split(const Json& p) {
        const std::string behavior = text(p, "behavior");
        const bool invert = flag(p, "invert", false);
        const Json* pattern = get(p, "pattern");
        if (const Json* regex = pattern ? get(*pattern, "Regex") : nullptr) {
            const std::string& source = regex->as_string(name("Split.pattern"));
            const WordScanners known = word_scanners_of_regex(source);
            if (known.empty()) unsupported("the regular expression of Split", source);
            // Keeping only the matches is the same as isolating them if they leave nothing out, as those ending in |\s+
            // do.
            const bool covers = source.size() > 4 && source.substr(source.size() - 4) == R"(|\s+)";
            if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert && covers))
                unsupported("Split behavior", behavior);
            options.words.insert(options.words.end(), known.begin(), known.end());
            return;
        }
        const std::string at = literal(p, "Split");
        if (invert) unsupported("Split.invert with the string", at);
        if (at.empty()) unsupported("Split pattern", "");
        options.words.push_back(split_scanner(at, behavior));
    }

    WordScanner split_scanner(const std::string& mark, const std::string& behavior) const {
        const auto next = [](std::string_view s, std::string_view m, size_t from) {
            return std::min(s.find(m, from), s.size());
        };
        if (behavior == "Isolated" || behavior == "Contiguous")
            return [mark, next, run = behavior == "Contiguous"](std::string_view s, size_t at) {
                size_t end = at;
                while (starts_with(s.substr(end), mark)) {
                    end += mark.size();
                    if (!run) break;
                }
                return end > at ? end : next(s, mark, at);
            };
        if (behavior == "MergedWithPrevious")
            return [mark, next](std::string_view s, size_t at) {
                return std::min(next(s, mark, at) + mark.size(), s.size());
            };
        if (behavior == "MergedWithNext")
            return [mark, next](std::string_view s, size_t at) {
                return next(s, mark, at + (starts_with(s.substr(at), mark) ? mark.size() : 0));
            };
        unsupported("Split behavior", behavior);
    }

    // Spaces become the mark; in front goes another, always or only where the text begins; words begin with the mark.
    void read_metaspace(const Json& p) {
        if (!options.words.empty()) unsupported("Metaspace after another pre-tokenizer:", "Metaspace");
        const std::string mark = text(p, "replacement"), scheme = prepend_scheme(p);
        if (mark.empty()) unsupported("Metaspace replacement", "");
        options.changes.push_back([mark, scheme](std::string& s, bool first) {
            s = replace_all(std::move(s), " ", mark);
            if ((scheme == "always" || (scheme == "first" && first)) && !starts_with(s, mark)) s.insert(0, mark);
        });
        if (flag(p, "split", true)) options.words.push_back(split_scanner(mark, "MergedWithNext"));
    }
};

}  // namespace tokenizer_steps_room

bool read_tokenizer_steps(const Json* normalizer, const Json* pre_tokenizer, BpeOptions& options,
                          const std::string& where) {
    tokenizer_steps_room::Reader reader{{where}, options};
    if (normalizer) reader.read_normalizer(*normalizer);
    if (pre_tokenizer) reader.read_pre_tokenizer(*pre_tokenizer);
    return reader.byte_level;
}

}}  // namespace qlora
