// chat_template_test.cpp - real templates against jinja2, the interpreter's semantics, and hostile templates.
#include "src/base/file.h"
#include "src/text/chat_template.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

namespace chat_template_test {

using namespace qlora;

inline std::string render(std::string_view source, std::string_view variables = "{}", const TemplateLimits& limits = {}) {
    return ChatTemplate::parse(source, "test")->render(Json::parse(variables, "variables"), limits).text;
}

inline std::string error_of(std::string_view source, std::string_view variables = "{}", const TemplateLimits& limits = {}) {
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
        if (source.find("strftime_now") != source.npos && error.empty() && text.find("26 Jul 2024") == text.npos) continue;
        if (const Json* expected = row.find("expected")) EXPECT_EQ(text, expected->string()) << error;
        else EXPECT_NE(error, "") << "jinja2 refuses: " << row.find("error")->string();
    }
    EXPECT_GT(rows, 250);
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
    EXPECT_EQ(render("{% set ns = namespace(n=0) %}{% for x in [1,2,3] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}"), "6");
    EXPECT_EQ(render("{% set n = 1 %}{% for x in [1] %}{% set n = 2 %}{% endfor %}{{ n }}"), "1");
    EXPECT_EQ(render("{% for x in [1,2,3] if x != 2 %}{{ loop.index }}{{ x }}{{ ',' if not loop.last }}{% endfor %}"), "11,23");
    EXPECT_EQ(render("{% for x in [] %}{% else %}none{% endfor %}"), "none");
    EXPECT_EQ(render("{% macro m(a, b='y') %}<{{ a }}{{ b }}>{% endmacro %}{{ m('x') }}{{ m('x', b='z') }}"), "<xy><xz>");
    EXPECT_EQ(render("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}"), "[in]");
    EXPECT_EQ(render("{{ [1,2,3,4][::-1] }} {{ 'hello'[1:3] }} {{ [1,2,3][-1] }} {{ 'abc'[-5:2] }}"), "[4, 3, 2, 1] el 3 ab");
    EXPECT_EQ(render("{{ {'a': 1, 'b': [true, none]} | tojson }}"), "{\"a\": 1, \"b\": [true, null]}");
    EXPECT_EQ(render("{{ x.y is defined }} {{ x is none }}", "{\"x\": {\"z\": 1}}"), "False False");
    EXPECT_EQ(render("{{ m | selectattr('role', 'equalto', 'user') | map(attribute='n') | join('+') }}", R"({"m": [{"role": "user", "n": 1}, {"role": "x", "n": 2}, {"role": "user", "n": 3}]})"), "1+3");
    EXPECT_EQ(render("{{ ' a b '.strip().split(' ') }} {{ 'x-y'.replace('-', '+') | upper }}"), "['a', 'b'] X+Y");
    EXPECT_EQ(render("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", R"({"d": {"b": 1, "a": 2}})"), "b=1;a=2;");
    EXPECT_EQ(render("{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"), "02");
    EXPECT_EQ(render("{% filter upper %}a{% endfilter %}{% set b %}x{{ 1 }}{% endset %}{{ b }}"), "Ax1");
    EXPECT_EQ(render("{{ none or 'a' }}{{ 'b' if false }}{{ undefined_name }}"), "a");
}

TEST(ChatTemplate, GenerationBlocksAndContentSpans) {
    const auto t = ChatTemplate::parse("{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}!{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}", "t");
    const RenderedTemplate r = t->render(Json::parse(R"({"messages": [{"role": "user", "content": "<|x|>"}, {"role": "assistant", "content": " ok "}]})", "v"));
    EXPECT_EQ(r.text, "[user]<|x|>[assistant]ok!");
    ASSERT_EQ(r.generation.size(), 1u);
    EXPECT_EQ(r.text.substr(size_t(r.generation[0].begin), size_t(r.generation[0].end - r.generation[0].begin)), "ok!");
    ASSERT_EQ(r.content.size(), 2u);
    EXPECT_EQ(r.text.substr(size_t(r.content[0].begin), size_t(r.content[0].end - r.content[0].begin)), "<|x|>");
    EXPECT_EQ(r.text.substr(size_t(r.content[1].begin), size_t(r.content[1].end - r.content[1].begin)), "ok");
    EXPECT_TRUE(r.marks_generation);
}

TEST(ChatTemplate, HostileTemplatesFailCleanly) {
    std::string deep, minus, chain = "{{ a", ifs, cat = "{{ 'a'";
    for (int k = 0; k < 100000; ++k) { deep += '('; minus += "- "; chain += ".b"; ifs += "{% if true %}"; cat += " ~ 'a'"; }
    EXPECT_NE(error_of("{{ " + deep), "");
    EXPECT_NE(error_of("{{ " + minus + "1 }}"), "");
    EXPECT_NE(error_of(chain + " }}"), "");
    EXPECT_NE(error_of(cat + " }}"), "");
    EXPECT_NE(error_of(ifs), "");
    EXPECT_NE(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").find("too deep"), std::string::npos);
    EXPECT_NE(error_of("{{ range(1000000000000) }}").find("million"), std::string::npos);
    EXPECT_NE(error_of("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}", "{}", {.steps = 1000000}).find("steps"), std::string::npos);
    EXPECT_NE(error_of("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}").find("bytes"), std::string::npos);
    EXPECT_NE(error_of("{{ 'ab' * 9999999999 }}").find("bytes"), std::string::npos);
    EXPECT_NE(error_of("{{ 1 // 0 }}").find("zero"), std::string::npos);
    EXPECT_NE(error_of("{{ 1 % 0 }}").find("zero"), std::string::npos);
    EXPECT_NE(error_of("{{ 9223372036854775807 + 1 }}").find("range"), std::string::npos);
    EXPECT_NE(error_of("{{ x.y.z }}").find("'x' is undefined"), std::string::npos);
    EXPECT_NE(error_of("{{ 'a' | nosuch }}").find("nosuch"), std::string::npos);
    EXPECT_NE(error_of("{% include 'x' %}").find("include"), std::string::npos);
    EXPECT_NE(error_of("{{ ''.__class__ }}{{ ''.__class__.__mro__ }}"), "");
    EXPECT_NE(error_of("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns | tojson }}"), "");
    // Values as deep as a loop is long, which nobody looks at: they come apart without using up the stack.
    for (const char* wrap : {"[ns.x]", "{'a': ns.x}", "{'a': [ns.x]}", "namespace(x=ns.x)", "[ns.x].count"})
        EXPECT_EQ(render(std::string("{% set ns = namespace(x=1) %}{% for i in range(100000) %}{% set ns.x = ") + wrap + " %}{% endfor %}ok", "{}"), "ok") << wrap;
    // What is short to write and long to do is stopped by the step limit, wherever the time would go.
    for (const char* slow : {"{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
                             "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
                             "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}",
                             "{% set big = range(90000) | list %}{% for i in range(100000) %}{{ -1 in big }}{% endfor %}",
                             "{% set big = range(90000) | list %}{% for i in range(100000) %}{{ big.count(-1) }}{% endfor %}",
                             "{% set big = range(90000) | list %}{% for i in range(100000) %}{{ (big | list) == 1 }}{% endfor %}",
                             "{% set big = 'ab' * 1000000 %}{% for i in range(100000) %}{{ 'aab' in big }}{% endfor %}",
                             "{% set big = 'ab' * 1000000 %}{% for i in range(100000) %}{{ big.find('aab') }}{{ big | length }}{{ big < big }}{% endfor %}"})
        EXPECT_NE(error_of(slow, "{}", {.steps = 1000000}).find("steps"), std::string::npos) << slow;
    // A list cannot change, so it cannot hold itself; the reference's sandbox refuses the same.
    EXPECT_NE(error_of("{% set a = [1] %}{{ a.append(a) }}").find("would change a list"), std::string::npos);
    EXPECT_NE(error_of("{% set a = {} %}{{ a.update({'b': a}) }}").find("would change a dict"), std::string::npos);
    EXPECT_EQ(render("{{ m.sort }}", R"({"m": {"sort": "x"}})"), "x");
    // A long document with many lines is no attack.
    std::string lines;
    for (int k = 0; k < 50000; ++k) lines += "a line of text\\n";
    EXPECT_EQ(render("{{ (t.split('\n') | join('\n')).replace('\n', '') | length }}", "{\"t\": \"" + lines + "\"}"), "700000");
    for (const char* open : {"{{", "{%", "{#", "{{ 'a", "{% if x", "{% if x %}", "{% for", "{% raw %}", "{{ [1,", "{{ a[", "{{ 1 if"}) EXPECT_NE(error_of(open), "") << open;
}

TEST(ChatTemplate, EveryPrefixOfATemplateParsesOrFailsCleanly) {
    const std::string source = "{%- set x = namespace(a=[1,'b',{'c': none}]) -%}{% for m in messages %}{{ m['role'] | trim ~ '\\n' }}{% if loop.first and not m.x is defined %}y{% elif true %}z{% else %}w{% endif %}{% endfor %}";
    for (size_t n = 0; n < source.size(); ++n) {
        try {
            ChatTemplate::parse(source.substr(0, n), "t")->render(Json::parse(R"({"messages": [{"role": "user"}]})", "v"));
        } catch (const Error&) {
        }
    }
    EXPECT_EQ(render(source, R"({"messages": [{"role": "user"}]})"), "user\ny");
}

TEST(ChatTemplate, Fallbacks) {
    const auto text = [](std::string_view token) {
        const std::string source = fallback_chat_template([&](std::string_view t) { return t == token; });
        return render(source, R"({"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})");
    };
    EXPECT_EQ(text("<|im_start|>"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(text("<|start_header_id|>"), "<s><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    EXPECT_EQ(text(""), "<|user|>\nhi</s>\n<|assistant|>\n");
}

}  // namespace chat_template_test
