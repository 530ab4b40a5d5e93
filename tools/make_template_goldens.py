#!/usr/bin/env python3
"""Renders the chat templates of ../shared/data/chat_templates with jinja2, set up as Hugging Face transformers does.

Writes tests/golden/chat_templates.jsonl: {file, name?, variables, expected} or {..., error: true} where the template itself refuses.
Needs: jinja2. Run from the repository root: python3 tools/make_template_goldens.py [DATA_FOLDER]
"""
import json, pathlib, sys
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import SandboxedEnvironment


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def raise_exception(message):
    raise RuntimeError(message)


def environment():
    env = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = lambda x, indent=None, **kw: json.dumps(x, ensure_ascii=False, indent=indent)
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: "26 Jul 2024"
    return env


USER = {"role": "user", "content": "  What is <NF4>, \"really\"? Größe & naïveté \u2014 日本\n"}
REPLY = {"role": "assistant", "content": "A 4-bit type.\nIts name: 'NormalFloat'."}
NEXT = {"role": "user", "content": "And double quantization?"}
SYSTEM = {"role": "system", "content": "You are brief."}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "Name"}, "days": {"type": "integer"}}, "required": ["city"]}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}}}]}
RESULT = {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "{\"sun\": true}"}
CASES = [
    ([USER], {"add_generation_prompt": True}),
    ([USER, REPLY, NEXT], {"add_generation_prompt": True}),
    ([SYSTEM, USER, REPLY], {"add_generation_prompt": False}),
    ([SYSTEM, USER, REPLY, NEXT], {"add_generation_prompt": True}),
    ([USER], {"add_generation_prompt": True, "tools": TOOLS}),
    ([SYSTEM, USER, CALL, RESULT], {"add_generation_prompt": True, "tools": TOOLS}),
]


def stored_expectations(data, sources):
    """The renderings that ollama stores, where the jinja template of that name prints the same (its own Go templates often differ)."""
    user, reply = {"role": "user", "content": "Hello, how are you?"}, {"role": "assistant", "content": "I'm doing great. How can I help you today?"}
    again, system = {"role": "user", "content": "I'd like to show off how chat templating works!"}, {"role": "system", "content": "You are a helpful assistant."}
    cases = {"user": [user], "user-assistant-user": [user, reply, again], "system-user-assistant-user": [system, user, reply, again]}
    rows = []
    for line in (data / "ollama/expected_renderings.jsonl").read_text().splitlines():
        stored = json.loads(line)
        for file, name, text in sources:
            if name is None or name[1] != stored["template"]:
                continue
            for bos, eos in [("", ""), ("<s>", "</s>"), ("", "</s>"), ("<|begin_of_text|>", "<|eot_id|>"), ("<bos>", "<eos>"), ("", "<|endoftext|>")]:
                variables = {"messages": cases[stored["case"]], "bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
                try:
                    same = environment().from_string(text).render(**variables) == stored["expected"]
                except Exception:
                    same = False
                if same:
                    rows.append({"file": file, "name": name, "variables": variables, "expected": stored["expected"]})
                    break
            else:
                continue
            break
    print(len(rows), "stored expectations that the jinja templates print")
    return rows


def main():
    data = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data") / "chat_templates"
    sources = [("llama.cpp/" + p.name, None, p.read_text()) for p in sorted((data / "llama.cpp").glob("*.jinja"))]
    for number, line in enumerate((data / "ollama/templates.jsonl").read_text().splitlines()):
        for name, text in json.loads(line).items():
            sources.append(("ollama/templates.jsonl", [number, name], text))
    rows, seen = [], set()
    for file, name, text in sources:
        if text in seen:
            continue
        seen.add(text)
        for messages, extra in CASES:
            variables = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "date_string": "26 Jul 2024", **extra}
            row = {"file": file, "name": name, "variables": variables}
            try:
                row["expected"] = environment().from_string(text).render(**variables)
            except Exception as e:
                if "generator" in str(e):              # json.dumps of a lazy |map: we print the list
                    continue
                row["error"] = str(e)[:80]
            rows.append(row)
    rows += stored_expectations(data, sources)
    with open("tests/golden/chat_templates.jsonl", "w") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(len(rows), "rows,", sum("error" in r for r in rows), "refused")


if __name__ == "__main__":
    main()
