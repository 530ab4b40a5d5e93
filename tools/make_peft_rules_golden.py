# make_peft_rules_golden.py - which layers PEFT chooses, by its own functions, for tests/model/adapter_names_test.cpp; which texts Python's expressions
# fit, for tests/text/pattern_test.cpp; and a configuration of every method that is not LoRA.
#   python tools/make_peft_rules_golden.py tests/golden/model/peft_rules.json
import itertools
import json
import re
import sys
import warnings
from types import SimpleNamespace

import peft
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

warnings.simplefilter("ignore")
modules = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
names = [f"model.layers.{layer}.{m}" for layer in range(12) for m in modules]

targets = [["q_proj", "v_proj"], ["self_attn.q_proj", "model.layers.3.mlp.up_proj"], ["layers.1.mlp.down_proj", "o_proj"], ["proj", "down_proj"], [".q_proj", "q_proj", "_proj"],
           ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "k_proj"], r".*\.(q|v)_proj", r"model\.layers\.1\..*", r".*layers.1.*up_proj", r"(?!.*mlp).*proj",
           r"^model\.layers\.(0|10)\.self_attn\.\w+$", r".*\b(q_proj|up_proj)", r".*[^kv]_proj", r"q_proj"]
excludes = [None, [], ["k_proj"], ["mlp"], ["layers.1.self_attn.q_proj", "down_proj"], ["model.layers.3.mlp.up_proj"], r".*q_proj", r"q_proj", r".*\.1\..*", r"model.layers.\d\.mlp.*", r"^.*layers\.(0|2)\..*$"]
layers = [None, [], [0], [1, 11], 3]
selection = []
for t, e, n in itertools.product(targets, excludes, layers):
    if isinstance(t, str) and n is not None:
        continue  # PEFT refuses the configuration
    config = SimpleNamespace(target_modules=t, exclude_modules=e, layers_to_transform=n, layers_pattern=None, modules_to_save=None, target_parameters=None)
    chosen = [i for i, name in enumerate(names) if (r := check_target_module_exists(config, name)) and "Excluded" not in type(r).__name__]
    selection.append({"target_modules": t, "exclude_modules": e, "layers_to_transform": n, "chosen": chosen})

keys = ["q_proj", "self_attn.q_proj", "layers.1.mlp.up_proj", "model.layers.1.mlp.up_proj", "proj", "^model.layers.1.*", r"layers\.[02]\..*", r".*q_proj", "q_proj|v_proj", "^q_proj", r"\.q_proj", r"(q|k)_proj",
        r"layers.1\d.mlp.up_proj", r"\d+\.mlp\.(gate|up)_proj", r"q_proj$", r"mlp.*", r".+attn.+", "", "q_proj)|(model", r"layers\.(?:3|4)\.self_attn\.[a-m]_proj", r"_proj", "self_attn"]
patterns = [{"key": k, "fits": [i for i, name in enumerate(names) if get_pattern_key([k], name) == k]} for k in keys]

# Expressions x texts; "error" where Python refuses.
pieces = ["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\.", "(a|b)", "(?:ab)", "(?=a)", "(?!b)", "^", "$", r"\b", r"\B", "", "a|b", "[a-c-]", "[]a]", "[^]]", r"[\d.]", r"[\w-]", "{", "}", "{1", "]", "(?P<n>a)", r"\Z", r"\A", "-", r"\-", "(a*)*", "(|a)"]
counts = ["", "*", "+", "?", "{2}", "{1,2}", "{,1}", "{1,}", "*?", "??", "{0}", "**", "{2,1}", "{,}", "{ 1}"]
expressions = [p + c + q for p in pieces for c in counts for q in ("", "b", ".*")] + ["(a", "a)", "[a", "a\\", r"\q", "(?P<>a)", "[b-a]", "[a-\\d]", "*", "|", "()", "(?:)", "(((a)))", "a||b", "(a|)+b", "(?=a)*a", "(?!a){2}b", "^*", "$+", r"\b*", "x{1}{2}", "(a|b)*?c", r"[\]]", r"[\\]", "[.]", "[*+]", r"\n\t", r"[\b]"]
texts = ["", "a", "b", "ab", "aab", "abb", "ba", "a.b", "1", "a1b", "-", "]", "{", "{1", "}", "a{1", "aa", "aaa", "cab", "a-b", "\n", ".", "a{2,1}", "a{ 1}", "\b", "c", "*"]
sweep = []
for e in expressions:
    try:
        r = re.compile(e)
        sweep.append([e, [i for i, t in enumerate(texts) if r.fullmatch(t)], [i for i, t in enumerate(texts) if r.match(t)]])
    except re.error:
        sweep.append([e, "error", "error"])

methods = {}
for name in sorted(peft.PeftType.__members__):
    cls = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.get(getattr(peft.PeftType, name))
    if name == "LORA" or cls is None:
        continue
    try:
        config = cls()
    except Exception:
        continue  # needs arguments of its own
    methods[name] = {k: (sorted(v) if isinstance(v, set) else v) for k, v in config.to_dict().items() if v is None or isinstance(v, (str, int, float, bool, list, dict, set))}

with open(sys.argv[1], "w") as out:
    json.dump({"peft": peft.__version__, "names": names, "selection": selection, "patterns": patterns, "texts": texts, "expressions": sweep, "methods": methods}, out, separators=(",", ":"))
