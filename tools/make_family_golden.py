# make_family_golden.py - reference numbers for tests/model/family_test.cpp from transformers, peft and bitsandbytes:
#   families.json   scores of small models of every family, whose weights follow a formula that the test repeats, and what
#                   they say greedily behind five tokens, never what they said in the last 20
#                   steps, with a cache, up to the first step that rounding could decide
#   peft/           an adapter as PEFT saves it, for the llama of families.json; peft.json: its scores, loss and gradients
#   peft_gemma2/    the same for the gemma2 of families.json, and peft_gemma2.json; so for other families, by name
#   peft_patterns/  an adapter with ranks and alphas by name, on some layers, without some modules; peft_patterns.json: its scores
#   peft_expressions/  the same by regular expressions; peft_expressions.json: its scores
#   peft_pissa/     an adapter that started as PiSSA, a little trained; init.json: its scores, and parts of what LoftQ makes of a layer
#   peft_phi3/      the same for the phi3 of families.json, whose layers are fused; peft_phi3.json
#   fused.json      what bitsandbytes makes of fused matrices: codes and scales
#   bnb/            a checkpoint with 4-bit linear layers as bitsandbytes saves it; bnb.json: its scores
#   python tools/make_family_golden.py tests/golden/model
import json
import os
import sys

import bitsandbytes.functional as bnb
import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import loftq_utils
from safetensors.torch import save_file

target = sys.argv[1]
base = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=40,
            max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False, attn_implementation="eager")
ids = [3, 17, 5, 22, 9, 31, 2, 8, 14, 30, 7, 1]
cases = {
    "llama": ("Llama", {}),
    "llama_linear": ("Llama", dict(rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0))),
    "llama_llama3": ("Llama", dict(rope_parameters=dict(rope_type="llama3", factor=8.0, rope_theta=500.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))),
    "llama_yarn": ("Llama", dict(rope_parameters=dict(rope_type="yarn", factor=4.0, rope_theta=10000.0, original_max_position_embeddings=32))),
    "llama_bias": ("Llama", dict(attention_bias=True, mlp_bias=True)),
    "mistral": ("Mistral", dict(sliding_window=4, head_dim=16)),
    "qwen2": ("Qwen2", dict(use_sliding_window=True, sliding_window=4, max_window_layers=2, tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(head_dim=16)),
}
gemma = dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=8, tie_word_embeddings=True, attn_logit_softcapping=5.0, final_logit_softcapping=3.0)
cases |= {
    "gemma2": ("Gemma2", gemma),
    # what llama.cpp has no keys for: scores on another scale, no caps
    "gemma2_uncapped": ("Gemma2", dict(gemma, attn_logit_softcapping=None, final_logit_softcapping=None, query_pre_attn_scalar=11, attention_bias=True)),
}
# Sizes that nothing divides: heads that do not make up the hidden size, seven to a key, a vocabulary of no round number; tied where the case above is not.
odd = dict(hidden_size=28, intermediate_size=46, num_attention_heads=7, num_key_value_heads=1, head_dim=10, vocab_size=67)
whole = dict(odd, hidden_size=42)  # of families whose heads make up the hidden size
del whole["head_dim"]
cases |= {
    "llama_odd": ("Llama", dict(odd, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=500000.0))),
    "mistral_odd": ("Mistral", dict(odd, head_dim=6, sliding_window=5, tie_word_embeddings=True)),
    "qwen2_odd": ("Qwen2", dict(odd, num_attention_heads=14, num_key_value_heads=2, head_dim=6)),
    "gemma2_odd": ("Gemma2", dict(gemma, **dict(odd, head_dim=12, query_pre_attn_scalar=12, sliding_window=3))),
    # windows where no rule of the family's fields has them
    "qwen2_types": ("Qwen2", dict(use_sliding_window=True, sliding_window=3, layer_types=["full_attention", "sliding_attention", "full_attention"])),
    "qwen3_types": ("Qwen3", dict(head_dim=16, use_sliding_window=True, sliding_window=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "starcoder2": ("Starcoder2", dict(norm_epsilon=1e-4, tie_word_embeddings=True)),
    "starcoder2_odd": ("Starcoder2", dict(whole, sliding_window=3, norm_epsilon=1e-5)),
    "starcoder2_plain": ("Starcoder2", dict(use_bias=False, norm_epsilon=1e-5)),
    "olmo": ("Olmo", dict(clip_qkv=0.8)),
    "olmo_odd": ("Olmo", dict(whole, tie_word_embeddings=True, attention_bias=True)),
    # not in transformers: Llama with a list of key-value heads
    "deci": ("Llama", dict(model_type="deci", num_key_value_heads_per_layer=[1, 2, 4])),
    "qwen3_odd": ("Qwen3", dict(odd, head_dim=12, use_sliding_window=True, sliding_window=3, max_window_layers=1, tie_word_embeddings=True)),
}
cases |= {
    "phi3": ("Phi3", dict(sliding_window=4, pad_token_id=0, partial_rotary_factor=0.75)),
    "phi3_odd": ("Phi3", dict(odd, pad_token_id=0, tie_word_embeddings=True)),
}
experts = dict(num_local_experts=0, num_experts_per_tok=0, layer_types=["attention"] * 3, shared_intermediate_size=48, mamba_n_heads=1, mamba_d_head=64)
gpt = dict(num_attention_heads=4, activation_function="gelu_new", attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0, tie_word_embeddings=True, layer_norm_epsilon=1e-5)
cases |= {
    "gpt2": ("GPT2LMHead", dict(gpt, n_inner=None)),
    "gpt2_odd": ("GPT2LMHead", dict(gpt, n_inner=46, hidden_size=42, num_attention_heads=7, vocab_size=67, tie_word_embeddings=False, scale_attn_weights=False)),
    "gpt_bigcode": ("GPTBigCode", dict(gpt, n_inner=48, activation_function="gelu_pytorch_tanh")),
    "gpt_bigcode_odd": ("GPTBigCode", dict(gpt, n_inner=46, hidden_size=42, num_attention_heads=7, vocab_size=67, multi_query=False, activation_function="gelu_pytorch_tanh")),
    "gpt_neox": ("GPTNeoX", dict(rotary_pct=0.5)),
    "gpt_neox_odd": ("GPTNeoX", dict(hidden_size=70, intermediate_size=46, num_attention_heads=7, vocab_size=67, rotary_pct=0.41, rotary_emb_base=500, use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True, hidden_act="gelu_fast")),
    "granitemoehybrid": ("GraniteMoeHybrid", dict(experts, position_embedding_type="rope", attention_bias=True, embedding_multiplier=6.0, attention_multiplier=0.2, residual_multiplier=0.3, logits_scaling=3.0)),
    "granitemoehybrid_nope": ("GraniteMoeHybrid", dict(experts, hidden_size=42, num_attention_heads=7, num_key_value_heads=1, vocab_size=67, shared_intermediate_size=46, tie_word_embeddings=True, mamba_d_head=84)),
    # texts longer than the original context of 8
    "phi3_long": ("Phi3", dict(pad_token_id=0, original_max_position_embeddings=8, rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.1, 1.5, 2.0], long_factor=[1.0, 2.0, 4.5, 16.0], original_max_position_embeddings=8))),
}

gemma3 = dict(head_dim=8, sliding_window=4, sliding_window_pattern=3, query_pre_attn_scalar=8, tie_word_embeddings=True)
kinds = lambda full, base: dict(full_attention=full, sliding_attention=dict(rope_type="default", rope_theta=base))
yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
ministral = dict(yarn, original_max_position_embeddings=4, mscale=1.0, mscale_all_dim=0.5, beta_fast=24.0, llama_4_scaling_beta=0.3)
factors = dict(embedding_multiplier=6.0, attention_multiplier=0.2, residual_multiplier=0.3, logits_scaling=3.0)
mixed = ["full_attention", "sliding_attention", "full_attention"]
cases |= {
    "gemma": ("Gemma", dict(head_dim=8, tie_word_embeddings=True)),
    "gemma_odd": ("Gemma", dict(odd, tie_word_embeddings=True)),
    "gemma_silu": ("Gemma", dict(head_dim=8, hidden_act="silu", attention_bias=True)),
    "gemma3": ("Gemma3Text", dict(gemma3, rope_parameters=kinds(dict(rope_type="linear", rope_theta=1e6, factor=8.0), 500.0))),
    "gemma3_odd": ("Gemma3Text", dict(gemma3, **dict(whole, head_dim=10, query_pre_attn_scalar=10, tie_word_embeddings=False, layer_types=mixed, final_logit_softcapping=3.0))),
    "gemma3_bias": ("Gemma3Text", dict(gemma3, query_pre_attn_scalar=11, attention_bias=True, hidden_activation="gelu", rope_parameters=kinds(yarn, 10000.0))),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=4, tie_word_embeddings=True, pad_token_id=None)),
    "smollm3_odd": ("SmolLM3", dict(whole, no_rope_layers=[0, 1, 0], attention_bias=True, mlp_bias=True, use_sliding_window=True, sliding_window=3, pad_token_id=None)),
    "granite": ("Granite", factors),
    "granite_odd": ("Granite", dict(whole, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, logits_scaling=0.5)),
    "olmo2": ("Olmo2", {}),
    "olmo2_odd": ("Olmo2", dict(odd, tie_word_embeddings=True, attention_bias=True)),
    "olmo3": ("Olmo3", dict(num_hidden_layers=4, sliding_window=4, rope_parameters=kinds(yarn, 10000.0))),
    "olmo3_odd": ("Olmo3", dict(whole, sliding_window=3, layer_types=mixed)),
    "ministral3": ("Ministral3", dict(head_dim=16, rope_parameters=ministral)),
    "ministral3_odd": ("Ministral3", dict(odd, tie_word_embeddings=True, pad_token_id=None, rope_parameters=dict(rope_type="default", rope_theta=500.0, original_max_position_embeddings=3, llama_4_scaling_beta=0.7))),
    "llama_mscale": ("Llama", dict(rope_parameters=dict(yarn, mscale=0.7, mscale_all_dim=1.5))),
    "llama_whole": ("Llama", dict(rope_parameters=dict(yarn, truncate=False))),
    "llama_dynamic": ("Llama", dict(max_position_embeddings=48, rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=4.0))),
    "gemma2_published": ("Gemma2", dict(gemma, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)),
    "olmo3_whole": ("Olmo3", dict(num_hidden_layers=4, sliding_window=4, rope_parameters=kinds(dict(yarn, rope_theta=100.0, original_max_position_embeddings=64), 10000.0) | dict(truncate=False))),
    "llama_gelu": ("Llama", dict(hidden_act="gelu", mlp_bias=True)),
}


def value(name, index, size):  # the formula: the test has it too
    seed = sum((i + 1) * ord(c) for i, c in enumerate(name)) % 1000
    return size * np.sin(np.float64(seed) + 1.7 * index + 0.01 * index * index)


def saved_parameters(model):  # by their names in files
    neox = type(model).__name__.startswith("GPTNeoX")
    return [(name.replace("lm_head.", "embed_out.") if neox else name, p) for name, p in model.named_parameters()]


def fill(model):
    with torch.no_grad():
        for name, p in saved_parameters(model):
            n = p.numel()
            v = value(name, np.arange(n), 1.0 if "embed" in name or "wte" in name or "wpe" in name else 0.3)
            if "norm" in name or "ln_" in name:
                v = 1 + v / 3
            p.copy_(torch.from_numpy(v.astype(np.float32)).reshape(p.shape))


def build(case):
    kind, extra = cases[case]
    config = getattr(transformers, kind.replace("LMHead", "") + "Config")(**{**base, **extra})
    torch.manual_seed(0)
    model = getattr(transformers, kind.removesuffix("Text") + ("Model" if kind == "GPT2LMHead" else "ForCausalLM"))(config).float().eval()
    for layer, heads in zip(model.model.layers if "num_key_value_heads_per_layer" in extra else [], extra.get("num_key_value_heads_per_layer", [])):
        attention, width = layer.self_attn, heads * model.model.layers[0].self_attn.head_dim
        attention.num_key_value_groups = config.num_attention_heads // heads
        for name in ("k_proj", "v_proj"):
            setattr(attention, name, torch.nn.Linear(config.hidden_size, width, bias=False))
    fill(model)
    return model


def exact(v):  # nine digits name a float
    return float(f"{float(v):.9g}")


def rows(logits, kept=range(len(ids))):  # null: left out
    return [[exact(v) for v in row] if i in kept else None for i, row in enumerate(logits)]


def unlike_the_last(given, scores):  # so that no model says one thing for ever
    return scores.index_fill(1, given[0, 5:][-20:], -np.inf)


def generated(model):
    model.generation_config.eos_token_id = None
    length = min(64, model.config.max_position_embeddings - 5)
    prompt = torch.tensor([ids[:5]])
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=length, do_sample=False, use_cache=True, output_scores=True, return_dict_in_generate=True, pad_token_id=0,
                         logits_processor=transformers.LogitsProcessorList([unlike_the_last]))
    tokens = []
    for token, scores in zip(out.sequences[0, 5:].tolist(), out.scores):
        best = scores[0].topk(2).values
        if best[0] - best[1] < 1e-4 * abs(best[0]):
            break
        tokens.append(token)
    assert len(out.scores) == length
    return {"generated": tokens} if tokens else {}


families = {"ids": ids, "cases": {}}
for case in cases:
    model = build(case)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    config = json.loads(model.config.to_json_string())
    families["cases"][case] = {"config": config, "tensors": {n: list(p.shape) for n, p in saved_parameters(model)}, "logits": rows(logits, (0, 4, 8, 11)), **generated(model)}


# OLMo 1 in the layout of its own package, whose class is not in transformers: its tensors by the formula, cut into those of the class that is.
def original_olmo(**extra):
    config = transformers.OlmoConfig(**{**base, **extra})
    model, size, names = transformers.OlmoForCausalLM(config).float().eval(), config.hidden_size, {}

    def tensor(name, *shape):
        names[name] = list(shape)
        n = int(np.prod(shape))
        return torch.from_numpy(value(name, np.arange(n), 1.0 if "wte" in name else 0.3).astype(np.float32)).reshape(shape)

    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(tensor("model.transformer.wte.weight", config.vocab_size, size))
        for i, layer in enumerate(model.model.layers):
            a, at = layer.self_attn, f"model.transformer.blocks.{i}."
            parts = [p.weight for p in (a.q_proj, a.k_proj, a.v_proj)]
            whole = tensor(at + "att_proj.weight", sum(len(p) for p in parts), size)
            for p, rows_of in zip(parts, whole.split([len(p) for p in parts])):
                p.copy_(rows_of)
            a.o_proj.weight.copy_(tensor(at + "attn_out.weight", size, size))
            up, gate = tensor(at + "ff_proj.weight", 2 * config.intermediate_size, size).chunk(2)
            layer.mlp.up_proj.weight.copy_(up)
            layer.mlp.gate_proj.weight.copy_(gate)
            layer.mlp.down_proj.weight.copy_(tensor(at + "ff_out.weight", size, config.intermediate_size))
        if not config.tie_word_embeddings:
            model.lm_head.weight.copy_(tensor("model.transformer.ff_out.weight", config.vocab_size, size))
        logits = model(torch.tensor([ids])).logits[0]
    written = dict(model_type="hf_olmo", architectures=["OLMoForCausalLM"], d_model=size, n_heads=config.num_attention_heads, n_layers=config.num_hidden_layers,
                   n_kv_heads=config.num_key_value_heads, mlp_hidden_size=2 * config.intermediate_size, mlp_ratio=4, vocab_size=config.vocab_size - 3, embedding_size=config.vocab_size,
                   max_sequence_length=config.max_position_embeddings, weight_tying=config.tie_word_embeddings, clip_qkv=config.clip_qkv, rope=True, alibi=False, activation_type="swiglu",
                   block_type="sequential", include_bias=False, layer_norm_type="default", layer_norm_with_affine=False)
    return {"config": written, "tensors": names, "logits": rows(logits, (0, 4, 8, 11)), **generated(model)}


families["cases"]["hf_olmo"] = original_olmo(clip_qkv=0.8)
families["cases"]["hf_olmo_odd"] = original_olmo(**whole, tie_word_embeddings=True)
families["cases"]["hf_olmo_odd"]["config"].update(model_type="olmo", architectures=["OLMoModelForCausalLM"], n_kv_heads=None, multi_query_attention=True)
json.dump(families, open(f"{target}/families.json", "w"))

def adapted(folder, case="llama", **options):
    model = get_peft_model(build(case), LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.from_numpy(value(name, np.arange(p.numel()), 0.2).astype(np.float32)).reshape(p.shape))
    model.save_pretrained(f"{target}/{folder}")
    os.path.exists(f"{target}/{folder}/README.md") and os.remove(f"{target}/{folder}/README.md")
    return model


def differentiated(name, model, kept=range(len(ids))):
    logits = model(torch.tensor([ids])).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum")
    loss.backward()
    gradients = {n.replace(".default", ""): [exact(v) for v in p.grad.flatten()] for n, p in model.named_parameters() if p.grad is not None and (".layers.1." in n or ".h.1." in n)}
    json.dump({"logits": rows(logits.detach(), kept), "loss": float(loss), "gradients": gradients}, open(f"{target}/{name}.json", "w"))


model = adapted("peft_patterns", r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], use_rslora=True, layers_to_transform=[0, 2],
                exclude_modules=["layers.2.mlp.down_proj", "up_proj"], rank_pattern={"v_proj": 3, "layers.0.self_attn.q_proj": 1}, alpha_pattern={"down_proj": 5.5, "layers.2.self_attn.v_proj": 7})
with torch.no_grad():
    json.dump({"logits": rows(model(torch.tensor([ids])).logits[0])}, open(f"{target}/peft_patterns.json", "w"))

model = adapted("peft_expressions", r=2, lora_alpha=4, target_modules=r".*\.(self_attn\.[qkv]|mlp\.(up|down))_proj", exclude_modules=r"model\.layers\.(?!1).*(k|down)_proj",
                rank_pattern={r"layers\.[02]\.self_attn\.q_proj": 1, "^model.layers.1.*": 3, "up_proj": 4}, alpha_pattern={r"(self_attn|mlp)\.(v|up)_proj": 6, r".*\.2\..*": 5})
with torch.no_grad():
    json.dump({"logits": rows(model(torch.tensor([ids])).logits[0])}, open(f"{target}/peft_expressions.json", "w"))

model = adapted("peft", r=3, lora_alpha=6, target_modules=["q_proj", "k_proj", "o_proj", "down_proj"], use_rslora=True, rank_pattern={"layers.1.self_attn.q_proj": 2})
differentiated("peft", model)
model = adapted("peft_gemma2", "gemma2", r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "gate_proj", "down_proj"])
differentiated("peft_gemma2", model)
for case in ("gemma", "gemma3", "smollm3", "granite", "olmo2", "olmo3", "ministral3"):
    model = adapted(f"peft_{case}", case, r=1, lora_alpha=2, target_modules=["q_proj", "k_proj", "gate_proj", "down_proj"])
    differentiated(f"peft_{case}", model, (0, 11))
model = adapted("peft_phi3", "phi3", r=2, lora_alpha=4, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], rank_pattern={"layers.1.self_attn.qkv_proj": 3})
differentiated("peft_phi3", model)
model = adapted("peft_gpt2", "gpt2", r=2, lora_alpha=4, target_modules=["c_attn", "c_fc", "mlp.c_proj", "attn.c_proj"], fan_in_fan_out=True)
differentiated("peft_gpt2", model)
model = adapted("peft_gpt_neox", "gpt_neox", r=2, lora_alpha=4, target_modules=["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], use_dora=True)
differentiated("peft_gpt_neox", model)
model = adapted("peft_granitemoehybrid", "granitemoehybrid", r=2, lora_alpha=4, target_modules=["q_proj", "o_proj", "input_linear", "output_linear"])
differentiated("peft_granitemoehybrid", model)

# PiSSA: the folder says so, and PEFT splits the base again when it loads it.
model = get_peft_model(build("llama"), LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights="pissa", task_type="CAUSAL_LM"))
with torch.no_grad():
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.add_(torch.from_numpy(value(name, np.arange(p.numel()), 0.05).astype(np.float32)).reshape(p.shape))
    init = {"pissa": rows(model(torch.tensor([ids])).logits[0])}
    model.save_pretrained(f"{target}/peft_pissa")
    os.path.exists(f"{target}/peft_pissa/README.md") and os.remove(f"{target}/peft_pissa/README.md")
    again = PeftModel.from_pretrained(build("llama"), f"{target}/peft_pissa").eval()
    assert np.allclose(rows(again(torch.tensor([ids])).logits[0]), init["pissa"], atol=1e-4)
# LoftQ by PEFT's own functions (its entry point needs a GPU): rows 0 and 5 of B A, rank 4, alpha = rank.
shapes = {"model.layers.0.self_attn.k_proj": [64, 128], "model.layers.0.mlp.up_proj": [192, 128]}
config = transformers.LlamaConfig(**{**base, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 1})
model = transformers.LlamaForCausalLM(config).float().eval()
fill(model)
init["config"] = json.loads(config.to_json_string())
init["tensors"] = {n: list(p.shape) for n, p in model.named_parameters()}
init["loftq"] = {}
for name in shapes:
    w = model.get_submodule(name).weight.detach()
    codes, state = bnb.quantize_4bit(w.clone(), blocksize=64, compress_statistics=False, quant_type="nf4")
    parts = loftq_utils._low_rank_decomposition(w - bnb.dequantize_4bit(codes, state).reshape(w.shape), reduced_rank=4)
    product = parts["L"] @ parts["R"]
    init["loftq"][name] = {"rows": [[round(float(v), 6) for v in product[r]] for r in (0, 5)], "values": [round(float(v), 6) for v in parts["S"][:6]]}
json.dump(init, open(f"{target}/init.json", "w"))

# 4-bit: the layout of Linear4bit's state dict, with the linear layers of layer 0 double-quantized, of layer 1 in fp4 without, layer 2 plain.
# Rows of whole blocks: bitsandbytes 0.50 dequantizes rows of 32, 48 or 80 elements wrongly on the CPU.
config = transformers.LlamaConfig(**{**base, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3})
model = transformers.LlamaForCausalLM(config).float().eval()
fill(model)
tensors, decoded = {}, {}
with torch.no_grad():
    for name, p in model.named_parameters():
        layer = int(name.split(".")[2]) if ".layers." in name else 9
        if "_proj" not in name or layer > 1:
            tensors[name] = p.detach().to(torch.bfloat16).contiguous()
            p.copy_(tensors[name].float())
            continue
        codes, state = bnb.quantize_4bit(p.detach().clone(), blocksize=64, compress_statistics=layer == 0, quant_type="nf4" if layer == 0 else "fp4")
        tensors[name] = codes
        for key, v in state.as_dict(packed=True).items():
            tensors[f"{name}.{key}"] = v
        p.copy_(bnb.dequantize_4bit(codes, state).reshape(p.shape))
        if "up_proj" in name:
            decoded[name] = [exact(v) for v in p.flatten()[::41]]
    os.makedirs(f"{target}/bnb", exist_ok=True)
    save_file(tensors, f"{target}/bnb/model.safetensors", metadata={"format": "pt"})
    written = json.loads(config.to_json_string())
    written["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    written["architectures"] = ["LlamaForCausalLM"]
    json.dump(written, open(f"{target}/bnb/config.json", "w"), indent=2)
    json.dump({"logits": rows(model(torch.tensor([ids])).logits[0]), "decoded": decoded}, open(f"{target}/bnb.json", "w"))

# Fused matrices are quantized as one: the parts share the mean of their scales, and blocks that lie across their borders.
fused = {}
for case, kind, extra in (("phi3", "Phi3", dict(pad_token_id=0)), ("gpt2", "GPT2LMHead", dict(gpt, n_inner=80)), ("gpt_neox", "GPTNeoX", {})):
    config = getattr(transformers, kind.replace("LMHead", "") + "Config")(**{**base, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 1, **extra})
    model = getattr(transformers, kind + ("Model" if kind == "GPT2LMHead" else "ForCausalLM"))(config).float().eval()
    fill(model)
    fused[case] = {"config": json.loads(config.to_json_string()), "tensors": {n: list(p.shape) for n, p in saved_parameters(model)}, "quantized": {}}
    for name, module in model.named_modules():
        if type(module).__name__ not in ("Linear", "Conv1D") or name in ("lm_head", "embed_out"):
            continue
        w = module.weight.detach()
        w = (w.T if type(module).__name__ == "Conv1D" else w).contiguous()
        codes, state = bnb.quantize_4bit(w.clone(), blocksize=64, compress_statistics=True, quant_type="nf4")
        fused[case]["quantized"][name + ".weight"] = {"codes": codes.flatten().numpy().tobytes().hex(), "absmax": state.absmax.numpy().tobytes().hex(),
                                                      "nested_absmax": [exact(v) for v in state.state2.absmax], "offset": exact(state.offset)}
json.dump(fused, open(f"{target}/fused.json", "w"))
