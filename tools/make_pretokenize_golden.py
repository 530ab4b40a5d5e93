#!/usr/bin/env python3
"""Words that the regular expressions of each pre-tokenizer give, by the Python package `tokenizers` (Oniguruma).

    python3 tools/make_pretokenize_golden.py [COUNT] > tests/golden/pretokenize.jsonl        one line: [name, string, [word, ...]]
"""
import json
import sys

from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

from make_tokenizer_golden import strings

C = "'s|'t|'re|'ve|'m|'ll|'d"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = C + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CJK = "[一-龥ࠀ-一가-\ud7ff]+"


def cased(numbers, suffix):
    front = r"[^\r\n\p{L}\p{N}]?"
    return rf"{front}{UPPER}*{LOWER}+{suffix}|{front}{UPPER}+{LOWER}*{suffix}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{TAIL}"


PASSES = {
    "llama-bpe": [rf"(?i:{C})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{TAIL}"],
    "qwen2": [rf"(?i:{C})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{TAIL}"],
    "qwen35": [rf"(?i:{C})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{TAIL}"],
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "tekken": [cased(r"\p{N}", "")],
    "gpt-4o": [cased(r"\p{N}{1,3}", f"(?i:{C})?")],
    "deepseek-llm": [r"[\r\n]", r"\s?[\p{Lu}\p{Ll}\p{Lt}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CJK, r"\p{N}+"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
}


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    for name, passes in PASSES.items():
        cut = Sequence([Split(Regex(p), "isolated") for p in passes])
        for text in strings(count, seed=2):
            print(json.dumps([name, text, [word for word, _ in cut.pre_tokenize_str(text)]], ensure_ascii=False))


if __name__ == "__main__":
    main()
