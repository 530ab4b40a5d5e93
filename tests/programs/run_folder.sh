#!/bin/sh
# run_folder.sh - what finetune does in its output folder: nothing that a run did not write is touched, an earlier run goes only when the new
# one can stand alone, a diverging run keeps its last good checkpoints.
. "$(dirname "$0")/support.inc"
tune="./finetune -m $model --data $dir/chats.jsonl $small --seed 3"
kept() { if [ -e "$2" ]; then ok "$1"; else failed "$1" "$2 is gone"; fi; }
gone() { if [ -e "$2" ]; then failed "$1" "$2 is there"; else ok "$1"; fi; }
same() { if cmp -s "$2" "$3"; then ok "$1"; else failed "$1" "$2 and $3 differ"; fi; }

# ---- --overwrite in folders of strangers
mkdir -p "$dir/theirs/checkpoints" && echo mine > "$dir/theirs/checkpoints/best.pt" && echo thesis > "$dir/theirs/thesis.txt"
good "--overwrite beside a stranger's files" $tune -o "$dir/theirs" --overwrite --iters 2 --save-every 1
kept "their checkpoints stay" "$dir/theirs/checkpoints/best.pt"
kept "their text stays" "$dir/theirs/thesis.txt"
good "and once more" $tune -o "$dir/theirs" --overwrite --iters 2 --save-every 1
kept "they still stay" "$dir/theirs/checkpoints/best.pt"
for file in metrics.jsonl loss.svg adapter_model.safetensors adapter_config.json base.json checkpoints/step-1; do
    rm -rf "$dir/other" && mkdir -p "$dir/other/checkpoints" && echo mine > "$dir/other/$file"
    bad "a stranger's $file" "no record (.run.json) says that a run of finetune wrote it: move or remove it yourself, or choose another -o" $tune -o "$dir/other" --overwrite --iters 2
    [ "$(cat "$dir/other/$file")" = mine ] && ok "which stays as it is" || failed "which stays as it is" "it changed"
    bad "nor is it gone over by --resume" "no record (.run.json)\|no usable checkpoint" $tune -o "$dir/other" --resume auto --iters 2 --save-every 1
done
good "a run whose record is gone" $tune -o "$dir/old" --iters 2 --save-every 1
rm "$dir/old/.run.json"
bad "is a stranger's folder" "move or remove it yourself, or choose another -o" $tune -o "$dir/old" --overwrite --iters 2
bad "of which no replacing is proposed" "holds checkpoints; go on with --resume auto, or choose another -o" $tune -o "$dir/old" --iters 2
rm -rf "$dir/other" && mkdir "$dir/other" && echo mine > "$dir/outside"
printf '{"format": "qlora run", "files": ["../outside", "/etc/passwd", "checkpoints/../../outside"]}' > "$dir/other/.run.json"
good "a record that points out of the folder" $tune -o "$dir/other" --overwrite --iters 2
kept "is not followed" "$dir/outside"

# ---- --overwrite of a run
good "a run" $tune -o "$dir/a" --iters 4 --save-every 2
cp -r "$dir/a" "$dir/a.copy"
unchanged() { if diff -r "$dir/a" "$dir/a.copy" > "$dir/diff"; then ok "$1"; else failed "$1" "$(head -n 3 "$dir/diff" | tr '\n' '|')"; fi; }
( ulimit -f 8; bad "--overwrite on a full disk" "the earlier run in .* is back in place" $tune -o "$dir/a" --overwrite --iters 4 --save-every 1; exit $failures ) || failures=$((failures + 1))
unchanged "the earlier run is as it was"
bad "--overwrite with options that cannot be" "." $tune -o "$dir/a" --overwrite --lora-modules nothing_proj
unchanged "it is still as it was"
bad "--overwrite without data" "." $tune -o "$dir/a" --overwrite --data "$dir/nothing.jsonl"
unchanged "and still"
bad "--overwrite by a run that diverges before its first checkpoint" "is back in place" $tune -o "$dir/a" --overwrite --lr 10 --weight-decay 10 --iters 60
unchanged "and then too"
# Killed at any point: the earlier run is there, or the new one has something to go on from. Then either way the folder can be used.
i=0
while [ $i -lt 12 ]; do
    rm -rf "$dir/k" && cp -r "$dir/a" "$dir/k"
    $tune -o "$dir/k" --overwrite --iters 6 --save-every 3 > "$dir/out" 2>&1 &
    pid=$!
    sleep "$(printf '0.%02d' $((i * 2)))"
    kill -KILL $pid 2> /dev/null
    wait $pid 2> /dev/null
    find "$dir/k" -name adapter_model.safetensors | grep -q . || { failed "--overwrite, killed" "nothing is left after $((i * 20)) ms"; break; }
    timeout 60 $tune -o "$dir/k" --resume auto --iters 6 --save-every 3 > "$dir/out" 2> "$dir/err" || timeout 60 $tune -o "$dir/k" --resume auto --iters 4 --save-every 2 > "$dir/out" 2> "$dir/err" ||
        { failed "--overwrite, killed" "after $((i * 20)) ms: $(cat "$dir/err")"; break; }
    [ -z "$(find "$dir/k" -name '.qlora-*' -o -name '*.part-*')" ] || { failed "--overwrite, killed" "leftovers: $(ls -A "$dir/k" | tr '\n' ' ')"; break; }
    i=$((i + 1))
done
[ $i -eq 12 ] && ok "--overwrite, killed at 12 instants: the earlier run or the new one goes on"

# ---- A resume that is refused
bad "a resume with another rank" "rank" $(echo "$tune" | sed 's/--lora-r 4/--lora-r 8/') -o "$dir/a" --resume auto --iters 6
grep -q -e --overwrite "$dir/err" && failed "it proposes nothing that deletes" "$(cat "$dir/err")" || ok "it proposes nothing that deletes"
cp -r "$dir/a" "$dir/broken" && for file in "$dir/broken/checkpoints"/*/*.bin; do echo garbage > "$file"; done
bad "a resume without a whole checkpoint" "no usable checkpoint" $tune -o "$dir/broken" --resume auto --iters 6
grep -q -e --overwrite "$dir/err" && failed "nor does that" "$(cat "$dir/err")" || ok "nor does that"
unchanged "and the run is as it was"

# ---- A run that diverges
bad "a run that diverges" "diverged: no sound step since step [0-9]* (--lr 1); the last good checkpoint is [^:]*: start from it (--adapter) with a lower --lr in another -o$" $tune -o "$dir/d" --lr 1 --weight-decay 10 --iters 60 --save-every 1 --keep 2
grep -q "warning: train: 10 steps in a row had a non-finite loss or gradient" "$dir/out" && ok "what they met is in the log" || failed "what they met is in the log" "$(tail -n 2 "$dir/out")"
steps=$(ls "$dir/d/checkpoints" | grep '^step-' | wc -l)
[ "$steps" -ge 2 ] && ok "keeps its good checkpoints" || failed "keeps its good checkpoints" "$(ls "$dir/d/checkpoints" | tr '\n' ' ')"
good_one=$(sed -n 's/.*last good checkpoint is \([^:]*\):.*/\1/p' "$dir/err")
newest=$(ls "$dir/d/checkpoints" | sed -n 's/^step-//p' | sort -n | tail -n 1)
[ "$good_one" = "$dir/d/checkpoints/step-$newest" ] && ok "and names the newest" || failed "and names the newest" "\"$good_one\", not step-$newest"
timeout 60 $tune -o "$dir/d" --lr 1 --weight-decay 10 --iters 60 --save-every 1 --keep 2 --resume auto > "$dir/out" 2>&1
grep -q "going on from $good_one, step" "$dir/out" && grep -q "^step $((newest + 1))/60 .*loss [0-9]" "$dir/out" && ok "from which a resume goes on, with a finite loss" ||
    failed "from which a resume goes on, with a finite loss" "$(grep -m 3 'step' "$dir/out" | tr '\n' '|')"
exit $((failures > 0))
