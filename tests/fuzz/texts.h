// texts.h - fuzz targets of tokenizers, of the text that goes into them, and of chat templates.
#pragma once
#include "src/model/vocabulary.h"
#include "src/text/pretokenize.h"
#include "src/text/tiktoken.h"
#include "src/text/tokenizer_model.h"
#include "tests/fuzz/samples.h"
#include "tests/support/sentencepiece_file.h"

namespace fuzz {

constexpr std::string_view greeting = "Hello <|im_start|> w\xC3\xB6rld  1234\n\n\xF0\x9F\x98\x80 \xFF <n> e\xCC\x81";

// Every component of a tokenizer.json: those that are compared with the library of that name (tests/golden).
inline Seeds tokenizer_parts() {
    Seeds seeds;
    std::map<std::string, Json> models;
    std::ifstream in("tests/golden/tokenizer_parts.jsonl");
    for (std::string line; std::getline(in, line);) {
        const Json row = Json::parse(line, "tokenizer_parts.jsonl");
        const Json::Array& fields = row.array();
        if (fields.size() == 2) models.emplace(fields[0].string(), fields[1]);
        if (fields.size() != 3) continue;
        Json file = fields[2];
        Json model = models.at(fields[1].string());
        if (model.find("merges")) {                    // one letter in four is enough of a vocabulary
            Json vocabulary = Json::Object{};
            int64_t id = 0;
            for (const auto& [token, unused] : model.find("vocab")->object())
                if (token.size() == 1 || token[0] == '<') vocabulary.set(token, id++);
            model.set("vocab", std::move(vocabulary)).set("merges", Json::Array{});
        }
        seeds.push_back(file.set("model", std::move(model)).dump());
    }
    return seeds;
}

// A tokenizer, and what becomes of it in the other kinds of files.
inline void read_tokenizer_file(std::string_view bytes) {
    auto m = std::make_shared<ModelImpl>(*model());
    m->tokenizer = load_tokenizer_json(Json::parse(bytes, "fuzz"), Json(), "fuzz");
    use(*m->tokenizer, greeting);
    render_chat(*m->tokenizer, std::vector<Message>{{"user", "hi"}, {"assistant", "yo"}}, {});
    GgufWriter writer;
    if (write_gguf_vocabulary(writer, {std::string(bytes), "", ""}, *m)) {
        const std::string path = folder() + "/other.gguf";
        writer.set("general.architecture", GgufWriter::Type::string, "llama");
        writer.write(path);
        use(*load_tokenizer(path), greeting);
    }
}

inline void read_text(std::string_view bytes) {
    static const auto bpe = tokenizer(),
                      spm = load_tokenizer_json(Json::parse(spm_tokenizer_json(), "seed"), Json(), "seed");
    static const auto gguf = load_tokenizer(put("text-vocabulary.gguf", vocabulary(true)));
    static const auto compatible = load_tokenizer_json(
        Json::parse(R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["?", 0], ["a", -1], [" a", -2]]},
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "NFD"}, {"type": "NFKD"},
            {"type": "Lowercase"}]}, "pre_tokenizer": {"type": "BertPreTokenizer"}})", "seed"), Json(), "seed");
    for (const auto& t : {bpe, spm, gguf, compatible}) use(*t, bytes);
    if (utf8_whole(bytes) > bytes.size() || !utf8_valid(utf8_sanitize(bytes))) std::abort();
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
                                "kimi-k2",
                                "cl100k",
                                "hunyuan"})
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
    const std::string name(text.substr(0, 40));        // and as the name or the expression of one
    for (const std::string_view as : {pre_of_regex(name, false), regex_of_pre(name), family_of_pre(name)})
        if (!as.empty()) word_scanners_of_regex(as);
}

inline Seeds word_seeds() {
    Seeds seeds{std::string(1, '\0') + "qwen2", std::string(1, '\0') + "[0-9][0-9][0-9]"};
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
                                   "messages | length is divisibleby 2",
                                   "'%c%c %5.1f %-4d|%+d %x' | format(65, 'b', 1.5, 2, 3, 255)",
                                   "'%o %e %G %%' | format(8, 1e9, 1e-9)",
                                   "'%*d %.*f %s %r' | format(5, 1, 2, 1.5, 'x', none)",
                                   "'{:>5} {:^5} {:*<5} {0}'.format('a', 'b', 'c')",
                                   "'{a.b!r:>8} {c[d]!s}'.format(a=tools, c={'d': 1})",
                                   "'{:,} {:05d} {:+.2f} {:x}'.format(12345, 7, 1.5, 255)",
                                   "'{:b} {:e} {:%} {:_}'.format(5, 1e9, 0.5, 1000)",
                                   "'{:.3s} {:c} {:#x} {:g}'.format('abcdef', 65, 255, 1e20)",
                                   "('%f' | format('1e999' | float)) ~ ('%F' | format('-1e999' | float))",
                                   "{'a': 1}.get('b', 2) ~ {'a': 1}.get(1) ~ ({'a': 1}.copy() | length)",
                                   "[1, 2].index(2) ~ [1].copy() ~ [2, 1].count(1)",
                                   "{'a': 1}.keys() | list ~ {'a': 1}.values() | list",
                                   "'0x1F' | int(0, 16)", "'0b_1' | int(base=2)", "'1_000' | int", "'1__0' | int",
                                   "(-8) ** 0.5", "9223372036854775807 + 1", "1234.5 | round(-2)", "12345 | round(-2)",
                                   "9007199254740993 / 3", "'\xD9\xA3' | int", "'99999999999999999999' | int",
                                   "9223372036854775807 | round(-19)", "1e308 | round(-308, 'ceil')"})
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
    // and beside a tokenizer.model, in memory
    Files files{{"tokenizer.model", sentencepiece_file::model(2)}, {"config.json", R"({"eos_token_id": 2})"}};
    files["tokenizer_config.json"] = bytes;
    files["added_tokens.json"] = R"({"<n>": 9})";
    try { load_tokenizer(Source::folder(std::move(files))); } catch (const Error&) {}
    const std::vector<Message> dialogue{{"system", "s"}, {"user", "hi </s>"}, {"assistant", "yo"}};
    for (const bool reply : {false, true}) render_chat(*t, dialogue, {.reply_next = reply});
    render_chat(*t, dialogue, {.reply_next = true, .prefill = "y", .tools = "[]", .variables = "{}"});
}

// A SentencePiece model of every kind, with a character map, bytes and pieces of every type; and a list of tiktoken.
inline Seeds model_seeds() {
    namespace file = sentencepiece_file;
    std::string bytes, more = file::piece("ab", -1, 4) + file::piece("xhe", -1, 5) + file::piece("\xC3\xA9", -2);
    for (int b = 0; b < 256; ++b) bytes += file::piece(token_of_byte(b), 0, 6);
    // l -> x: a double array whose root leads to it (0x6d ^ 'l' is 1); and one that leads back into itself
    constexpr uint32_t root = 0x6d << 10, l = 'l', ends = 1 << 8;
    const auto map = [](std::initializer_list<uint32_t> units, const char* strings) {
        std::string out;
        const auto add = [&](uint32_t value) {
            for (int i = 0; i < 4; ++i) out += char(value >> 8 * i & 255);
        };
        add(uint32_t(4 * units.size()));
        for (const uint32_t unit : units) add(unit);
        return file::bytes(2, out + strings + '\0') + file::number(3, 0);
    };
    const std::string rules = map({root, l | ends | 3 << 10, 0}, "x"), endless = map({root, l | l << 10}, ""),
                      outside = map({root, l | ends | 3 << 10, 4}, "x");
    return {file::model(2, more), file::model(1, more, rules), file::model(1, more), file::model(2, "", endless),
            file::model(2, "", outside),
            file::model(2, bytes) + file::bytes(2, file::number(35, 1)), file::ranks().substr(0, 60), file::ranks()};
}

// The fields that decide little, each written in every way there is.
inline Seeds odd_model_seeds() {
    namespace file = sentencepiece_file;
    Seeds seeds;
    const std::string fixed = file::varint(90 << 3 | 1) + std::string(8, 'x') + file::varint(91 << 3 | 5) + "1234";
    for (const std::string& rest :
         {file::bytes(2, file::bytes(46, "<s>") + file::bytes(47, "</s>") + file::bytes(48, "<unk>")), fixed,
          file::bytes(2, file::number(24, 1)), file::bytes(3, file::number(5, 0)), file::bytes(5, file::bytes(2, "x")),
          file::bytes(2, file::number(35, 1)), file::bytes(2, file::number(3, 3)), file::varint(7),
          std::string(11, '\xFF'),
          file::piece("b", -3, 9)})
        seeds.push_back(file::model() + rest);
    const std::string unused = file::piece("l", -3) + file::piece("ll", -1, 5) + file::piece("el", -2, 5);
    seeds.push_back(file::model(2, unused));
    seeds.push_back(file::model(1, unused, file::number(4, 1)));
    seeds.push_back(file::piece("<unk>", 0, 2));
    seeds.push_back(file::model(1, "", file::bytes(2, std::string("\x0C\0\0\0\0\x80\1\0h\x0D\0\0\0\0\0\0fi\0", 19))));
    return seeds;
}

inline void read_model_file(std::string_view bytes) {
    static const Json config = Json::parse(
        R"({"added_tokens_decoder": {"300": {"content": "<n>", "normalized": true}}, "legacy": false})", "seed");
    for (const char* form : {"qwen", "llama3", "cl100k", "o200k", ""})
        for (const Json& beside : {Json(), config}) {
            auto m = std::make_shared<ModelImpl>(*model());
            m->tokenizer = make_tokenizer(read_tokenizer_model(bytes, form, beside, "fuzz"), "fuzz");
            for (const std::string_view text : {greeting, std::string_view("  ell  ll ")}) use(*m->tokenizer, text);
            GgufWriter writer;
            const TextFiles files{"", beside.is_null() ? "" : beside.dump(), "", std::string(bytes), form};
            write_gguf_vocabulary(writer, files, *m);
            if (!is_tiktoken(bytes) && std::string_view(form) == "qwen") break;
        }
    load_tokenizer(Source::memory(std::as_bytes(std::span(bytes))));
}

inline Targets texts() {
    const auto one = [](auto... text) { return [=] { return Seeds{text...}; }; };
    return {
        {"tokenizer",
         {[] {
              Seeds seeds = tokenizer_parts();
              seeds.push_back(tokenizer_json());
              seeds.push_back(spm_tokenizer_json());
              seeds.push_back(
                  R"({"added_tokens": [{"id": 5, "content": "<|start_header_id|>", "special": true}], "pre_tokenizer": {"type":
                  "Metaspace", "replacement": "\u2581", "prepend_scheme": "first"}, "model": {"type": "BPE", "byte_fallback":
                  true, "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "<0x0A>": 2, "\u2581": 3, "\u2581a": 4},
                  "merges": ["\u2581 a"]}})");
              return seeds;
          },
          read_tokenizer_file}},
        {"tokenizer_config",
         {one(R"({"chat_template": "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}", "bos_token": {"content": "<s>", "lstrip": false},
            "eos_token": "</s>", "add_bos_token": true, "tokenizer_class": "X", "added_tokens_decoder": {"1": {"content": "<s>", "special": true}}})",
              R"({"added_tokens_decoder": {"9": {"content": "<|start_header_id|>", "special": true}}})",
              R"({"chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}, {"name": "tool_use", "template": ""}], "legacy": false})",
              "{}", R"({"eos_token": "nothing"})"),
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
        {"tokenizer_model",
         {[] {
              Seeds seeds = model_seeds();
              for (std::string& odd : odd_model_seeds()) seeds.push_back(std::move(odd));
              return seeds;
          },
          read_model_file}},
        {"text",
         {one(std::string(greeting), std::string("a <\xCC\xB8 = b \xEA\xB0\x81\xEA\xB0\x80 \xE1\x84\x80\xE1\x85\xA1"
                                                 "\xE1\x86\xA8 \xEF\xAC\x81 \xE2\x91\xA0 \xC2\xAB!\xC2\xBB \xF0\x9F")),
          read_text}},
        {"words", {word_seeds, read_words}},
        {"template", {template_seeds, read_template}},
        {"builtins", {builtin_seeds, read_template}},
    };
}

}  // namespace fuzz
