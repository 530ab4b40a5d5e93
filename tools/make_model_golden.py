# make_model_golden.py - reference numbers for tests/model: scores of stories260K with its linear layers in NF4, from
# weights that bitsandbytes quantized and dequantized and a plain NumPy forward pass in float64.
#   python tools/make_model_golden.py ../shared/data/model/stories260K tests/golden/model
import json
import sys

import bitsandbytes.functional as bnb
import numpy as np
import torch
from safetensors.numpy import load_file

source, target = sys.argv[1:3]
config = json.load(open(f"{source}/hf/config.json"))
weights = load_file(f"{source}/hf/model.safetensors")
heads, kv_heads, size, eps = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"], config["rms_norm_eps"]


def gguf_rows(w):  # the order in which the GGUF file holds the rows of q and k: blocks of 64 follow it
    n = w.shape[0] // size
    return w.reshape(n, 2, size // 2, -1).swapaxes(1, 2).reshape(w.shape)


def hf_rows(w):
    n = w.shape[0] // size
    return w.reshape(n, size // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


dynamic_map = bnb.create_dynamic_map().numpy()


def eight_bit(absmax):  # double quantization: bitsandbytes' CPU code does not always take the nearest of the 256 codes, so it is spelled out
    offset = np.float32(absmax.mean(dtype=np.float64))
    out = np.empty_like(absmax)
    for i in range(0, len(absmax), 256):
        x = absmax[i : i + 256] - offset
        most = abs(x).max()
        code = abs((x * (np.float32(1) / most))[:, None] - dynamic_map[None]).argmin(1)
        out[i : i + 256] = dynamic_map[code] * most + offset
    return out


def nf4(name):  # `double`: 8-bit scales
    w = weights[name]
    permuted = "q_proj" in name or "k_proj" in name
    if permuted:
        w = gguf_rows(w)
    codes, state = bnb.quantize_4bit(torch.from_numpy(np.ascontiguousarray(w)), blocksize=64, quant_type="nf4")
    if double:
        state.absmax = torch.from_numpy(eight_bit(state.absmax.numpy()))
    w = bnb.dequantize_4bit(codes, state).numpy().astype(np.float64).reshape(w.shape)
    return hf_rows(w) if permuted else w


def norm(x, name):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weights[name].astype(np.float64)


def turn(x):  # [rows, heads, size]
    angle = np.arange(x.shape[0])[:, None] * config["rope_theta"] ** (-np.arange(0, size, 2) / size)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., : size // 2], x[..., size // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def forward(ids):
    x = weights["model.embed_tokens.weight"].astype(np.float64)[ids]
    rows = len(ids)
    hidden = np.triu(np.ones((rows, rows), bool), 1)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        h = norm(x, p + "input_layernorm.weight")
        q = turn((h @ nf4(p + "self_attn.q_proj.weight").T).reshape(rows, heads, size))
        k = turn((h @ nf4(p + "self_attn.k_proj.weight").T).reshape(rows, kv_heads, size)).repeat(heads // kv_heads, 1)
        v = (h @ nf4(p + "self_attn.v_proj.weight").T).reshape(rows, kv_heads, size).repeat(heads // kv_heads, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(size)
        scores[:, hidden] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", scores, v).reshape(rows, -1) @ nf4(p + "self_attn.o_proj.weight").T
        h = norm(x, p + "post_attention_layernorm.weight")
        gate = h @ nf4(p + "mlp.gate_proj.weight").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ nf4(p + "mlp.up_proj.weight").T)) @ nf4(p + "mlp.down_proj.weight").T
    return norm(x, "model.norm.weight") @ weights["model.embed_tokens.weight"].astype(np.float64).T


ids = json.load(open(f"{source}/expected.json"))["computed"]["greedy_ids"][:24]
result = {"ids": ids, "columns": "every 32nd"}
for double in (False, True):
    result["double" if double else "single"] = [[round(float(v), 5) for v in row[::32]] for row in forward(ids)]
with open(f"{target}/stories_nf4.json", "w") as out:
    json.dump(result, out)
