#!/usr/bin/env python3
"""Small tokenizer.json files of every kind and component that is read, strings, and what the Python package `tokenizers` makes of them.

    python3 tools/make_tokenizer_parts_golden.py [COUNT] > tests/golden/tokenizer_parts.jsonl

A line is [name, model], [name, name of the model, the rest of tokenizer.json] or, behind it, [name, string, ids, decoded text (null if the string)].
"""
import json
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import Split

from make_tokenizer_golden import strings

METASPACE = dict(replacement="\u2581", split=True)
BYTES = [f"<0x{b:02X}>" for b in range(256)]


# Names that end a reply are control tokens here, whatever the file says; those of a trie are found in text there.
ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<s>", "<unk>", "\u0000")


def plain(count, seed):
    return [s for s in strings(count, seed) if not any(end in s for end in ENDS)]


# Found among 20,000: sums that differ in their last bit, and signs that only a newer Unicode has as punctuation.
NEAR = ["नियs> \n\n\nはiC  rvolΣΥΦ", "Ⴌ๱࠶ა႟࣯௪ இ ౷ৃ ॑ କުಜ ܑ࿺क ", "༮ ੶ࠨ৊رಏ௼ ݐ঺ ໥४໾୮ ఔཉ "]


def corpus():
    return [s for n, s in enumerate(plain(8000, seed=8)) if n % 4 < 2]


def model_of(trainer, model, pre, texts, **options):
    t = Tokenizer(model)
    t.pre_tokenizer = pre
    t.train_from_iterator(texts, trainer(special_tokens=["<unk>", "<s>"], show_progress=False, **options))
    return json.loads(t.to_str())["model"]


def make_models():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe = model_of(trainers.BpeTrainer, models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), corpus(), vocab_size=500, initial_alphabet=alphabet)
    letters = [s for s in corpus() if all(ord(c) < 0x250 or c == "\u2581" for c in s)]         # a vocabulary holds every character it was trained on
    unigram = model_of(trainers.UnigramTrainer, models.Unigram(), pre_tokenizers.Metaspace(), letters, vocab_size=500, unk_token="<unk>")
    with_bytes = unigram | {"vocab": unigram["vocab"] + [[b, -20.0] for b in BYTES], "byte_fallback": True}
    return {"bpe": bpe, "unigram": unigram, "unigram_bytes": with_bytes}


def byte_level(normalizer, *pre, regex=True):
    return "bpe", normalizer, pre_tokenizers.Sequence([*pre, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)]), decoders.ByteLevel()


def split(pattern, behavior, invert=False):
    return byte_level(None, Split(pattern, behavior, invert), regex=False)


def tokenizers():
    meta = lambda scheme, cut=True: (pre_tokenizers.Metaspace(prepend_scheme=scheme, replacement="\u2581", split=cut),
                                     decoders.Metaspace(prepend_scheme=scheme, replacement="\u2581", split=cut))
    yield "unigram_always", ("unigram", None, *meta("always"))
    yield "unigram_first", ("unigram", normalizers.NFKC(), *meta("first"))
    yield "unigram_never", ("unigram", normalizers.Lowercase(), *meta("never", False))
    yield "unigram_bytes", ("unigram_bytes", normalizers.Replace(Regex(" {2,}"), "\u2581"), meta("always", False)[0],
                                   decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]))
    yield "nfd", byte_level(normalizers.NFD())
    yield "nfkd", byte_level(normalizers.NFKD(), pre_tokenizers.Digits(individual_digits=True))
    yield "nfkc", byte_level(normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.Prepend("x")]), pre_tokenizers.Digits())
    yield "no_regex", byte_level(normalizers.NFC(), regex=False)
    yield "digits3", byte_level(None, Split(Regex(r"\p{N}{1,3}"), "isolated"))
    yield "replace", byte_level(normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Replace("e", "E"), normalizers.Replace(Regex(r"[a-d\p{N}]"), "<>")]))
    for behavior in ("isolated", "contiguous", "merged_with_previous", "merged_with_next", "removed"):
        for invert in (False, True):
            yield f"{behavior}{'_inverted' if invert else ''}", split(Regex(r"[^\s\p{L}]"), behavior, invert)
    yield "spaces2", split(Regex(r"\s{2,3}"), "merged_with_next")
    yield "text", split("s", "merged_with_previous")
    yield "text_inverted", split(" ", "removed", True)
    yield "punctuation", byte_level(None, pre_tokenizers.Punctuation(), regex=False)
    yield "punctuation_next", byte_level(None, pre_tokenizers.Punctuation("merged_with_next"), regex=False)
    yield "white", byte_level(None, pre_tokenizers.WhitespaceSplit(), regex=False)
    yield "bert", byte_level(None, pre_tokenizers.BertPreTokenizer(), regex=False)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    made = make_models()
    for name, model in made.items():
        print(json.dumps([name, model], ensure_ascii=False))
    for name, (model, normalizer, pre, decoder) in tokenizers():
        added = [{"id": n, "content": c, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False} for n, c in enumerate(("<unk>", "<s>"))]
        t = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": added, "model": made[model]}))
        if normalizer:
            t.normalizer = normalizer
        t.pre_tokenizer, t.decoder = pre, decoder
        rest = json.loads(t.to_str())
        del rest["model"]
        print(json.dumps([name, model, rest], ensure_ascii=False))
        t.encode_special_tokens = True
        for text in plain(count, seed=9) + NEAR:
            out = t.encode(text, add_special_tokens=False).ids
            decoded = t.decode([i for i in out if i > 1])
            print(json.dumps([name, text, out, decoded if decoded != text else None], ensure_ascii=False))


if __name__ == "__main__":
    main()
