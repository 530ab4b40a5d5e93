#!/bin/sh
# system.sh - what the system does to a program: output that cannot be written, a model file that is cut while it is used, reads that are
# interrupted, more threads than processors, memory that runs out; and flags that contradict themselves.
. "$(dirname "$0")/support.inc"
tune="./finetune -m $model --data $dir/chats.jsonl $small"

# ---- Standard output that cannot be written: every program, full and closed
echo "some words to measure, some words to count" > "$dir/text.txt"
j=0
while [ $j -lt 60 ]; do cat "$dir/text.txt"; j=$((j + 1)); done > "$dir/long.txt"
good "an adapter to use" $tune -o "$dir/adapter" --iters 2
unwritten() {                                          # unwritten NAME COMMAND...
    name=$1; shift
    for how in full closed; do
        rm -rf "$dir/out.gguf" "$dir/run"
        if [ $how = full ]; then timeout 120 "$@" > /dev/full 2> "$dir/err" < /dev/null; else timeout 120 "$@" >&- 2> "$dir/err" < /dev/null; fi
        status=$?
        if [ $status -eq 0 ] || [ $status -gt 2 ]; then failed "$name, output $how" "status $status"
        elif ! grep -q "standard output" "$dir/err"; then failed "$name, output $how" "$(tail -n 1 "$dir/err")"
        else ok "$name, output $how"; fi
    done
}
for program in finetune chat quantize export evaluate tokenize bench hello graph classify embed learn; do unwritten "$program --help" ./$program --help; done
for program in finetune chat quantize export evaluate tokenize bench hello graph classify embed learn; do unwritten "$program --version" ./$program --version; done
unwritten chat ./chat -m "$model" --no-template -p x -n 3 -q
unwritten hello ./hello "$model" x
unwritten quantize ./quantize "$model" "$dir/out.gguf"
unwritten export ./export -m "$model" -o "$dir/out.gguf" --no-check
unwritten "evaluate a text" ./evaluate -m "$model" --data "$dir/long.txt" -c 32 --stride 16
unwritten "evaluate --json" ./evaluate -m "$model" --data "$dir/long.txt" -c 32 --stride 16 --json
unwritten tokenize ./tokenize -m "$model" -p x
unwritten bench ./bench --synthetic tiny --folder "$dir" --prompt-tokens 8 -n 2 --train-tokens 16 --repeats 1
unwritten graph ./graph --text "$dir/long.txt" --steps 1 --batch-size 1 --length 16 --sample 0
unwritten "finetune --dry-run" $tune --dry-run
unwritten finetune $tune -o "$dir/run" --iters 2
unwritten "finetune --json" $tune -o "$dir/run" --iters 2 --json
cmp -s "$dir/adapter/adapter_model.safetensors" "$dir/run/adapter_model.safetensors" && ok "and the run is not lost" || failed "and the run is not lost" "$(ls -A "$dir/run" | tr '\n' ' ')"
# A descriptor that is free is taken by the next file that is opened: what is printed must not land in it.
$tune -o "$dir/closed" --iters 2 >&- 2> /dev/null
cmp -s "$dir/adapter/adapter_model.safetensors" "$dir/closed/adapter_model.safetensors" && ok "files are whole without a standard output" || failed "files are whole without a standard output" "they differ"

# ---- A model file that is cut, and one that is copied over, while it is used
for how in cut copied; do
    cp "$model" "$dir/used.gguf"
    ./finetune -m "$dir/used.gguf" --quant none --data "$dir/chats.jsonl" $small -o "$dir/$how" --iters 100000 > "$dir/out" 2> "$dir/err" &
    run=$!
    i=0
    while [ $i -lt 1000 ]; do
        [ "$(grep -s -c '"loss"' "$dir/$how/metrics.jsonl")" -ge 3 ] 2> /dev/null && break
        sleep 0.01
        i=$((i + 1))
    done
    if [ $how = cut ]; then : > "$dir/used.gguf"; else cp "$dir/long.txt" "$dir/used.gguf"; fi
    ( sleep 60; kill -KILL $run ) 2> /dev/null & watchdog=$!
    wait $run
    status=$?
    kill $watchdog 2> /dev/null
    [ $status -eq 1 ] && [ "$(wc -l < "$dir/err")" -eq 1 ] && grep -q "^finetune: $dir/used.gguf: " "$dir/err" && ok "a model that is $how during a run" ||
        failed "a model that is $how during a run" "status $status: $(head -n 3 "$dir/err" | tr '\n' '|')"
    [ -e "$dir/$how/.lock" ] && failed "the lock is released ($how)" "it is there" || ok "the lock is released ($how)"
done

# ---- Threads
usable=$(sh -c 'nproc')
bad "more threads than the library takes" "from 0 to 256" ./chat -m "$model" --no-template -p x -t 1024
good "more threads than processors" ./chat -m "$model" --no-template -p x -n 3 --temp 0 -q -t 200
cp "$dir/out" "$dir/capped"
grep -q "using [0-9]* threads: .*--force-threads: 200" "$dir/err" && ok "are fewer, and it is said" || failed "are fewer, and it is said" "$(head -n 1 "$dir/err")"
good "all the same with --force-threads" ./chat -m "$model" --no-template -p x -n 3 --temp 0 -q -t $((usable + 2)) --force-threads
[ -s "$dir/err" ] && failed "without a word" "$(head -n 1 "$dir/err")" || ok "without a word"
cmp -s "$dir/out" "$dir/capped" && ok "and with the same answer" || failed "and with the same answer" "another one"

# ---- Flags that contradict themselves, and lists that are none
bad "a flag given twice" "given twice" ./chat -m "$model" -p x -n 3 -n 4
bad "under two names" "same as -m" ./chat -m "$model" --model "$model" -p x
bad "a switch given twice" "given twice" ./chat -m "$model" -p x -q --quiet
bad "a switch and its opposite" "given twice" $tune -o "$dir/never" --double-quant --no-double-quant
good "several --stop" ./chat -m "$model" --no-template -p x -n 3 -q --stop a --stop b
for layers in 0.5 , 0,,1 1e0 0x1 -1 inf; do bad "--lora-layers $layers" "lora-layers" $tune -o "$dir/never" --lora-layers "$layers"; done
for rank in 2.7 0 -1 1e1 inf ""; do bad "--lora-rank-pattern q_proj=$rank" "lora-rank-pattern" $tune -o "$dir/never" --lora-rank-pattern "q_proj=$rank"; done
bad "--lora-rank-pattern =3" "NAME=NUMBER" $tune -o "$dir/never" --lora-rank-pattern "=3"
bad "--lora-modules ," "module" $tune -o "$dir/never" --lora-modules ,
bad "--lora-exclude ," "empty entry" $tune -o "$dir/never" --lora-exclude ,
bad "--eval-every without rows to measure on" "eval-every has nothing" $tune -o "$dir/never" --eval-every 5
head -n 3 "$dir/chats.jsonl" > "$dir/three.jsonl"
good "a small share of few rows" ./finetune -m "$model" --data "$dir/three.jsonl" $small --val-split 0.01 --dry-run
says "is still a row" "held-out data: 1 rows"
mkdir -p "$dir/parent/file" && rmdir "$dir/parent/file" && : > "$dir/parent/file"
bad "a folder within a file" "[Nn]ot a directory" ./export -m "$model" --adapter "$dir/adapter" -o "$dir/parent/file/sub" --no-check
[ -e "$dir/never" ] && failed "refused flags leave no output" "$(ls -A "$dir/never")" || ok "refused flags leave no output"
exit $((failures > 0))
