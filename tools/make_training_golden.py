#!/usr/bin/env python3
"""Writes tests/golden/training/: a tiny random Llama, a LoRA adapter for it, and what PyTorch + PEFT make of ten training steps.

Needs torch, transformers, peft, safetensors. Run from the root of the checkout. float32 on the CPU.
Every step sees all four rows (two micro-batches of two), so the order of the rows does not matter.
The loss of a step is the sum over its trained tokens divided by their number.
"""
import json
import math
import os

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

FOLDER = "tests/golden/training"
STEPS, RATE, DECAY, CLIP = 10, 5e-3, 0.01, 0.3


def main():
    torch.manual_seed(20)
    torch.set_num_threads(1)
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         max_position_embeddings=128, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="float32")
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(1 + 0.1 * torch.randn_like(p) if "norm" in name else torch.randn_like(p) * (1.0 if "embed" in name else 0.2))
    model.save_pretrained(FOLDER + "/model")
    for extra in ("generation_config.json",):
        if os.path.exists(f"{FOLDER}/model/{extra}"):
            os.remove(f"{FOLDER}/model/{extra}")

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets, bias="none", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if "lora_B" in name:                       # zero by default, which would leave A without a gradient in the first step
                p.copy_(0.05 * torch.randn_like(p))
    peft.save_pretrained(FOLDER + "/adapter")
    for extra in ("README.md",):
        if os.path.exists(f"{FOLDER}/adapter/{extra}"):
            os.remove(f"{FOLDER}/adapter/{extra}")

    generator = torch.Generator().manual_seed(5)
    rows = []
    for length in (17, 9, 24, 12):
        tokens = torch.randint(1, 64, (length,), generator=generator).tolist()
        trained = [int(i >= length // 3 and i % 7 != 3) for i in range(length)]
        rows.append({"tokens": tokens, "trained": trained})

    params = [p for p in peft.parameters() if p.requires_grad]
    names = [n.replace(".default", "") for n, p in peft.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=DECAY)
    count = sum(sum(r["trained"][1:]) for r in rows)
    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.param_groups:           # linear schedule without warm-up
            group["lr"] = RATE * (STEPS - step) / STEPS
        optimizer.zero_grad()
        total = 0.0
        for r in rows:
            logits = peft(torch.tensor([r["tokens"]])).logits[0, :-1]
            labels = torch.tensor([t if m else -100 for t, m in zip(r["tokens"], r["trained"])][1:])
            loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        if step == 0:
            save_file({n: p.grad.clone() for n, p in zip(names, params)}, FOLDER + "/gradients.safetensors")
        norms.append(torch.nn.utils.clip_grad_norm_(params, CLIP).item())
        optimizer.step()
        losses.append(total)
    save_file({n: p.detach().clone() for n, p in zip(names, params)}, FOLDER + "/final.safetensors")
    with open(FOLDER + "/expected.json", "w") as f:
        json.dump({"learning_rate": RATE, "weight_decay": DECAY, "max_grad_norm": CLIP, "rows": rows, "losses": losses, "grad_norms": norms}, f, indent=1)
        f.write("\n")
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    print(losses)


main()
