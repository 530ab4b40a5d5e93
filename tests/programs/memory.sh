#!/bin/sh
# memory.sh - the memory plan is true: what a run on a real model takes from the system lies within 12 % of the peak that was planned, whether
# the base stays as it is stored or is held in NF4.
. "$(dirname "$0")/support.inc"

real=models/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f $real ]; then
    echo "skipped the memory plan against the process: needs the real model (sh examples/fetch-model.sh)"
elif ldd ./finetune 2> /dev/null | grep -q -e libasan -e libtsan; then
    echo "skipped the memory plan against the process: a sanitizer takes memory of its own"
else
    for flags in "--lora-r 16 --batch-size 4" "--quant nf4 --lora-r 64 --optim adamw_8bit"; do
        good "two steps with $flags" ./finetune -m $real --data examples/data/about-qlora.jsonl -o "$dir/run" --overwrite --iters 2 --grad-accum 1 $flags --json
        planned=$(sed -n 's/.*"peak_bytes": \([0-9]*\).*/\1/p' "$dir/out" | head -n 1)
        used=$(sed -n 's/.*"event": "done".*"peak_mem_bytes": \([0-9]*\).*/\1/p' "$dir/out")
        name="planned ${planned:-?} bytes, used ${used:-?}"
        if [ "${used:-0}" -gt $((${planned:-0} * 88 / 100)) ] && [ "${used:-0}" -lt $((${planned:-0} * 112 / 100)) ]; then ok "$name"; else failed "$name" "more than 12 % apart"; fi
    done
fi
exit $((failures > 0))
