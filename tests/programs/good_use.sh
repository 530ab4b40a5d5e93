#!/bin/sh
# good_use.sh - the programs do what they say, on a small random model: help, training, stopping and going on, talking, measuring.
. "$(dirname "$0")/support.inc"
good "the random model in f32" ./export -m "$model" --type f32 -o "$dir/dense.gguf" --no-check
model=$dir/dense.gguf

for program in finetune chat quantize export evaluate tokenize bench hello graph classify embed learn; do
    good "$program --help" ./$program --help
    says "$program --help says how to use it" "usage: $program"
    good "$program --version" ./$program --version
    says "$program --version names a version" "qlora) 0\."
done

# ---- Training
tune="./finetune -m $model --data $dir/chats.jsonl $small --val-split 0.2 --epochs 65"
more="./finetune -m $model --data $dir/chats.jsonl --max-seq-len 64 --batch-size 2 --grad-accum 1 --val-split 0.2 --iters 3"
good "the memory plan" $tune --dry-run
says "it names a peak" "peak"
says "in which precision it computes, and which else there is" "compute: .*--compute"
says "of a dense model: NF4, and why" "base: nf4, made of the stored f32"
says "the sample marks what is trained on" "\[\["
good "the memory plan as JSON" $tune --dry-run --json
says "it is one object" '^{.*"peak_bytes": [0-9]*.*}$'
good "a plan for a model that is not there" ./finetune --dry-run --shape 65b --max-seq-len 512 --lora-r 64
says "it knows its weights" "weights of the layers  *33.4 GB"
if ls "$dir"/qlora-outline-* > /dev/null 2>&1; then failed "its outline is removed" "it is there"; else ok "its outline is removed"; fi
good "within a limit" ./finetune --dry-run --shape 8b --max-seq-len 2048 --lora-r 16 --batch-size 4 --memory-limit 6.4G
says "it says what it chose and what that costs" "to fit into 6.4G: layers are recomputed.*30 % more time.*waits in a file.*micro-batches of 2, 32 a step"
says "what a step computes, how long that takes here, the disk" "64 rows: .* operations each; time: about .* here.*; disk: "
good "within a limit of a GPU too, there or not" ./finetune --dry-run --shape 70b --max-seq-len 512 --lora-r 16 --device cuda --memory-limit 64G,40G
says "a table of the device" "Memory plan of the device:"
says "which fits" "to fit into 64G,40G: "
good "a plan for a GPU that is not there" ./finetune --dry-run --shape 1b --max-seq-len 512 --device cuda
says "nobody was asked" "cuda, planned for sm_80: no card was asked; its memory has no limit here"
says "nothing was measured" "time: not measured"
warns "why it is not there" "built without CUDA"
good "the same as JSON" ./finetune --dry-run --shape 1b --max-seq-len 512 --device cuda --json
says "it names the device, and has its peak" '"backend": "cuda, planned for sm_80".*"device_peak_bytes": [1-9]'
good "a plan for it of a model that is there" $tune --dry-run --device cuda --memory-limit 2G,1G
says "of the device too" "Memory plan of the device:"
says "nothing was measured either" "time: not measured"
good "within less" ./finetune --dry-run --shape 7b --max-seq-len 2048 --lora-r 16 --memory-limit 4.2G
says "the head shrinks too, which costs something" "the head has 8 bits: other numbers"
good "more than is needed" ./finetune --dry-run --shape 1b --max-seq-len 64 --lora-r 16 --memory-limit 4G
says "the rest keeps decoded weights" "of what is left of 4G: .* of decoded panels are kept: the same bytes, about [0-9]* % faster"
says "which is in the plan" "decoded panels  *[0-9.]* [GM]B"
good "unless somebody says no" ./finetune --dry-run --shape 1b --max-seq-len 64 --lora-r 16 --memory-limit 4G --keep-panels 0
if grep -q "decoded panels" "$dir/out"; then failed "then none are kept" "$(grep panels "$dir/out")"; else ok "then none are kept"; fi
# what must suffice, in GiB, on rows of 2,048 tokens
for least in "135m 0.2" "1b 1.0" "7b 4.0"; do
    set -- $least
    good "a $1 model within $2 GiB" ./finetune --dry-run --shape $1 --max-seq-len 2048 --lora-r 16 --memory-limit ${2}GiB
done
for least in "7b 3.8" "8b 4.3" "14b 7.7" "32b 16.9" "33b 16.9" "70b 35.6"; do
    set -- $least
    good "a $1 model within $2 GiB of a GPU" ./finetune --dry-run --shape $1 --max-seq-len 2048 --lora-r 16 --device cuda --memory-limit 300G,${2}GiB
done
good "a run within a limit, paged" ./finetune -m "$model" --data "$dir/chats.jsonl" $small --iters 2 --page-budget 0 --memory-limit 2G -o "$dir/limited"
says "nothing needs to be recomputed" "to fit into 2G: activations are kept"
good "a run with all that saves memory" ./finetune -m "$model" --data "$dir/chats.jsonl" $small --iters 2 --inputs-apart --loss-rows 16 --head-bits 8 --page-budget 1 -o "$dir/sparing" --json
says "it trains" '"event": "done"'
good "its adapter, whose base it knows" ./evaluate -m "$model" --adapter "$dir/sparing" -f "$dir/chats.jsonl"
good "a run with light recomputation" ./finetune -m "$model" --data "$dir/chats.jsonl" $small --iters 2 --light-recomputation -o "$dir/light"
for type in q4_0 q8_0 nf4; do
    good "a model stored as $type" ./export -m "$model" --type $type -o "$dir/stored.gguf" --no-check --overwrite
    good "its memory plan" ./finetune -m "$dir/stored.gguf" --data "$dir/chats.jsonl" $small --dry-run
    says "it stays as it is stored, and why" "base: as stored, because it is $type.* already"
done
good "asked for NF4" ./finetune -m "$dir/stored.gguf" --quant nf4 --data "$dir/chats.jsonl" $small --dry-run
says "it says who asked" "base: nf4, as --quant says"
good "asked for neither" ./finetune -m "$model" --quant none --data "$dir/chats.jsonl" $small --dry-run
says "it stays dense" "base: as stored, as --quant says"
good "a whole run" $tune -o "$dir/a" --save-every 100 --eval-every 100
says "held-out loss before and after" "held-out loss [0-9.]* before, [0-9.]* after"
says "the next command" "./chat -m $model --adapter $dir/a"
steps=$(grep -c '"loss"' "$dir/a/metrics.jsonl")
[ "$steps" -gt 100 ] && ok "a line of metrics a step" || failed "a line of metrics a step" "$steps lines"
grep -q '<polyline' "$dir/a/loss.svg" && ok "a curve" || failed "a curve" "none in loss.svg"
[ "$(ls "$dir/a/checkpoints" | wc -l)" -eq 3 ] && ok "three checkpoints stay" || failed "three checkpoints stay" "$(ls "$dir/a/checkpoints" | tr '\n' ' ')"

# ---- Stopping and going on
$tune -o "$dir/b" --save-every 100 --eval-every 100 > "$dir/b.out" 2>&1 &
run=$!
i=0
while [ $i -lt 500 ]; do
    lines=$(grep -s -c '"loss"' "$dir/b/metrics.jsonl")
    [ "${lines:-0}" -ge 7 ] && break
    sleep 0.01
    i=$((i + 1))
done
kill -INT $run 2> /dev/null
wait $run
status=$?
# A shell without job control starts background commands with SIGINT ignored; finetune installs its own handler, so that does not matter.
[ $status -eq 130 ] && ok "Ctrl-C ends with 130" || failed "Ctrl-C ends with 130" "status $status: $(tail -n 1 "$dir/b.out")"
grep -q -e '--resume auto' "$dir/b.out" && ok "it prints the command that goes on" || failed "it prints the command that goes on" "$(tail -n 2 "$dir/b.out")"
good "going on" $tune -o "$dir/b" --save-every 100 --eval-every 100 --resume auto
says "it says from where" "going on from"
cmp -s "$dir/a/adapter_model.safetensors" "$dir/b/adapter_model.safetensors" && ok "the adapter is the same to the byte" || failed "the adapter is the same to the byte" "it differs"
[ "$(grep -c '"loss"' "$dir/b/metrics.jsonl")" -eq "$steps" ] && ok "no step is counted twice" || failed "no step is counted twice" "$(grep -c '"loss"' "$dir/b/metrics.jsonl") lines, not $steps"
newest=$(ls "$dir/b/checkpoints" | sed 's/step-//' | sort -n | tail -n 1)
for file in "$dir/b/checkpoints/step-$newest/"*.bin; do echo garbage > "$file"; done
good "a broken checkpoint: the one before is used" $tune -o "$dir/b" --save-every 100 --eval-every 100 --resume auto
says "and it says so" "falling back"
cmp -s "$dir/a/adapter_model.safetensors" "$dir/b/adapter_model.safetensors" && ok "again the same to the byte" || failed "again the same to the byte" "it differs"
good "one JSON object a line" $tune -o "$dir/c" --iters 3 --json
[ "$(grep -c '^{.*}$' "$dir/out")" -eq "$(wc -l < "$dir/out")" ] && ok "and nothing else" || failed "and nothing else" "$(grep -v '^{' "$dir/out" | head -n 1)"

# ---- A chat template that cannot be read stops only who prints a dialogue
good "the model as a folder" ./export -m "$model" -o "$dir/folder" --no-check
printf '{%% for m in messages %%}{{ m.content }}{%% endfxr %%}' > "$dir/folder/chat_template.jinja"
printf 'Number 1 is one. Number 2 is two. Number 3 is three.\n' > "$dir/plain.txt"
good "plain text is measured without it" ./evaluate -m "$dir/folder" --data "$dir/plain.txt" --context 32 --stride 16
good "a chat without template does without it" ./chat -m "$dir/folder" --no-template -p "Number" -n 2
good "quantizing does without it" ./quantize "$dir/folder" "$dir/folder.gguf"
./chat -m "$dir/folder" -p "Number" -n 2 > "$dir/out" 2> "$dir/err" < /dev/null && failed "a chat names the fault" "it went on"
grep -q "endfxr" "$dir/err" && ok "a chat names the fault" || failed "a chat names the fault" "$(head -n 1 "$dir/err")"

# ---- Going on with an adapter that exists
good "a short run from it" $more --adapter "$dir/a" -o "$dir/more"
says "it says so" "going on with the adapter $dir/a"
good "as mlx-lm says it" ./finetune -m "$model" --data "$dir/chats.jsonl" --resume_adapter_file "$dir/a" --dry-run
kept_loss() { grep -v '"step": 0,' "$1/metrics.jsonl" | sed -n 's/.*"eval_loss": \([0-9.]*\).*/\1/p' | sort -n | head -n 1; }     # of the best adapter
before=$(kept_loss "$dir/a")
after=$(sed -n 's/.*"eval_loss": \([0-9.]*\).*/\1/p' "$dir/more/metrics.jsonl" | head -n 1)
[ -n "$before" ] && [ "$before" = "$after" ] && ok "it starts where the other ended" || failed "it starts where the other ended" "held-out loss $before, then $after"
good "a run from a GGUF adapter" sh -c "./export -m $model --adapter $dir/a -o $dir/a.gguf --type lora --no-check && $more --adapter $dir/a.gguf -o $dir/gguf"
for how in "--lora-init loftq" "--lora-init pissa" "--use-dora" "--use-dora --lora-init pissa --rslora"; do
    good "a new adapter, $how" $tune $how -o "$dir/how" --overwrite --iters 4 --save-every 2
    cp -r "$dir/how" "$dir/how-whole"
    rm -r "$dir/how/checkpoints/step-4" "$dir/how/adapter_model.safetensors"
    good "gone on with" $tune $how -o "$dir/how" --iters 4 --save-every 2 --resume auto
    cmp -s "$dir/how/adapter_model.safetensors" "$dir/how-whole/adapter_model.safetensors" && ok "to the same bytes" || failed "to the same bytes" "they differ"
    good "a run from it" $more --adapter "$dir/how" -o "$dir/how-more" --overwrite
    before=$(kept_loss "$dir/how")
    after=$(sed -n 's/.*"eval_loss": \([0-9.]*\).*/\1/p' "$dir/how-more/metrics.jsonl" | head -n 1)
    [ -n "$before" ] && [ "$before" = "$after" ] && ok "which starts where it ended" || failed "which starts where it ended" "held-out loss $before, then $after"
    good "chat with it" ./chat -m "$model" --adapter "$dir/how" --no-template -n 4 --temp 0 -p "Hello"
    good "export, merged" ./export -m "$model" --adapter "$dir/how" -o "$dir/how.gguf" --overwrite
    rm -r "$dir/how-whole"
done

# ---- The other programs
good "quantize" ./quantize "$model" "$dir/nf4.gguf"
says "sizes before and after" "bits a parameter"
good "chat with the quantized model" ./chat -m "$dir/nf4.gguf" --no-template -n 4 -p "Hello"
good "bf16 where the processor has none" env QLORA_ISA=scalar ./chat -m "$model" --no-template -n 4 --temp 0 -p "Hello" --compute bf16
warns "that it is f32" "compute bf16 is f32"
good "keys and values in f32" ./chat -m "$model" --no-template -n 4 --temp 0 -p "Hello" --cache f32
good "keys and values in bf16" ./chat -m "$model" --no-template -n 4 --temp 0 -p "Hello" --cache bf16
good "an empty prompt" ./chat -m "$model" --no-template -n 4 --temp 0 -p ""
good "chat with the adapter" ./chat -m "$model" --adapter "$dir/a" --no-template -n 4 --temp 0 -p "Hello"
printf 'Hello\n/stats\n/nonsense\n/exit\n' | ./chat -m "$model" --no-template -n 4 > "$dir/out" 2> "$dir/err"
grep -q 'unknown command /nonsense' "$dir/err" && ok "an unknown command is named" || failed "an unknown command is named" "$(head -n 2 "$dir/err")"
grep -q 'keys and values: .* of f16' "$dir/err" && ok "what keys and values take" || failed "what keys and values take" "$(head -n 3 "$dir/err")"
grep -q 'tok/s' "$dir/err" && ok "speed after an answer" || failed "speed after an answer" "$(head -n 2 "$dir/err")"
good "loss of dialogues" ./evaluate -m "$model" --data "$dir/chats.jsonl" --json
says "one object" '^{"kind": "dialogues".*"loss": [0-9.]*.*}$'
i=0; while [ $i -lt 80 ]; do echo "All work and no play makes line $i dull."; i=$((i + 1)); done > "$dir/text.txt"
good "perplexity of a text" ./evaluate -m "$model" --data "$dir/text.txt" --context 128 --stride 64
says "it is a number" "perplexity [0-9]"
echo '{"query": "One and one is", "choices": ["two", "a long wrong answer"], "gold": 0}' > "$dir/choices.jsonl"
good "loss with the adapter" ./evaluate -m "$model" --adapter "$dir/a" --data "$dir/chats.jsonl"
says "on the base of its record" "base: nf4, as $dir/a was trained on it"
good "accuracy" ./evaluate -m "$model" --adapter "$dir/a" --data "$dir/choices.jsonl"
says "it is a share" "accuracy [01]\."
printf 'one\n\ntwo words\n' > "$dir/lines.txt"
good "tokenize" ./tokenize -m "$model" -f "$dir/lines.txt"
[ "$(wc -l < "$dir/out")" -eq 3 ] && ok "one line of ids a line of text" || failed "one line of ids a line of text" "$(wc -l < "$dir/out") lines"
printf '%s' '{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}' > "$dir/bare.json"
good "a tokenizer without a decoder" ./tokenize -m "$dir/bare.json" -p ab
says "its ids" "^2$"
grep -q "^note: .*has no decoder" "$dir/err" && ok "what it lacks is said" || failed "what it lacks is said" "$(cat "$dir/err")"
good "the model as a folder" ./export -m models/tiny.gguf -o "$dir/windowed" --no-check
sed -i 's/"LlamaForCausalLM"/"MistralForCausalLM"/; s/"model_type": "llama"/"model_type": "mistral", "sliding_window": 16/' "$dir/windowed/config.json"
good "a model whose layers see a window of keys" ./export -m "$dir/windowed" -o "$dir/windowed.gguf"
warns "llama.cpp's disregard is said" "^note: $dir/windowed.gguf: its layers see the last 16 keys; llama.cpp takes no notice"
[ "$(grep -c '^note: ' "$dir/err")" -eq 1 ] && ok "and nothing twice" || failed "and nothing twice" "$(grep '^note: ' "$dir/err")"
good "tokenize dialogues" ./tokenize -m "$model" --chat "$dir/chats.jsonl"
says "with their mask" "^mask [01 ]*1"
warns "and their counts" "chats.jsonl: 12 rows (.*12 assistant turns, 12 trained"
# Control tokens written in text: read in files of text, left alone with --special text, and both are said.
echo '{"text": "one</s>two", "label": 3}' > "$dir/special.jsonl"
good "control tokens in rows of text" ./finetune -m "$model" --data "$dir/special.jsonl" --dry-run $small
says "they are counted" "1 control tokens read in the text"
says "and a key that nothing reads is named" "not used: label (1)"
good "the same rows as text" ./finetune -m "$model" --data "$dir/special.jsonl" --special text --dry-run $small
says "what is only spelled is counted" "1 spelled in the text and left as text"
says "the preview says so too" "1 more only spelled: they stay text"
good "control tokens in messages" ./finetune -m "$model" --data "$dir/chats.jsonl" --special tokens --dry-run $small
warns "that is unsafe, and why" "warning: --special tokens is unsafe: whoever wrote a message can end its turn"
good "turns are counted" ./finetune -m "$model" --data "$dir/chats.jsonl" --dry-run $small
says "all of them" "12 assistant turns, 12 trained"
for special in auto tokens; do
    good "tokenize, $special" ./tokenize -m "$model" -p "a</s>" --special $special
    says "the end token" " 2$"
done
good "tokenize, text" ./tokenize -m "$model" -p "a</s>" --special text
if grep -q " 2$" "$dir/out"; then failed "no end token" "$(cat "$dir/out")"; else ok "no end token"; fi
good "a raw prompt with control tokens" ./chat -m "$model" --no-template -n 4 --temp 0 -p "<s>Hello"

# ---- Export
for type in f16 bf16 f32 q8_0 q4_0 iq4_nl nf4; do
    good "export, merged, as $type" ./export -m "$model" --adapter "$dir/a" -o "$dir/merged-$type.gguf" --type $type
    says "it measures on the run's own held-out rows" "loss on 2 held-out rows of the run (.*/chats.jsonl)"
    says "the base it was trained on, alone and with the adapter" "nf4, double-quantized, which the adapter was trained on  *[0-9.]*  *[0-9.]* "
    says "the source's own weights too" "as stored, f32  *[0-9.]*  *[0-9.]* "
    says "what is left of the adapter" "of the adapter's improvement is left"
    case $type in
    q4_0 | iq4_nl | nf4)
        # The table's last column: the result on either base; the file was made of the better one, and its line says so.
        best=$(sed -n 's/.* \([0-9.]*\)\(  taken\)*$/\1/p' "$dir/out" | grep '^[0-9]*\.[0-9]*$' | sort -n | head -n 1)
        says "the better base is taken" " $best  taken" ;;
    *) says "it names the base it used" "nf4, double-quantized codes, which the adapter was trained on" ;;
    esac
    good "chat with it" ./chat -m "$dir/merged-$type.gguf" --no-template -n 4 --temp 0 -p "Hello"
done
good "export, measured on other rows" ./export -m "$model" --adapter "$dir/a" -o "$dir/other-rows.gguf" --measure "$dir/chats.jsonl"
says "it says which" "loss on 12 rows ($dir/chats.jsonl)"
good "export, measured on a text" ./export -m "$model" --adapter "$dir/a" -o "$dir/text.gguf" --measure "$dir/text.txt"
says "it says which" "tokens of $dir/text.txt"
grep -q '"special": "auto"' "$dir/a/held_out.json" && ok "how rows were read is recorded" || failed "how rows were read is recorded" "$(cat "$dir/a/held_out.json")"
cp -r "$dir/a" "$dir/moved" && sed -i 's/chats\.jsonl/gone.jsonl/' "$dir/moved/held_out.json"
good "export without the held-out rows" ./export -m "$model" --adapter "$dir/moved" -o "$dir/unmeasured.gguf" --type q4_0
says "it says that nothing was measured" "not measured: the run's held-out rows, .*gone.jsonl, are not there; name rows or a text with --measure FILE"
sed -i 's/"context": [0-9]*/"context": -5/' "$dir/moved/held_out.json"
bad "export with a damaged record" "held_out.json: context must be" ./export -m "$model" --adapter "$dir/moved" -o "$dir/damaged.gguf"
sed -i 's/"context": -5/"context": 64/; s/"special": "auto"/"special": "odd"/' "$dir/moved/held_out.json"
bad "export with another damaged record" 'held_out.json: special: "odd" is none of auto, tokens, text' ./export -m "$model" --adapter "$dir/moved" -o "$dir/damaged.gguf"
good "export on another base" ./export -m "$model" --adapter "$dir/a" -o "$dir/other.gguf" --base-type none
says "it names that one" "as stored (.*), as --base-type says"
good "export, only converted" ./export -m "$model" -o "$dir/plain.gguf" --measure "$dir/text.txt"
says "auto is f16" "plain.gguf: f16, "
good "export of the adapter for llama.cpp" ./export -m "$model" --adapter "$dir/a" -o "$dir/adapter.gguf" --type lora
says "it reads back the same" "differ by 0 at most"
says "and names the base that belongs to it" "./export -m $model --base-type nf4 -o BASE.gguf"
good "chat with that adapter" ./chat -m "$model" --adapter "$dir/adapter.gguf" --quant nf4 --no-template -n 4 --temp 0 -p "Hello"
good "export as a folder" ./export -m "$model" --adapter "$dir/a" -o "$dir/hf"
says "auto is bf16" "hf: bf16, "
[ -f "$dir/hf/tokenizer.json" ] && ok "with its tokenizer" || failed "with its tokenizer" "$(ls "$dir/hf")"
good "chat with the folder" ./chat -m "$dir/hf" --no-template -n 4 --temp 0 -p "Hello"
good "a folder in 4 bits, out of a GGUF file" ./export -m "$model" --adapter "$dir/a" -o "$dir/hf4" --type nf4
says "and says so" "hf4: nf4, double-quantized"
good "chat with that folder" ./chat -m "$dir/hf4" --no-template -n 4 --temp 0 -p "Hello"
good "and back to GGUF" ./export -m "$dir/hf" -o "$dir/back.gguf" --type bf16
says "where nothing is lost" "logits  mean |difference| [0-9.]*e-0[6-9]"
good "export of a 4-bit folder as a dense one" ./export -m tests/golden/model/bnb -o "$dir/dense" --no-check
grep -q quantization_config "$dir/dense/config.json" && failed "it is no longer quantized" "quantization_config is still there" || ok "it is no longer quantized"

good "a network from nothing" ./graph --text "$dir/text.txt" --steps 30 --batch-size 2 --length 64 --layers 1 --hidden 32 --heads 2 --kv-heads 1 --feed-forward 64 --sample 8
says "its loss" "step 30/30"
exit $((failures > 0))
