#!/usr/bin/env python3
"""Writes tests/golden/records.jsonl: rows of training files as Hugging Face's tokenizers and templates turn them into ids.

Usage: make_records_golden.py DATA, where DATA holds tokenizer/ and chat_templates/. Needs transformers.
"expected" of a row is what a user of transformers would write for it: apply_chat_template with its arguments, or the text itself.
"""
import json
import sys

from transformers import PreTrainedTokenizerFast

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "Its name."}}, "required": ["city"]}}}
ID = "abcd12345"


def call(arguments, **more):
    return {"type": "function", "function": {"name": "weather", "arguments": arguments}, **more}


def with_call(assistant, tool):
    return [{"role": "user", "content": "Weather in Ulm?"}, assistant, tool, {"role": "assistant", "content": "It is cold."}]


TOOL = {"role": "tool", "content": "{\"celsius\": -3}", "tool_call_id": ID, "name": "weather"}
CALLED = with_call({"role": "assistant", "content": None, "tool_calls": [call({"city": "Ulm"}, id=ID)]}, TOOL)
DIALOGUE = [{"role": "user", "content": "Hi <|im_start|>"}, {"role": "assistant", "content": "Hello [/INST]<end_of_turn>"}]
# (name, record, messages, arguments of apply_chat_template)
DIALOGUES = [
    ("tool calls", {"messages": CALLED, "tools": [WEATHER]}, CALLED, {"tools": [WEATHER]}),
    ("arguments and tools as text",
     {"messages": with_call({"role": "assistant", "tool_calls": [call("{\"city\":\"Ulm\"}", id=ID)]}, TOOL), "tools": json.dumps([WEATHER])}, CALLED, {"tools": [WEATHER]}),
    ("function_call",
     {"messages": with_call({"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{\"city\": \"Ulm\"}"}},
                            {"role": "function", "name": "weather", "content": "{\"celsius\": -3}"}), "functions": [WEATHER["function"]]},
     with_call({"role": "assistant", "content": None, "tool_calls": [call({"city": "Ulm"})]}, {"role": "tool", "name": "weather", "content": "{\"celsius\": -3}"}),
     {"tools": [WEATHER]}),
    ("reasoning", {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "reasoning_content": "two and two"}]},
     [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "reasoning_content": "two and two"}], {}),
    ("thinking", {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "thinking": "two and two"}]},
     [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4", "reasoning_content": "two and two"}], {}),
    ("chat_template_kwargs", {"messages": DIALOGUE, "chat_template_kwargs": {"enable_thinking": False, "date_string": "1 May 2025"}}, DIALOGUE,
     {"enable_thinking": False, "date_string": "1 May 2025"}),
    ("nulls of a table", {"messages": [{**m, "name": None, "tool_calls": None, "weight": 1 if m["role"] == "assistant" else None} for m in DIALOGUE], "tools": None}, DIALOGUE, {}),
]
PAIRS = [("qwen3", ""), ("qwen3", "Qwen-Qwen2.5-7B-Instruct"), ("qwen3", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"), ("llama3_1", ""),
         ("llama3_1", "meta-llama-Llama-3.1-8B-Instruct"), ("gemma3", ""), ("mistral", "mistralai-Mistral-Nemo-Instruct-2407")]


def main(data):
    with open("tests/golden/records.jsonl", "w") as out:
        def write(**row):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")

        for name, template in PAIRS:
            folder = f"{data}/tokenizer/hf/{name}"
            config = json.load(open(folder + "/tokenizer_config.json"))
            text_of = lambda token: token["content"] if isinstance(token, dict) else token
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json", bos_token=text_of(config.get("bos_token")), eos_token=text_of(config.get("eos_token")))
            source = open(f"{data}/chat_templates/llama.cpp/{template}.jinja").read() if template else config["chat_template"]
            ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
            render = lambda messages, **more: tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, **more)
            for kind, record, messages, more in DIALOGUES:
                try:
                    write(tokenizer=name, template=template, kind=kind, record=record, text=render(messages, **more))
                except Exception as error:              # the template refuses it: so must we, or find the form that it takes
                    write(tokenizer=name, template=template, kind=kind, record=record, refused=str(error)[:80])
            turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}, {"role": "user", "content": "Zwei Wörter?"}, {"role": "assistant", "content": "Guten Tag!"}]
            text, prompt = render(turns), render(turns[:3], add_generation_prompt=True)
            write(tokenizer=name, template=template, kind="text", record={"text": text}, tokens=ids(text))
            if text.startswith(prompt):
                write(tokenizer=name, template=template, kind="templated prompt", record={"prompt": prompt, "completion": text[len(prompt):]}, tokens=ids(text))


main(sys.argv[1])
