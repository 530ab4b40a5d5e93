"""Writes tests/golden/float8.txt: weights of 8-bit floats, and with scales in 8-bit floats, as torch and the `gguf` package decode them.

    e4m3        the 256 codes                                | floats
    blocks      nvfp4 blocks of a GGUF file                  | floats
    tiles       {5, 70} codes | scales of tiles of 2 x 32    | floats      FP8 with block scales
    rows        {5, 70} codes | a bf16 scale for each row    | floats
    modelopt    {3, 128} nibbles | scales | scale of the tensor | floats   scale of a block: e4m3 * that
    compressed  the same, with a scale that is divided by    | floats      scale of a block: e4m3 / that
Floats and scales are f32, little-endian.   python tools/make_float8_goldens.py > tests/golden/float8.txt
"""
import numpy as np
import torch
from gguf import GGMLQuantizationType as T, quants

torch.manual_seed(2026)
rng = np.random.default_rng(2026)


def line(name, *fields):
    print(name, *[np.ascontiguousarray(f.numpy() if torch.is_tensor(f) else f).tobytes().hex() for f in fields])


def e4m3(codes):
    return torch.from_numpy(codes).view(torch.float8_e4m3fn).float()


codes = np.arange(256, dtype=np.uint8)
line("e4m3", codes, e4m3(codes))

blocks = rng.integers(0, 256, (64, 36), dtype=np.uint8)
blocks[:, :4] = codes.reshape(64, 4)                  # every scale code there is
line("blocks", blocks, quants.dequantize(blocks, T.NVFP4).astype("<f4"))

rows, cols = 5, 70
codes = rng.integers(0, 126, (rows, cols), dtype=np.uint8) | rng.integers(0, 2, (rows, cols), dtype=np.uint8) << 7
scale = torch.rand(3, 3) * 0.01 + 1e-4
line("tiles", codes, scale, e4m3(codes) * scale.repeat_interleave(2, 0)[:rows].repeat_interleave(32, 1)[:, :cols])
scale = (torch.rand(rows, 1) * 0.01).bfloat16()
line("rows", codes, scale.view(torch.int16), e4m3(codes) * scale.float())

E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])
rows, cols = 3, 128
packed = rng.integers(0, 256, (rows, cols // 2), dtype=np.uint8)
scale = rng.integers(0, 127, (rows, cols // 16), dtype=np.uint8)
both = torch.from_numpy(packed).long()
values = E2M1[torch.stack([both & 15, both >> 4], -1).reshape(rows, cols)].reshape(rows, -1, 16)
tensor = torch.tensor([0.00031740265])
line("modelopt", packed, scale, tensor, (values * (e4m3(scale) * tensor).unsqueeze(-1)).reshape(rows, cols))
tensor = torch.tensor([5271.3037])
line("compressed", packed, scale, tensor, (values * (e4m3(scale) / tensor).unsqueeze(-1)).reshape(rows, cols))
