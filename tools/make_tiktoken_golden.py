#!/usr/bin/env python3
"""Small lists of tiktoken, strings, and what the Python package `tiktoken` makes of them.

    python3 tools/make_tiktoken_golden.py lists FOLDER             FOLDER/NAME/FILE (and config.json)
    python3 tools/make_tiktoken_golden.py ids FOLDER [COUNT]       one line a string: [name, string, ids, decoded text (null if the string)]

tests/golden/tiktoken holds what the first wrote, tests/golden/tiktoken.jsonl what the second did. Expressions: those of Llama 3 and Qwen 1 as their
own sources have them, the others as the package has them.
"""
import base64
import json
import pathlib
import sys

import tiktoken
import tiktoken._educational
import tiktoken_ext.openai_public as openai

from make_tokenizer_golden import strings

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace("{1,3}", "")


def pattern(of):
    """pat_str of an encoding, without the download of its ranks."""
    load = openai.load_tiktoken_bpe
    openai.load_tiktoken_bpe = lambda *a, **k: {}
    try:
        return of()["pat_str"]
    finally:
        openai.load_tiktoken_bpe = load


FORMS = {
    "llama3": ("tokenizer.model", "llama", LLAMA3),
    "qwen": ("qwen.tiktoken", "qwen", QWEN),
    "cl100k": ("cl100k_base.tiktoken", "phi3small", pattern(openai.cl100k_base)),
    "o200k": ("o200k_base.tiktoken", "", pattern(openai.o200k_base)),
}


def lists(folder):
    text = "\n".join(s for n, s in enumerate(strings(400, seed=11)) if n % 4 < 2)
    for name, (file, model_type, expression) in FORMS.items():
        ranks = tiktoken._educational.bpe_train(data=text, vocab_size=460, pat_str=expression, visualise=None)
        at = folder / name
        at.mkdir(parents=True, exist_ok=True)
        (at / file).write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
        if model_type:
            (at / "config.json").write_text(json.dumps({"model_type": model_type}) + "\n")


def ids(folder, count):
    for name, (file, _, expression) in FORMS.items():
        lines = (folder / name / file).read_text().split("\n")
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
        encoding = tiktoken.Encoding(name, pat_str=expression, mergeable_ranks=ranks, special_tokens={})
        for text in strings(count, seed=12):
            out = encoding.encode_ordinary(text)
            decoded = encoding.decode(out)
            print(json.dumps([name, text, out, decoded if decoded != text else None], ensure_ascii=False))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[2])
    lists(folder) if sys.argv[1] == "lists" else ids(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 40)
