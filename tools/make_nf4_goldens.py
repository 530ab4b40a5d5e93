"""Writes tests/golden/nf4.txt: what the reference makes of a known tensor, in NF4 and FP4, single and double-quantized.

The codes come from the definition of the reference's GPU kernels, written here in numpy. The reference itself is run beside it on the
CPU and must agree, except where its CPU path is known to differ: it divides in a tail block, it stores other codes of zero, and in FP4
it compares with the midpoints of the table, where the GPU kernels have decimal literals that lie up to 3.6e-7 beside them. The last
lines are bytes that the reference itself wrote: of a tensor of small integers whose quotients fall on those very places, and double
quantization (nested_*) of the known tensor, as it is, with every fifth block made denormal, and with all of them denormal.
   python tools/make_nf4_goldens.py > tests/golden/nf4.txt
"""
import sys

import bitsandbytes.functional as F
import numpy as np
import torch

f32 = np.float32


def source(n):
    """Exact in every language: 24 random bits, minus a half, times an integer that differs from block to block; one block of zeros."""
    i = np.arange(n, dtype=np.uint64)
    bits = ((i * 2654435761 + 12345) % 2**32) >> 8
    x = (bits.astype(f32) * f32(2.0**-24) - f32(0.5)) * (1 + (i // 64) % 37).astype(f32)
    x[192:256] = 0
    return x


NF4 = F.get_4bit_type("nf4", device="cpu").numpy()
FP4 = F.get_4bit_type("fp4", device="cpu").numpy()
PIVOTS = np.array([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333], f32)
ORDER = np.array([0, 1, 6, 7, 4, 5, 2, 3])


def rank(thresholds, x):
    return (x[:, None] > thresholds[None, :]).sum(1)


def quantize(x, kind):
    padded = np.pad(x, (0, -len(x) % 64)).reshape(-1, 64)
    absmax = np.abs(padded).max(1)
    with np.errstate(divide="ignore"):
        scaled = np.where(absmax[:, None] > 0, padded * (f32(1) / np.where(absmax > 0, absmax, 1))[:, None], 0).astype(f32).reshape(-1)[: len(x) + len(x) % 2]
    if kind == "nf4":
        code = rank((NF4[1:] + NF4[:-1]) / f32(2), scaled)
    else:
        code = ORDER[rank(PIVOTS, np.abs(scaled))] + 8 * (scaled < 0)
    return (code[0::2] << 4 | code[1::2]).astype(np.uint8), absmax


def values(codes, book):
    return np.stack([book[codes >> 4], book[codes & 15]], 1).reshape(-1)


def dynamic_code(table, x):
    at, below, above, step = 127, 0, 255, 64
    while step:
        if x > table[at]:
            below, at = at, at + step
        else:
            above, at = at, at - step
        step //= 2
    if x > table[at]:
        return above if x > (table[above] + table[at]) * f32(0.5) else at
    return below if x < (table[below] + table[at]) * f32(0.5) else at


def double_quantize(absmax, table):
    offset = f32(absmax.astype(np.float64).mean())
    codes, scales = [], []
    for g in range(0, len(absmax), 256):
        centred = absmax[g : g + 256] - offset
        scale = np.abs(centred).max()
        scales.append(scale)
        codes += [dynamic_code(table, v) for v in centred * (f32(1) / scale)]
    return np.array(codes, np.uint8), np.array(scales, f32), offset


def emit(name, array):
    print(name, np.ascontiguousarray(array).tobytes().hex())


signed, unsigned = F.create_dynamic_map().numpy(), F.create_dynamic_map(signed=False).numpy()
emit("codebook_nf4", NF4)
emit("codebook_fp4", FP4)
emit("map_signed", signed)
emit("map_unsigned", unsigned)
rng = np.random.default_rng(7)
probes = np.concatenate([rng.uniform(-1, 1, 300), 10.0 ** rng.uniform(-7, 0, 100), [-1, 1, 0]]).astype(f32)
emit("probes", probes)
emit("probes_signed", np.array([dynamic_code(signed, v) for v in probes], np.uint8))
emit("probes_unsigned", np.array([dynamic_code(unsigned, v) for v in probes], np.uint8))
# The search must find the nearest entry. (The reference's CPU path does not below 1e-4, where it uses a coarser table; its GPU path does.)
assert all(dynamic_code(signed, v) == np.abs(signed.astype(np.float64) - v).argmin() for v in probes)

n = 64 * 300 + 37                                     # 301 blocks (two groups of scales), a tail, an odd count
x = source(n)
for kind, book in (("nf4", NF4), ("fp4", FP4)):
    packed, absmax = quantize(x, kind)
    whole = n // 64 * 64
    theirs, state = F.quantize_4bit(torch.from_numpy(x[:whole].copy()).reshape(-1, 64), blocksize=64, quant_type=kind)
    theirs = theirs.reshape(-1).numpy()
    assert np.array_equal(values(packed[: whole // 2], book), values(theirs, book)), kind
    assert np.array_equal(absmax[: whole // 64], state.absmax.numpy()), kind
    codes, scales, offset = double_quantize(absmax, signed)
    _, nested = F.quantize_4bit(torch.from_numpy(x[:whole].copy()).reshape(-1, 64), blocksize=64, quant_type=kind, compress_statistics=True)
    ours = double_quantize(absmax[: whole // 64], signed)
    assert abs(float(nested.offset) - float(ours[2])) < 1e-6 * float(ours[2])
    print(kind, "scale codes that differ from the reference:", int((ours[0] != nested.absmax.numpy()).sum()), "of", whole // 64, file=sys.stderr)
    for name, array in (("packed", packed), ("absmax", absmax), ("absmax_code", codes), ("absmax2", scales), ("offset", np.array([offset]))):
        emit(f"{kind}_{name}", array)

ties = ((np.arange(64 * 16) * 5 + np.arange(64 * 16) // 64) % 49 - 24).astype(f32)      # -24 ... 24, all of them in every block
midpoints = np.sort(np.unique(np.abs(FP4)))
midpoints = ((midpoints[1:] + midpoints[:-1]) / 2).astype(f32)
for kind, book in (("nf4", NF4), ("fp4", FP4)):
    for dtype in (torch.float32, torch.bfloat16):      # integers are exact in both: the same bytes
        theirs, _ = F.quantize_4bit(torch.from_numpy(ties.copy()).to(dtype).reshape(-1, 64), blocksize=64, quant_type=kind)
        theirs = theirs.reshape(-1).numpy()
        ours, _ = quantize(ties, kind)
        q = np.abs(ties * (f32(1) / f32(24)))[:, None]
        between = ((q >= np.minimum(PIVOTS, midpoints)) & (q <= np.maximum(PIVOTS, midpoints))).any(1)
        differ = values(ours, book) != values(theirs, book)
        assert not (differ & ~between).any() and (kind == "fp4" or not differ.any())
        print(kind, dtype, "values that differ from the CPU path:", int(differ.sum()), "of", len(ties), file=sys.stderr)
    emit(f"{kind}_ties_by_reference", theirs)

n = 64 * 300
for name, small in (("normal", []), ("mixed", range(0, 300, 5)), ("denormal", range(300))):
    x = source(n).reshape(-1, 64)
    for b in small:
        x[b] = x[b] * f32(2.0**-132)
    codes, state = F.quantize_4bit(torch.from_numpy(x.copy()), blocksize=64, quant_type="nf4", compress_statistics=True)
    emit(f"nested_{name}_packed", codes.numpy().reshape(-1))
    emit(f"nested_{name}_code", state.absmax.numpy())
    emit(f"nested_{name}_absmax2", state.state2.absmax.numpy())
    emit(f"nested_{name}_offset", state.offset.numpy().reshape(1))
