#!/usr/bin/env python3
"""SmolLM2-135M-Instruct as transformers computes it, on the weights exactly as stored (Q4_1) and requantized to NF4 + double quantization.

Writes tests/golden/smollm2.json: strided perplexity of the first 50 KB of WikiText-2 test, the greedy continuation of five prompts, top logits.
Needs: torch, transformers, gguf, bitsandbytes. Run from the repository root:
    python3 tools/make_smollm2_golden.py MODEL.gguf [DATA_FOLDER]
"""
import json, pathlib, sys
import bitsandbytes.functional as bnb
import gguf, numpy as np, torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

PROMPTS = ["The capital of France is", "Once upon a time, there was a little", "def fibonacci(n):\n", "Water boils at", "<|im_start|>user\nWhat is a neural network?<|im_end|>\n<|im_start|>assistant\n"]
CONTEXT, STRIDE = 512, 256


def unpermute(w, heads):                               # GGUF rows 2i + j of a head are Hugging Face's j * d/2 + i
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def nf4_double_quantized(w):
    """NF4 with double quantization, by the definition: bitsandbytes' CPU build picks a neighbour of the nearest 8-bit code near zero."""
    q, state = bnb.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=False)
    absmax, code = state.absmax, bnb.create_dynamic_map(signed=True)
    offset = absmax.double().mean().float()
    blocks = torch.nn.functional.pad(absmax - offset, (0, -absmax.numel() % 256)).view(-1, 256)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = torch.bucketize(blocks * (1 / scale), ((code[1:].double() + code[:-1].double()) / 2).float())
    state.absmax = (code[nearest] * scale).flatten()[: absmax.numel()] + offset
    return bnb.dequantize_4bit(q, state)


def load(path, nf4):
    reader = gguf.GGUFReader(path)
    w = {t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).astype(np.float32)) for t in reader.tensors}
    if nf4:                                            # of the GGUF's own row order: blocks of 64 never straddle rows here (576 and 1536)
        for name in w:
            if name.startswith("blk.") and w[name].ndim == 2:
                w[name] = nf4_double_quantized(w[name])
    config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
                         max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True)
    model = LlamaForCausalLM(config).eval()
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
             "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    state = {"model.embed_tokens.weight": w["token_embd.weight"], "model.norm.weight": w["output_norm.weight"], "lm_head.weight": w["token_embd.weight"]}
    for layer in range(30):
        for ours, theirs in names.items():
            t = w[f"blk.{layer}.{ours}.weight"].numpy()
            if ours in ("attn_q", "attn_k"):
                t = unpermute(t, 9 if ours == "attn_q" else 3).copy()
            state[f"model.layers.{layer}.{theirs}.weight"] = torch.from_numpy(t)
    model.load_state_dict(state)
    return model


@torch.no_grad()
def measure(model, ids, tokenizer):
    nll, scored, previous = 0.0, 0, 0
    for begin in range(0, len(ids), STRIDE):           # each window scores the tokens that no window before it contained, except the very first
        end = min(begin + CONTEXT, len(ids))
        window = torch.tensor([ids[begin:end]])
        logp = torch.log_softmax(model(window).logits[0].double(), -1)
        for t in range(max(previous, begin + 1), end):
            nll -= logp[t - begin - 1, ids[t]].item()
            scored += 1
        previous = end
        if end == len(ids):
            break
    greedy = []
    for prompt in PROMPTS:
        seq = tokenizer.encode(prompt, add_special_tokens=False).ids
        logits = model(torch.tensor([seq])).logits[0, -1]
        top = torch.topk(logits, 5)
        out = model.generate(torch.tensor([seq]), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0)[0, len(seq):].tolist()
        greedy.append({"prompt": seq, "top_ids": top.indices.tolist(), "top_logits": [round(x, 5) for x in top.values.tolist()], "ids": out})
    return {"nll": nll / scored, "tokens": scored, "greedy": greedy}


def main():
    data = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "../shared/data")
    tokenizer = Tokenizer.from_file(str(data / "tokenizer/smollm2/tokenizer.json"))
    text = (data / "lm/wikitext2_test.txt").read_bytes()[:50000].decode("utf-8", "ignore")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    result = {"text_bytes": 50000, "text_tokens": len(ids), "context": CONTEXT, "stride": STRIDE}
    for name, nf4 in (("q4_1", False), ("nf4", True)):
        result[name] = measure(load(sys.argv[1], nf4), ids, tokenizer)
        print(name, result[name]["nll"], result[name]["tokens"], flush=True)
    pathlib.Path("tests/golden/smollm2.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
