#!/usr/bin/env python3
"""Writes tests/golden/model/mlx_lora, mlx_dora and mlx.json: adapters that mlx-lm made and saved on the model of
tests/golden/training, and the scores that mlx-lm computes with them, float32 on the CPU.

    python3 -m venv V && V/bin/pip install "mlx[cpu]" mlx-lm && V/bin/python tools/make_mlx_golden.py [FOLDER...]

FOLDER: adapters that qlora saved; their scores are printed instead (a list a folder), to compare.
"""
import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import load_model

mx.set_default_device(mx.cpu)
golden = Path(__file__).resolve().parent.parent / "tests/golden"
ids = [1, 5, 9, 2, 30, 17]


def model():
    loaded, _ = load_model(golden / "training/model", lazy=False)
    loaded.eval()
    return loaded


def scores(m):
    return np.array(m(mx.array([ids]))[0]).astype(np.float64)


def make(kind, layers, parameters):
    mx.random.seed(7)
    m = model()
    m.freeze()
    linear_to_lora_layers(m, layers, parameters, use_dora=kind == "dora")
    random = np.random.default_rng(3)
    for name, value in tree_flatten(m.trainable_parameters()):
        near = np.array(value) + random.normal(0, 0.05, value.shape)
        m.load_weights([(name, mx.array(near.astype(np.float32)))], strict=False)
    m.eval()
    folder = golden / f"model/mlx_{kind}"
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(m.trainable_parameters())))
    config = {"fine_tune_type": kind, "num_layers": layers, "lora_parameters": parameters, "model": "training/model"}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=4) + "\n")
    again = load_adapters(model(), str(folder))
    again.eval()
    assert np.array_equal(scores(again), scores(m))
    return [[float(f"{v:.7g}") for v in row] for row in scores(m)]


if len(sys.argv) > 1:
    for folder in sys.argv[1:]:
        adapted = load_adapters(model(), folder)
        adapted.eval()
        print(json.dumps(scores(adapted).tolist()))
else:
    out = {"ids": ids, "base": [[float(f"{v:.7g}") for v in row] for row in scores(model())],
           "lora": make("lora", 2, {"rank": 4, "scale": 2.5, "dropout": 0.0}),
           "dora": make("dora", 1, {"rank": 3, "scale": 1.5, "dropout": 0.1, "keys": ["self_attn.q_proj", "mlp.down_proj"]})}
    (golden / "model/mlx.json").write_text(json.dumps(out) + "\n")
