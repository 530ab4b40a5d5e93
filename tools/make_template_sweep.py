#!/usr/bin/env python3
"""Compares the template interpreter with jinja2, set up as Hugging Face transformers does, on filters x tests x methods x operators x
operands, statements, random expressions and the templates of ../shared/data, and writes the sample that the unit tests run.

    python3 tools/make_template_sweep.py --driver build/render_templates [--random N] [--every N] [--data ../shared/data] [--show 20]
    python3 tools/make_template_sweep.py --driver build/render_templates --write       also tests/golden/template_sweep.jsonl

The driver is tools/render_templates.cpp. A case counts as equal (same text, or both refuse), refused (the reference prints, the
interpreter says why it does not) or silent (it prints what the reference does not): of those there must be none. Needs: jinja2.
"""
import argparse, collections, copy, itertools, json, multiprocessing, pathlib, random, re, resource, subprocess, sys, warnings
from datetime import datetime

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

warnings.simplefilter("ignore")


class AssistantTracker(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_generation_support"), [], [], body).set_lineno(line)

    def _generation_support(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[AssistantTracker, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.now().strftime(f)
    return env


ENV = environment()


def rendered(template, variables):
    try:
        return ENV.from_string(template).render(**copy.deepcopy(variables))      # |indent of a list changes the list
    except (RecursionError, Exception):
        return None


def serve(connection):
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    while True:
        connection.send(rendered(*connection.recv()))


class Reference:
    """The text, or None where the reference raises, or takes more than seconds or gigabytes: 7 ** 123456789012345678 hears no signal, so
    a process of its own computes and is killed."""

    def __init__(self):
        self.worker = None

    def __call__(self, template, variables):
        if not self.worker:
            self.ours, theirs = multiprocessing.Pipe()
            self.worker = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
            self.worker.start()
            theirs.close()
        self.ours.send((template, variables))
        try:
            if self.ours.poll(5):
                return self.ours.recv()
        except EOFError:
            pass
        self.worker.kill()
        self.worker.join()
        self.worker = None
        return None


reference = Reference()


# ---- operands: written in the template, or given as variables
VARIABLES = {
    "t": " Hello, <b>World</b> & 'you' \"x\"\n two\r\nthree\u2028four \u00a0", "u": "straße ǆ ŉ ΑΣ ΟΔΥΣΣΕΥΣ. İi ﬁ ñandú", "e": "", "n": 7, "neg": -3, "big": 9007199254740993,
    "f": 2.5, "z": 0, "yes": True, "no": False, "nil": None, "tiny": 1e-7, "huge": 1.5e17, "w": "\u3000 \x1c\u0085word\u2003word\u00a0", "ctl": "a\x00\x7f\u200b\ue000\U0001f600é\\'",
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "lm": [1, "1", 1.0, True, None], "el": [], "ll": [[1, 2], [0], [1]], "lf": [0.5, 1.5, -2.0],
    "d": {"b": 1, "a": "x", "C": None}, "ed": {}, "ld": [{"k": "b", "v": {"w": 1}}, {"k": "A", "v": {"w": 2}}, {"k": "b"}], "dd": {"items": 1, "update": 2, "_x": 3, "1": 4},
    "num": "42", "fl": " 42.75 ", "hex": "0x1F", "bad": "4x", "csv": "a,b,,c", "sp": "  a  b c ", "lines": "one\n\ntwo\r\nthree\x0bfour\n", "fmt": "%s and %d", "bfmt": "{} {1}{k!r:>5}",
}
OPERANDS = list(VARIABLES) + ["undef", "(1, 2)", "('a',)", "()", "range(4)", "range(5, 0, -2)", "[1, 2]|map('string')", "d.items()", "d.keys()", "d.values()", "namespace(a=1)",
                              "'<i>'|safe", "'abc'", "-0.0", "1e16", "123456789012345678", "'\u00df'", "'titlecase ǅ'", "ls|select('lower')", "[undef]", "[none, 'x']", "{'k': [1, (2,)]}"]
FILTERS = {
    "abs": ["", "(1)"], "attr": ["('a')", "('upper')", "('items')", "(1)", ""], "batch": ["(2)", "(2, 'x')", "(0)", "(linecount=3, fill_with=0)", ""], "capitalize": ["", "('x')"],
    "center": ["", "(20)", "(width=9)", "(3)"], "count": [""], "d": ["('q')", "('q', true)", "(default_value=1, boolean=true)", ""], "default": ["(none)", "(boolean=true)", "(x=1)"],
    "dictsort": ["", "(true)", "(by='value')", "(false, 'key', true)", "(reverse=true)", "(by='q')"], "e": [""], "escape": [""], "first": [""], "last": [""],
    "float": ["", "(1.5)", "(default='q')", "(2, 3)"], "format": ["", "(1)", "('a', 2)", "(k=1)", "(1, k=2)"], "groupby": ["('k')", "('v.w')", "('k', default='z')", "(0)", "(attribute='k', case_sensitive=true)", ""],
    "indent": ["", "(2)", "(2, true)", "(width=1, first=true, blank=true)", "('> ')", "(4, false, true)", "(indentfirst=true)"], "int": ["", "(5)", "(default=none)", "(0, 16)", "(base=8)", "('q', 0)"],
    "join": ["", "(', ')", "(d='-')", "('|', 'k')", "(attribute='v.w')", "(1)", "(none)"], "length": ["", "(1)"], "list": [""], "lower": [""], "items": ["", "|list"],
    "map": ["('upper')|list", "(attribute='k')|list", "(attribute='q', default='z')|list", "('int', 3)|list", "('default', default_value='q')|join(',')", "('nosuch')|list", "()|list", "", "('join', '-')|list", "|first"],
    "max": ["", "(true)", "(attribute='k')"], "min": ["", "(case_sensitive=true)", "(attribute='v.w')"], "reject": ["|list", "('odd')|list", "('in', [1, 'a'])|list", "('none')|list"],
    "rejectattr": ["('k')|list", "('k', 'equalto', 'b')|list", "('v.w', 'defined')|list", "|list"], "replace": ["('a', 'b')", "('', '-')", "('l', 'LL', 1)", "(old='a', new='')", "('a', 1)", "('a')", "(1, 2)", "('l', 'x', count=0)"],
    "reverse": ["", "|list"], "round": ["", "(1)", "(-1)", "(0, 'ceil')", "(method='floor')", "(1, 'ceil')", "(2, 'q')", "(precision=none)"], "safe": ["", " + '<'", "|upper"],
    "select": ["|list", "('string')|list", "('gt', 1)|list", "('divisibleby', 2)|list", "('nosuch')|list", "('equalto')|list"], "selectattr": ["('k')|list", "('k', 'in', ['b'])|list", "('v', 'defined')|map(attribute='k')|list", "()|list"],
    "slice": ["(2)|list", "(3, 'x')|list", "(0)|list", "(-1)|list"], "sort": ["", "(true)", "(case_sensitive=true)", "(attribute='k')", "(attribute='k,v.w')", "(reverse=true, attribute=0)", "(false, true)"],
    "string": ["", "|length"], "sum": ["", "(start=1)", "('v')", "(attribute='v.w')", "(start=[])", "('k', 'x')"], "title": [""], "trim": ["", "('x')", "(' HW')", "(chars='a\u3000')", "(none)", "(1)"],
    "truncate": ["", "(5)", "(5, true)", "(8, false, '!', 0)", "(length=9, end='', leeway=0)", "(1)"], "unique": ["|list", "(true)|list", "(attribute='k')|list"], "upper": ["", "|lower"], "urlencode": [""],
    "wordcount": [""], "tojson": ["", "(4)", "(indent=2)", "(indent=0)", "(indent='-')", "(ensure_ascii=true)", "(separators=(',', ':'))", "(sort_keys=true)", "(true, 1)", "(indent=1, separators=[';', '='])", "(x=1)"],
    "filesizeformat": [""], "pprint": [""], "striptags": [""], "wordwrap": ["(5)"], "xmlattr": [""], "urlize": [""], "forceescape": [""], "nosuch": [""],
}
TESTS = {
    **{name: ["", "(1)"] for name in "defined undefined none string mapping iterable sequence number integer float boolean true false callable lower upper odd even escaped filter test".split()},
    **{name: [" 1", " 'b'", " [1, 2]", "(none)", "", "(l)", " 2.5", "(1, 2)"] for name in "divisibleby in == eq equalto != ne > gt greaterthan >= ge < lt lessthan <= le".split() if name[0].isalpha()},
    "sameas": [" none", " true", "(l)", " 1", " d"], "nosuch": [""],
}
METHODS = {
    **{name: ["()", "('x')"] for name in "upper lower title capitalize swapcase isalpha isalnum isspace isascii isprintable islower isupper istitle isdigit isnumeric isdecimal keys values items copy casefold isidentifier expandtabs".split()},
    "strip": ["()", "('x')", "(' <H')", "(none)", "(chars='x')", "(1)"], "lstrip": ["()", "('ab')"], "rstrip": ["()", "('\\n c')"],
    "split": ["()", "(',')", "(none, 1)", "(' ', 1)", "(sep=',', maxsplit=1)", "('')", "(',', maxsplit=0)", "('l')", "(1)"], "rsplit": ["()", "(',', 1)", "(none, 1)", "('l', 2)", "(sep=' ')"],
    "splitlines": ["()", "(true)", "(keepends=true)"], "startswith": ["('a')", "(('x', ' '))", "(['a'])", "('e', 2)", "('l', 2, 3)", "()", "(1)", "('')"], "endswith": ["('c')", "(('4', 'b'))", "('', 99)"],
    "find": ["('l')", "('l', 5)", "('zz')", "('', 3)", "('o', -4)", "('l', 2, 4)"], "rfind": ["('l')", "('')", "('o', 0, 5)"], "index": ["('l')", "(1)", "('b')", "('zz')"], "rindex": ["('a')"],
    "count": ["('l')", "('')", "(1)", "('a', 1)", "()"], "replace": ["('l', 'L')", "('l', 'L', 1)", "('', '.')", "('a')", "('a', 1)", "('l', 'x', -1)"], "join": ["(ls)", "(l)", "('abc')", "(['x'])", "()", "(d)"],
    "removeprefix": ["('4')", "('')", "(1)"], "removesuffix": ["('2')", "('x ')"], "partition": ["(',')", "('zz')", "('')"], "rpartition": ["(',')", "('l')", "('zz')"],
    "ljust": ["(12)", "(12, '.')", "(3, 'ab')"], "rjust": ["(12, '*')"], "center": ["(13)", "(12, '-')"], "zfill": ["(5)", "(1)"], "get": ["('a')", "('q')", "('q', 1)", "(1)", "([])", "('a', default=1)"],
    "format": ["()", "(1, 2)", "(1, 2, k='v')", "(k='x')"], "append": ["(1)"], "update": ["({})"], "pop": ["()"], "nosuch": ["()"], "encode": ["()"], "bit_length": ["()"], "is_integer": ["()"],
}
ATTRIBUTES = ["real", "imag", "numerator", "start", "a", "k", "_x", "__class__", "append", "sort", "keys", "update", "nosuch", "length", "1"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
SUBSCRIPTS = ["0", "-1", "5", "'a'", "'items'", "none", "1.0", "true", "(1, 2)", "[1]", "1:", ":2", "::-1", "-2:", "5:1:-2", "::0", "'x':", "1:none:2", "::2"]


def table_cases():
    for o in OPERANDS:
        yield "print", "{{ %s }}|{{ [%s] }}|{{ -(%s) if false else 1 }}" % (o, o, o)
        for op in "-+":
            yield "unary", "{{ %s(%s) }}" % (op, o)
        yield "unary", "{{ not (%s) }}{{ 'T' if %s else 'F' }}" % (o, o)
        yield "loop", "{%% for x in %s %%}[{{ x }}{{ loop.index }}{{ loop.last }}{{ loop.nextitem }}]{%% else %%}none{%% endfor %%}" % o
        yield "loop", "{%% for x, y in %s %%}{{ x }}{{ y }}{%% endfor %%}" % o
        yield "dict", "{{ dict(%s) }}" % o
        yield "dict", "{%% set ns = namespace(%s) %%}{{ ns.a }}{{ ns.b }}" % o
        yield "key", "{{ {%s: 1} }}" % o
        for name, arguments in FILTERS.items():
            for a in arguments:
                yield "filter " + name, "{{ (%s)|%s%s }}" % (o, name, a)
        for name, arguments in TESTS.items():
            for a in arguments:
                yield "test " + name, "{{ (%s) is %s%s }}" % (o, name, a)
        for name, arguments in METHODS.items():
            for a in arguments:
                yield "method " + name, "{{ (%s).%s%s }}" % (o, name, a)
        for name in ATTRIBUTES:
            yield "attribute", "{{ (%s).%s }}|{{ (%s)['%s'] }}|{{ (%s).%s is defined }}" % (o, name, o, name, o, name)
        for s in SUBSCRIPTS:
            yield "subscript", "{{ (%s)[%s] }}" % (o, s)
        for f in ["%s", "%r", "%d", "%5s|", "%-6s|", "%.2s", "%x", "%+d", "%05d", "% d", "%.2f", "%e", "%g", "%c", "%%", "%(a)s", "%5.1f|", "%i %%", "%q", "%"]:
            yield "percent", "{{ '%s' %% (%s) }}|{{ '<%s>'|format(%s) }}" % (f, o, f, o)
        for f in ["{}", "{0}{0}", "{0!r}", "{:>8}|", "{:<8}|", "{:^9}|", "{:*^9}|", "{:05}", "{:,}", "{:.2f}", "{:d}", "{:x}", "{:s}", "{:+}", "{:.3}", "{:%}", "{0[0]}", "{0.real}", "{{}}", "{x}", "{", "}", "{:e}", "{!s:>4}", "{:08.2f}", "{:#x}", "{:_}"]:
            yield "format", "{{ '%s'.format(%s) }}" % (f, o)
    for a, b in itertools.product(OPERANDS, repeat=2):
        for op in OPERATORS:
            yield "operator " + op, "{{ (%s) %s (%s) }}" % (a, op, b)


STATEMENTS = r"""
{{ -5|abs }} {{ 4 < 2 < 3 }} {{ 1 < 2 < 3 }} {{ 2**3**2 }} {{ -2**2 }} {{ 2 ** -1 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 1 == 1.0 == true }}
{{ -n is number }} {{ n|abs + 1 }} {{ not n is defined }} {{ 1 if no }} {{ 1 if no else 2 if no else 3 }} {{ 'a' 'b' ~ 1 ~ 2|string }}
{{ [1,2] == (1,2) }} {{ (1,2) == (1,2) }} {{ [1,2] < [1,3] }} {{ (1,) < (1,2) }} {{ [[1]] == [[1.0]] }} {{ range(3) == range(0,3) }}
{{ 3*'ab' }} {{ 'ab'*2 }} {{ [0]*3 }} {{ 2*(1,) }} {{ true + true }} {{ 'a' in 'abc' }} {{ '' in 'abc' }} {{ 1 in [1.0] }} {{ 'x' not in d }}
{{ x.y }}
{{ d.items }}
{{ d['b'] + 1 }} {{ d.b }} {{ dd.items }} {{ dd['items'] }}
{{ dd.update }} {{ dd['update'] }} {{ dd._x }} {{ dd['1'] }} {{ dd.1 }}
{{ l.0 }} {{ l[0] }} {{ ll.0.1 }} {{ l[-1] }} {{ l[9] }} {{ l['0'] }} {{ l[true] }}
{{ 1_000 }} {{ 0x1f }} {{ 0b11 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5e-3 }} {{ 1E2 }} {{ 00 }}
{{ 007 }}
{{ '\x41\u00e9\U0001F600\101\n\\' }}{{ "\q" }}{{ '\'' }}{{ 'a\
b' }}
{{ 10**20 }}
{{ 9223372036854775807 + 1 }}
{{ 99999999999999999999 }}
{% set n = 1 %}{% for x in [1] %}{% set n = 2 %}{{ n }}{% endfor %}{{ n }}
{% set n = 1 %}{% for x in [1,2] %}{{ n }}{% set n = n + 1 %}{{ n }}{% endfor %}{{ n }}
{% if true %}{% set q = 5 %}{% endif %}{{ q }}
{% set q %}a{% set inner = 1 %}{{ inner }}{% endset %}{{ q }}{{ inner }}
{% set q | upper %}abc{% endset %}{{ q }}
{% set q | upper | replace('B', '-') %}abc{% endset %}{{ q }}
{% filter upper %}{% set inner = 1 %}abc{{ inner }}{% endfilter %}{{ inner }}
{% filter upper|replace('A', n) %}abc{% endfilter %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% with %}{% set a = 1 %}{{ a }}{% endwith %}{{ a }}
{% macro m(a, b='y') %}<{{ a }}{{ b }}{{ n }}>{% endmacro %}{{ m('x') }}{{ m('x', b='z') }}{{ m(b=1, a=2) }}{{ m() }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, b=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}
{% macro m(a=1, b) %}{% endmacro %}
{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}
{% macro m() %}[{{ caller(1, 2) }}]{% endmacro %}{% call(x, y) m() %}{{ x }}{{ y }}{% endcall %}
{% macro m() %}[{{ caller(1) }}]{% endmacro %}{% call(x, y=5) m() %}{{ x }}{{ y }}{% endcall %}
{% macro m() %}none{% endmacro %}{% call m() %}in{% endcall %}
{% macro m() %}{% if caller %}{{ caller() }}{% else %}no{% endif %}{% endmacro %}{{ m() }}{% call m() %}yes{% endcall %}
{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(a=1, b='x') }}
{% set q = 1 %}{% macro m() %}{{ q }}{% endmacro %}{% set q = 2 %}{{ m() }}
{% macro m() %}{{ x }}{% endmacro %}{% for x in [1, 2] %}{{ m() }}{% endfor %}
{% for x in [1, 2] %}{% macro m(y) %}{{ x }}{{ y }}{% endmacro %}{{ m(5) }}{% endfor %}
{% for x in [1, 2] %}{% call(z) outer() %}{{ x }}{% endcall %}{% endfor %}
{% macro outer() %}({{ caller() }}){% endmacro %}{% for x in [1, 2] %}{% set y = x * 2 %}{% call outer() %}{{ x }}{{ y }}{{ loop.index }}{% endcall %}{% endfor %}
{% macro fac(k) %}{% if k <= 1 %}1{% else %}{{ k }}*{{ fac(k - 1) }}{% endif %}{% endmacro %}{{ fac(5) }}
{% macro m() %}{% set q = 9 %}{% endmacro %}{{ m() }}{{ q }}
{{ m }}{% macro m() %}{% endmacro %}{{ m }}{{ m.name }}{{ m is callable }}
{% set ns = namespace(k=1, l=[]) %}{% for x in l %}{% set ns.k = ns.k + x %}{% set ns.l = ns.l + [x] %}{% endfor %}{{ ns.k }}{{ ns.l }}{{ ns }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}{{ ns['a'] }}{% set ns.a, ns.b = 5, 6 %}{{ ns.a }}{{ ns.b }}
{% set d.b = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}
{% set (a, b) = [3, 4] %}{{ a }}{{ b }}{% set a, b = 'xy' %}{{ a }}{{ b }}
{% set a, b = [1] %}
{% for x in [1,2,3] if x != 2 %}{{ loop.index }}{{ x }}{{ loop.last }}{{ loop.length }};{% endfor %}
{% set ns = namespace(last=none) %}{% for m in [1,1,2,2,3] if m != ns.last %}{% set ns.last = m %}{{ m }}{% endfor %}
{% set ns = namespace(last=none) %}{% for m in [1,1,2,2,3] if m != ns.last %}{% set ns.last = m %}{{ m }}{{ loop.last }}{% endfor %}
{% set ns = namespace(last=none) %}{% for m in [1,1,2,2,3] if m != ns.last %}{% set ns.last = m %}{{ m }}{{ loop.length }}{{ loop.index }}{% endfor %}
{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }} {% endfor %}
{% for x in l %}{{ loop }}{{ loop.nosuch }}{{ loop|length }}{% endfor %}{{ loop }}
{% for x in l %}{% for y in ls %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for x in l %}{% set outer = loop %}{% for y in ls %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}
{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}|{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in l %}{% break %}{% else %}none{% endfor %}|{% for x in l %}{% continue %}{% else %}none{% endfor %}|{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{% else %}none{% endfor %}
{% for x in l %}{{ x }}{% else %}none{% endfor %}{% for x in [] %}{{ x }}{% else %}none{% endfor %}
{% for loop in l %}{{ loop }}{% endfor %}
{% for x in l %}{% set loop = 1 %}{{ loop }}{% endfor %}
{% for x in l recursive %}{{ x }}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for k, v in d|dictsort %}{{ k }}{% endfor %}{% for k, v in d|items %}{{ k }}{% endfor %}
{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for x in 1, 2 %}{{ x }}{% endfor %}
{% set g = ls|map('upper') %}{{ g|first }}{{ g|list }}{{ g|list }}
{% set g = ls|map('upper') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}
{% set g = ls|select('lower') %}{{ 'b' in g }}{{ g|list }}{{ 'b' in g }}
{% set g = ls|map('upper') %}{% for x in g %}{% break %}{% endfor %}{{ g|list }}
{% set g = ls|map('upper') %}{% set h = g|map('lower') %}{{ h|first }}{{ g|list }}
{{ ls|map('upper') }}
{{ ls|map('upper')|length }}
{{ (ls|map('upper'))[0] }}
{% if [] | map('upper') %}y{% else %}n{% endif %}{{ (ls|map('upper')) == (ls|map('upper')) }}
{{ l.append(1) }}
{{ d.update({}) }}
{{ l.append is defined }}{{ d.pop }}{{ l.copy() }}
{{ ''.__class__ }}{{ ''.__class__ is defined }}
{{ ''.__class__.__mro__ }}
{{ 'a,b'.split(',')[1].upper().lower()[0] }} {{ 'abc'[::-1][1:] }} {{ ('x' ~ 1)|upper }}
{{ 'a'|upper|lower.x }}
{{ ls|list[0] }}
{{ 'x' if nosuch|nofilter else 'y' }}
{% if no %}{{ 1|nofilter }}{% endif %}ok
{% if no %}{{ 1 is notest }}{% endif %}ok
{% if no %}{% for x in l %}{{ x|nofilter }}{% endfor %}{% endif %}ok
{% macro m() %}{{ 1|nofilter }}{% endmacro %}ok
{{ 'q' if yes else 1|nofilter }}
{% generation %}{% set q = 1 %}a{{ q }}{% endgeneration %}{{ q }}
{% for x in l %}{% generation %}{{ x }}{{ loop.index }}{% endgeneration %}{% endfor %}
{% for x in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}
{% print 1, 'a' %}{% print n %}
{% autoescape true %}{{ '<' }}{% endautoescape %}
{% block x %}a{% endblock %}
{% include 'x' %}
{% do l.append(1) %}
{% raw %}{{ x }} {% if %}{% endraw %}|{%- raw -%} a {%- endraw -%} |
  {% raw %} {{ a }} {% endraw %}  x
a {{- 1 -}} b {{+ 2 }} c{#- gone -#} d {# x #} e{#+ y +#} f
  {%+ if true %}x{% endif +%}
  y
{{ 1 }}
{{ 2 }}
{% if true %}a{% endif -%}   

 b
{%- set a = 1 -%}

x
	{% if true %}
	tab
	{% endif %}
end
{# comment #}
after
{% if l %}{{ l }}{% elif d %}{{ d }}{% else %}x{% endif %}{% if no %}a{% elif yes %}b{% else %}c{% endif %}
{% if n is divisibleby 7 and n is not none or no %}y{% endif %}{{ n is divisibleby(7) }}{{ n is not divisibleby 2 }}{{ n is odd is defined }}
{{ n is lt 8 }}{{ 'a' is in ls }}{{ n is number and f is float }}{{ n is ge(7) }}{{ 'x' is string == true }}
{{ [1, 2,] }}{{ (1,) }}{{ () }}{{ {} }}{{ {'a': 1,} }}{{ [,] }}
{{ {'a': 1, 'b': {'c': [1, 2.0, none, true, undef]}} }}{{ {1: 2, 1.0: 3, true: 4} }}
{{ range(3)|list }}{{ range(1, 10, 3)|list }}{{ range(5, 0, -2)|list }}{{ range(3) }}{{ range(0) }}{{ range(3)[1] }}{{ range(9)[2:5] }}{{ range(3)|length }}
{{ range(1, 2, 0) }}
{{ range() }}
{{ range('a') }}
{{ range(100001)|length }}
{{ dict(a=1, b=2) }}{{ dict([('a', 1), ['b', 2]]) }}{{ dict({'a': 1}, b=2) }}{{ dict(d, a=5) }}{{ dict() }}
{{ dict(undef) }}
{{ dict(none) }}
{% set ns = namespace(undef) %}x
{{ ('<i>a,b'|safe).partition(',') }}{{ ('a,b'|safe).rpartition('zz') }}{{ 'a,b'.partition(','|safe) }}{{ 'a,b'.rpartition('zz'|safe) }}
{{ (-2) ** n }}
{{ (1 - 3) ** n }}
{{ (-0.0) ** n }}
{{ (-n) ** 2 }}{{ (-2) ** 2 }}{{ 2 ** -2 }}{{ (-2 + n) ** 2 }}{{ 2 ** n }}
{{ raise_exception('stop') }}
{{ raise_exception() }}
{{ raise_exception(message='x') }}
{{ namespace.x }}
{{ strftime_now('') }}{{ strftime_now('x') }}
{{ cycler('a', 'b').next() }}
{{ joiner(',') }}
{{ self }}
{{ if }}
{{ 1 +
2 }}
{{ [3, 1, 2]|sort|join(',')|length }}{{ (l|sort)[0] }}{{ l|sort(reverse=true)|first }}{{ l|max - l|min }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ none + 1 }}
{{ undef + 1 }}
{{ undef.x }}
{{ undef() }}
{{ undef < 1 }}{{ 1 }}
{{ undef == none }}{{ undef == undef2 }}{{ undef is none }}{{ undef|length }}{{ undef|default('x') }}{{ undef or 'y' }}{{ undef ~ 'z' }}{{ undef in [undef2] }}
{{ 0.1 + 0.2 }}{{ 1/3 }}{{ 1e22 }}{{ 1e21 * 10 }}{{ 1.0 }}{{ 100000.0 * 10 }}{{ 1e15 }}{{ 1e16 }}{{ 0.0001 }}{{ 0.00001 }}{{ 1e-7 }}{{ 123456.789e3 }}{{ 5 / 2 }}{{ 4 / 2 }}{{ 7 // 2.0 }}{{ -7.5 % 2 }}{{ 1e308 * 10 }}
{{ (0.1 + 0.2)|round(2) }}{{ 2.5|round }}{{ 3.5|round }}{{ 2.675|round(2) }}{{ 1234|round(-2) }}{{ 15|round(-1) }}{{ 25|round(-1) }}{{ 2.1|round(0, 'ceil') }}{{ -2.1|round(0, 'floor') }}{{ 7|round(1, 'ceil') }}
{{ '%s-%s' % ('a', 1) }}{{ '%d%%' % 5 }}{{ '%(a)s' % {'a': 1} }}{{ '%s' % [1] }}{{ '%5.2f|%-5s|%05d' % (1.234, 'a', 42) }}{{ '%s' % 'x' * 2 }}
{{ '{} {}'.format(1, 'a') }}{{ '{1}{0}'.format(1, 2) }}{{ '{a:>5}|{b!r}'.format(a=1, b='x') }}{{ '{0[k]}{0[k][0]}'.format({'k': 'v'}) }}{{ '{:{w}}|'.format('x', w=4) }}{{ '{{}}'.format() }}
{{ '<' | e }}{{ ('<' | safe) + '<' }}{{ '<' + ('<' | e) }}{{ ('a' | safe) ~ '<' }}{{ ('<'|e)|length }}{{ [('a'|safe)] }}{{ ('a'|safe) == 'a' }}{{ ('<'|safe).upper() }}
{{ 'a\u00a0'|trim ~ '|' }}{{ '\u3000x\u3000'.strip() }}{{ 'a\u2003b\x1cc'.split() }}{{ 'a\u2028b\x85c\x1dd'.splitlines() }}
{{ 'ÄÖß'|lower }}{{ 'äößŉ'|upper }}{{ 'ǆx'|capitalize }}{{ 'ΑΣ ΣΑ Σ'|lower }}{{ "o'neill-smith x"|title }}{{ "o'neill-smith x".title() }}{{ 'İ'|lower|length }}
{{ ['\x00\x7f\xa0\u200b\u2028é\U0001f600\ue000', "it's", 'q"', '\'"', '\n\t\\'] }}
{{ 'abc'|tojson }}{{ {'b': 1, 'a': [1.5, none, true]}|tojson }}{{ 'é\u2028\x7f</'|tojson }}{{ 'é😀'|tojson(true) }}{{ {'b': 1, 'a': 2}|tojson(sort_keys=true, indent=2) }}{{ []|tojson(indent=2) }}{{ 1e16|tojson }}{{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }}
{{ (1, 2)|tojson }}{{ range(3)|tojson }}
{{ d.keys()|list }}{{ d.values()|list }}{{ d.items()|list }}{{ d.items() }}{{ d.keys() }}{{ d.values()|length }}{{ d.items()|first }}{{ d|length }}{{ d|list }}{{ d|first }}{{ d|last }}
{{ d.keys() == d.keys() }}
{{ [l, l]|map('sort')|list }}{{ ld|map(attribute='v.w')|list }}{{ ld|map(attribute='k', default='q')|join }}{{ ld|groupby('k')|map('first')|list }}{% for k, g in ld|groupby('k') %}{{ k }}{{ g|length }}{% endfor %}{% for g in ld|groupby('k') %}{{ g.grouper }}{{ g.list|length }}{{ g }}{% endfor %}
{{ m(*[1, 2], **{'a': 3}) }}{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(*[1, 2], **{'a': 3}) }}{{ m(0, *[1]) }}{{ m(*'ab', k=1) }}
{{ 'x'.join(['a'], 1) }}
{{ foo(a b) }}
{{ (1 }}
{{ 1) }}
{{ [1} }}
{{ }}
{% %}
{% if %}x{% endif %}
{% for x l %}{% endfor %}
{% endfor %}
{% if x %}
{{ 'a
{{ a.b. }}
{{ a[ }}
{% set %}
{% set 1 = 2 %}
{% set true = 2 %}
{% set x = %}
{% macro %}{% endmacro %}
{% for x in l: %}{{ x }}{% endfor %}{% if n: %}y{% endif %}
{% set x = 1 %}{{ x }}{% set x = x + 1 %}{{ x }}{% set x, y = y, x %}{{ y }}
{{ a ; b }}
{{ 'a' is upper or 'A' is upper }}{{ 'a' is lower }}{{ 1 is lower }}{{ 'ß' is upper }}{{ 'Σ1' is upper }}{{ '' is lower }}
{{ 1 if true else }}
{{ 1 2 }}
{{ not }}
{{ 5 is number if true }}{{ 1 not in [2] }}{{ not 1 in [2] }}{{ 1 in [1] in [true] }}
{% call foo %}{% endcall %}
{% filter nosuch %}x{% endfilter %}
{% set x = ['a', 'b'] %}{{ x.index('b') }}{{ x.count('a') }}{{ ('a', 'b').index('b') }}{{ range(3).index(2) }}
{{ 'abc' == 'abc'|safe }}{{ none == false }}{{ 0 == false }}{{ '1' == 1 }}{{ {} == {} }}{{ {'a': 1} == {'a': 1.0} }}{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}
{{ 9007199254740993 == 9007199254740992.0 }}{{ 9007199254740993 > 9007199254740992.0 }}{{ big < huge }}{{ 1 < 1.5 }}
{{ ['a', 'B', 'c']|sort }}{{ ['a', 'B', 'c']|sort(case_sensitive=true) }}{{ [1, 'a']|sort }}
{{ 'x'|center(5) ~ '|' }}{{ 'xy'|center(5) ~ '|' }}{{ 'xy'.center(5) ~ '|' }}{{ 'ab'.zfill(4) }}{{ '-1'.zfill(4) }}
{{ "42"|int + "0x1f"|int(0, 16) + "z"|int(7) }}{{ '1_000'|int }}{{ '٣'|int }}{{ ' 7 '|int }}{{ '1e3'|int }}{{ 'inf'|int }}{{ 'nan'|float }}{{ '1e400'|float }}{{ 'infinity'|float }}{{ 3.99|int }}{{ '-0'|int }}{{ true|int }}
{{ 1e400|int }}
{{ '99999999999999999999'|int }}
""".strip("\n").split("\n")


def random_case(rng):
    """An expression of a few operations over the operands, as templates of people who try things would have them."""
    def value(depth):
        if depth <= 0:
            return rng.choice(OPERANDS)
        kind = rng.randrange(9)
        if kind == 0:
            return "(%s) %s (%s)" % (value(depth - 1), rng.choice(OPERATORS), value(depth - 1))
        if kind == 1:
            return "%s %s %s" % (rng.choice(OPERANDS), rng.choice(OPERATORS), rng.choice(OPERANDS))
        if kind in (2, 3):
            name = rng.choice(list(FILTERS))
            return "(%s)|%s%s" % (value(depth - 1), name, rng.choice(FILTERS[name]))
        if kind == 4:
            name = rng.choice(list(TESTS))
            return "(%s) is %s%s" % (value(depth - 1), name, rng.choice(TESTS[name]))
        if kind in (5, 6):
            name = rng.choice(list(METHODS))
            return "(%s).%s%s" % (value(depth - 1), name, rng.choice(METHODS[name]))
        if kind == 7:
            return "(%s)[%s]" % (value(depth - 1), rng.choice(SUBSCRIPTS))
        return rng.choice(["[%s, %s]", "(%s, %s)", "{'p': %s, 'q': %s}", "%s if %s else 0", "%s ~ %s"]) % (value(depth - 1), value(depth - 1))
    shape = rng.randrange(6)
    v = value(rng.randint(1, 4))
    if shape == 0:
        return "{%% set x = %s %%}{{ x }}{{ x }}" % v
    if shape == 1:
        return "{%% for x in %s %%}{{ x }}{{ loop.index }}{%% endfor %%}" % v
    if shape == 2:
        return "{%% if %s %%}y{%% else %%}n{%% endif %%}" % v
    return "{{ %s }}" % v


# ---- the templates people have
def dialogues():
    user = {"role": "user", "content": "  What is <NF4>, \"really\"? Größe & naïveté \u2014 日本\n"}
    wide = {"role": "assistant", "content": "\u3000A 4-bit type.\u00a0\nIts name: 'NormalFloat'.\u2028"}
    reply = {"role": "assistant", "content": "A 4-bit type."}
    think = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.", "reasoning_content": "hm"}
    again, system = {"role": "user", "content": "And double quantization?"}, {"role": "system", "content": "You are brief.\r\n"}
    tools = [{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Name", "enum": ["Köln", "Ulm"]}, "days": {"type": "integer"}, "deep": {"type": "array", "items": {"type": "number"}}},
        "required": ["city"]}, "return": {"type": "string"}}}]
    arguments = {"city": "Köln", "days": 2, "x": [1.5, None, True]}
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}]}
    call_text = {"role": "assistant", "content": None, "tool_calls": [{"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps(arguments)}}] * 2}
    result = {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "{\"sun\": true}"}
    parts = {"role": "user", "content": [{"type": "text", "text": "look "}, {"type": "image"}, {"type": "text", "text": "there"}]}
    lists = {
        "one": [user], "two": [user, reply], "three": [user, wide, again], "system": [system, user, wide, again], "system only": [system], "think": [user, think, again, think], "call": [user, call, result, reply, again],
        "call text": [user, call_text, result, reply], "empty": [user, {"role": "assistant", "content": ""}, again], "twice": [user, reply, reply], "odd": [reply, user], "parts": [parts, reply], "none": [],
        "unknown": [{"role": "narrator", "content": "x"}, user],
    }
    for (name, messages), prompt, with_tools in itertools.product(lists.items(), (False, True), (None, tools)):
        yield name, {"messages": messages, "add_generation_prompt": prompt, "tools": with_tools, "documents": None, "bos_token": "<s>", "eos_token": "</s>", "date_string": "26 Jul 2024", "enable_thinking": name == "think"}


def real_templates(data):
    root = pathlib.Path(data)
    for p in sorted((root / "chat_templates/llama.cpp").glob("*.jinja")):
        yield p.name, p.read_bytes().decode()
    for line in (root / "chat_templates/ollama/templates.jsonl").read_text().splitlines():
        yield from json.loads(line).items()
    for p in sorted(root.glob("tokenizer/**/tokenizer_config.json")):
        found = json.loads(p.read_text()).get("chat_template")
        for entry in found if isinstance(found, list) else [{"name": "default", "template": found}] if found else []:
            yield p.parent.name + " " + entry["name"], entry["template"]
    for p in sorted(root.glob("tokenizer/**/*.jinja")):
        yield str(p.relative_to(root)), p.read_bytes().decode()


def real_cases(data):
    seen = set()
    for name, text in real_templates(data):
        if text in seen:
            continue
        seen.add(text)
        for ends in ("\n", "\r\n", "\r"):
            source = text.replace("\r\n", "\n").replace("\n", ends)
            for _, variables in dialogues():
                yield "template " + name, source, variables


def run(driver, cases):
    lines = "".join(json.dumps({"template": t, "variables": v}) + "\n" for _, t, v in cases)
    out = subprocess.run([driver], input=lines, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    return [json.loads(line) for line in out.split("\n") if line]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--driver", required=True)
    parser.add_argument("--random", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--show", type=int, default=20)
    parser.add_argument("--only", default="", help="kinds of cases that hold this text")
    parser.add_argument("--every", type=int, default=1, help="only every n-th case, and all statements")
    parser.add_argument("--start", type=int, default=0, help="leave out the cases before this one")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    cases = [("statement", s, VARIABLES) for s in STATEMENTS]
    cases += [("statement", s.replace("\n", e) + e, VARIABLES) for s in ["a\n{% if yes %}\nb\n{% endif %}\n", "  {% set x = 'p\nq' %}\n{{ x }}\n\n", "{# c #}\n  {{ 1 }}\n", "x\n{%- if yes -%}\n y\n{%- endif %}\n"] for e in ("\n", "\r\n", "\r", "")]
    cases += [(k, t, VARIABLES) for k, t in table_cases()]
    cases += [("random", random_case(rng), VARIABLES) for _ in range(options.random)]
    if pathlib.Path(options.data).is_dir():
        cases += list(real_cases(options.data))
    cases = [c for i, c in enumerate(cases) if options.only in c[0] and (c[0] == "statement" or i % options.every == options.seed % options.every)]
    print(len(cases), "cases", flush=True)
    cases = cases[options.start:]
    counts, refusals, shown = collections.Counter(), collections.Counter(), 0
    sample = []
    for start in range(0, len(cases), 5000):
        chunk = cases[start:start + 5000]
        for (kind, template, variables), ours in zip(chunk, run(options.driver, chunk)):
            expected = reference(template, variables)
            group = "template" if kind.startswith("template") else "random" if kind == "random" else "table"
            if expected is None:
                verdict = "silent" if "text" in ours else "equal"
            elif "error" in ours:
                verdict = "refused"
                refusals[kind + ": " + re.sub(r"^.*?chat template: ", "", ours["error"])[:90]] += 1
            else:
                verdict = "equal" if ours["text"] == expected else "silent"
            counts[group, verdict] += 1
            if verdict == "silent" and shown < options.show:
                shown += 1
                print(f"SILENT {kind}: {template[:300]!r}\n   reference {('raises' if expected is None else repr(expected))[:300]}\n   ours      {str(ours)[:300]}", flush=True)
            if options.write and group != "template":
                sample.append((kind, template, expected, verdict))
    for group in ("table", "random", "template"):
        print(group, {v: counts[group, v] for v in ("equal", "refused", "silent")})
    for text, n in refusals.most_common(40 if options.show else 0):
        print("  refused", n, text)
    if options.write:
        write(sample, rng)
    sys.exit(any(v == "silent" and n for (_, v), n in counts.items()))


def write(sample, rng):
    """Every statement, and a few of each kind: one line of variables, then [template, expected]; null: both refuse, false: only we do."""
    kinds = collections.defaultdict(list)
    for kind, template, expected, verdict in sample:
        kinds[kind].append([template, False if verdict == "refused" else expected])
    rows = []
    for kind, all_rows in sorted(kinds.items()):
        n = len(all_rows) if kind == "statement" else 250 if kind == "random" else 30 if kind.startswith("operator") else 9
        rows += all_rows if len(all_rows) <= n else rng.sample(all_rows, n)
    rows = [r for r in rows if len(json.dumps(r)) < 800 and "strftime" not in r[0]]
    with open("tests/golden/template_sweep.jsonl", "w") as out:
        out.write(json.dumps(VARIABLES, ensure_ascii=False) + "\n")
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(len(rows), "rows written")


main()
