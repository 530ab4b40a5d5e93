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

# ---- The best adapter is kept: what the rows have in common is learned first, then only what each says
rows() { i=$1; while [ $i -lt $2 ]; do printf '{"prompt": "Number %s?", "completion": "It is %s."}\n' $i $((i * i)); i=$((i + 1)); done; }
rows 0 16 > "$dir/over.jsonl"
rows 40 56 > "$dir/held.jsonl"
good "a run that overfits" ./finetune -m models/tiny.gguf --data "$dir/over.jsonl" --valid "$dir/held.jsonl" --max-seq-len 64 --lora-r 8 --lora-alpha 16 --batch-size 4 --grad-accum 1 \
    --lr 0.01 --epochs 20 -o "$dir/over"
says "keeps the best and says that the last is worse" "held-out loss [0-9.]* before, [0-9.]* after step [1-9][0-9]*, whose adapter is kept; [0-9.]* at the end (step 80)"
best=$(sed -n 's/.* before, \([0-9.]*\) after step.*/\1/p' "$dir/out")
good "the adapter that was kept" ./evaluate -m models/tiny.gguf --adapter "$dir/over" --data "$dir/held.jsonl" --max-seq-len 64
says "has the best loss" "^loss $best,"
printf '{"text": "First Citizen:\\nBefore we proceed any further, hear me speak.\\n\\nAll:\\nSpeak, speak."}\n' > "$dir/prose.jsonl"
good "a run that unlearns" ./finetune -m models/tiny.gguf --data "$dir/over.jsonl" --valid "$dir/prose.jsonl" --max-seq-len 64 --lora-r 8 --batch-size 4 --grad-accum 1 --lr 0.02 --epochs 3 -o "$dir/rose"
says "says that the held-out loss rose" "warning: the held-out loss rose: on rows it has not seen the adapter is worse than none"

# ---- Saves by time
good "a save after each step, by time" $plain --grad-accum 4 --epochs 3 --save-every 0 --save-minutes 0.0000001 -o "$dir/timed"
[ "$(ls "$dir/timed/checkpoints" | tr '\n' ' ')" = "step-7 step-8 step-9 " ] && ok "keeps the newest three" || failed "keeps the newest three" "$(ls "$dir/timed/checkpoints" | tr '\n' ' ')"
good "no saves" $plain --grad-accum 4 --epochs 3 --save-every 0 --save-minutes 0 --keep 3 -o "$dir/untimed"
missing "keeps none" "$dir/untimed/checkpoints"

# ---- Several data sets
two="./finetune -m $model --data $dir/chats.jsonl --data $dir/over.jsonl --max-seq-len 64 --lora-r 4 --val-split 0.2 --seed 3"
good "two data sets" $two --iters 2 -o "$dir/two" --save-every 1
says "are rows one after another" "training data: 22 rows (messages + prompt/completion)"
grep -q 'chats.jsonl' "$dir/two/held_out.json" && grep -q 'over.jsonl' "$dir/two/held_out.json" && ok "the record of the held-out rows names both" || failed "the record of the held-out rows names both" "$(cat "$dir/two/held_out.json" | tr '\n' ' ')"
good "export measures" ./export -m "$model" --adapter "$dir/two" -o "$dir/two.gguf" --type f16
says "on the rows that were held out of both" "6 held-out rows of the run (.*chats.jsonl, .*over.jsonl)"
good "they go on" $two -o "$dir/two" --save-every 1 --resume auto --iters 3
bad "in another order they are other data" "data" ./finetune -m "$model" --data "$dir/over.jsonl" --data "$dir/chats.jsonl" --max-seq-len 64 --lora-r 4 --val-split 0.2 --seed 3 --iters 4 -o "$dir/two" --save-every 1 --resume auto
good "two adapters in one model" ./chat -m "$model" --lora "$dir/point" --lora "$dir/point" --no-template -n 4 -p Hello

# ---- Losses that are no numbers
cp -r "$dir/one" "$dir/nan"
at=$((8 + $(od -An -t u8 -N 8 "$dir/nan/adapter_model.safetensors")))
put "$dir/nan/adapter_model.safetensors" $((at + 3)) 177
put "$dir/nan/adapter_model.safetensors" $((at + 2)) 300
bad "an adapter with a NaN" "holds nan; only finite numbers" ./evaluate -m "$model" --adapter "$dir/nan" --data "$dir/chats.jsonl"
size=$(wc -c < "$model")
cp "$model" "$dir/nan.gguf"
head -c 2000 /dev/zero | tr '\0' '\176' | dd of="$dir/nan.gguf" bs=1 seek=$((size - 2000)) conv=notrunc 2> /dev/null    # scales of blocks become NaN
printf 'A text of some length, which is measured as it is: %s\n' "$(cat "$dir/chats.jsonl")" > "$dir/text.txt"
printf '{"query": "Number 1? ", "choices": ["It is 1.", "It is 2."], "gold": 0}\n' > "$dir/choices.jsonl"
for data in chats.jsonl text.txt; do bad "weights that are NaN, on $data" "the loss is not a number" ./evaluate -m "$dir/nan.gguf" --data "$dir/$data" -c 64 --stride 32; done
bad "and on choices" "the score of choice 0 is -\?nan" ./evaluate -m "$dir/nan.gguf" --data "$dir/choices.jsonl"

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
signals="HUP TERM INT"
case $(sed -n 's/^SigIgn:.*\(.\)$/\1/p' /proc/self/status 2> /dev/null) in    # its lowest bit is SIGHUP
    [13579bdf]) echo "skipped SIGHUP stops: it is ignored here, as under nohup, and stays so"; signals="TERM INT";;
esac
for signal in $signals; do
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
often="$plain --batch-size 2 --grad-accum 1 --epochs 300 --val-split 0.2 --eval-every 1 --save-every 4"
start $often -o "$dir/killed"
wait_for "$dir/killed" 7
kill -KILL $pid
wait $pid 2> /dev/null
good "going on after SIGKILL" $often -o "$dir/killed" --seed 4 --iters 60 --resume auto
sed -n 's/.*"step": \([0-9]*\), "eval_loss".*/\1/p' "$dir/killed/metrics.jsonl" > "$dir/measured"
i=0
while [ $i -le 60 ]; do echo $i; i=$((i + 1)); done | cmp -s - "$dir/measured" && ok "every step is measured once" || failed "every step is measured once" "$(tr '\n' ' ' < "$dir/measured")"

# The last measurement takes long enough to be met.
i=0
while [ $i -lt 40 ]; do cat "$dir/over.jsonl"; i=$((i + 1)); done > "$dir/many.jsonl"
last="$plain --batch-size 2 --grad-accum 1 --valid $dir/many.jsonl --iters 3 -o $dir/last"
$last > "$dir/run.out" 2> "$dir/run.err" & pid=$!
wait_for "$dir/last" 3
kill -TERM $pid
wait $pid
status=$?
[ $status -eq 143 ] && ok "a signal in the last measurement" || failed "a signal in the last measurement" "status $status"
lists "does not hide that all steps are made" "all 3 steps are made, the last measurement is not" "$dir/run.out"
good "which is made up for" $last --resume auto
says "and then it is complete" "held-out loss [0-9.]* before, [0-9.]* after"
good "and stays so" $last --resume auto
says "with as many steps" "is complete: 3 steps"

i=0
while [ $i -lt 2000 ]; do echo "Question $i"; i=$((i + 1)); done > "$dir/questions"
./chat -m "$model" --no-template --temp 0 -n 500 < "$dir/questions" > "$dir/answers" 2> "$dir/run.err" & pid=$!
i=0
while [ $i -lt 800 ] && [ ! -s "$dir/answers" ]; do sleep 0.02; i=$((i + 1)); done
kill -TERM $pid
wait $pid
status=$?
[ $status -eq 143 ] && ok "SIGTERM in an answer of chat" || failed "SIGTERM in an answer of chat" "status $status"
lists "ends it" "(stopped)" "$dir/run.err"
[ -z "$(tail -c 1 "$dir/answers")" ] && ok "and its line" || failed "and its line" "$(tail -n 1 "$dir/answers")"

# ---- Somebody else's file that takes minutes: a template that counts, for many rows
good "a model as a folder" ./export -m "$model" -o "$dir/slow" --no-check
printf '{%% for i in range(1000) %%}{%% for j in range(1000) %%}{%% endfor %%}{%% endfor %%}{%% for m in messages %%}{{ m.role }}: {{ m.content }}\n{%% endfor %%}' > "$dir/slow/chat_template.jinja"
for program in "finetune -o $dir/never" evaluate; do
    : > "$dir/run.err"
    # in the foreground, or timeout sends the signal twice: to the program, and to its group
    timeout --foreground -s KILL 60 ./$program -m "$dir/slow" -t 256 --data "$dir/many.jsonl" > "$dir/run.out" 2> "$dir/run.err" & pid=$!
    i=0
    while [ $i -lt 800 ] && [ ! -s "$dir/run.err" ]; do sleep 0.02; i=$((i + 1)); done    # it loads: 256 threads are too many, and it says so
    sleep 0.5
    kill -TERM $pid
    wait $pid
    status=$?
    [ $status -eq 143 ] && ok "SIGTERM ends ${program%% *} in a template" || failed "SIGTERM ends ${program%% *} in a template" "status $status"
    lists "with one line" "^${program%% *}: stopped$" "$dir/run.err"
done
missing "nothing is left" "$dir/never"

# ---- What killed saves left
mkdir "$dir/one/.qlora-adapter.part-12-1"
touch "$dir/one/.qlora-adapter.part-12-1/base.json" "$dir/one/adapter_model.safetensors.part-12-0" "$dir/one/theirs.part-12-0"
good "the next start" $plain -o "$dir/one" --overwrite
missing "cleans up after a killed one" "$dir/one/adapter_model.safetensors.part-12-0"
missing "cleans up after one killed while it saved the adapter" "$dir/one/.qlora-adapter.part-12-1"
[ -e "$dir/one/theirs.part-12-0" ] && ok "but only its own" || failed "but only its own" "theirs is gone"
exit $((failures > 0))
