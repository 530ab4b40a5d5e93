// texts.h - fuzz targets of tokenizers, of the text that goes into them, and of chat templates.
#pragma once
#include "src/text/pretokenize.h"
#include "src/text/tokenizer_model.h"
#include "tests/fuzz/samples.h"
#include "tests/support/sentencepiece_file.h"

namespace fuzz {

constexpr std::string_view greeting = "Hello <|im_start|> w\xC3\xB6rld  1234\n\n\xF0\x9F\x98\x80 \xFF <n> e\xCC\x81";

inline void read_text(std::string_view bytes) {
    static const auto bpe = tokenizer(),
                      spm = load_tokenizer_json(Json::parse(spm_tokenizer_json(), "seed"), Json(), "seed");
    static const auto gguf = load_tokenizer(put("text-vocabulary.gguf", vocabulary(true)));
    for (const auto& t : {bpe, spm, gguf}) use(*t, bytes);
    Tokens tokens;
    bpe->encode(bytes, tokens);
    if (bpe->decode(tokens).size() > 8 * bytes.size() + 8) std::abort();
}

// The first byte says which pre-tokenizer; words must be the text again, whole.
inline void read_words(std::string_view bytes) {
    static const std::vector<WordScanners> all = [] {
        std::vector<WordScanners> known;
        for (const char* pre : {"chatglm-bpe",
                                "codeshell",
                                "command-r",
                                "dbrx",
                                "deepseek-coder",
                                "deepseek-llm",
                                "deepseek-r1-qwen",
                                "default",
                                "exaone",
                                "falcon",
                                "falcon3",
                                "glm4",
                                "gpt-2",
                                "gpt-4o",
                                "jais",
                                "llama-bpe",
                                "llama4",
                                "minerva-7b",
                                "mpt",
                                "olmo",
                                "phi-2",
                                "pixtral",
                                "poro-chat",
                                "bloom",
                                "viking",
                                "qwen2",
                                "qwen35",
                                "refact",
                                "smaug-bpe",
                                "smollm",
                                "stablelm2",
                                "starcoder",
                                "tekken",
                                "superbpe",
                                "trillion",
                                "kimi-k2"})
            try { known.push_back(word_scanners(pre, "fuzz")); } catch (const Error&) {}
        return known;
    }();
    if (bytes.empty()) return;
    const std::string_view text = bytes.substr(1);
    size_t sum = 0;
    const auto emit = [&](std::string_view word) {
        if (word.empty() && !text.empty()) std::abort();
        sum += word.size();
    };
    for_each_word(all[uint8_t(bytes[0]) % all.size()], text, emit);
    if (sum != text.size()) std::abort();
}

inline Seeds word_seeds() {
    Seeds seeds;
    for (int i = 0; i < 40; ++i)
        seeds.push_back(char(i) + std::string("Hello w\xC3\xB6rld's  1234567 \n\n foo_bar `x` \xE4\xBD\xA0\xE5\xA5\xBD "
                                              "\xF0\x9F\x98\x80 \xFF ABCdef...!? \t\r\n e\xCC\x81 \xD0\x90\xD0\xB1"));
    return seeds;
}

// The templates of the sweep against jinja2 (tests/golden): every filter, test, method, operator and statement.
inline const std::string& sweep() {
    static const std::string file = read_file("tests/golden/template_sweep.jsonl");
    return file;
}

inline Json sweep_variables() {
    return Json::parse(std::string_view(sweep()).substr(0, sweep().find('\n')), "sweep");
}

inline void read_template(std::string_view bytes) {
    static const Json variables = [] {
        Json all = sweep_variables();
        const Json own = Json::parse(
            R"({"messages": [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "yo", "n": 1.5, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}],
        "tools": [{"a": {"b": [1, null, true]}}], "add_generation_prompt": true, "bos_token": "<s>"})",
            "fuzz");
        for (const auto& [name, value] : own.object()) all.set(name, value);
        return all;
    }();
    TemplateLimits limits;
    limits.steps = 20000;
    limits.output = 100000;
    ChatTemplate::parse(bytes, "fuzz")->render(variables, limits);
}

inline Seeds template_seeds() {
    return {
        "{%- set ns = namespace(a=[1,'b',{'c': none}]) -%}{% for m in messages if m.role != 'x' %}{{ m['content'] | "
        "trim ~ '\\n' }}{% if loop.first and not m.x is defined %}"
        "{{ m.role.split('s')[0][::-1] }}{% elif true %}{% generation %}z{% endgeneration %}{% else %}{{ "
        "raise_exception('x') }}{% endif %}{% endfor %}"
        "{% macro f(a, b=1) %}{{ a | tojson(indent=2) }}{{ [b, 2] | join('-') }}{% endmacro %}{{ f(messages, "
        "b=range(3) | list | length) }}{{ strftime_now('%Y') }}"};
}

// One expression a seed: a builtin that fails must not hide the ones behind it.
inline Seeds builtin_seeds() {
    Seeds seeds;
    for (const char* expression : {"messages | map(attribute='role') | join(',')",
                                   "messages | selectattr('role', 'equalto', 'user') | list | length",
                                   "messages | rejectattr('n') | first",
                                   "[3,1,2] | sort(reverse=true) | last",
                                   "'aBc' | upper | lower | title | capitalize | replace('a', 'b') | indent(2)",
                                   "3.7 | int + (-2 | abs)",
                                   "'3' | float | round(1)",
                                   "'<&>' | escape",
                                   "2 ** 3 // 2 % 5",
                                   "{'a': 1}.items() | list",
                                   "'a,b'.split(',', 1) | reverse | list",
                                   "messages[0] | dictsort",
                                   "'x' * 3",
                                   "[1, [2]] | string | wordcount",
                                   "'abc'.startswith('a') and 'abc'.endswith('c')",
                                   "' a '.strip().title().rstrip('x').lstrip()",
                                   "messages | groupby('role')",
                                   "[1, 2] | sum",
                                   "[1, 2] | min",
                                   "[1, 1] | unique | list",
                                   "tools | tojson(indent=2)",
                                   "'%s-%d' | format('a', 3)",
                                   "[1,2,3,4] | batch(2) | list",
                                   "[1,2,3] | slice(2) | list",
                                   "messages | selectattr('n', 'defined') | list",
                                   "x | default('y', true)",
                                   "'a' ~ 1 ~ none ~ true",
                                   "[1,2,3][::-1][0:2]",
                                   "'abc'[1:]",
                                   "'a' in 'abc' and 1 not in [2]",
                                   "'a'.upper() if true else 'b'",
                                   "1 < 2 <= 2 != 3",
                                   "dict(a=1, b=[2])",
                                   "range(1, 9, 3) | list",
                                   "'a\\nb'.splitlines()",
                                   "'abc'.find('b') + 'abc'.count('c')",
                                   "{'a': {'b': 1}} | items | list",
                                   "messages | length is divisibleby 2"})
        seeds.push_back(std::string("{{ ") + expression + " }}");
    for (const char* block :
         {"{% raw %}{{x}}{% endraw %}", "{% set x %}y{% endset %}{{ x }}", "{% filter upper %}q{% endfilter %}",
          "{% for k, v in {'a': 1}.items() recursive %}{{ k }}{{ loop.index }}{{ loop.previtem }}{% else %}n{% endfor "
          "%}",
          "{% macro m(a, b=2) %}{{ a }}{{ caller() if caller }}{% endmacro %}{% call m(1) %}c{% endcall %}",
          "{% if x is none or x is undefined %}{% endif %}{#- c -#}", "{% with a = 1 %}{{ a }}{% endwith %}",
          "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 2 %}{% break %}{% endif %}{{ "
          "loop.cycle('a', 'b') }}{% endfor %}"})
        seeds.push_back(block);
    for (size_t at = sweep().find('\n') + 1; at < sweep().size();) {
        const size_t end = sweep().find('\n', at);
        const Json row = Json::parse(std::string_view(sweep()).substr(at, end - at), "sweep");
        if (row.array()[1].is_string()) seeds.push_back(row.array()[0].string());
        at = end + 1;
    }
    return seeds;
}

// tokenizer_config.json with its template, and a dialogue through it.
// The vocabulary is the smaller one: what is beside it changes, and that is what is read.
inline void read_tokenizer_config(std::string_view bytes) {
    static const bool written = !put("tokenizer/tokenizer.json", spm_tokenizer_json()).empty() &&
                                !put("tokenizer/generation_config.json", R"({"eos_token_id": [1, 8]})").empty();
    if (!written) std::abort();
    put("tokenizer/tokenizer_config.json", bytes);
    const auto t = load_tokenizer(folder() + "/tokenizer");
    const std::vector<Message> dialogue{{"system", "s"}, {"user", "hi </s>"}, {"assistant", "yo"}};
    for (const bool reply : {false, true}) render_chat(*t, dialogue, {.reply_next = reply});
}

// A SentencePiece model of every kind, with a character map, bytes and pieces of every type; and a list of tiktoken.
inline Seeds model_seeds() {
    namespace file = sentencepiece_file;
    // U+FB01 -> "fi": a double array in which each byte leads to a place of its own
    std::string bytes, more = file::piece("ab", -1, 4) + file::piece("xhe", -1, 5) + file::piece("\xC3\xA9", -2);
    for (int b = 0; b < 256; ++b) bytes += file::piece(token_of_byte(b), 0, 6);
    const std::string map("\x08\0\0\0\0\x04\0\0h\x05\0\0x\0", 14);
    const std::string rules = file::bytes(2, map) + file::number(3, 0);
    return {file::model(2, more), file::model(1, more, rules), file::model(1, more),
            file::model(2, bytes) + file::bytes(2, file::number(35, 1)), file::ranks().substr(0, 60), file::ranks()};
}

inline void read_model_file(std::string_view bytes) {
    static const Json config = Json::parse(
        R"({"added_tokens_decoder": {"300": {"content": "<n>", "normalized": true}}, "legacy": false})", "seed");
    for (const char* form : {"", "qwen"})
        for (const Json& beside : {Json(), config})
            use(*make_tokenizer(read_tokenizer_model(bytes, form, beside, "fuzz"), "fuzz"), greeting);
}

inline Targets texts() {
    const auto one = [](auto text) { return [=] { return Seeds{text}; }; };
    return {
        {"tokenizer",
         {[] {
              return Seeds{tokenizer_json(), spm_tokenizer_json()};
          },
          [](std::string_view bytes) {
              use(*load_tokenizer_json(Json::parse(bytes, "fuzz"), Json(), "fuzz"), greeting);
          }}},
        {"tokenizer_config",
         {one(R"({"chat_template": "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}", "bos_token": {"content": "<s>", "lstrip": false},
            "eos_token": "</s>", "add_bos_token": true, "tokenizer_class": "X", "added_tokens_decoder": {"1": {"content": "<s>", "special": true}}})"),
          // a template in a file of its own, left by the target below, would win
          [](std::string_view bytes) {
              std::filesystem::remove(folder() + "/tokenizer/chat_template.jinja");
              read_tokenizer_config(bytes);
          }}},
        {"chat_template",
         {one("{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt "
              "%}<s>assistant\n{% endif %}"),
          [](std::string_view bytes) {
              put("tokenizer/chat_template.jinja", bytes);
              read_tokenizer_config(R"({"eos_token": "</s>"})");
          }}},
        {"tokenizer_model", {model_seeds, read_model_file}},
        {"text", {one(std::string(greeting)), read_text}},
        {"words", {word_seeds, read_words}},
        {"template", {template_seeds, read_template}},
        {"builtins", {builtin_seeds, read_template}},
    };
}

}  // namespace fuzz
