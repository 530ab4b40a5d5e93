#!/usr/bin/env python3
"""Writes tests/golden/dialogues.jsonl: dialogues as Hugging Face's tokenizers print and encode them through the models' own templates.

Usage: make_dialogue_golden.py DATA, where DATA/tokenizer holds the folders named below. Needs transformers.
"""
import json
import os
import sys

from transformers import PreTrainedTokenizerFast

DIALOGUES = [
    [("user", "Hi!"), ("assistant", "Hello, how can I help?")],
    [("user", "What is 2+2?"), ("assistant", "4"), ("user", "And  times 3?\n"), ("assistant", "It is 12.\n\nAnything else?")],
    [("system", "Be brief."), ("user", "Zähle bis drei: 一二三"), ("assistant", "eins, zwei, drei 🙂")],
    [("user", "Write code"), ("assistant", "```c\nint main() {\n\treturn 0;\n}\n```")],
]


def main(data):
    with open("tests/golden/dialogues.jsonl", "w") as out:
        for name in ("hf/llama3_1", "hf/qwen3", "smollm2"):
            folder = f"{data}/tokenizer/{name}"
            config = {}
            if os.path.exists(folder + "/tokenizer_config.json"):
                config = json.load(open(folder + "/tokenizer_config.json"))
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json", bos_token=config.get("bos_token"), eos_token=config.get("eos_token"))
            chatml = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
            template = config.get("chat_template", chatml)
            for dialogue in DIALOGUES:
                messages = [{"role": r, "content": c} for r, c in dialogue]
                text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
                tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
                opened = tokenizer.apply_chat_template(messages[:1], chat_template=template, tokenize=False, add_generation_prompt=True)
                row = {"tokenizer": name, "messages": messages, "text": text, "tokens": tokens, "opened": tokenizer(opened, add_special_tokens=False)["input_ids"]}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


main(sys.argv[1])
