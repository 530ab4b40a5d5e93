#!/usr/bin/env python3
"""Writes tests/golden/added_tokens.jsonl: small tokenizers with added tokens of every kind, as the Python package `tokenizers` (0.23.3) runs them.

The first line holds what all of them share; each other: [the rest of a tokenizer.json, [[text, ids, decoded], ...]]. decoded keeps special tokens.
    python3 tools/make_added_token_golden.py > tests/golden/added_tokens.jsonl
"""
import itertools
import json
import random

from tokenizers import Tokenizer

random.seed(5)
VOCABULARY = ["<unk>", "a", "b", "ab", " ", "\u2581", "\u2581a", "c", "-", "A", "\u00e9", "e", "\u0301", "<", ">", "n", "s", "_", "\u2581b", "  "]
MERGES = ["a b", "\u2581 a", "\u2581 b"]
NORMALIZERS = {
    "none": None,
    "lower": {"type": "Lowercase"},
    "nfc": {"type": "NFC"},
    "spm": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    "replace": {"type": "Replace", "pattern": {"String": "a"}, "content": "cc"},
    "shrink": {"type": "Replace", "pattern": {"String": "abc"}, "content": "a"},
    "strip": {"type": "Strip", "strip_left": True, "strip_right": True},
    "lower_nfc": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
}
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}
PRE = {"none": None, "first": METASPACE, "always": dict(METASPACE, prepend_scheme="always")}
DECODERS = [None, {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "Fuse"}]}]
TOKENS = ["<N>", "<s>", "ab", "abc", "e\u0301", "bA", "a b", "cc"]
PARTS = TOKENS + ["a", "b", "c", " ", "  ", "-", "A", "\u00e9", "e", "\u0301", "<n>", "<S>", "_", "B"]
SHARED = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None,
          "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                    "byte_fallback": False, "ignore_merges": False, "vocab": {token: i for i, token in enumerate(VOCABULARY)}, "merges": MERGES}}
print(json.dumps(SHARED, ensure_ascii=False))


def added(index, content, special, normalized, strip, single_word):
    return {"id": index, "content": content, "special": special, "normalized": normalized, "lstrip": "l" in strip, "rstrip": "r" in strip, "single_word": single_word}


for n, (normalizer, pre) in enumerate(itertools.product(NORMALIZERS, PRE)):
    for round in range(2):
        tokens = [added(0, "<unk>", True, False, "", False)]
        index = len(VOCABULARY)
        for content in random.sample(TOKENS, 4):
            known = content in VOCABULARY              # such a token is not special: this library never merges characters into a control token
            tokens.append(added(VOCABULARY.index(content) if known else index, content, not known and random.random() < 0.4, random.random() < 0.7, random.choice(["", "", "l", "r", "lr"]), random.random() < 0.2))
            index += not known
        tokens.sort(key=lambda token: token["id"])
        rest = {"added_tokens": tokens, "normalizer": NORMALIZERS[normalizer], "pre_tokenizer": PRE[pre], "decoder": DECODERS[(n + round) % 2]}
        tokenizer = Tokenizer.from_str(json.dumps(SHARED | rest))
        cases = []
        for _ in range(16):
            text = "".join(random.choice(PARTS) for _ in range(random.randint(1, 9)))
            try:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
            except BaseException:                      # it panics on some texts where a token takes the white space behind it along, and is no good after that
                tokenizer = Tokenizer.from_str(json.dumps(SHARED | rest))
                continue
            cases.append([text, ids, tokenizer.decode(ids, skip_special_tokens=False)])
        print(json.dumps([rest, cases], ensure_ascii=False))
