#!/usr/bin/env python3
"""A QLoRA run of SmolLM2-135M-Instruct as PyTorch + transformers + PEFT compute it: NF4 + double quantization, r 16 on all linear layers, 50 steps.

Writes tests/golden/qlora_curve.json: the rows (token ids), the loss and the gradient norm of every step.
The frozen base is the dequantized NF4 of make_smollm2_golden.py, so both sides train on the same numbers; float32 throughout.
What is random is not stored: A and the order of the rows are drawn here by the library's own generator (src/base/rng.h), B starts at 0.
Needs torch, transformers, peft, gguf, bitsandbytes. Run from the repository root:
    python3 tools/make_qlora_curve_golden.py MODEL.gguf [DATA_FOLDER]
"""
import json, math, pathlib, sys
import numpy as np, torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from make_smollm2_golden import load

ROWS, STEPS, SEED, RANK, ALPHA, RATE, CLIP, WARMUP = 25, 50, 7, 16, 16, 5e-4, 0.3, 2
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]        # in the order of the library's enum
FILE = "instruct/alpaca_from_seed_tasks.json"


def philox(seed, stream, count):
    """Philox4x32-10: the first `count` 32-bit numbers of a stream."""
    low, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    counter = np.arange((count + 3) // 4, dtype=np.uint64)
    c = [counter & low, counter >> word, np.full_like(counter, stream & 0xFFFFFFFF), np.full_like(counter, stream >> 32)]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> word) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> word) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1).reshape(-1)[:count]


def initial_a(target, columns):                        # as create_lora() in src/model/lora.cpp
    uniform = (philox(SEED, target, RANK * columns) >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
    return torch.from_numpy((2 * uniform - 1) * (np.float32(1) / np.sqrt(np.float32(columns)))).reshape(RANK, columns)


def order_of(epoch):                                   # as BatchPlan::step() in src/run/batches.cpp
    draws = iter(philox(SEED, 0x65706F63680000 + epoch, 2 * ROWS).tolist())
    order = list(range(ROWS))
    for i in range(ROWS, 1, -1):
        j = ((next(draws) << 32 | next(draws)) * i) >> 64
        order[i - 1], order[j] = order[j], order[i - 1]
    return order


def short_rows(data):
    """The shortest dialogues of the file with at least eight tokens to train on, in the order of the file."""
    tokenizer = Tokenizer.from_file(str(data / "tokenizer/smollm2/tokenizer.json"))
    rows = []
    for index, r in enumerate(json.loads((data / FILE).read_text())):
        user = r["instruction"] + ("\n" + r["input"] if r["input"] else "")
        prompt = tokenizer.encode(f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False).ids
        reply = tokenizer.encode(r["output"] + "<|im_end|>", add_special_tokens=False).ids
        if len(reply) >= 8:
            rows.append({"record": index, "prompt": len(prompt), "tokens": prompt + reply})
    return sorted(sorted(rows, key=lambda r: (len(r["tokens"]), r["record"]))[:ROWS], key=lambda r: r["record"])


def main():
    torch.set_num_threads(1)
    rows = short_rows(pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "../shared/data"))
    model = get_peft_model(load(sys.argv[1], True), LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=MODULES, bias="none", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_A" in name:
                words = name.split(".")
                target = int(words[words.index("layers") + 1]) * len(MODULES) + MODULES.index(words[words.index("lora_A") - 1])
                p.copy_(initial_a(target, p.shape[1]))
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    order = order_of(0) + order_of(1)
    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.param_groups:           # warm-up, then linear decay to zero
            group["lr"] = RATE * step / WARMUP if step < WARMUP else RATE * (STEPS - step) / (STEPS - WARMUP)
        row = rows[order[step]]
        tokens = torch.tensor([row["tokens"]])
        labels = tokens.clone()
        labels[:, : row["prompt"]] = -100
        optimizer.zero_grad()
        loss = model(tokens, labels=labels).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(params, CLIP).item())
        optimizer.step()
        losses.append(loss.item())
        print(step + 1, order[step], losses[-1], norms[-1], flush=True)
    assert all(map(math.isfinite, losses))
    golden = {"file": FILE, "seed": SEED, "rank": RANK, "alpha": ALPHA, "learning_rate": RATE, "max_grad_norm": CLIP, "warmup_steps": WARMUP, "order": order,
              "losses": [round(x, 6) for x in losses], "grad_norms": [round(x, 6) for x in norms]}
    lines = [json.dumps(r, separators=(",", ":")) for r in rows]
    text = json.dumps(golden)[:-1] + ',\n"rows": [\n' + ",\n".join(lines) + "\n]}\n"
    json.loads(text)
    pathlib.Path("tests/golden/qlora_curve.json").write_text(text)


main()
