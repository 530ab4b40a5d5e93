#!/usr/bin/env python3
"""Varied strings and their ids by the Python package `tokenizers`, to compare with.

    python3 tools/make_tokenizer_golden.py DATA [COUNT] > tests/golden/tokenizer_json.jsonl

DATA holds smollm2/, hf/... and torchtune/ with their tokenizer.json files. One line a string:
[name, string, ids as text, ids with control tokens recognised (null if the same), decoded text (null if the string)].
"""
import json
import random
import sys

from tokenizers import Tokenizer

FILES = {
    "smollm2": "smollm2/tokenizer.json",
    "llama3_1": "hf/llama3_1/tokenizer.json",
    "qwen3": "hf/qwen3/tokenizer.json",
    "gemma3": "hf/gemma3/tokenizer.json",
    "mistral": "hf/mistral/tokenizer.json",
    "tiny_bpe": "torchtune/tiny_bpe_tokenizer.json",
}

WORDS = ("the quick Brown FOX jumps over lazy dogs; I'm you'll WE'RE they'D don't ſo 'Tis it'ſ rock'n'roll snake_case camelCase HTTPServer x1y2 3.14159 "
         "1,234,567 0x7F 2026-11-24 ½ ²³ ① Ⅷ ٣٤٥ naïve café cafe\u0301 Ångström Å \u212b e\u0323\u0301 e\u0301\u0323 ﬁn ǅ ǆ Straße İstanbul ΣΊΣΥΦΟΣ "
         "Привет мир שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดี 你好世界 こんにちは 안녕하세요 \u1112\u1161\u11ab 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🙂 👩‍👩‍👧‍👦 🏳️‍🌈 ❤️ 👍🏽 "
         "() {} [] <> </s> <s> <|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <think> </think> <bos> <start_of_turn> <0x0A> <unk> ▁ ▁▁ Ġ ĠĠ "
         "->>> == != && || // /* */ ## --- ... … “quoted” «guillemets» $100 €20 50% a+b=c ^_^ `code` ~ \\n \\t \u200b \u00a0 \u3000 \u2028 \ufeff \u0000 \u001c").split(" ")
SPACES = [" ", " ", " ", " ", "", "", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\r\n", "\t", "\t\t ", "        ", "\u00a0", " \u3000", "\u0085", "\x0b"]
RANGES = [(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x600), (0x600, 0x1100), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2C00), (0x3040, 0x3100),
          (0x4E00, 0x9FFF), (0xA000, 0xAC00), (0xAC00, 0xD7A4), (0xF900, 0xFB00), (0x10000, 0x10400), (0x1D100, 0x1D800), (0x1F300, 0x1FA00), (0x2F800, 0x2FA20)]


def strings(count, seed=1):
    random.seed(seed)
    for n in range(count):
        kind = n % 4
        if kind == 0:                                   # words and spaces
            yield "".join(random.choice(WORDS) + random.choice(SPACES) for _ in range(random.randint(1, 12)))
        elif kind == 1:                                 # pieces of words, so that they meet in odd places
            parts = []
            for _ in range(random.randint(1, 16)):
                word = random.choice(WORDS)
                i = random.randint(0, len(word))
                parts.append(word[i:i + random.randint(1, 4)] + random.choice(["", "", random.choice(SPACES)]))
            yield "".join(parts)
        elif kind == 2:                                 # characters of one block
            low, high = random.choice(RANGES)
            yield "".join(chr(random.randrange(low, high)) + random.choice(["", "", "", " "]) for _ in range(random.randint(1, 24)))
        else:                                           # characters of all blocks
            yield "".join(chr(random.randrange(*random.choice(RANGES))) if random.random() < 0.5 else random.choice(" \n\r\t'sStTlLrReEvVmMdDaAzZ019.,-/_!")
                          for _ in range(random.randint(1, 40)))


def main():
    data, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 120
    names = sys.argv[3:] or list(FILES)
    for name in names:
        tokenizer = Tokenizer.from_file(f"{data}/{FILES[name]}")
        for text in strings(count):
            tokenizer.encode_special_tokens = True
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            template = tokenizer.encode(text, add_special_tokens=False).ids
            decoded = tokenizer.decode(plain, skip_special_tokens=True)
            print(json.dumps([name, text, plain, template if template != plain else None, decoded if decoded != text else None], ensure_ascii=False))


if __name__ == "__main__":
    main()
