#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cpp: general categories, canonical decompositions, combining classes and lower case as packed text.

    python3 tools/make_unicode_tables.py > src/text/unicode_tables.cpp
    python3 tools/make_unicode_tables.py compatible > src/text/unicode_compatible_tables.cpp

Each is that of the package `tokenizers`, asked character by character, because ids must agree with it: its regular expressions and its
lower case know a newer Unicode than its normal forms, which are those of Unicode 9 (marks that are newer are starters to it).
Numbers are base 32 (0-9a-v); the upper-case letter that ends a number says what it was. A number before a class that is 1 is left out.
"""
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

nfc, nfd, nfkd, lower = (form.normalize_str for form in (normalizers.NFC(), normalizers.NFD(), normalizers.NFKD(), normalizers.Lowercase()))
LAST = 0x110000
CLASS = {"Lu": "U", "Ll": "L", "Lt": "T", "Lm": "M", "Lo": "O", "M": "K", "N": "N", "P": "P", "S": "S"}
CODES = [code for code in range(LAST) if not 0xD800 <= code < 0xE000]           # half of a surrogate pair is no character


def base32(n):
    digits = ""
    while True:
        digits = "0123456789abcdefghijklmnopqrstuv"[n % 32] + digits
        n //= 32
        if n == 0:
            return digits


def runs(of):
    start, value = 0, of(0)
    for code in range(1, LAST + 1):
        here = of(code) if code < LAST else None
        if here != value:
            yield code - start, value
            start, value = code, here


def order(code):
    """The combining class, where the normal form knows it: then it changes places with some mark beside it."""
    c = chr(code)
    known = unicodedata.combining(c) and nfd(c) == c and any(nfd("x" + pair) != "x" + pair for mark in "\u0334\u0345" for pair in (c + mark, mark + c))
    return unicodedata.combining(c) if known or code in (0x334, 0x345) else 0


def classes():
    category = {}
    for name, letter in CLASS.items():
        drop = normalizers.Replace(Regex(f"\\p{{{name}}}"), "").normalize_str
        category.update((code, letter) for code in CODES if drop(chr(code)) == "")
    return "".join((base32(n) if n > 1 else "") + c for n, c in runs(lambda code: category.get(code, "Z")))


def combining():
    return "".join(base32(n) + "R" + base32(v) + "C" for n, v in runs(order))


def decompositions():
    out, last = [], 0
    for code in CODES:
        parts = unicodedata.decomposition(chr(code)).split()
        if not parts or parts[0].startswith("<") or nfd(chr(code)) == chr(code):
            continue
        numbers = [int(p, 16) for p in parts]
        assert len(numbers) <= 2
        out.append(base32(code - last) + "D")
        last = code
        if len(numbers) == 1:
            out.append(base32(numbers[0]) + "S")
        else:
            composes = nfc(chr(code)) == chr(code)
            out.append(base32(numbers[0]) + "A" + base32(numbers[1]) + ("B" if composes else "X"))
    return "".join(out)


def lowercase():
    """Runs of letters at a stride of 1 or 2 whose lower case is equally far away. U+0130 becomes two characters: left to the code."""
    pairs = [(code, ord(lower(chr(code))) - code) for code in CODES if code != 0x130 and lower(chr(code)) != chr(code)]
    out, last, i = [], 0, 0
    while i < len(pairs):
        code, shift = pairs[i]
        stride = pairs[i + 1][0] - code if i + 1 < len(pairs) and pairs[i + 1][1] == shift else 1
        stride = stride if stride in (1, 2) else 1
        n = 1
        while i + n < len(pairs) and pairs[i + n] == (code + n * stride, shift):
            n += 1
        out.append(base32(code - last) + "D" + base32(n) + "N" + base32(abs(shift)) + ("ABPQ"[(shift < 0) * 2 + stride - 1]))
        last = code
        i += n
    return "".join(out)


def compatible():
    """Characters whose compatibility decomposition is another than the canonical one, whole: runs of characters that become one
    character each, equally far away, or one and its parts."""
    pairs = [(code, [ord(c) for c in nfkd(chr(code))]) for code in CODES if nfkd(chr(code)) != nfd(chr(code))]
    out, last, i = [], 0, 0
    while i < len(pairs):
        code, parts = pairs[i]
        n = 1
        while len(parts) == 1 and i + n < len(pairs) and pairs[i + n] == (code + n, [parts[0] + n]):
            n += 1
        out.append(base32(code - last) + "D" + (base32(n) + "N" if n > 1 else "") + "".join(base32(p) + "P" for p in parts) + "E")
        last = code
        i += n
    return "".join(out)


def other_punctuation():
    """Where Punctuation, which knows an older Unicode, is of another opinion than \\p{P}."""
    split = pre_tokenizers.Punctuation().pre_tokenize_str
    drop = normalizers.Replace(Regex(r"\p{P}"), "").normalize_str
    other = {code for code in CODES if code >= 0x80 and (len(split("a" + chr(code) + "a")) == 3) != (drop(chr(code)) == "")}
    return "".join(base32(n) + "S" + base32(m) + "N" for n, m in gaps(other))


def gaps(codes):
    """[codes that are not, codes that are] ..., up to the last of them."""
    start, inside, begin = 0, False, 0
    for code in range(max(codes) + 2):
        if (code in codes) != inside:
            if inside:
                yield begin - start, code - begin
                start = code
            begin, inside = code, not inside


def literal(name, text):
    print(f"const char {name}[] =")
    for i in range(0, len(text), 112):
        print(f'    "{text[i:i + 112]}"' + (";" if i + 112 >= len(text) else ""))
    print()


def file(name, what, tables):
    print(f"// {name} - {what} as tokenizers {tokenizers.__version__} sees them;")
    print("// written by tools/make_unicode_tables.py, which explains the packing.")
    print('#include "src/text/unicode.h"\n')
    print("namespace qlora { inline namespace QLORA_ABI {\n")
    for table in tables:
        literal(*table)
    print("}}  // namespace qlora")


if sys.argv[1:] == ["compatible"]:
    file("unicode_compatible_tables.cpp", "compatibility decompositions", [("unicode_compatible", compatible()), ("unicode_other_punctuation", other_punctuation())])
else:
    file("unicode_tables.cpp", "the characters", [("unicode_class_runs", classes()), ("unicode_combining_runs", combining()),
                                                  ("unicode_decompositions", decompositions()), ("unicode_lowercase_runs", lowercase())])
