#!/bin/sh
# adapters.sh - programs follow what an adapter says it was trained on, refuse another base with the remedy, and go on with a run as it was.
. "$(dirname "$0")/support.inc"

out=$dir/run
good "a run" ./finetune -m "$model" --data "$dir/chats.jsonl" -o "$out" --quant nf4 --iters 2 $small
for word in '"quant": "nf4"' '"double_quant": true' '"norm values"' '"embeddings"' '"scales"' '"configuration"'; do
    if grep -q "$word" "$out/base.json"; then ok "base.json has $word"; else failed "base.json has $word" "$(tr -d '\n' < "$out/base.json")"; fi
done

good "an adapter for mlx-lm" ./export -m "$model" --adapter "$out" --type mlx-lora -o "$dir/mlx"
says "... reads back as it was" "logits differ by 0 at most"
good "chat with an adapter of mlx-lm" ./chat -m "$model" --adapter "$dir/mlx" -p "Number 3?" -n 4
bad "mlx-lm reads no GGUF" "writes a folder" ./export -m "$model" --adapter "$out" --type mlx-lora -o "$dir/mlx.gguf"

# The same model but for one byte of its last tensor, and one whose norms differ too.
other=$dir/other.gguf
cp "$model" "$other"
put "$other" $(($(wc -c < "$other") - 2)) 077
data=$dir/chats.jsonl
good "evaluate follows the record" ./evaluate -m "$model" --adapter "$out" --data "$data" --json
says "... into nf4" '"weights":"nf4, double-quantized"\|"weights": "nf4, double-quantized"'
good "chat follows the record" ./chat -m "$model" --adapter "$out" -p "Number 3?" -n 4
good "finetune --adapter follows the record" ./finetune -m "$model" --adapter "$out" --data "$data" -o "$dir/more" --iters 1 $(echo $small | sed 's/--lora-r 4//')
says "... into nf4" "nf4, double-quantized"
good "another form on demand" ./evaluate -m "$model" --adapter "$out" --data "$data" --quant none --json
says "... as stored" '"weights": *"f32\|"weights": *"f16\|"weights": *"q'
for call in "evaluate --data $data" "chat -p x -n 2" "finetune --data $data -o $dir/never --iters 1 --max-seq-len 64"; do
    which=${call%% *}
    bad "$which: another base" "trained on $model" ./$which -m "$other" --adapter "$out" ${call#* }
    good "$which: another base on demand" ./$which -m "$other" --adapter "$out" --any-base ${call#* }
done
rm -f "$out/adapter_model.safetensors"
cp "$dir/more/adapter_model.safetensors" "$out/adapter_model.safetensors"
bad "another base, not on demand" "any-base\|--quant TYPE" ./evaluate -m "$other" --adapter "$out" --data "$data"

# A run goes on as it was: precision, instruction set and threads of the checkpoint, unless a flag says otherwise.
cut=$dir/cut
train="--data $data --quant nf4 --save-every 2 $small"
good "a run in scalar bf16" env QLORA_ISA=scalar ./finetune -m "$model" -o "$cut" $train --compute bf16 -t 1 --iters 2
good "goes on as it was" ./finetune -m "$model" -o "$cut" $train --iters 4 --resume auto
if grep -q "note:" "$dir/out"; then failed "... without a note" "$(grep note: "$dir/out")"; else ok "... without a note"; fi
if grep -q '"instructions": "scalar"' "$cut/checkpoints/step-4/manifest.json"; then ok "... in scalar"; else failed "... in scalar" "$(grep instructions "$cut/checkpoints/step-4/manifest.json")"; fi
good "another precision on demand" ./finetune -m "$model" -o "$cut" $train --iters 6 --resume auto --compute f32
says "... is said" "compute was bf16 and is f32"
if grep -q '"note":"[^"]*compute was bf16 and is f32\|"note": "[^"]*compute was bf16 and is f32' "$cut/metrics.jsonl"; then ok "... and in the metrics"; else failed "... and in the metrics" "$(grep note "$cut/metrics.jsonl")"; fi
bad "resume: without double quantization" "double_quant was true and is false" ./finetune -m "$model" -o "$cut" $train --iters 8 --resume auto --no-double-quant
bad "resume: another base" "fingerprint" ./finetune -m "$other" -o "$cut" $train --iters 8 --resume auto
bad "resume: another rank" "rank 4, scale [0-9.]* and is rank 2" ./finetune -m "$model" -o "$cut" $(echo $train | sed 's/--lora-r 4/--lora-r 2/') --iters 8 --resume auto

# Adapters of another method, with parts missing, and with numbers that are none.
strange=$dir/strange
cp -r "$dir/more" "$strange"
sed -i 's/"LORA"/"IA3"/' "$strange/adapter_config.json"
bad "an adapter of another method" 'peft_type is "IA3"' ./chat -m "$model" --adapter "$strange" -p x
cp "$dir/more/adapter_config.json" "$strange/adapter_config.json"
sed -i 's/"layers_to_transform": [^,]*,/"layers_to_transform": [0],/' "$strange/adapter_config.json"
bad "an adapter with parts too many" "rules out" ./chat -m "$model" --adapter "$strange" -p x
good "an adapter on one layer" ./finetune -m "$model" --data "$data" -o "$dir/one" --lora-layers 0 --iters 1 $small
tr -d '\n' < "$dir/one/adapter_config.json" | sed 's/"layers_to_transform": *\[[^]]*\]/"layers_to_transform": null/' > "$dir/config"
cp "$dir/config" "$dir/one/adapter_config.json"
bad "an adapter with parts missing" "tensors are missing that target_modules" ./chat -m "$model" --adapter "$dir/one" -p x
exit $((failures > 0))
