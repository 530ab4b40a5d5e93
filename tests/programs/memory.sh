#!/bin/sh
# memory.sh - the memory plan is true: what a run takes from the system lies within 5 % of the peak that was planned, whatever is set. Each
# line is a process of its own that trains a step on rows of the full length, saves, and says what it had at most.
. "$(dirname "$0")/support.inc"

real=models/SmolLM2-135M-Instruct.Q4_1.gguf
if ldd ./finetune 2> /dev/null | grep -q -e libasan -e libtsan; then
    echo "skipped the memory plan against the process: a sanitizer takes memory of its own"
    exit 0
fi
# one text, cut into rows of the full length and a last one that is shorter; always the same, so that the step meets a full one
awk 'BEGIN { printf "{\"text\": \""; for (i = 0; i < 5000; ++i) printf "row %d of many, ", i; print "\"}" }' > "$dir/text.jsonl"

# measured MODEL FLAGS...
measured() {
    of=$1; shift
    good "a step with $*" ./finetune -m "$of" --data "$dir/text.jsonl" -o "$dir/run" --overwrite --iters 1 --grad-accum 1 --json "$@"
    planned=$(sed -n 's/.*"peak_bytes": \([0-9]*\).*/\1/p' "$dir/out" | head -n 1)
    used=$(sed -n 's/.*"event": "done".*"peak_mem_bytes": \([0-9]*\).*/\1/p' "$dir/out")
    apart=$(echo "${planned:-1} ${used:-0}" | awk '{ printf "%+.1f", 100 * ($2 / $1 - 1) }')
    name=$(printf '%7.1f MB planned, %7.1f MB used, %5s %%: %s %s' "$(echo "${planned:-0}" | awk '{ print $1 / 1e6 }')" \
        "$(echo "${used:-0}" | awk '{ print $1 / 1e6 }')" "$apart" "$(basename "$of" .gguf)" "$*")
    if echo "$apart" | awk '{ exit !($1 > -8 && $1 < 5) }'; then ok "$name"; else failed "$name" "more than 5 % above the plan, or 8 % below"; fi
}

./bench --synthetic 135m --type f16 --folder "$dir" --prompt-tokens 8 -n 2 --train-tokens 16 --repeats 1 > "$dir/out" 2>&1 || failed "a random model" "$(tail -n 1 "$dir/out")"
halves=$dir/synthetic-135m-f16.gguf                    # in large pages of Linux, as every file that was written here
[ -f $real ] || { echo "without the real model (sh examples/fetch-model.sh): random weights in its place"; real=$halves; }

measured $real -c 64 --lora-r 8
measured $real -c 128 --lora-r 16
measured $real -c 128 --lora-r 64
measured $real -c 128 --lora-r 128 --optim adamw_8bit
measured $real -c 128 --lora-r 16 --batch-size 4
measured $real -c 64 --lora-r 16 --batch-size 8 --compute f32
measured $real -c 512 --lora-r 16 --packing
measured $real -c 1024 --lora-r 8
measured $real -c 256 --lora-r 16 --no-grad-checkpoint
measured $real -c 128 --lora-r 16 --use-dora
measured $real -c 128 --lora-r 16 --lora-dropout 0.1
measured $real -c 128 --lora-r 16 --lora-modules attention
measured $real -c 128 --lora-r 32 --compute bf16
measured $real -c 128 --lora-r 64 --optim paged_adamw --page-budget 60
measured $real -c 128 --lora-r 128 --optim paged_adamw_8bit --page-budget 60
measured $real -c 128 --lora-r 16 --quant nf4
measured $real -c 256 --lora-r 16 --quant nf4 --no-double-quant --batch-size 2
measured "$halves" -c 128 --lora-r 16
measured "$halves" -c 128 --lora-r 8 --lora-init pissa
measured "$halves" -c 128 --lora-r 16 --quant none
measured "$halves" -c 128 --lora-r 16 --lora-init loftq --optim adamw
measured $real -c 512 --lora-r 16 --batch-size 2 --no-grad-checkpoint --compute bf16
measured $real -c 512 --lora-r 16 --inputs-apart
measured $real -c 512 --lora-r 16 --light-recomputation
measured $real -c 128 --lora-r 16 --keep-panels 300M
measured $real -c 1024 --lora-r 16 --inputs-apart --head-bits 4 --optim paged_adamw_8bit --page-budget 1
measured "$halves" -c 512 --lora-r 16 --inputs-apart --head-bits 8 --loss-rows 64
exit $((failures > 0))
