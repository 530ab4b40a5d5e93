# talk.sh - chat without a terminal (pipes, files, room in the context, prefills, recommended sampling), and what a run
# of finetune leaves and shows beside its adapter.
. "$(dirname "$0")/support.inc"

chat="./chat -m $model --temp 0 -n 3"
printf 'piped in\n' | $chat -p "asked" --context 512 > "$dir/out" 2> "$dir/err"
joined=$(sed -n 's/.*prompt \([0-9]*\) tokens.*/\1/p' "$dir/err")
good "the same in one" $chat -p "asked

piped in"
warns "a pipe is put behind -p" "prompt $joined tokens"
printf 'asked\n\npiped in\n' > "$dir/question"
good "a question in a file" $chat -f "$dir/question"
warns "and it is the same" "prompt $joined tokens"
$chat -p - < "$dir/question" > "$dir/out" 2> "$dir/err"
warns "-p - reads the input" "prompt $joined tokens"
good "a prefill" $chat -p "Hello" --prefill "Surely"
says "begins the answer" "^Surely"
warns "an answer that -n cuts is marked" "(cut: an answer has 3 tokens at most"
printf '{%% for m in messages %%}[{{ m.content }}]{%% endfor %%}' > "$dir/mine.jinja"
good "a template from a file" $chat -p "Hello" --chat-template "$dir/mine.jinja"
warns "is used" "prompt 10 tokens"
bad "a template and none" "choose one" $chat -p x --no-template --chat-template "$dir/mine.jinja"
bad "no such template" "none.jinja" $chat -p x --chat-template "$dir/none.jinja"
bad "a prompt above the context" "the prompt has .* tokens, and the context 8" $chat --no-template --context 8 -p "a prompt that is longer"
bad "a question above it" "the question has .* tokens with all" $chat -q --context 16 -p "a question that is longer"
printf 'Question 0 of several\nQuestion 1 of several\nQuestion 2 of several\nQuestion 3 of several\n/save %s\n' "$dir/kept.jsonl" > "$dir/lines"
$chat --context 160 < "$dir/lines" > "$dir/out" 2> "$dir/err"
[ "$(grep -c 'is full: the oldest' "$dir/err")" -eq 1 ] && ok "old turns are dropped, said once" || failed "old turns are dropped, said once" "$(cat "$dir/err")"
grep -q "Question 3" "$dir/kept.jsonl" && ! grep -q "Question 0" "$dir/kept.jsonl" && ok "the newest stay" || failed "the newest stay" "$(cat "$dir/kept.jsonl")"
$chat --context 160 --context-shift off < "$dir/lines" > "$dir/out" 2> "$dir/err"
warns "--context-shift off refuses" "^chat: the dialogue has .* tokens with this question, and the context 160: /clear"
good "a folder" ./export -m "$model" -o "$dir/hf" --type f32
printf '{"temperature": 0, "top_k": 7}' > "$dir/hf/generation_config.json"
good "a model with sampling of its own" ./chat -m "$dir/hf" -n 2 -p x
warns "which is followed, and said" "makers recommend: --temp 0, --top-k 7"
good "flags count more" ./chat -m "$dir/hf" -n 2 -p x --temp 0.5 --top-k 3
grep -q recommend "$dir/err" && failed "and then nothing is said" "$(cat "$dir/err")" || ok "and then nothing is said"

tune="./finetune -m $model --data $dir/chats.jsonl $small"
good "a run" $tune -o "$dir/run" --iters 4 --val-split 0.2 --neftune-alpha 5 --lora-plus-ratio 4 --group-by-length --sample-every 2
says "answers on the way" "answer:"
grep -q "^base_model: \"tiny.gguf\"" "$dir/run/README.md" && grep -q "^library_name: peft" "$dir/run/README.md" && ok "a model card" || failed "a model card" "$(head -n 5 "$dir/run/README.md")"
grep -q "4 of 4 steps\. .*Held-out loss: .* before" "$dir/run/README.md" && ok "with losses" || failed "with losses" "$(grep steps "$dir/run/README.md")"
grep -q "NEFTune alpha | 5" "$dir/run/README.md" && ok "and settings" || failed "and settings" "$(grep '|' "$dir/run/README.md")"
grep -q "^FROM $model$" "$dir/run/Modelfile" && grep -q "^ADAPTER" "$dir/run/Modelfile" && ok "a Modelfile" || failed "a Modelfile" "$(cat "$dir/run/Modelfile")"
grep -q "^# No TEMPLATE" "$dir/run/Modelfile" && ok "without a template that it has not" || failed "without a template that it has not" "$(cat "$dir/run/Modelfile")"
good "a run of a model with ChatML" ./finetune -m models/tiny.gguf --data "$dir/chats.jsonl" $small -o "$dir/chatml" --iters 1
grep -q '^TEMPLATE """{{- if .System }}<|im_start|>system$' "$dir/chatml/Modelfile" && grep -q '^PARAMETER stop "<|im_end|>"$' "$dir/chatml/Modelfile" && ok "the Modelfile has its template" || failed "the Modelfile has its template" "$(cat "$dir/chatml/Modelfile")"
good "the run again" $tune -o "$dir/run" --iters 2 --overwrite
good "a checkpoint" $tune -o "$dir/kept" --iters 1 --save-every 1
bad "another learning rate, in its own digits" "learning_rate was 0.0002 and is 0.1;" $tune -o "$dir/kept" --iters 2 --resume auto --lr 0.1
good "patience" $tune -o "$dir/patient" --iters 60 --val-split 0.2 --eval-every 1 --patience 2 --lr 0.5
says "ends early" "no better held-out loss in 2 measurements: ending at step"
# Stopped on the way, it ends at the same step, with the same bytes.
good "the same, without a pause" $tune -o "$dir/whole" --iters 60 --val-split 0.2 --eval-every 1 --patience 4 --lr 0.5 --warmup-ratio 0
sed -n 's/.*\(ending at step.*\)/\1/p' "$dir/out" > "$dir/whole.end"
end=$(sed -n 's/ending at step \([0-9]*\) of.*/\1/p' "$dir/whole.end")
good "to two measurements before its end" $tune -o "$dir/parts" --iters $((end - 2)) --val-split 0.2 --eval-every 1 --patience 4 --lr 0.5 --warmup-ratio 0 --save-every 2 --keep 2
good "the rest" $tune -o "$dir/parts" --iters 60 --val-split 0.2 --eval-every 1 --patience 4 --lr 0.5 --warmup-ratio 0 --save-every 2 --keep 2 --resume auto
sed -n 's/.*\(ending at step.*\)/\1/p' "$dir/out" > "$dir/parts.end"
[ -s "$dir/whole.end" ] && cmp -s "$dir/whole.end" "$dir/parts.end" && ok "patience ends it at the same step" || failed "patience ends it at the same step" "$(cat "$dir/whole.end" "$dir/parts.end")"
cmp -s "$dir/whole/adapter_model.safetensors" "$dir/parts/adapter_model.safetensors" && ok "with the same adapter" || failed "with the same adapter" "they differ"
bad "patience with nothing to measure" "hold rows out" $tune -o "$dir/none" --patience 2
bad "a time without a unit" "needs a unit" $tune -o "$dir/none" --max-time 30
good "a time" $tune -o "$dir/timed" --iters 100000000 --max-time 2s --save-every 0
says "ends the run" "the time of --max-time is over: stopped after step"
[ -f "$dir/timed/adapter_config.json" ] && ok "with an adapter" || failed "with an adapter" "$(ls "$dir/timed")"
$tune -o "$dir/timed2" --iters 100000000 --seed 1 > "$dir/out" 2>&1 & run=$!
tries=0
while [ $tries -lt 40 ] && [ ! -f "$dir/timed2/loss.svg" ]; do sleep 1; tries=$((tries + 1)); done
[ -f "$dir/timed2/loss.svg" ] && ok "the curve is drawn during the run" || failed "the curve is drawn during the run" "$(ls -a "$dir/timed2")"
kill -INT $run; wait $run
exit $((failures > 0))
