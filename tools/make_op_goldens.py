#!/usr/bin/env python3
"""Writes tests/golden/ops.json: values and gradients of single operations as PyTorch and transformers compute them.

Usage: python3 tools/make_op_goldens.py > tests/golden/ops.json        (needs torch and transformers; the tests need neither)
"""
import json
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as apply_partial_rotary_pos_emb
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

# In double, as floats lose digits of rows that are far from 0: the second has a mean of 10^4 times its spread.
x = torch.randn(3, 10)
x[1] = x[1] * 0.5 + 5000
x[2] = x[2] * 1e-3 + 2
w, b, dy = torch.randn(10), torch.randn(10), torch.randn(3, 10)
exact = [t.double().requires_grad_() for t in (x, w, b)]
y = F.layer_norm(exact[0], (10,), exact[1], exact[2], 1e-5)
y.backward(dy.double())
put("layer_norm", x=x, w=w, b=b, dy=dy, y=y, dx=exact[0].grad, dw=exact[1].grad, db=exact[2].grad)
bare = x.double().requires_grad_()
y = F.layer_norm(bare, (10,), None, None, 1e-5)
y.backward(dy.double())
put("layer_norm_bare", y=y, dx=bare.grad)

for name, form in (("gelu", "none"), ("gelu_tanh", "tanh")):
    x, up, dy = torch.randn(20) * 2, torch.randn(20), torch.randn(20)
    x[:6] = torch.tensor([-12.0, 12.0, 0.0, -1e-4, -0.7517916, 4.5])
    exact = [t.double().requires_grad_() for t in (x, up)]
    y = F.gelu(exact[0], approximate=form)
    y.backward(dy.double())
    put(name, x=x, dy=dy, y=y, dx=exact[0].grad)
    if form == "tanh":
        continue                                       # geglu has it above
    exact[0].grad = None
    y = F.gelu(exact[0], approximate=form) * exact[1]
    y.backward(dy.double())
    put("geglu_erf", gate=x, up=up, dy=dy, y=y, dgate=exact[0].grad, dup=exact[1].grad)

x = (torch.randn(20) * 2).requires_grad_()
x.data[:5] = torch.tensor([-1.4999999, 1.9999999, -1.5000001, 2.0000002, 0.0])    # at a bound versions differ
dy = torch.randn(20)
y = x.clamp(-1.5, 2.0)
y.backward(dy)
put("clamp", x=x, dy=dy, y=y, dx=x.grad)

# GPT-NeoX: a quarter of heads of 80 turns; the same in adjacent pairs as complex numbers.
heads, dim, rotated, positions = 2, 80, 20, [0, 3, 1000]
q, dy = torch.randn(3, heads * dim).requires_grad_(), torch.randn(3, heads * dim)
inverse = 10000.0 ** (-torch.arange(0, rotated, 2).float() / rotated)
angles = torch.tensor(positions).float()[:, None] * inverse
both = torch.cat((angles, angles), -1)[None]
split = q.view(1, 3, heads, dim).transpose(1, 2)
halves, _ = apply_partial_rotary_pos_emb(split, split, both.cos(), both.sin())
halves.transpose(1, 2).reshape(3, heads * dim).backward(dy)
pairs = torch.view_as_complex(q.detach().view(3, heads, dim)[..., :rotated].reshape(3, heads, rotated // 2, 2))
turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None, :]).reshape(3, heads, rotated)
adjacent = torch.cat((turned, q.detach().view(3, heads, dim)[..., rotated:]), -1)
put("partial_rope", x=q, dy=dy, positions=positions, inverse=inverse, halves=halves.transpose(1, 2), dx=q.grad, adjacent=adjacent)

print("{")
print(",\n".join(json.dumps(name) + ": {\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in values.items()) + "}" for name, values in golden.items()))
print("}")
