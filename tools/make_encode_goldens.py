"""Writes tests/golden/encode.txt: floats, and what can be made of them.

f32, f16, bf16: name, hex of the floats, hex of the bytes that NumPy and the `gguf` package make of them.
q8_0, q4_0, iq4_nl: name, hex of the floats, hex of two f64 a block: the least sum of squared errors that any scale can have (of q4_0 weighted
by sqrt(mean x^2 + x^2)), found by trying every finite f16 with the nearest level for every element; and the sum that the
`gguf` package's bytes have (infinity where it does not write the type).   python tools/make_encode_goldens.py > tests/golden/encode.txt
"""
import numpy as np
from gguf import GGMLQuantizationType as T, quants

IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], float)
LEVELS = {T.Q8_0: np.arange(-127, 128.0), T.Q4_0: np.arange(-8, 8.0), T.IQ4_NL: IQ4}

rng = np.random.default_rng(7)
x = (rng.normal(size=(16, 32)) * 0.05).astype("<f4")
x[1] = 0
x[2] = np.float32(0.25) * np.arange(-16, 16)           # halves of a step: ties
x[3] = np.where(np.arange(32) % 2, 1, -1)              # both signs have the largest magnitude
x[4, 5] = -x[4].max() * 3
x[5] = x[5] * np.float32(1e-6)                         # scales below f16's normal range
x[6] = (rng.normal(size=32) * 60).astype("<f4")
x[7] = 0
x[7, 9] = 0.3                                          # a single value
x[8] = np.abs(x[8])                                    # one sign only: half of the levels
nf4 = np.array([-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0, 0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1])
x[9:14] = (nf4[rng.integers(0, 16, (5, 32))] * 0.11).astype("<f4")     # what a base held in NF4 consists of


def weight(block, t):
    y = block.astype(float)
    return np.sqrt(np.square(y).mean(-1, keepdims=True) + np.square(y)) if t == T.Q4_0 else np.ones(32)


def least(block, levels, w):
    d = np.arange(65536).astype("<u2").view("<f2").astype(float)
    d = d[np.isfinite(d) & (d != 0)]
    order, best = (levels[1:] + levels[:-1]) / 2, float((w * np.square(block.astype(float))).sum())        # every code as near 0 as it can be, d = 0
    for part in np.array_split(d, 64):
        y = block.astype(float)[None, :] / part[:, None]
        near = levels[np.searchsorted(order, y)] * part[:, None]
        best = min(best, float((w * np.square(near - block)).sum(1).min()))
    return best


for t in (T.F32, T.F16, T.BF16):
    out = x.astype("<f2") if t == T.F16 else quants.quantize(x, t)
    print(t.name.lower(), x.tobytes().hex(), np.ascontiguousarray(out).tobytes().hex())
for t in LEVELS:
    try:
        stock = (weight(x, t) * np.square(quants.dequantize(quants.quantize(x, t), t).astype(float) - x)).sum(1)
    except NotImplementedError:
        stock = np.full(len(x), np.inf)
    table = np.stack([[least(block, LEVELS[t], weight(block, t)) for block in x], stock], 1).astype("<f8")
    print(t.name.lower(), x.tobytes().hex(), table.tobytes().hex())
