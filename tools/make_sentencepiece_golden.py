#!/usr/bin/env python3
"""Small SentencePiece models of every kind that is read, strings, and what the Python package `sentencepiece` makes of them.

    python3 tools/make_sentencepiece_golden.py models FOLDER [full]          trains them: FOLDER/NAME.model
    python3 tools/make_sentencepiece_golden.py ids FOLDER [COUNT]            one line a string: [name, string, ids, decoded text (null if the string)]

The models that tests/golden/sentencepiece holds were made by the first, tests/golden/sentencepiece.jsonl by the second. Their normalizers are a
few rules, for the size of the files; "full" takes SentencePiece's own (nmt_nfkc), of 240 KB each.
"""
import json
import pathlib
import random
import sys

import sentencepiece

from make_tokenizer_golden import RANGES, WORDS, strings

LLAMA = dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True)
RULES = {"ﬁ": "fi", "①": "1", "ｶﾞ": "ガ", "ｶ": "カ", "\u3000": " ", "\u00a0": " ", "\t": " ", "\u200b": "", "¨": " \u0308", "\u212b": "\u00c5", "e\u0301": "é", "½": "1/2", "𝔘": "U", "…": "..."}
MODELS = {
    "llama": LLAMA,
    "gemma": dict(LLAMA, add_dummy_prefix=False, user_defined_symbols=["<start_of_turn>", "\u2581\u2581", "\u2581\u2581\u2581\u2581", "\n\n", "ab", "é"],
                  control_symbols=["<ctl>"]),
    "bpe_nfkc": dict(model_type="bpe", normalization_rule_name="nmt_nfkc", user_defined_symbols=["<x>", "ﬁ", "the q"]),
    "unigram": dict(model_type="unigram", normalization_rule_name="nmt_nfkc_cf"),
    "t5": dict(model_type="unigram", normalization_rule_name="nmt_nfkc", user_defined_symbols=["<extra_0>", "lazy dogs"]),
    "unigram_bytes": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False),
}


def train(folder, full):
    rules = folder / "rules.tsv"
    rules.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n" for a, b in RULES.items()))
    text = folder / "corpus.txt"
    text.write_text("\n".join(s.replace("\n", " ").replace("\0", " ") for n, s in enumerate(strings(9000, seed=5)) if n % 4 < 2 and s.strip()))
    for name, options in MODELS.items():
        if not full and options["normalization_rule_name"] != "identity":
            options = {k: v for k, v in options.items() if k != "normalization_rule_name"} | {"normalization_rule_tsv": str(rules)}
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(folder / name), vocab_size=900, character_coverage=0.98, minloglevel=2,
                                                 max_sentencepiece_length=12, num_threads=1, hard_vocab_limit=False, **options)
    import sentencepiece.sentencepiece_model_pb2 as pb
    for name in MODELS:                                 # what trained it is of no use here, and half of the file
        model = pb.ModelProto.FromString((folder / f"{name}.model").read_bytes())
        for field in ("input", "model_prefix"):
            model.trainer_spec.ClearField(field)
        model.normalizer_spec.ClearField("normalization_rule_tsv")
        (folder / f"{name}.model").write_bytes(model.SerializeToString())
    model = pb.ModelProto.FromString((folder / "llama.model").read_bytes())
    chosen = random.Random(3)
    for piece in model.pieces:                          # pieces that may be merged but must fall apart again
        if piece.type == 1 and len(piece.piece) > 1 and chosen.random() < 0.2:
            piece.type = 5
    (folder / "unused.model").write_bytes(model.SerializeToString())


def ids(folder, count):
    for name in [*MODELS, "unused"]:
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.model"))
        extra = ["<x>", "<start_of_turn>", "ab", "the q", "lazy dogs", "<extra_0>", "</s>", "<unk>", "<ctl>", "\u2581", "  ", "ｶﾞ①ﬁ", "éab"]
        chosen = random.Random(4)
        for n, text in enumerate(strings(count, seed=6)):
            if n % 5 == 0:
                text = chosen.choice(["", " ", "  "]) + text + chosen.choice(extra) + text[:3] + chosen.choice(extra) + chosen.choice(["", " ", "\u2581"])
            out = model.encode(text)
            unknown = model.unk_id()
            decoded = model.decode([i for i in out if i != unknown])
            print(json.dumps([name, text, out, decoded if decoded != text else None], ensure_ascii=False))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[2])
    train(folder, "full" in sys.argv) if sys.argv[1] == "models" else ids(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 40)
