// tiktoken.cpp - see tiktoken.h. Its BPE merges any two neighbours whose bytes together are a token, the one of lowest
// rank first: as a list of merges that is every way to cut a token into two, as good as the token's rank. A word that
// is a token is taken as it is.
#include "src/text/tiktoken.h"

#include "src/base/base64.h"
#include "src/text/token_core.h"
#include "src/text/token_cuts.h"

namespace qlora { inline namespace QLORA_ABI {
namespace tiktoken_room {

struct Line { std::string bytes; int64_t rank = 0; };

// "<base64> <rank>"
inline bool parse(std::string_view line, Line& out) {
    const size_t space = line.find(' ');
    if (space == 0 || space == line.npos || line.size() - space > 11 || space + 1 == line.size()) return false;
    out.rank = 0;
    for (const char c : line.substr(space + 1)) {
        if (c < '0' || c > '9') return false;
        out.rank = out.rank * 10 + (c - '0');
    }
    return base64_bytes(line.substr(0, space), out.bytes) && !out.bytes.empty();
}

inline std::string_view next_line(std::string_view& rest) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
}

// The control tokens behind the list: {names, how many of them} with a number at the end of the name, or one.
struct Specials { std::string_view name; int count = 1; int first = 0; };

struct Form {
    std::string_view name, pre, bos, eos;
    std::vector<std::string_view> files, model_types;
    int64_t gap = 0;                                   // ids between the list and the control tokens
    std::vector<Specials> specials;
};

inline const std::vector<Form>& forms() {
    static const std::vector<Form> all = {
        {"llama3", "llama-bpe", "<|begin_of_text|>", "<|end_of_text|>", {}, {"llama"}, 0,
         {{"<|begin_of_text|>"}, {"<|end_of_text|>"}, {"<|reserved_special_token_", 4, 0}, {"<|start_header_id|>"},
          {"<|end_header_id|>"}, {"<|reserved_special_token_", 1, 4}, {"<|eot_id|>"},
          {"<|reserved_special_token_", 246, 5}}},
        {"qwen", "qwen2", "", "<|endoftext|>", {"qwen.tiktoken"}, {"qwen"}, 0,
         {{"<|endoftext|>"}, {"<|im_start|>"}, {"<|im_end|>"}, {"<|extra_", 205, 0}}},
        {"cl100k", "cl100k", "", "<|endoftext|>", {"cl100k_base.tiktoken"}, {"phi3small"}, 1,
         {{"<|endoftext|>"}, {"<|fim_prefix|>"}, {"<|fim_middle|>"}, {"<|fim_suffix|>"}}},
        {"o200k", "gpt-4o", "", "<|endoftext|>", {"o200k_base.tiktoken"}, {}, 1, {{"<|endoftext|>"}}},
    };
    return all;
}

inline const Form& form_named(std::string_view name, std::string_view where) {
    for (const Form& form : forms())
        if (form.name == name) return form;
    fail(Errc::unsupported, where,
         ": a list of tiktoken does not say how text is cut into words, and neither the name of the file nor "
         "config.json's model_type is one that is known (qwen.tiktoken, cl100k_base.tiktoken, "
         "o200k_base.tiktoken; tokenizer.model of llama); use the model's tokenizer.json or GGUF");
}

// All 256 bytes are there: else a text might have no ids.
inline void read_lines(std::string_view bytes, Vocabulary& v, std::string_view where) {
    const size_t most = bytes.size() / 7 + 1;          // a line is at least "IQ== 0\n"
    int64_t number = 0, singles = 0;
    Line line;
    for (std::string_view rest = bytes; !rest.empty();) {
        const std::string_view text = next_line(rest);
        ++number;
        if (text.empty()) continue;
        if (!parse(text, line))
            fail(Errc::format, where, ": line ", number, " is not a token in base64 and its rank: \"",
                 utf8_sanitize(text.substr(0, 60)), "\"");
        if (line.rank >= int64_t(most))
            fail(Errc::format, where, ": line ", number, " has the rank ", line.rank,
                 ", the file has not so many tokens");
        if (size_t(line.rank) >= v.tokens.size()) v.tokens.resize(size_t(line.rank) + 1);
        std::string& slot = v.tokens[size_t(line.rank)];
        if (!slot.empty()) fail(Errc::format, where, ": line ", number, ": the rank ", line.rank, " is there twice");
        slot = byte_level_text(line.bytes);
        singles += line.bytes.size() == 1;
    }
    if (singles != 256)
        fail(Errc::format, where, ": ", singles,
             " of the 256 bytes are tokens; without all of them a text may have no ids");
}

inline void make_merges(Vocabulary& v, std::string_view where) {
    std::unordered_map<std::string_view, Token> ids;
    for (size_t i = 0; i < v.tokens.size(); ++i) {
        if (v.tokens[i].empty()) continue;
        if (!ids.emplace(v.tokens[i], Token(i)).second)
            fail(Errc::format, where, ": token ", i, " is also token ", ids[v.tokens[i]]);
    }
    TokenCuts all(v.tokens, where);
    for (const std::string_view token : v.tokens) {
        std::vector<std::pair<std::pair<Token, Token>, size_t>> cuts;
        all.each(token, [&](std::string_view left, std::string_view right) {
            const auto a = ids.find(left), b = ids.find(right);
            if (a == ids.end() || b == ids.end()) return false;
            cuts.push_back({{a->second, b->second}, left.size()});
            return true;
        });
        std::sort(cuts.begin(), cuts.end());
        for (const auto& [parts, at] : cuts) v.merges.push_back(str(token.substr(0, at), ' ', token.substr(at)));
    }
}

inline void add_specials(const Form& form, Vocabulary& v) {
    v.tokens.resize(v.tokens.size() + size_t(form.gap));
    for (const Specials& s : form.specials)
        for (int i = 0; i < s.count; ++i)
            v.tokens.push_back(s.name.ends_with('>') ? std::string(s.name) : str(s.name, s.first + i, "|>"));
}

}  // namespace tiktoken_room

bool is_tiktoken(std::string_view bytes) {
    tiktoken_room::Line line;
    return tiktoken_room::parse(tiktoken_room::next_line(bytes), line);
}

std::string_view tiktoken_form(std::string_view file_name, std::string_view model_type) {
    for (const tiktoken_room::Form& form : tiktoken_room::forms())
        for (const std::string_view file : form.files)
            if (file == file_name) return form.name;
    for (const tiktoken_room::Form& form : tiktoken_room::forms())
        for (const std::string_view type : form.model_types)
            if (type == model_type) return form.name;
    return {};
}

std::string_view tiktoken_file(std::string_view name) {
    for (const tiktoken_room::Form& form : tiktoken_room::forms())
        if (form.name == name && !form.files.empty()) return form.files[0];
    return "tokenizer.model";
}

Vocabulary read_tiktoken(std::string_view bytes, std::string_view form_name, const Json& config,
                         std::string_view where) {
    namespace room = tiktoken_room;
    const room::Form& form = room::form_named(form_name, where);
    Vocabulary v;
    v.pre = form.pre;
    v.ignore_merges = v.rank_of_result = true;
    room::read_lines(bytes, v, where);
    room::make_merges(v, where);
    const size_t own = v.tokens.size();
    const Json* named = config.find("added_tokens_decoder");
    if (!named || named->is_null()) room::add_specials(form, v);
    v.types.assign(v.tokens.size(), Vocabulary::Type::normal);
    for (size_t i = 0; i < v.tokens.size(); ++i)
        if (v.tokens[i].empty()) v.types[i] = Vocabulary::Type::unused;
        else if (i >= own) v.types[i] = Vocabulary::Type::control;
    const auto id_of = [&](std::string_view name) {
        const auto at = std::find(v.tokens.begin(), v.tokens.end(), name);
        return name.empty() || at == v.tokens.end() ? -1 : Token(at - v.tokens.begin());
    };
    v.bos = id_of(form.bos);
    v.eos = id_of(form.eos);
    v.add_bos = v.bos >= 0;
    v.notes.push_back(str(where, " does not say how text is cut into words: as \"", form.name, "\" does is assumed"));
    return v;
}

}}  // namespace qlora
