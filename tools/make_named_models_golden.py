#!/usr/bin/env python3
"""Writes tests/golden/named_models.jsonl: models that are others' shapes under names of their own, one a line: their configuration as
published, the family that is, their chat format (most are layouts of
tests/golden/family_templates.jsonl), a dialogue rendered with jinja2 as
transformers sets it up, and what the assistant says in it, end marks included.

    python3 tools/make_named_models_golden.py > tests/golden/named_models.jsonl
"""
import json

from make_template_goldens import environment

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "tie_word_embeddings": False, "rope_scaling": None}
MODELS = [
    # name, family, layout, what ends an answer, configuration
    ("Qwen1.5-7B-Chat", "qwen2", "qwen-1.5", "<|im_end|>", dict(model_type="qwen2", architectures=["Qwen2ForCausalLM"], hidden_act="silu", hidden_size=4096, intermediate_size=11008, max_position_embeddings=32768, max_window_layers=28,
        num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32, rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=32768, tie_word_embeddings=False, use_sliding_window=False, vocab_size=151936)),
    ("Yi-34B-Chat", "llama", "yi", "<|im_end|>", dict(LLAMA, hidden_size=7168, intermediate_size=20480, max_position_embeddings=4096, num_attention_heads=56, num_hidden_layers=60, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=5000000.0, vocab_size=64000)),
    ("SOLAR-10.7B-Instruct-v1.0", "llama", "solar", "</s>", dict(LLAMA, hidden_size=4096, intermediate_size=14336, max_position_embeddings=4096, num_attention_heads=32, num_hidden_layers=48, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=10000.0, vocab_size=32000)),
    ("tulu-2-7b", "llama", "tulu-2", "</s>", dict(LLAMA, hidden_size=4096, intermediate_size=11008, max_position_embeddings=8192, num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32, rms_norm_eps=1e-5, vocab_size=32000)),
    ("WizardLM-13B-V1.2", "llama", "wizardlm", "</s>", dict(LLAMA, hidden_size=5120, intermediate_size=13824, max_position_embeddings=4096, num_attention_heads=40, num_hidden_layers=40, num_key_value_heads=40, pad_token_id=0, rms_norm_eps=1e-5, vocab_size=32000)),
    ("Smaug-Llama-3-70B-Instruct", "llama", "smaug", "<|eot_id|>", dict(LLAMA, hidden_size=8192, intermediate_size=28672, max_position_embeddings=8192, num_attention_heads=64, num_hidden_layers=80, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=500000.0, vocab_size=128256)),
    ("Starling-LM-7B-alpha", "mistral", "starling", "<|end_of_turn|>", dict(model_type="mistral", architectures=["MistralForCausalLM"], hidden_act="silu", hidden_size=4096, intermediate_size=14336, max_position_embeddings=8192, num_attention_heads=32,
        num_hidden_layers=32, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=4096, tie_word_embeddings=False, vocab_size=32002)),
]
CHATML = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
SAID = ["It is four.", "Eight: twice as many."]
DIALOGUE = [("user", "Two and two?"), ("assistant", SAID[0]), ("user", "And twice that?\nSay why."), ("assistant", SAID[1])]

layouts = {row["name"]: row["source"] for row in map(json.loads, open("tests/golden/family_templates.jsonl"))}
layouts["yi"] = "{% for m in messages %}" + CHATML
layouts["qwen-1.5"] = "{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant<|im_end|>\\n' }}{% endif %}" + CHATML
for name, family, layout, end, config in MODELS:
    variables = {"messages": [{"role": role, "content": text} for role, text in DIALOGUE], "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": False}
    text = environment().from_string(layouts[layout]).render(**variables)
    asked = environment().from_string(layouts[layout]).render(**dict(variables, messages=variables["messages"][:1], add_generation_prompt=True))
    space = " " if text[len(asked)] == " " else ""     # of an answer behind "ASSISTANT:"
    print(json.dumps({"name": name, "family": family, "template": layouts[layout], "config": config, "messages": variables["messages"], "text": text, "asked": asked, "said": [space + s + end for s in SAID]}))
