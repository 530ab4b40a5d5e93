"""Writes tests/golden/encode.txt: floats, and the blocks that the `gguf` package makes of them (f16 by NumPy).

One line a type: name, hex of the floats, hex of the blocks.   python tools/make_encode_goldens.py > tests/golden/encode.txt
"""
import numpy as np
from gguf import GGMLQuantizationType as T, quants

rng = np.random.default_rng(7)
x = (rng.normal(size=(12, 32)) * 0.05).astype("<f4")
x[1] = 0
x[2] = np.float32(0.25) * np.arange(-16, 16)           # halves of a step: ties
x[3] = np.where(np.arange(32) % 2, 1, -1)              # both signs have the largest magnitude: the first counts
x[4, 5] = -x[4].max() * 3
x[5] = x[5] * np.float32(1e-6)                         # scales below f16's normal range
x[6] = (rng.normal(size=32) * 60).astype("<f4")
for t in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0):
    out = x.astype("<f2") if t == T.F16 else quants.quantize(x, t)
    print(t.name.lower(), x.tobytes().hex(), np.ascontiguousarray(out).tobytes().hex())
