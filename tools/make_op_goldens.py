#!/usr/bin/env python3
"""Writes tests/golden/ops.json: values and gradients of single operations as PyTorch and transformers compute them.

Usage: python3 tools/make_op_goldens.py > tests/golden/ops.json        (needs torch and transformers; the tests need neither)
"""
import json
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

torch.manual_seed(1)
golden = {}


def numbers(t):
    return [float(f"{v:.9g}") for v in t.detach().reshape(-1).tolist()]


def put(name, **tensors):
    golden[name] = {k: (v if isinstance(v, (int, float, list)) else numbers(v)) for k, v in tensors.items()}


# Rows of 10: not a whole number of vectors of any width.
x = torch.randn(3, 10, requires_grad=True)
dy = torch.randn(3, 10)
norm = LlamaRMSNorm(10, eps=1e-5)
norm.weight.data = torch.randn(10)
y = norm(x)
y.backward(dy)
put("rms_norm", x=x, w=norm.weight, dy=dy, y=y, dx=x.grad, dw=norm.weight.grad)

gate, up = torch.randn(40, requires_grad=True), torch.randn(40, requires_grad=True)
gate.data[:4] = torch.tensor([-60.0, 60.0, 0.0, -1e-4])
dy = torch.randn(40)
y = F.silu(gate) * up
y.backward(dy)
put("swiglu", gate=gate, up=up, dy=dy, y=y, dgate=gate.grad, dup=up.grad)

logits = (torch.randn(5, 7) * 3).requires_grad_()
targets = torch.tensor([3, -1, 0, 6, -1])
loss = F.cross_entropy(logits, targets, ignore_index=-1)
loss.backward()
put("cross_entropy", logits=logits, targets=targets.tolist(), loss=loss, dlogits=logits.grad)

# Halves as transformers turns them; adjacent pairs as complex numbers.
heads, dim, positions = 2, 8, [0, 1, 7, 1000]
q = torch.randn(len(positions), heads * dim)
inverse = 10000.0 ** (-torch.arange(0, dim, 2).float() / dim)
angles = torch.tensor(positions).float()[:, None] * inverse
both = torch.cat((angles, angles), -1)
turned, _ = apply_rotary_pos_emb(q.view(1, 4, heads, dim).transpose(1, 2), q.view(1, 4, heads, dim).transpose(1, 2), both.cos()[None], both.sin()[None])
pairs = torch.view_as_complex(q.view(4, heads, dim // 2, 2)) * torch.polar(torch.ones_like(angles), angles)[:, None, :]
put("rope", x=q, positions=positions, inverse=inverse, halves=turned.transpose(1, 2), adjacent=torch.view_as_real(pairs))

table = torch.randn(6, 5, requires_grad=True)
ids = torch.tensor([2, 0, 2, 5])
dy = torch.randn(4, 5)
y = F.embedding(ids, table)
y.backward(dy)
put("embedding", table=table, ids=ids.tolist(), dy=dy, y=y, dtable=table.grad)

# Ten AdamW steps: decay, and clipping that acts on some steps only.
p = torch.nn.Parameter(torch.randn(23))
start = p.detach().clone()
optimizer = torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
gradients, norms = [], []
for i in range(10):
    p.grad = torch.randn(23) * (0.05 + 0.1 * (i % 3))
    gradients.append(p.grad.clone())
    norms.append(float(torch.nn.utils.clip_grad_norm_([p], 0.5)))
    optimizer.step()
state = optimizer.state[p]
put("adamw", start=start, gradients=torch.stack(gradients), norms=norms, p=p, m=state["exp_avg"], v=state["exp_avg_sq"])

gate, up = torch.randn(20, requires_grad=True), torch.randn(20, requires_grad=True)
gate.data[:6] = torch.tensor([-60.0, 60.0, 0.0, -1e-4, -0.7517916, 4.5])
dy = torch.randn(20)
y = F.gelu(gate, approximate="tanh") * up
y.backward(dy)
put("geglu", gate=gate, up=up, dy=dy, y=y, dgate=gate.grad, dup=up.grad)


def capped(x, cap):
    return torch.tanh(x / cap) * cap


x = (torch.randn(20) * 20).requires_grad_()
x.data[:6] = torch.tensor([-1e4, 1e4, 0.0, -1e-4, 1e-7, -90.0])
dy = torch.randn(20)
y = capped(x, 30)
y.backward(dy)
put("softcap", x=x, dy=dy, y=y, dx=x.grad)

# Gemma 2's attention: 4 heads over 2, scores several times the cap, each row sees 3 keys at most. Keys and values are
# halves, so that a cache of that type holds the same numbers.
rows, heads, kv_heads, dim, cap, scale = 6, 4, 2, 3, 2.0, 0.7
q = (torch.randn(rows, heads * dim) * 3).requires_grad_()
k, v = (torch.randn(rows, kv_heads * dim).half().float().requires_grad_() for _ in range(2))
dy = torch.randn(rows, heads * dim)
first, last = [max(0, t - 2) for t in range(rows)], [t + 1 for t in range(rows)]
mask = torch.tensor([[0.0 if first[t] <= j < last[t] else -torch.inf for j in range(rows)] for t in range(rows)])
split = [t.view(1, rows, -1, dim).transpose(1, 2) for t in (q, k, v)]
module = SimpleNamespace(num_key_value_groups=heads // kv_heads, training=False)
y, _ = eager_attention_forward(module, *split, mask, scaling=scale, softcap=cap)
y = y.reshape(rows, heads * dim)
y.backward(dy)
put("capped_attention", cap=[cap], scale=[scale], first=first, last=last, q=q, k=k, v=v, dy=dy, y=y, dq=q.grad, dk=k.grad, dv=v.grad)

x, w = (torch.randn(4, 6) * 2).requires_grad_(), torch.randn(9, 6)
targets, dy, cap = torch.tensor([3, -1, 0, 8]), torch.randn(4), 2.0
nll = F.cross_entropy(capped(x @ w.T, cap), targets, ignore_index=-1, reduction="none")
nll.backward(dy)
put("capped_cross_entropy", cap=[cap], x=x, w=w, targets=targets.tolist(), dy=dy, nll=nll, dx=x.grad)

print("{")
print(",\n".join(json.dumps(name) + ": {\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in values.items()) + "}" for name, values in golden.items()))
print("}")
