#!/bin/sh
# export_measured.sh - an adapter of a real run, merged in 4 bits: on the NF4 values it was trained on most of it gets lost, on the source's own
# weights it stays. export measures both on the run's held-out rows, takes the better one, and says what is lost where nobody lets it choose.
. "$(dirname "$0")/support.inc"

source=models/tiny.gguf
good "a short run" ./finetune -m $source --data examples/data/about-qlora.jsonl --max-seq-len 128 --val-split 0.1 --lr 1e-3 --batch-size 4 --grad-accum 1 --iters 12 -o "$dir/a"
before=$(sed -n 's/.*"eval_loss": \([0-9.]*\).*/\1/p' "$dir/a/metrics.jsonl" | head -n 1)
after=$(sed -n 's/.*"eval_loss": \([0-9.]*\).*/\1/p' "$dir/a/metrics.jsonl" | tail -n 1)

# row NAME COLUMN: of the line of the last table that begins with NAME, a column behind it: 1 alone, 2 with the adapter, 3 the result.
row() { sed -n "s/^  $1  *\([0-9]\)/\1/p" "$dir/out" | head -n 1 | awk "{ print \$$2 }"; }
trained="nf4, double-quantized, which the adapter was trained on"
near() { awk -v a="${1:-0}" -v b="${2:-9}" 'BEGIN { exit !(a - b < 0.0002 && b - a < 0.0002) }'; }

for type in nf4 q4_0 iq4_nl; do
    good "merged as $type" ./export -m $source --adapter "$dir/a" -o "$dir/$type.gguf" --type $type
    near "$(row "$trained" 1)" "$before" && near "$(row "$trained" 2)" "$after" && ok "measured on the rows of the run: its own losses" ||
        failed "measured on the rows of the run: its own losses" "$before, $after against $(row "$trained" 1), $(row "$trained" 2)"
    awk -v own="$(row "as stored, f16" 3)" -v values="$(row "$trained" 3)" 'BEGIN { exit !(own > 0 && own < values - 0.02) }' && ok "on the source's own weights more is left" ||
        failed "on the source's own weights more is left" "$(row "as stored, f16" 3) against $(row "$trained" 3)"
    says "so they are taken" "as stored, f16 .*  taken"
    says "and it says why" "the source's own weights (f16), which keep more of the adapter"
    grep -q warning "$dir/out" && failed "nothing to warn of" "$(grep warning "$dir/out")" || ok "nothing to warn of"
    good "on the base of the run" ./export -m $source --adapter "$dir/a" -o "$dir/$type.gguf" --overwrite --type $type --base-type nf4
    says "most is lost, and that is said" "warning: only [0-9.-]*% of the adapter's improvement is left; --base-type none"
done
says "so is the perplexity" "warning: the perplexity is [0-9.]*% above that of base + adapter"
good "as f16" ./export -m $source --adapter "$dir/a" -o "$dir/f16.gguf" --type f16
says "on the base of the run" "the values of its nf4, double-quantized codes, which the adapter was trained on"
says "nothing is lost" "^100.0% of the adapter's improvement is left"
exit $((failures > 0))
