#!/usr/bin/env python3
"""What PyTorch, transformers, peft and bitsandbytes do on the same card, with random weights of the same shape: prompt,
generation and a step of training of QLoRA, as ./bench measures ours. For tests/gpu_check.sh; without them it says so.

usage: gpu_peer.py [SHAPE] [--device cuda|cpu] [--tokens N]
"""
import argparse
import sys
import time
import warnings

SHAPES = {  # layers, hidden, heads, kv heads, feed forward, vocabulary: those of examples/common/synthetic.cpp
    "tiny": (2, 64, 4, 2, 192, 512),
    "135m": (30, 576, 9, 3, 1536, 49152),
    "1b": (16, 2048, 32, 8, 8192, 128256),
    "8b": (32, 4096, 32, 8, 14336, 128256),
}


def left_out(why):
    print(f"left out: the peer: {why}")
    sys.exit(0)


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("shape", nargs="?", default="1b", choices=SHAPES)
    p.add_argument("--device", default="cuda")
    p.add_argument("--tokens", type=int, default=512)
    return p.parse_args()


def made(shape, device):
    """The model, every linear layer but the head in NF4 with double quantization, and LoRA of rank 16 on all of them."""
    import bitsandbytes as bnb
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, hidden, heads, kv_heads, feed_forward, vocabulary = SHAPES[shape]
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=hidden, intermediate_size=feed_forward,
                         num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
                         max_position_embeddings=8192, tie_word_embeddings=shape != "8b")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if not isinstance(linear, torch.nn.Linear):
                    continue
                four = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False,
                                         compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")
                four.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, compress_statistics=True,
                                                quant_type="nf4")
                setattr(part, name, four.to(device))
    model.to(device)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM"))


def main():
    args = parse()
    try:
        import bitsandbytes  # noqa: F401
        import peft  # noqa: F401
        import torch
        import transformers
    except ImportError as e:
        left_out(f"{e.name} is not here")
    if args.device == "cuda" and not torch.cuda.is_available():
        left_out("PyTorch finds no CUDA device")
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    try:
        model = made(args.shape, args.device)
    except Exception as e:  # noqa: BLE001 - whatever the libraries refuse is one line here
        left_out(f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}")
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None

    def seconds(run, times=3):
        run()
        best = []
        for _ in range(times):
            wait()
            start = time.perf_counter()
            run()
            wait()
            best.append(time.perf_counter() - start)
        return sorted(best)[times // 2]

    def row(what, count, took):
        print(f"{what + ', peer, ' + args.shape:<62} {took * 1e6:10.1f} us  {count / took:.1f} tokens/s", flush=True)

    ids = torch.randint(0, SHAPES[args.shape][5], (1, args.tokens), device=args.device)
    model.eval()
    with torch.no_grad():
        row("prompt", args.tokens, seconds(lambda: model(ids)))
        some = 64 if args.device == "cuda" else 8
        took = seconds(lambda: model.generate(ids[:, :16], attention_mask=torch.ones_like(ids[:, :16]),
                                              max_new_tokens=some, min_new_tokens=some, do_sample=False,
                                              pad_token_id=0))
        row("generation", some, took)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(ids, labels=ids).loss.backward()
        optimizer.step()

    row("training", args.tokens, seconds(step))
    if args.device == "cuda":
        print(f"memory of the peer: {torch.cuda.max_memory_allocated() / 2**30:.3f} GiB at most")


main()
