#!/bin/sh
# runs.sh - a run says what it will take and what came of it, and can be stopped at any time: small data, diverged runs, signals.
. "$(dirname "$0")/support.inc"
plain="./finetune -m $model --data $dir/chats.jsonl --max-seq-len 64 --lora-r 4"
steady="$plain --batch-size 2 --grad-accum 3 --epochs 300 --val-split 0.2 --save-every 1000"
lists() { if grep -q -e "$2" "$3"; then ok "$1"; else failed "$1" "no \"$2\" in $(basename "$3"): $(tail -n 2 "$3" | tr '\n' '|')"; fi; }
missing() { if [ -e "$2" ]; then failed "$1" "$2 is there"; else ok "$1"; fi; }

# ---- Small data
good "what a run will take" $plain --dry-run
says "rows, steps, time and disk" "12 rows, 1 epoch, 1 step of 16 rows; time: about .*; disk: .* while it runs, .* after"
says "few steps: flags that would learn" "--preset small, which is --epochs"
good "the preset" $plain --preset small --dry-run
says "makes 60 steps of 12 rows" "60 steps of 1 rows"
good "a run with a checkpoint" $plain -o "$dir/point" --save-every 1
for adapter in "$dir/point/checkpoints/step-1" "$dir/point/adapter_model.safetensors"; do
    good "chat with $(basename "$adapter")" ./chat -m "$model" --adapter "$adapter" --no-template -n 8 --temp 0 -p Hello
    cp "$dir/out" "$dir/said"
    good "and with its folder" ./chat -m "$model" --adapter "$dir/point" --no-template -n 8 --temp 0 -p Hello
    cmp -s "$dir/out" "$dir/said" && ok "says the same" || failed "says the same" "$(cat "$dir/said" "$dir/out" | tr '\n' '|')"
done
good "one step with the defaults" $plain -o "$dir/one"
says "has a learning rate" "lr 1.00e-04"
[ -e "$dir/one/checkpoints" ] && failed "no checkpoints stay that nobody asked for" "$(ls "$dir/one/checkpoints")" || ok "no checkpoints stay that nobody asked for"
good "the reference's warm-up" $plain -o "$dir/zero" --warmup-start 0
says "has none" "lr 0.00e+00"
says "and the run says that nothing was learned" "the adapter is what it was at the start"
good "a complete run, resumed" $plain -o "$dir/one" --resume auto
says "is complete" "is complete: 1 steps"
bad "made longer without its checkpoints" "kept no checkpoints" $plain -o "$dir/one" --resume auto --epochs 9
i=12
while [ $i -lt 60 ]; do printf '{"messages": [{"role": "user", "content": "Number %s?"}, {"role": "assistant", "content": "It is %s."}]}\n' $i $i; i=$((i + 1)); done >> "$dir/chats.jsonl"
good "the preset on 60 rows" $plain --preset small --epochs 2 -o "$dir/small"
says "holds rows out" "held-out loss [0-9.]* before, [0-9.]* after"
[ "$(grep -c '  after:    ' "$dir/out")" -eq 2 ] && ok "and shows two answers" || failed "and shows two answers" "$(grep -c 'after:' "$dir/out")"
good "a run that gets worse" $plain --batch-size 4 --grad-accum 1 --lr 0.05 --epochs 8 --val-split 0.3 -o "$dir/worse"
[ "$(grep -c eval_loss "$dir/worse/metrics.jsonl")" -ge 9 ] && ok "is measured after each epoch" || failed "is measured after each epoch" "$(grep -c eval_loss "$dir/worse/metrics.jsonl") times"
head -n 12 "$dir/chats.jsonl" > "$dir/few" && mv "$dir/few" "$dir/chats.jsonl"
bad "a diverged run" "diverged" $plain --grad-accum 2 --lr 10 --epochs 40 -o "$dir/lr10"
missing "leaves no adapter" "$dir/lr10/adapter_model.safetensors"

# ---- Signals
good "an uninterrupted run" $steady -o "$dir/whole" --seed 4 --iters 60
start() { "$@" --seed 4 --iters 60 > "$dir/run.out" 2> "$dir/run.err" & pid=$!; }
wait_for() {                                           # wait_for FOLDER LINES: of metrics
    i=0
    while [ $i -lt 800 ]; do
        lines=$(grep -s -c '"loss"' "$1/metrics.jsonl")
        [ "${lines:-0}" -ge "$2" ] && break
        sleep 0.02
        i=$((i + 1))
    done
}
for signal in HUP TERM INT; do
    start $steady -o "$dir/$signal"
    wait_for "$dir/$signal" 5
    kill -$signal $pid
    wait $pid
    status=$?
    [ $status -gt 128 ] && ok "SIG$signal stops" || failed "SIG$signal stops" "status $status"
    lists "it answers at once" "stopping after this micro-batch.*again: " "$dir/run.err"
    lists "it names how to go on" "resume auto" "$dir/run.out"
    lists "and how to talk to it" "./chat -m $model --adapter $dir/$signal" "$dir/run.out"
    good "chat takes what it left" ./chat -m "$model" --adapter "$dir/$signal" --no-template -n 4 --temp 0 -p Hello
    good "going on" $steady -o "$dir/$signal" --seed 4 --iters 60 --resume auto
    cmp -s "$dir/whole/adapter_model.safetensors" "$dir/$signal/adapter_model.safetensors" && ok "to the bytes of the uninterrupted run" || failed "to the bytes of the uninterrupted run" "they differ"
    total() { tail -n 1 "$1" | sed -n 's/.*"total_tokens": \([0-9]*\).*/\1/p'; }
    grep '"loss"' "$dir/whole/metrics.jsonl" > "$dir/w" && grep '"loss"' "$dir/$signal/metrics.jsonl" > "$dir/s"
    [ "$(total "$dir/w")" = "$(total "$dir/s")" ] && ok "the metrics went on counting" || failed "the metrics went on counting" "$(total "$dir/w") and $(total "$dir/s") tokens"
    [ -z "$(sed -n 's/"step": \([0-9]*\), "eval_loss".*/\1/p' "$dir/$signal/metrics.jsonl" | sort | uniq -d)" ] && ok "no step was measured twice" || failed "no step was measured twice" "one was"
done
start nohup $steady -o "$dir/nohup"
wait_for "$dir/nohup" 3
kill -HUP $pid
wait $pid && ok "nohup: SIGHUP stays ignored" || failed "nohup: SIGHUP stays ignored" "status $?"

# ---- What killed saves left
touch "$dir/one/adapter_model.safetensors.part-12-0" "$dir/one/theirs.part-12-0"
good "the next start" $plain -o "$dir/one" --overwrite
missing "cleans up after a killed one" "$dir/one/adapter_model.safetensors.part-12-0"
[ -e "$dir/one/theirs.part-12-0" ] && ok "but only its own" || failed "but only its own" "theirs is gone"
exit $((failures > 0))
