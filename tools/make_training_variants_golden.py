# make_training_variants_golden.py - tests/golden/training/variants.json: what transformers makes of a random order of
# rows (group_by_length), and how its NEFTune hook draws noise (its largest value over many, and their mean square).
import json, types
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices
try:
    from transformers.trainer_utils import neftune_post_forward_hook
except ImportError:
    from transformers.integrations.neftune import neftune_post_forward_hook

groups = []
for count, batch in [(5, 2), (40, 3), (1000, 4)]:
    torch.manual_seed(count)
    lengths = torch.randint(3, 30, (count,)).tolist()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count)).tolist()
    grouped = get_length_grouped_indices(lengths, batch, generator=torch.Generator().manual_seed(count))
    groups.append({"batch": batch, "lengths": lengths, "order": order, "grouped": grouped})

noise = []
for alpha, tokens, hidden in [(5, 40, 512), (15, 7, 4096)]:
    torch.manual_seed(1)
    module = types.SimpleNamespace(training=True, neftune_noise_alpha=alpha)
    drawn = neftune_post_forward_hook(module, None, torch.zeros(1, tokens, hidden))
    noise.append({"alpha": alpha, "tokens": tokens, "hidden": hidden, "largest": float(drawn.abs().max()),
                  "mean_square": float((drawn.double() ** 2).mean())})

with open("tests/golden/training/variants.json", "w") as out:
    json.dump({"groups": groups, "noise": noise}, out)
    out.write("\n")
