// chat_template_test.cpp - real templates against jinja2, the interpreter's semantics, and hostile templates.
#include "src/base/file.h"
#include "src/text/chat_template.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <map>
#include <sstream>

namespace chat_template_test {

using namespace qlora;

inline std::string render(std::string_view source, std::string_view variables = "{}",
                          const TemplateLimits& limits = {}) {
    return ChatTemplate::parse(source, "test")->render(Json::parse(variables, "variables"), limits).text;
}

inline std::string error_of(std::string_view source, std::string_view variables = "{}",
                            const TemplateLimits& limits = {}) {
    try {
        render(source, variables, limits);
    } catch (const Error& e) {
        return e.what();
    }
    return "";
}

// The golden rows name a template of the data folder; its text is not ours to commit.
inline std::string template_text(const Json& row) {
    const std::string path = data_path("chat_templates/" + row.find("file")->string());
    const std::string bytes = read_file(path);
    if (row.find("name")->is_null()) return bytes;
    int64_t line = row.find("name")->array()[0].integer();
    size_t at = 0;
    for (; line > 0; --line) at = bytes.find('\n', at) + 1;
    const Json entry = Json::parse(std::string_view(bytes).substr(at, bytes.find('\n', at) - at), path);
    return entry.find(row.find("name")->array()[1].string())->string();
}

TEST(ChatTemplate, RealTemplatesRenderAsJinja2Does) {
    if (!qlora::is_folder(data_path("chat_templates"))) GTEST_SKIP() << "needs ../shared/data/chat_templates";
    const std::string golden = read_file(golden_path("chat_templates.jsonl"));
    int64_t rows = 0;
    for (size_t at = 0; at < golden.size();) {
        const size_t end = golden.find('\n', at);
        const Json row = Json::parse(std::string_view(golden).substr(at, end - at), "chat_templates.jsonl");
        at = end + 1;
        ++rows;
        const std::string source = template_text(row);
        SCOPED_TRACE(row.find("file")->string() + " row " + std::to_string(rows));
        std::string text, error;
        try {
            text = ChatTemplate::parse(source, "t")->render(*row.find("variables")).text;
        } catch (const Error& e) {
            error = e.what();
        }
        // strftime_now prints today; the goldens were made with a fixed date.
        if (source.find("strftime_now") != source.npos && error.empty() && text.find("26 Jul 2024") == text.npos)
            continue;
        if (const Json* expected = row.find("expected")) EXPECT_EQ(text, expected->string()) << error;
        else EXPECT_NE(error, "") << "jinja2 refuses: " << row.find("error")->string();
    }
    EXPECT_GT(rows, 250);
}

// Layouts of the families that have no template in ../shared/data (tools/make_family_template_golden.py).
TEST(ChatTemplate, LayoutsOfFamiliesRenderAsJinja2Does) {
    std::map<std::string, std::string> sources;
    const auto lines = [](const char* file, const auto& each) {
        std::istringstream in(read_file(golden_path(file)));
        for (std::string line; std::getline(in, line);) each(Json::parse(line, file));
    };
    lines("family_templates.jsonl",
          [&](const Json& row) { sources[row.find("name")->string()] = row.find("source")->string(); });
    int64_t rows = 0;
    lines("family_renderings.jsonl", [&](const Json& row) {
        ++rows;
        const std::string& name = row.find("name")->string();
        std::string text, error;
        try {
            text = ChatTemplate::parse(sources.at(name), name)->render(*row.find("variables")).text;
        } catch (const Error& e) {
            error = e.what();
        }
        if (const Json* expected = row.find("expected")) EXPECT_EQ(text, expected->string()) << name << error;
        else EXPECT_NE(error, "") << name << ": jinja2 refuses";
    });
    EXPECT_EQ(rows, int64_t(sources.size()) * 6);
}

TEST(ChatTemplate, WhitespaceControl) {
    EXPECT_EQ(render("a\n  {% if true %}\nb\n  {% endif %}\nc"), "a\nb\nc");
    EXPECT_EQ(render("a  {%- if true -%}  b  {%- endif -%}  c"), "abc");
    EXPECT_EQ(render("  {%+ if true %}x{% endif %}"), "  x");
    EXPECT_EQ(render("{{ 1 }}\n{{ 2 }}\n"), "1\n2");
    EXPECT_EQ(render("x{# gone #}y{#- gone -#} z"), "xyz");
    EXPECT_EQ(render("{% raw %}{{ x }}{% endraw %}"), "{{ x }}");
}

TEST(ChatTemplate, Semantics) {
    EXPECT_EQ(render("{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 5 }}"), "3 -4 2 3.5 32");
    EXPECT_EQ(render("{{ 'a' ~ 1 ~ none ~ true }}"), "a1NoneTrue");
    EXPECT_EQ(
        render("{% set ns = namespace(n=0) %}{% for x in [1,2,3] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}"),
        "6");
    EXPECT_EQ(render("{% set n = 1 %}{% for x in [1] %}{% set n = 2 %}{% endfor %}{{ n }}"), "1");
    EXPECT_EQ(render("{% for x in [1,2,3] if x != 2 %}{{ loop.index }}{{ x }}{{ ',' if not loop.last }}{% endfor %}"),
              "11,23");
    EXPECT_EQ(render("{% for x in [] %}{% else %}none{% endfor %}"), "none");
    EXPECT_EQ(render("{% macro m(a, b='y') %}<{{ a }}{{ b }}>{% endmacro %}{{ m('x') }}{{ m('x', b='z') }}"),
              "<xy><xz>");
    EXPECT_EQ(render("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}"), "[in]");
    EXPECT_EQ(render("{{ [1,2,3,4][::-1] }} {{ 'hello'[1:3] }} {{ [1,2,3][-1] }} {{ 'abc'[-5:2] }}"),
              "[4, 3, 2, 1] el 3 ab");
    EXPECT_EQ(render("{{ {'a': 1, 'b': [true, none]} | tojson }}"), "{\"a\": 1, \"b\": [true, null]}");
    EXPECT_EQ(render("{{ x.y is defined }} {{ x is none }}", "{\"x\": {\"z\": 1}}"), "False False");
    EXPECT_EQ(render("{{ m | selectattr('role', 'equalto', 'user') | map(attribute='n') | join('+') }}",
                     R"({"m": [{"role": "user", "n": 1}, {"role": "x", "n": 2}, {"role": "user", "n": 3}]})"),
              "1+3");
    EXPECT_EQ(render("{{ ' a b '.strip().split(' ') }} {{ 'x-y'.replace('-', '+') | upper }}"), "['a', 'b'] X+Y");
    EXPECT_EQ(render("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", R"({"d": {"b": 1, "a": 2}})"),
              "b=1;a=2;");
    EXPECT_EQ(render("{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% "
                     "endif %}{{ i }}{% endfor %}"),
              "02");
    EXPECT_EQ(render("{% filter upper %}a{% endfilter %}{% set b %}x{{ 1 }}{% endset %}{{ b }}"), "Ax1");
    EXPECT_EQ(render("{{ none or 'a' }}{{ 'b' if false }}{{ undefined_name }}"), "a");
}

TEST(ChatTemplate, GenerationBlocksAndContentSpans) {
    const auto t = ChatTemplate::parse(
        "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}!{% "
        "endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
        "t");
    const RenderedTemplate r = t->render(Json::parse(
        R"({"messages": [{"role": "user", "content": "<|x|>"}, {"role": "assistant", "content": " ok "}]})", "v"));
    EXPECT_EQ(r.text, "[user]<|x|>[assistant]ok!");
    ASSERT_EQ(r.generation.size(), 1u);
    EXPECT_EQ(r.text.substr(size_t(r.generation[0].begin), size_t(r.generation[0].end - r.generation[0].begin)), "ok!");
    ASSERT_EQ(r.content.size(), 2u);
    EXPECT_EQ(r.text.substr(size_t(r.content[0].begin), size_t(r.content[0].end - r.content[0].begin)), "<|x|>");
    EXPECT_EQ(r.text.substr(size_t(r.content[1].begin), size_t(r.content[1].end - r.content[1].begin)), "ok");
    EXPECT_TRUE(r.marks_generation);
}

// Every statement, and a sample of filters x tests x methods x operators x operands, as jinja2 prints them in the
// sandbox of transformers: tools/make_template_sweep.py says how many cases the whole sweep has. false: the reference
// prints it and we refuse it by name.
TEST(ChatTemplate, SweepIsEqualToTheReferenceOrRefused) {
    const std::string golden = read_file(golden_path("template_sweep.jsonl"));
    size_t at = golden.find('\n') + 1;
    const Json variables = Json::parse(std::string_view(golden).substr(0, at - 1), "template_sweep.jsonl");
    int64_t rows = 0, refused = 0;
    for (; at < golden.size(); ++rows) {
        const size_t end = golden.find('\n', at);
        const Json row = Json::parse(std::string_view(golden).substr(at, end - at), "template_sweep.jsonl");
        at = end + 1;
        const std::string& source = row.array()[0].string();
        const Json& expected = row.array()[1];
        std::string text, error;
        try {
            text = ChatTemplate::parse(source, "t")->render(variables).text;
        } catch (const Error& e) {
            error = e.what();
        }
        refused += expected.is_bool();
        if (expected.is_string()) EXPECT_EQ(text, expected.string()) << source << "\n" << error;
        else EXPECT_NE(error, "") << source << "\nprints " << text;
    }
    EXPECT_GT(rows, 1000);
    EXPECT_LT(refused * 8, rows);
}

// What is new in the reference's own setting: line ends of the source, white space and case of all scripts, provenance
// through filters.
TEST(ChatTemplate, LineEndsOfTheSourceDoNotMatter) {
    const std::string source = "a\n  {% if true %}\nb\n  {% endif %}\n{# c #}\n{{ 'x\ny' }}\n";
    for (const std::string ends : {"\n", "\r\n", "\r"}) {
        std::string now;
        for (const char c : source) now += c == '\n' ? ends : std::string(1, c);
        EXPECT_EQ(render(now), "a\nb\nx\ny") << ends.size();
    }
}

TEST(ChatTemplate, ContentStaysContentThroughTextFilters) {
    const auto content = [](const std::string& expression) {
        const auto t = ChatTemplate::parse("{% for m in messages %}<{{ " + expression + " }}>{% endfor %}", "t");
        const RenderedTemplate r = t->render(Json::parse("{\"messages\": [{\"content\": \"  Ab c\\nd\"}]}", "v"));
        std::string out;
        for (const auto& s : r.content) out += "[" + r.text.substr(size_t(s.begin), size_t(s.end - s.begin)) + "]";
        return out;
    };
    EXPECT_EQ(content("m.content|trim"), "[Ab c\nd]");
    EXPECT_EQ(content("('x' ~ m.content)|upper"), "[  AB C\nD]");
    EXPECT_EQ(content("m.content.strip().replace('b', '<|x|>')"), "[A][ c\nd]");
    EXPECT_EQ(content("m.content.strip()|replace('b', m.content.strip()[0])"), "[AA c\nd]");
    EXPECT_EQ(content("m.content.strip().split()|join('+')"), "[Ab][c][d]");
    EXPECT_EQ(content("m.content|trim|indent(2)"), "[Ab c][d]");
    EXPECT_EQ(content("'%s|%s' % (m.content.strip(), 1)"), "[Ab c\nd]");
    EXPECT_EQ(content("'{}|{:>3}'.format(m.content.strip(), 'x')"), "[Ab c\nd]");
    EXPECT_EQ(content("m.content|trim|e"), "[Ab c\nd]");
    EXPECT_EQ(content("m.content.strip().rsplit(' ', 1)[1]"), "[c\nd]");
    EXPECT_EQ(content("m.content.strip()[::-1]"), "[d\nc bA]");
    EXPECT_EQ(content("[m.content.strip()]|tojson"), "[[\"Ab c\\nd\"]]");
}

TEST(ChatTemplate, ABrokenTemplateStopsOnlyWhoRendersIt) {
    const auto t = ChatTemplate::parse("{% for x in y %}{% endfxr %}", "model.gguf");
    EXPECT_THROW(t->render(Json::parse("{}", "v")), Error);
    EXPECT_THROW(t->render(Json::parse("{}", "v")), Error);
}

TEST(ChatTemplate, ErrorsNameWhatACallCannotTake) {
    EXPECT_NE(error_of("{{ 'a'|indent(indentfirst=true) }}").find("filter 'indent': has no parameter 'indentfirst'"),
              std::string::npos);
    EXPECT_NE(error_of("{{ 'a'|replace('b') }}").find("parameter 'new' is missing"), std::string::npos);
    EXPECT_NE(error_of("{{ 'a'.split(',', 1, 2) }}").find("method of a string 'split': takes at most 2 arguments"),
              std::string::npos);
    EXPECT_NE(error_of("{{ 1 is divisibleby(2, 3) }}").find("test 'divisibleby': takes at most 1"), std::string::npos);
    EXPECT_NE(error_of("{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}").find("macro 'm': parameter 'a' is given twice"),
              std::string::npos);
    EXPECT_NE(error_of("{{ [1].index(1, 0) }}").find("parameter 'start' is not supported"), std::string::npos);
    EXPECT_NE(error_of("{{ 'a'|wordwrap(5) }}").find("filter 'wordwrap': is not supported"), std::string::npos);
    EXPECT_NE(error_of("{{ 'a'.encode() }}").find("'encode': is not supported"), std::string::npos);
    EXPECT_NE(error_of("{{ strftime_now(fmt='x') }}").find("function 'strftime_now': has no parameter 'fmt'"),
              std::string::npos);
    EXPECT_NE(error_of("{{ [1]|map('string') }}").find("|list"), std::string::npos);
}

TEST(ChatTemplate, IntegersBeyond64BitsAreRefused) {
    for (const char* use : {"{{ n }}", "{{ [n] }}", "{{ n|tojson }}", "{{ n + 1 }}", "{{ n is integer }}",
                            "{{ n|int }}", "{{ {n: 1}|tojson }}", "{{ '%s' % n }}"})
        for (const char* n : {"123456789012345678901", "-0"})
            EXPECT_NE(error_of(use, "{\"n\": " + std::string(n) + "}").find("64 bits"), std::string::npos) << use;
    EXPECT_EQ(render("{{ n }} {{ f }}", R"({"n": 9223372036854775807, "f": 1e18})"), "9223372036854775807 1e+18");
    for (const char* divided : {"{{ 9007199254740993 / 3 }}", "{{ -3 / 9007199254740993 }}"})
        EXPECT_NE(error_of(divided).find("53 bits"), std::string::npos) << divided;
    for (const char* grows : {"{{ 9223372036854775807 + 1 }}", "{{ 10 ** 19 }}", "{{ 99999999999999999999 }}",
                              "{{ '99999999999999999999'|int }}", "{{ [9223372036854775807, 1]|sum }}",
                              "{{ -(-9223372036854775807 - 1) }}"})
        EXPECT_NE(error_of(grows).find("64 bits"), std::string::npos) << grows;
}

TEST(ChatTemplate, ErrorsQuoteOneLine) {
    const std::string long_text(100000, 'x');
    for (const std::string& source :
         {"{{ raise_exception('a\n\tb" + long_text + "') }}", "{{ '" + long_text + "' | " + long_text + " }}",
          "{{ [" + long_text + " }}", "{{ m." + long_text + ".x }}"}) {
        const std::string error = error_of(source, R"({"m": {}})");
        EXPECT_NE(error, "");
        EXPECT_LT(error.size(), 500u);
        EXPECT_EQ(error.find('\n'), std::string::npos);
    }
}

TEST(ChatTemplate, HostileTemplatesFailCleanly) {
    std::string deep, minus, chain = "{{ a", ifs, cat = "{{ 'a'";
    for (int k = 0; k < 100000; ++k) {
        deep += '(';
        minus += "- ";
        chain += ".b";
        ifs += "{% if true %}";
        cat += " ~ 'a'";
    }
    EXPECT_NE(error_of("{{ " + deep), "");
    EXPECT_NE(error_of("{{ " + minus + "1 }}"), "");
    EXPECT_NE(error_of(chain + " }}"), "");
    EXPECT_NE(error_of(cat + " }}"), "");
    EXPECT_NE(error_of(ifs), "");
    EXPECT_NE(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").find("too deep"), std::string::npos);
    EXPECT_NE(error_of("{{ range(1000000000000) }}").find("100000"), std::string::npos);
    EXPECT_NE(error_of("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}", "{}",
                       {.steps = 1000000})
                  .find("steps"),
              std::string::npos);
    EXPECT_NE(
        error_of(
            "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}")
            .find("bytes"),
        std::string::npos);
    EXPECT_NE(error_of("{{ 'ab' * 9999999999 }}").find("bytes"), std::string::npos);
    EXPECT_NE(error_of("{{ 1 // 0 }}").find("zero"), std::string::npos);
    EXPECT_NE(error_of("{{ 1 % 0 }}").find("zero"), std::string::npos);
    EXPECT_NE(error_of("{{ 9223372036854775807 + 1 }}").find("64 bits"), std::string::npos);
    EXPECT_NE(error_of("{{ x.y.z }}").find("'x' is undefined"), std::string::npos);
    EXPECT_NE(error_of("{{ 'a' | nosuch }}").find("nosuch"), std::string::npos);
    EXPECT_NE(error_of("{% include 'x' %}").find("include"), std::string::npos);
    EXPECT_NE(error_of("{{ ''.__class__ }}{{ ''.__class__.__mro__ }}"), "");
    EXPECT_NE(error_of("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns | tojson }}"), "");
    // Values as deep as a loop is long, which nobody looks at: they come apart without using up the stack.
    for (const char* wrap : {"[ns.x]", "{'a': ns.x}", "{'a': [ns.x]}", "namespace(x=ns.x)", "[ns.x].count"})
        EXPECT_EQ(render(std::string("{% set ns = namespace(x=1) %}{% for i in range(100000) %}{% set ns.x = ") + wrap +
                             " %}{% endfor %}ok",
                         "{}"),
                  "ok")
            << wrap;
    // What is short to write and long to do is stopped by the step limit, wherever the time would go.
    for (const char* slow :
         {"{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
          "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | "
          "tojson }}",
          "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == "
          "ns.x }}",
          "{% set big = range(90000) | list %}{% for i in range(100000) %}{{ -1 in big }}{% endfor %}",
          "{% set big = range(90000) | list %}{% for i in range(100000) %}{{ big.count(-1) }}{% endfor %}",
          "{% set big = range(90000) | list %}{% for i in range(100000) %}{{ (big | list) == 1 }}{% endfor %}",
          "{% set big = 'ab' * 1000000 %}{% for i in range(100000) %}{{ 'aab' in big }}{% endfor %}",
          "{% set big = 'ab' * 1000000 %}{% for i in range(100000) %}{{ big.find('aab') }}{{ big | length }}{{ big < "
          "big }}{% endfor %}"})
        EXPECT_NE(error_of(slow, "{}", {.steps = 1000000}).find("steps"), std::string::npos) << slow;
    for (const char* large :
         {"{% set ns = namespace(s=[1, 2, 3, 4]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
          "{% set ns = namespace(l=[]) %}{% set t = 'a' * 1000000 %}{% for i in range(10000) %}{% set ns.l = [ns.l, t "
          "~ i] %}{% endfor %}",
          "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l, range(2000)] %}{% endfor %}"})
        EXPECT_NE(error_of(large, "{}", {.steps = int64_t(1) << 40, .output = int64_t(16) << 20}).find("64 MiB"),
                  std::string::npos)
            << large;
    // Searching takes time in proportion to both texts, and steps in proportion to the time.
    const std::string search =
        "{% set s = 'a' * 3000000 %}{% set t = 'a' * 1500000 ~ 'b' %}{% for i in range(1000) %}{% if t in s %}x{% "
        "endif %}{% endfor %}";
    EXPECT_NE(error_of(search, "{}", {.steps = 500000}).find("steps"), std::string::npos);
    // A list cannot change, so it cannot hold itself; the reference's sandbox refuses the same.
    EXPECT_NE(error_of("{% set a = [1] %}{{ a.append(a) }}").find("would change a list"), std::string::npos);
    EXPECT_NE(error_of("{% set a = {} %}{{ a.update({'b': a}) }}").find("would change a dict"), std::string::npos);
    EXPECT_EQ(render("{{ m.sort }}", R"({"m": {"sort": "x"}})"), "x");
    // A long document with many lines is no attack.
    std::string lines;
    for (int k = 0; k < 50000; ++k) lines += "a line of text\\n";
    EXPECT_EQ(render("{{ (t.split('\n') | join('\n')).replace('\n', '') | length }}", "{\"t\": \"" + lines + "\"}"),
              "700000");
    for (const char* open :
         {"{{", "{%", "{#", "{{ 'a", "{% if x", "{% if x %}", "{% for", "{% raw %}", "{{ [1,", "{{ a[", "{{ 1 if"})
        EXPECT_NE(error_of(open), "") << open;
}

TEST(ChatTemplate, EveryPrefixOfATemplateParsesOrFailsCleanly) {
    const std::string source =
        "{%- set x = namespace(a=[1,'b',{'c': none}]) -%}{% for m in messages %}{{ m['role'] | trim ~ '\\n' }}{% if "
        "loop.first and not m.x is defined %}y{% elif true %}z{% else %}w{% endif %}{% endfor %}";
    for (size_t n = 0; n < source.size(); ++n) {
        try {
            ChatTemplate::parse(source.substr(0, n), "t")
                ->render(Json::parse(R"({"messages": [{"role": "user"}]})", "v"));
        } catch (const Error&) {
        }
    }
    EXPECT_EQ(render(source, R"({"messages": [{"role": "user"}]})"), "user\ny");
}

TEST(ChatTemplate, Fallbacks) {
    const auto text = [](std::string_view token) {
        const std::string source = fallback_chat_template([&](std::string_view t) { return t == token; });
        return render(
            source,
            R"({"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})");
    };
    EXPECT_EQ(text("<|im_start|>"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(
        text("<|start_header_id|>"),
        "<s><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    EXPECT_EQ(text(""), "<|user|>\nhi</s>\n<|assistant|>\n");
}

}  // namespace chat_template_test
