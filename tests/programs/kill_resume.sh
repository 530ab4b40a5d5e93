#!/bin/sh
# A run killed (SIGKILL) at random instants and resumed must end in the very bytes of the uninterrupted run.
# QLORA_KILLS sets how many kills (default 12); the instants are random but printed on failure.
kills=${QLORA_KILLS:-12}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
run() {                                                # run OUTPUT_FOLDER
    ./finetune -m models/tiny.gguf --data examples/data/about-qlora.jsonl -o "$1" --resume auto --iters 8 --save-every 1 --keep 2 --lora-r 4 --lora-dropout 0.1 \
        --batch-size 1 --grad-accum 2 --max-seq-len 96 --val-split 0 --seed 5 > "$dir/log" 2>&1
}
run "$dir/whole" || { echo "FAILED kill_resume: the uninterrupted run failed"; tail -n 5 "$dir/log"; exit 1; }
start=$(date +%s%N)
run "$dir/timed"
span=$((($(date +%s%N) - start) / 1000000))            # milliseconds of a run
seed=$$ done=0 runs=0 instants=
while [ "$done" -lt "$kills" ]; do
    runs=$((runs + 1))
    out=$dir/run$runs
    attempt=0
    while [ ! -f "$out/adapter_model.safetensors" ]; do
        attempt=$((attempt + 1))
        if [ "$attempt" -gt 4 ] || [ "$done" -ge "$kills" ]; then run "$out" || { echo "FAILED kill_resume: resume failed (instants:$instants)"; tail -n 5 "$dir/log"; exit 1; }; break; fi
        seed=$(((seed * 1103515245 + 12345) % 2147483648))
        wait_ms=$((seed / 7 % span))
        run "$out" &
        pid=$!
        sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
        pkill -KILL -P $pid 2> /dev/null && done=$((done + 1))
        wait $pid 2> /dev/null
        instants="$instants ${wait_ms}ms"
    done
    cmp -s "$dir/whole/adapter_model.safetensors" "$out/adapter_model.safetensors" ||
        { echo "FAILED kill_resume: run $runs differs from the uninterrupted run (instants:$instants)"; exit 1; }
    rm -rf "$out"
done
echo "ok kill_resume: $done kills in $runs runs, every adapter byte-identical"
