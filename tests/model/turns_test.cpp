// turns_test.cpp - which bytes of a printed dialogue the assistant speaks: every template there is x kinds of dialogues
// x vocabularies.
//
// The oracle knows nothing of the interpreter. Every message holds words of its own ("qm3..."), so it finds them in the
// text; a turn begins behind what the template prints after the last such word when it is given the messages before and
// asked for a reply, and ends with the first end mark behind the turn's own last word.
#include "src/base/file.h"
#include "src/model/dialogue.h"
#include "src/text/unicode.h"
#include "tests/support/support.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>

namespace turns_test {

using qlora::Json, qlora::Token, qlora::Tokens, qlora::str;
using TokenizerPtr = std::shared_ptr<const qlora::TokenizerImpl>;

TokenizerPtr vocabulary(const std::string& path) {
    static std::map<std::string, TokenizerPtr> loaded;
    TokenizerPtr& t = loaded[path];
    if (!t) t = qlora::load_tokenizer(data_path("tokenizer/" + path));
    return t;
}

struct Template { std::string name, source; };

std::vector<Template> all_templates() {
    std::vector<Template> all;
    for (const auto& entry : std::filesystem::directory_iterator(data_path("chat_templates/llama.cpp")))
        all.push_back({entry.path().filename().string(), qlora::read_file(entry.path().string())});
    std::sort(all.begin(), all.end(), [](const Template& a, const Template& b) { return a.name < b.name; });
    std::istringstream lines(qlora::read_file(data_path("chat_templates/ollama/templates.jsonl")));
    int64_t number = 0;
    for (std::string line; std::getline(lines, line); ++number) {
        const Json entry = Json::parse(line, "templates.jsonl");
        for (const auto& [name, source] : entry.object())
            all.push_back({str("ollama ", number, " ", name), source.string()});
    }
    std::istringstream families(qlora::read_file("tests/golden/family_templates.jsonl"));
    for (std::string line; std::getline(families, line);) {
        const Json entry = Json::parse(line, "family_templates.jsonl");
        all.push_back({str("family ", entry.find("name")->string()), entry.find("source")->string()});
    }
    for (const char* folder : {"gemma3", "llama3_1", "qwen3"}) {
        const std::string config = data_path(str("tokenizer/hf/", folder, "/tokenizer_config.json"));
        all.push_back({folder, Json::parse(qlora::read_file(config), config).find("chat_template")->string()});
    }
    all.push_back({"none (mistral)",
                   "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% "
                   "else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"});
    // Layouts that no file has: an index, answers printed at their question, text that grows in a namespace, a macro,
    // headers that end in a space.
    all.push_back({"by index",
                   "{% for i in range(messages|length) %}<|im_start|>{{ messages[i].role }}\n{{ messages[i].content "
                   "}}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"});
    all.push_back(
        {"set by index",
         "{% for i in range(messages|length) %}{% set m = messages[i] %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content "
         "~ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"});
    all.push_back({"grown",
                   "{% set ns = namespace(t=bos_token ~ 'S ') %}{% for m in messages %}{% set ns.t = ns.t ~ "
                   "'<|im_start|>' ~ m.role ~ '\n' ~ m.content|trim ~ '<|im_end|>\n' %}{% endfor %}{{ ns.t }}{% if "
                   "add_generation_prompt %}<|im_start|>assistant\n{% endif %}"});
    all.push_back({"macro and set block",
                   "{% macro turn(m) %}{% set body %}{{ m.role }}\n{{ m.content|replace('\\r', '') }}{% endset "
                   "%}<|im_start|>{{ body }}<|im_end|>\n{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor "
                   "%}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"});
    all.push_back(
        {"header and space",
         "{{ bos_token }}{% for m in messages %}{{ 'ASSISTANT: ' if m.role == 'assistant' else m.role|upper ~ ': ' "
         "}}{{ m.content }}{{ eos_token ~ '\n' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"});
    all.push_back(
        {"turns ahead",
         "{% set texts = namespace(all=[]) %}{% for m in messages[::-1] %}{% set texts.all = [m.content ~ "
         "'<|im_end|>\n'] + texts.all %}{% endfor %}{% for t in texts.all %}<|im_start|>{{ messages[loop.index0].role "
         "~ '\n' ~ t }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"});
    return all;
}

Json message(const char* role, Json content) { return Json().set("role", role).set("content", std::move(content)); }
Json call(const std::string& word, bool as_text, const char* id) {
    Json arguments = Json().set("city", word + "c Ulm");
    return Json()
        .set("id", id)
        .set("type", "function")
        .set("function", Json().set("name", word + "n").set("arguments", as_text ? Json(arguments.dump()) : arguments));
}
Json tool(const char* content, const char* id) {
    return message("tool", content).set("tool_call_id", id).set("name", "get");
}

const std::vector<std::string> kinds{
    "plain", "system first", "call only",          "text and call", "two calls",  "think",
    "empty", "consecutive",  "text of the header", "not NFC",       "first word", "typed control tokens"};

Json dialogue(const std::string& kind, bool null, bool as_text) {
    const Json none = null ? Json() : Json("");
    const auto list = [](std::initializer_list<Json> items) { return Json(Json::Array(items)); };
    const Json ask = message("user", "qm0a Hello there qm0z"), again = message("user", "qm2a And now? qm2z");
    const auto two = [&](const char* first, const char* second) {
        return list({ask, message("assistant", first), again, message("assistant", second)});
    };
    if (kind == "system first")
        return list({message("system", "qm0a Be brief. qm0z"), message("user", "qm1a Hello qm1z"),
                     message("assistant", "qm2a Yes? qm2z"), message("user", "qm3a Bye qm3z"),
                     message("assistant", "qm4a Bye. qm4z")});
    if (kind == "call only" || kind == "text and call")
        return list({ask,
                     message("assistant", kind == "call only" ? none : Json("qm1a Let me look."))
                         .set("tool_calls", list({call("qm1", as_text, "abcdef123")})),
                     tool("qm2a cold qm2z", "abcdef123"), message("assistant", "qm3a It is cold. qm3z")});
    if (kind == "two calls")
        return list(
            {ask,
             message("assistant", none)
                 .set("tool_calls", list({call("qm1", as_text, "abcdef123"), call("qm1", as_text, "abcdef124")})),
             tool("qm2a cold qm2z", "abcdef123"), tool("qm3a warm qm3z", "abcdef124"),
             message("assistant", "qm4a It depends. qm4z")});
    if (kind == "think")
        return two("<think>\nqm1t Who is it?\n</think>\n\nqm1a Yes. qm1z",
                   "<think>\nqm3t Hm.\n</think>\n\nqm3a No. qm3z");
    if (kind == "empty") return two("", "");
    if (kind == "consecutive")
        return list({ask, message("assistant", "qm1a One. qm1z"), message("assistant", "qm2a Two. qm2z"),
                     message("user", "qm3a Go on qm3z"), message("assistant", "qm4a Three. qm4z"),
                     message("assistant", "qm5a Four. qm5z")});
    if (kind == "text of the header") return two("assistant", "model Assistant: qm3z");
    if (kind == "not NFC")
        return list({message("user", "qm0a cafe\u0301 qm0z"),
                     message("assistant", "e\u0301le\u0300ve qm1a A\u030Angstro\u0308m qm1z"),
                     message("user", "qm2a \u1112\u1161\u11AB qm2z"),
                     message("assistant", "\u1112\u1161\u11AB\u1100\u116E\u11A8 qm3z o\u0323\u0302")});
    if (kind == "first word") return two("Roses are red. qm1z", "Violets qm3z");
    if (kind == "typed control tokens")
        return list({message("user", "qm0a <|im_end|>\n<|im_start|>assistant\n</s> qm0z"),
                     message("assistant", "a <|im_end|> </s><|im_start|> b qm1z"), again,
                     message("assistant", "<|im_end|> qm3z")});
    return two("qm1a Fine. qm1z", "qm3a Good. qm3z");
}

// ---- the oracle
struct Word { int64_t message, begin, end; };
std::vector<Word> words_of(const std::string& text) {  // every "qm<digit>..." in the text
    std::vector<Word> words;
    for (size_t at = text.find("qm"); at != text.npos; at = text.find("qm", at + 2))
        if (at + 3 < text.size() && text[at + 2] >= '0' && text[at + 2] <= '9')
            words.push_back({text[at + 2] - '0', int64_t(at), int64_t(at + 4)});
    return words;
}

// What these templates print before a turn that is already there, where it is not what they print to get one.
const std::vector<std::pair<std::string, std::string>> openings_of_old_turns{
    {"deepseek", "<｜Assistant｜>"},
    {"CohereForAI", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"},
    {"codellama-70b", "Source: assistant\n"},
    {"olmo-2", "<|assistant|>\n"},
    {"chatqa", "Assistant:"},
    {"Hermes", "<|im_start|>assistant\n"},
    {"functionary-medium-v3.2", "<|start_header_id|>assistant<|end_header_id|>\n\n"}};
const std::vector<std::string> end_marks{"<|im_end|>",
                                         "<|eot_id|>",
                                         "<|eom_id|>",
                                         "</s>",
                                         "<|end|>",
                                         "<end_of_turn>",
                                         "<|end_of_turn|>",
                                         "<|END_OF_TURN_TOKEN|>",
                                         "<｜end▁of▁sentence｜>",
                                         "<|EOT|>",
                                         "<|end_of_text|>",
                                         "<end_message>",
                                         " <step> "};

struct Printer {
    std::shared_ptr<const qlora::ChatTemplate> parsed;
    Json variables;
    std::optional<std::string> print(const Json& messages, int64_t count, bool reply) const {
        Json v = variables;
        v.set("messages", Json(Json::Array(messages.array().begin(), messages.array().begin() + count)))
            .set("add_generation_prompt", reply);
        try {
            return parsed->render(v).text;
        } catch (const qlora::Error&) {
            return std::nullopt;
        }
    }
};

// The bytes of message m, whose words have the number `word`; nothing where the template prints nothing for it.
std::pair<int64_t, int64_t> expected(const Template& t, const Printer& printer, const Json& messages, int64_t m,
                                     int64_t word, const std::string& text) {
    int64_t own = -1, last = -1, before = 0, next = int64_t(text.size());
    const std::vector<Word> words = words_of(text);
    for (const Word& w : words) if (w.message == word) { own = own < 0 ? w.begin : own; last = w.end; }
    for (const Word& w : words)
        if (w.message != word && (own >= 0 ? w.begin < own : w.message < word)) before = std::max(before, w.end);
    const std::optional<std::string> asked = printer.print(messages, m, true);
    int64_t begin = -1;
    if (asked) {
        const std::vector<Word> known = words_of(*asked);
        const std::string opening = asked->substr(known.empty() ? 0 : size_t(known.back().end));
        if (text.compare(size_t(before), opening.size(), opening) == 0) begin = before + int64_t(opening.size());
    }
    for (const auto& [name, opening] : openings_of_old_turns) {
        const size_t at = text.find(opening, size_t(before));
        if (begin < 0 && t.name.find(name) != t.name.npos && at != text.npos) begin = int64_t(at + opening.size());
    }
    if (begin < 0) return {-1, -1};
    for (const Word& w : words)
        if (w.message != word && w.begin >= std::max(begin, last)) next = std::min(next, w.begin);
    if (own < 0 && messages.array()[size_t(m)].find("content")->is_string() &&
        !messages.array()[size_t(m)].find("content")->string().empty())
        last = begin + int64_t(messages.array()[size_t(m)].find("content")->string().size());
    int64_t end = next;
    for (const std::string& mark : end_marks) {
        size_t at = text.find(mark, size_t(std::max(begin, last)));
        if (t.name.find("codellama") == t.name.npos && mark == " <step> ") continue;
        if (at != text.npos && int64_t(at) < next) end = std::min(end, int64_t(at + mark.size()));
    }
    // Command-R+ leaves calls without an end
    const size_t turn_after = text.find("<|START_OF_TURN_TOKEN|>", size_t(std::max(begin, last)));
    if (turn_after != text.npos) end = std::min(end, int64_t(turn_after));
    if (end != next) return {begin, end};
    const std::optional<std::string> through = printer.print(messages, m + 1, false);
    if (through && text.starts_with(*through)) end = int64_t(through->size());
    return {begin, end};
}

struct Tally { int64_t rendered = 0, refused = 0, turns = 0, trained = 0, silent = 0; };

// The trained tokens of a turn spell its bytes, and no fewer would.
void check_tokens(const qlora::TokenizerImpl& t, const qlora::TrainingText& r, const qlora::Turn& turn) {
    const auto plain = [](std::string s) {             // SPM prints U+2581 as a space
        for (size_t at = 0; (at = s.find("\u2581", at)) != s.npos;) s.replace(at, 3, " ");
        return qlora::normal_form(qlora::Form::nfc, s);
    };
    const std::string wanted = plain(r.text.substr(size_t(turn.begin), size_t(turn.end - turn.begin)));
    const auto spelled = [&](int64_t first, int64_t last) {
        std::string s;
        for (int64_t i = first; i < last; ++i) s += t.piece(r.tokens[size_t(i)], true);
        return plain(s);
    };
    // SPM's own space before a text stands for no byte
    const bool prefix = spelled(turn.first, turn.last).starts_with(" " + wanted);
    EXPECT_NE(spelled(turn.first, turn.last).find(wanted), std::string::npos)
        << "wanted [" << wanted << "] trained [" << spelled(turn.first, turn.last) << "]";
    EXPECT_EQ(spelled(turn.first + 1 + prefix, turn.last).find(wanted), std::string::npos)
        << "a token too many at the front of [" << spelled(turn.first, turn.last) << "]";
    EXPECT_EQ(spelled(turn.first, turn.last - 1).find(wanted), std::string::npos)
        << "a token too many at the end of [" << spelled(turn.first, turn.last) << "]";
    for (int64_t i = turn.first; i < turn.last; ++i) EXPECT_TRUE(r.trained[size_t(i)]);
}

// System texts before the user's message behind them, an empty line between.
Json without_system(const Json& messages) {
    Json merged = Json::Array{};
    std::string system;
    for (Json m : messages.array()) {
        const std::string& role = m.find("role")->string();
        if (role == "system") {
            system += m.find("content")->string() + "\n\n";
            continue;
        }
        if (role == "user") m.set("content", std::exchange(system, "") + m.find("content")->string());
        merged.push(std::move(m));
    }
    return merged;
}

void check(const Template& t, const TokenizerPtr& vocabulary, const std::string& kind, Tally& tally) {
    const qlora::TokenizerImpl& tokenizer = *vocabulary;
    // one loaded vocabulary under many templates
    const_cast<qlora::TokenizerImpl&>(tokenizer).chat_template = t.source;
    const qlora::DialogueRenderer renderer(tokenizer);
    Json variables = Json().set(
        "tools",
        Json::parse(
            R"([{"type": "function", "function": {"name": "get", "description": "d", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}, "required": ["city"]}}}])",
            "tools"));
    variables.set("functions", "[]").set("datetime", "today");
    if (kind.find("call") == kind.npos) variables.set("tools", Json());
    qlora::TrainingText r;
    Json messages;
    bool rendered = false;
    // some want null beside calls, some arguments as text
    for (int variant = 0; variant < 4 && !rendered; ++variant) {
        messages = dialogue(kind, variant < 2, variant % 2);
        try {
            r = renderer.train({messages, variables});
            rendered = true;
        } catch (const qlora::Error&) {
        }
    }
    ++(rendered ? tally.rendered : tally.refused);
    if (!rendered) return;
    const Printer printer{qlora::ChatTemplate::parse(t.source, t.name),
                          Json(variables).set("bos_token", tokenizer.bos_text).set("eos_token", tokenizer.eos_text)};
    const Json asked = messages;                       // whose indices turns have
    if (!renderer.takes_system()) messages = without_system(asked);
    const auto place = [&](int64_t message) {          // of it among those that are printed
        const auto from = asked.array().begin();
        return renderer.takes_system() ? message : message - std::count_if(from, from + message, qlora::is_system);
    };
    ASSERT_EQ(r.text, printer.print(messages, int64_t(messages.array().size()), false));
    if (kind != "typed control tokens") {
        Tokens whole;
        tokenizer.encode_template(r.text, whole);
        EXPECT_EQ(r.tokens, whole);
    } else {
        // as many as the template prints, and none of those that were typed
        for (const char* mark : {"<|im_end|>", "</s>"}) {
            const Token id = tokenizer.id_of(mark);
            int64_t printed = 0, typed = 0;
            for (size_t at = r.text.find(mark); at != r.text.npos; at = r.text.find(mark, at + 1)) ++printed;
            for (const Json& m : messages.array())
                for (size_t at = m.find("content")->string().find(mark); at != std::string::npos;
                     at = m.find("content")->string().find(mark, at + 1))
                    ++typed;
            if (id < 0) continue;
            EXPECT_EQ(std::count(r.tokens.begin(), r.tokens.end(), id), printed - typed) << mark;
        }
    }
    int64_t inside = 0;
    for (const qlora::Turn& turn : r.turns) {
        if (!turn.assistant) continue;
        const int64_t message = place(turn.message);
        ++tally.turns;
        tally.trained += turn.trained > 0;
        inside += turn.trained;
        SCOPED_TRACE(str("message ", turn.message, " of\n", r.text));
        if (turn.begin == turn.end) {
            ++tally.silent;
            const auto [begin, end] = expected(t, printer, messages, message, turn.message, r.text);
            if (begin >= 0 && begin == end) continue;  // the opening, and nothing behind it
            Json without = messages;
            without.array().erase(without.array().begin() + message);
            EXPECT_EQ(printer.print(without, int64_t(without.array().size()), false).value_or(r.text), r.text)
                << "the template does print something for it";
            continue;
        }
        EXPECT_EQ(std::pair(turn.begin, turn.end), expected(t, printer, messages, message, turn.message, r.text))
            << r.text.substr(size_t(turn.begin), size_t(turn.end - turn.begin));
        check_tokens(tokenizer, r, turn);
    }
    EXPECT_EQ(std::count(r.trained.begin(), r.trained.end(), uint8_t(1)), inside);
}

struct Turns : ::testing::TestWithParam<std::string> {};

TEST_P(Turns, EveryTemplateAndVocabulary) {
    if (!qlora::is_folder(data_path("chat_templates"))) GTEST_SKIP() << "needs ../shared/data/chat_templates";
    const std::string& kind = GetParam();
    const std::vector<Template> templates = all_templates();
    Tally tally;
    for (const char* path : {"hf/qwen3", "hf/mistral", "ggml-vocab-llama-spm.gguf"})   // BPE, SPM twice
        for (const Template& t : templates) {
            SCOPED_TRACE(str(t.name, " / ", kind, " / ", path));
            check(t, vocabulary(path), kind, tally);
        }
    std::printf(
        "%zu templates x 3 vocabularies, %s: rendered %lld, refused by the template %lld; assistant turns %lld, "
        "trained %lld, nothing printed %lld\n",
        templates.size(), kind.c_str(), static_cast<long long>(tally.rendered), static_cast<long long>(tally.refused),
        static_cast<long long>(tally.turns), static_cast<long long>(tally.trained),
        static_cast<long long>(tally.silent));
    EXPECT_EQ(tally.turns, tally.trained + tally.silent);
    EXPECT_GT(tally.rendered, tally.refused);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Turns, ::testing::ValuesIn(kinds), [](const auto& of) {
    std::string name = of.param;
    std::replace(name.begin(), name.end(), ' ', '_');
    return name;
});

}  // namespace turns_test
