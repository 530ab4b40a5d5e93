"""Writes tests/golden/blocks.txt: random blocks of every GGUF type and the floats that the `gguf` package decodes from them.

One line a type: name, hex of the blocks, hex of the little-endian floats.   python tools/make_block_goldens.py > tests/golden/blocks.txt
"""
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES, quants

rng = np.random.default_rng(2026)
# Where a block keeps its f16 scales; random bits there would be infinities.
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2],
          T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [], T.BF16: [0], T.F16: [0], T.F32: []}

for t, halves in HALVES.items():
    block, size = GGML_QUANT_SIZES[t]
    blocks = 1 if block == 256 else 3 if block == 32 else 8
    data = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
    for i in range(blocks):
        for at in halves:
            data[i, at:at + 2] = np.frombuffer(np.float16(rng.normal() * 0.05).tobytes(), np.uint8)
    if t == T.MXFP4:
        data[:, 0] = [0, 1, 120]                      # two subnormal scales and an ordinary one
    if t == T.F32:
        data = np.frombuffer(rng.normal(size=blocks).astype("<f4").tobytes(), np.uint8).reshape(blocks, size)
    values = data.view("<f2").astype("<f4") if t == T.F16 else quants.dequantize(data, t)
    assert np.isfinite(values).all() and values.size == blocks * block
    print(t.name.lower(), data.tobytes().hex(), np.ascontiguousarray(values).astype("<f4").tobytes().hex())
