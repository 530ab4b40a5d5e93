#!/bin/sh
# habits.sh - flags that people paste from other tools, flags in a file, and models by the names that people give them.
. "$(dirname "$0")/support.inc"
tune="./finetune -m $model --data $dir/chats.jsonl $small"

# ---- mlx-lm's, Hugging Face's, llama.cpp's
good "mlx-lm's command" ./finetune --model "$model" --train --data "$dir/chats.jsonl" --adapter-path "$dir/mlx" --iters 2 --num-layers 1 --mask-prompt --fine-tune-type lora --max-seq-length 64 --batch-size 2 --lora-r 4
[ -f "$dir/mlx/adapter_model.safetensors" ] && ok "--adapter-path with --train is the output" || failed "--adapter-path with --train is the output" "$(ls "$dir/mlx")"
grep -a -q 'layers\.0\.' "$dir/mlx/adapter_model.safetensors" && failed "--num-layers 1 is the last one" "layer 0 has an adapter" || ok "--num-layers 1 is the last one"
good "--adapter-path goes on where nothing is trained anew" ./finetune -m "$model" --data "$dir/chats.jsonl" --adapter-path "$dir/mlx" -o "$dir/more" --iters 1 --max-seq-len 64
bad "full fine-tuning" "only adapters are trained here" $tune -o "$dir/x" --fine-tune-type full
bad "--test" "./evaluate" $tune -o "$dir/x" --test
good "Hugging Face's flags" $tune --output_dir "$dir/hf" --max_steps 1 --bf16 True --do_train --do_eval True --report_to none --load_in_4bit True --bits 4 --bnb_4bit_quant_type nf4 --bnb_4bit_compute_dtype bfloat16 --remove_unused_columns False --fp16 False --eval_strategy no
says "4 bits as asked" "base: nf4, as --quant says"
bad "--bits 8" "4 bits (--quant nf4) or as stored" $tune -o "$dir/x" --bits 8
bad "--fp16 True" "no f16 here" $tune -o "$dir/x" --fp16 True
bad "--report_to wandb" "metrics.jsonl" $tune -o "$dir/x" --report_to wandb
bad "--modules_to_save" "the embedding and the head stay as they are" $tune -o "$dir/x" --modules_to_save lm_head
bad "--source_max_len" "max-seq-len" $tune -o "$dir/x" --source_max_len 16
good "llama.cpp's flags" ./chat -m "$model" -p Hello -n -1 -c 64 --seed -1 --top-p 0 -q
bad "-n 0" "no room for an answer" ./chat -m "$model" -p Hello -n 0
good "another adapter" ./finetune -m "$model" --data "$dir/chats.jsonl" -o "$dir/second" --iters 2 $small --seed 5
./finetune -m "$model" --data "$dir/chats.jsonl" -o "$dir/first" --iters 2 $small --lr 1e-2 > "$dir/out" 2>&1
good "two adapters" ./evaluate -m "$model" --compute f32 --lora "$dir/first" --lora "$dir/second" --data "$dir/chats.jsonl"
cp "$dir/out" "$dir/two"
good "one adapter" ./evaluate -m "$model" --compute f32 --lora "$dir/first" --data "$dir/chats.jsonl"
cmp -s "$dir/out" "$dir/two" && failed "the second counts" "$(cat "$dir/two")" || ok "the second counts"
cp "$dir/out" "$dir/one"
good "the second with no strength" ./evaluate -m "$model" --compute f32 --lora "$dir/first" --lora-scaled "$dir/second:0" --data "$dir/chats.jsonl"
cmp -s "$dir/out" "$dir/one" && ok "is as if it were not there" || failed "is as if it were not there" "$(cat "$dir/out") and $(cat "$dir/one")"
good "an adapter goes on with its base" ./finetune -m "$model" --data "$dir/chats.jsonl" -o "$dir/as-it-was" --adapter "$dir/first" --iters 1 --max-seq-len 64
says "the base is the one of the adapter" "as $dir/first was trained on it"
good "--bits beside an adapter" ./finetune -m "$model" --data "$dir/chats.jsonl" -o "$dir/as-asked" --adapter "$dir/first" --iters 1 --max-seq-len 64 --bits 4
says "the base is the one that --bits names" "base: nf4, as --quant says"
bad "a strength that is none" "DIR:SCALE" ./chat -m "$model" -p x --lora-scaled "$dir/second"

# ---- A run's flags in a file
good "a run" $tune -o "$dir/a" --iters 2 --seed -1 --lora-dropout 0.1
grep -q '"iters": "2"' "$dir/a/run.json" && ok "run.json has its flags" || failed "run.json has its flags" "$(cat "$dir/a/run.json")"
good "the same from run.json" ./finetune --config "$dir/a/run.json" -o "$dir/b"
cmp -s "$dir/a/adapter_model.safetensors" "$dir/b/adapter_model.safetensors" && ok "the same adapter, to the byte" || failed "the same adapter, to the byte" "$(diff "$dir/a/run.json" "$dir/b/run.json")"
printf '{"model": "%s", "data": ["%s"], "max_seq_len": 64, "learning_rate": 1e-3, "rslora": true, "iters": 1, "lora_r": 2}' "$model" "$dir/chats.jsonl" > "$dir/own.json"
good "a file of one's own, and a flag beside it" ./finetune --config "$dir/own.json" -o "$dir/c" --lora-r 3
says "the flag counts more" "rank 3"
echo '{"lerning-rate": 1}' > "$dir/bad.json"
bad "a flag in a file that does not exist" "did you mean --learning-rate" ./finetune --config "$dir/bad.json"
echo '{"rslora": "yes"}' > "$dir/bad.json"
bad "a switch in a file that is a text" "bad.json: rslora must be true or false" ./finetune --config "$dir/bad.json"
echo 'a: 1' > "$dir/bad.yaml"
bad "YAML" "write it as JSON" ./finetune --config "$dir/bad.yaml"

printf '{"model": "%s", "prompt": "Hello", "max_new_tokens": 2, "temp": 0}' "$model" > "$dir/chat.json"
good "a file of flags for chat" ./chat --config "$dir/chat.json"
printf '{"model": "%s", "adapter": ["%s"], "data": "%s"}' "$model" "$dir/first" "$dir/chats.jsonl" > "$dir/evaluate.json"
good "for evaluate" ./evaluate --config "$dir/evaluate.json" --json
says "with the adapter" "\"adapter\": \"$dir/first\""
printf '{"model": "%s", "type": "f16", "output": "%s"}' "$model" "$dir/plain.gguf" > "$dir/export.json"
good "for export" ./export --config "$dir/export.json" --no-check
echo '{"type": "fp4"}' > "$dir/quantize.json"
good "for quantize" ./quantize --config "$dir/quantize.json" "$dir/plain.gguf" "$dir/fp4.gguf"

# ---- Models by other names
mkdir -p "$dir/cache/models--Org--Tiny/snapshots/abc" "$dir/cache/models--Org--Tiny/refs" "$dir/lfs" "$dir/several"
ln -s "$model" "$dir/cache/models--Org--Tiny/snapshots/abc/tiny.gguf"
printf abc > "$dir/cache/models--Org--Tiny/refs/main"
good "a model of the Hub cache" env HF_HUB_CACHE="$dir/cache" ./chat -m Org/Tiny -p Hello -n 2
good "a folder of the Hub cache" ./chat -m "$dir/cache/models--Org--Tiny" -p Hello -n 2
mkdir -p "$dir/cache/models--Org--Ours/snapshots/abc"
cp "$dir/first/"*.json "$dir/first/adapter_model.safetensors" "$dir/cache/models--Org--Ours/snapshots/abc"
good "an adapter of the Hub cache" env HF_HUB_CACHE="$dir/cache" ./chat -m "$model" --adapter Org/Ours -p Hello -n 2
bad "an adapter that is nowhere" "hf download Org/Theirs" ./chat -m "$model" --adapter Org/Theirs -p Hello
bad "a model as an adapter" "it is a model, which -m takes" ./chat -m "$model" --adapter tests/golden/model/bnb -p Hello
mkdir -p "$dir/begun/checkpoints"
bad "a run that has not ended" "finetune --resume auto ends it" ./chat -m "$model" --adapter "$dir/begun" -p Hello
bad "an adapter as a model" "is an adapter: --adapter takes it" ./chat -m "$dir/first" -p Hello
bad "a folder of something else" "holds no model: a folder of one has" ./chat -m "$dir/begun" -p Hello
bad "a file that is not there" "none.gguf: no such file or folder; a model is a GGUF file" ./chat -m "$dir/none.gguf" -p Hello
bad "a model without its flag" "a model is named by -m" ./chat "$model"
bad "a model that is nowhere" "hf download Org/Other" ./chat -m Org/Other -p Hello
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' > "$dir/lfs/model.safetensors"
bad "a pointer of git-lfs" "lfs pull" ./chat -m "$dir/lfs" -p Hello
bad "a pointer itself" "lfs pull" ./chat -m "$dir/lfs/model.safetensors" -p Hello
ln -s "$model" "$dir/several/a.gguf"
good "a folder with one GGUF file" ./chat -m "$dir/several" -p Hello -n 2
ln -s "$model" "$dir/several/b.gguf"
bad "a folder with several" "a.gguf, b.gguf" ./chat -m "$dir/several" -p Hello
exit $((failures > 0))
