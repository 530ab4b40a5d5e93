#!/usr/bin/env python3
"""Writes tests/golden/dora/: what PyTorch + PEFT make of DoRA adapters (arXiv:2402.09353), on the tiny model of tests/golden/training.

Needs torch, transformers, peft, bitsandbytes, safetensors. Run from the root of the checkout. float32 on the CPU.
  adapter/        as PEFT saves it: rank-stabilized, ranks by name, magnitudes away from the norms of the weights
  expected.json   its scores, and losses and gradient norms of five steps, on the weights as they are and rounded to NF4
  final.safetensors, final_nf4.safetensors   the adapters after these steps
"""
import json
import os
import sys

import bitsandbytes.functional as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

TRAINING, FOLDER = "tests/golden/training", "tests/golden/dora"
STEPS, RATE, DECAY, CLIP = 5, 5e-3, 0.01, 0.3
IDS = [3, 17, 5, 22, 9, 31, 2, 8, 14, 30, 7, 1]


def base(nf4):
    model = LlamaForCausalLM.from_pretrained(TRAINING + "/model", dtype=torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if nf4 and "_proj" in name:                # dequantized: PEFT's Linear4bit computes with these values
                codes, state = bnb.quantize_4bit(p.detach().flatten().clone(), blocksize=64, compress_statistics=False, quant_type="nf4")
                p.copy_(bnb.dequantize_4bit(codes, state).reshape(p.shape))
    return model


def make_adapter():
    torch.manual_seed(8)
    targets = ["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"]
    peft = get_peft_model(base(False), LoraConfig(r=4, lora_alpha=6, target_modules=targets, use_dora=True, use_rslora=True, rank_pattern={"down_proj": 3}, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if "lora_B" in name:
                p.copy_(0.1 * torch.randn_like(p))
            if "magnitude" in name:
                p.mul_(1 + 0.1 * torch.randn_like(p))
    peft.save_pretrained(FOLDER + "/adapter")
    if os.path.exists(FOLDER + "/adapter/README.md"):
        os.remove(FOLDER + "/adapter/README.md")


def train(nf4, rows):
    peft = PeftModel.from_pretrained(base(nf4), FOLDER + "/adapter", is_trainable=True)
    with torch.no_grad():
        logits = peft.eval()(torch.tensor([IDS])).logits[0]
    peft.train()
    params = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=DECAY)
    count = sum(sum(r["trained"][1:]) for r in rows)
    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (STEPS - step) / STEPS
        optimizer.zero_grad()
        total = 0.0
        for r in rows:
            scores = peft(torch.tensor([r["tokens"]])).logits[0, :-1]
            labels = torch.tensor([t if m else -100 for t, m in zip(r["tokens"], r["trained"])][1:])
            loss = torch.nn.functional.cross_entropy(scores, labels, ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        norms.append(torch.nn.utils.clip_grad_norm_(params, CLIP).item())
        optimizer.step()
        losses.append(total)
    save_file({k: v.detach().clone().contiguous() for k, v in get_peft_model_state_dict(peft).items()}, FOLDER + ("/final_nf4.safetensors" if nf4 else "/final.safetensors"))
    return {"logits": [[round(float(v), 6) for v in row] for row in logits], "losses": losses, "grad_norms": norms}


def main():
    torch.set_num_threads(1)
    with open(TRAINING + "/expected.json") as f:
        rows = json.load(f)["rows"]
    os.makedirs(FOLDER, exist_ok=True)
    make_adapter()
    with open(FOLDER + "/expected.json", "w") as f:
        json.dump({"ids": IDS, "learning_rate": RATE, "weight_decay": DECAY, "max_grad_norm": CLIP, "dense": train(False, rows), "nf4": train(True, rows)}, f)
        f.write("\n")


main()
