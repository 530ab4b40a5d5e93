#!/usr/bin/env python3
"""Writes src/text/unicode_case_tables.cpp: upper case, title case and what the rule for the final sigma needs, as Python's str sees them.

    python3 tools/make_case_tables.py > src/text/unicode_case_tables.cpp

Lower case is that of src/text/unicode_tables.cpp, whose packing (base 32, a capital letter ends a number) this file shares.
"""
import sys
import unicodedata

LAST = 0x110000
CODES = [code for code in range(LAST) if not 0xD800 <= code < 0xE000]


def base32(n):
    digits = ""
    while True:
        digits = "0123456789abcdefghijklmnopqrstuv"[n % 32] + digits
        n //= 32
        if n == 0:
            return digits


def shifts(pairs):
    """Runs at a stride of 1 or 2 whose other case is equally far away: D step from the last run, N count, A B P Q the shift."""
    out, last, i = [], 0, 0
    while i < len(pairs):
        code, shift = pairs[i]
        stride = pairs[i + 1][0] - code if i + 1 < len(pairs) and pairs[i + 1][1] == shift else 1
        stride = stride if stride in (1, 2) else 1
        n = 1
        while i + n < len(pairs) and pairs[i + n] == (code + n * stride, shift):
            n += 1
        out.append(base32(code - last) + "D" + base32(n) + "N" + base32(abs(shift)) + "ABPQ"[(shift < 0) * 2 + stride - 1])
        last = code
        i += n
    return "".join(out)


def ranges(member, letter):
    """D step from the last run's start, then its length and the letter."""
    out, last, start = [], 0, None
    for code in range(LAST + 1):
        inside = code < LAST and member(code)
        if inside and start is None:
            start = code
        if not inside and start is not None:
            out.append(base32(start - last) + "D" + base32(code - start) + letter)
            last, start = start, None
    return "".join(out)


def literal(name, text):
    print(f"const char {name}[] =")
    for i in range(0, len(text), 128):
        print(f'    "{text[i:i + 128]}"' + (";" if i + 128 >= len(text) else ""))
    print()


def special():
    """Characters that become several: C the step from the last one, U each of its upper case, T each of its title case."""
    out, last = [], 0
    for code in CODES:
        c = chr(code)
        if len(c.upper()) > 1 or len(c.title()) > 1:
            out.append(base32(code - last) + "C" + "".join(base32(ord(u)) + "U" for u in c.upper()) + "".join(base32(ord(t)) + "T" for t in c.title()))
            last = code
    return "".join(out)


upper = [(c, ord(chr(c).upper()) - c) for c in CODES if len(chr(c).upper()) == 1 and chr(c).upper() != chr(c)]
title = [(c, ord(chr(c).title()) - c) for c in CODES if len(chr(c).title()) == 1 and chr(c).title() != chr(c).upper()]
print(f"// unicode_case_tables.cpp - the case of characters as Python {sys.version_info.major}.{sys.version_info.minor} sees it (Unicode {unicodedata.unidata_version}); written by tools/make_case_tables.py.")
print('#include "src/text/unicode.h"\n')
print("namespace qlora { inline namespace QLORA_ABI {\n")
literal("unicode_uppercase_runs", shifts(upper))
literal("unicode_titlecase_runs", shifts(title))
literal("unicode_special_case", special())
literal("unicode_case_ignorable", ranges(lambda c: not 0xD800 <= c < 0xE000 and ("A" + chr(c) + "Σ").lower()[-1] == "ς" and ("1" + chr(c) + "Σ").lower()[-1] == "σ", "R"))
literal("unicode_other_lowercase", ranges(lambda c: chr(c).islower() and unicodedata.category(chr(c)) != "Ll", "R"))
literal("unicode_other_uppercase", ranges(lambda c: chr(c).isupper() and unicodedata.category(chr(c)) != "Lu", "R"))
print("}}  // namespace qlora")
