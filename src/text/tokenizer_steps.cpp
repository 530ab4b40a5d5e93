// tokenizer_steps.cpp - the normalizers and pre-tokenizers of a tokenizer.json.
#include "src/text/tokenizer_parts.h"

namespace qlora { inline namespace QLORA_ABI {
namespace tokenizer_steps_room {

inline bool starts_with(std::string_view text, std::string_view front) { return text.substr(0, front.size()) == front; }

struct Reader : TokenizerParts {
    BpeOptions& options;
    bool byte_level = false;                           // ByteLevel has been met: nothing may follow it

    // -- normalizer
    static std::optional<Form> form_named(std::string_view type) {
        static constexpr std::pair<std::string_view, Form> names[] = {
            {"NFC", Form::nfc}, {"NFD", Form::nfd}, {"NFKC", Form::nfkc}, {"NFKD", Form::nfkd}};
        for (const auto& [name, form] : names) if (name == type) return form;
        return {};
    }

    void read_normalizer(const Json& n) {
        const std::string type = text(n, "type");
        if (type == "Sequence") {
            for (const Json& part : list(n, "normalizers")) read_normalizer(part);
        } else if (const std::optional<Form> form = form_named(type)) {
            options.normalizers.push_back([f = *form](NormalText& t) { t.bring_into(f); });
        } else if (type == "Lowercase") {
            options.normalizers.push_back([](NormalText& t) { t.lower(); });
        } else if (type == "Replace") {
            options.normalizers.push_back(
                [from = pattern(n, "Replace"), to = text(n, "content")](NormalText& t) { t.replace(from, to); });
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
        } else if (type == "Punctuation") {
            const Json* behavior = get(p, "behavior");
            options.words.push_back(split_at(match_punctuation(), behavior ? split_named(text(p, "behavior"))
                                                                           : Split::isolated));
        } else if (type == "WhitespaceSplit") {
            options.words.push_back(split_at(match_white_space(), Split::removed));
        } else if (type == "BertPreTokenizer") {
            options.words.push_back(split_at(match_white_space(), Split::removed));
            options.words.push_back(split_at(match_punctuation(), Split::isolated));
        } else if (type == "Metaspace") {
            read_metaspace(p);
        } else {
            unsupported("pre-tokenizer", type);
        }
    }

    void read_split(const Json& p) {
        const std::string behavior = text(p, "behavior");
        const bool invert = flag(p, "invert", false);
        const Json *found = get(p, "pattern"), *regex = found ? get(*found, "Regex") : nullptr;
        if (const WordScanners known = regex ? word_scanners_of_regex(regex->as_string(name("Split.pattern")))
                                             : WordScanners();
            !known.empty()) {
            // Keeping only the matches is the same as isolating them if they leave nothing out, as those ending in |\s+
            // do.
            const bool covers = regex->string().ends_with(R"(|\s+)");
            if (behavior != "Isolated" && !(behavior == "Removed" && invert && covers))
                unsupported("Split behavior", behavior);
            options.words.insert(options.words.end(), known.begin(), known.end());
            return;
        }
        options.words.push_back(split_at(pattern(p, "Split"), split_named(behavior), invert));
    }

    Matcher pattern(const Json& from, std::string_view of) const {
        const Json *p = get(from, "pattern"), *regex = p ? get(*p, "Regex") : nullptr;
        if (!regex) {
            const std::string string = literal(from, of);
            if (string.empty()) unsupported(str(of, " pattern"), "");
            return match_text(string);
        }
        const std::string& source = regex->as_string(name("pattern"));
        Matcher matcher = match_expression(source);
        if (!matcher) unsupported(str("the regular expression of ", of), source);
        return matcher;
    }

    Split split_named(const std::string& behavior) const {
        static constexpr std::pair<std::string_view, Split> names[] = {{"Isolated", Split::isolated},
                                                                       {"Contiguous", Split::contiguous},
                                                                       {"MergedWithPrevious", Split::with_previous},
                                                                       {"MergedWithNext", Split::with_next},
                                                                       {"Removed", Split::removed}};
        for (const auto& [known, split] : names) if (known == behavior) return split;
        unsupported("Split behavior", behavior);
    }

    // Spaces become the mark; in front goes another, always or only where the text begins; words begin with the mark.
    void read_metaspace(const Json& p) {
        if (!options.words.empty() || !options.changes.empty())
            unsupported("Metaspace after another pre-tokenizer:", "Metaspace");
        const std::string mark = text(p, "replacement"), scheme = prepend_scheme(p);
        if (mark.empty()) unsupported("Metaspace replacement", "");
        options.changes.push_back([mark, scheme](std::string& s, bool first) {
            const size_t most = most_grown(s.size());
            s = replace_all(std::move(s), " ", mark, most);
            if ((scheme == "always" || (scheme == "first" && first)) && !starts_with(s, mark)) s.insert(0, mark);
        });
        if (flag(p, "split", true)) options.words.push_back(split_at(match_text(mark), Split::with_next));
    }
};

}  // namespace tokenizer_steps_room

bool read_tokenizer_steps(const Json* normalizer, const Json* pre_tokenizer, BpeOptions& options,
                          const std::string& where) {
    tokenizer_steps_room::Reader reader{{where}, options};
    if (normalizer) reader.read_normalizer(*normalizer);
    if (pre_tokenizer) reader.read_pre_tokenizer(*pre_tokenizer);
    reader.check_count("normalizers", options.normalizers.size());
    reader.check_count("pre-tokenizers", std::max(options.words.size(), options.changes.size()));
    return reader.byte_level;
}

}}  // namespace qlora
