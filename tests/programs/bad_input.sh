#!/bin/sh
# bad_input.sh - every kind of bad input gets one clear line and a non-zero exit, and loses nothing.
. "$(dirname "$0")/support.inc"
tune="./finetune -m $model --data $dir/chats.jsonl $small"

# ---- Flags
bad "unknown flag, nearest named" "did you mean --learning-rate" ./finetune --lerning-rate 1
head -n 1 "$dir/chats.jsonl" > "$dir/one.jsonl"
bad "no row left to train on" "leaves no row" ./finetune -m "$model" -o "$dir/x" --val-split 0.9 --data "$dir/one.jsonl"
bad "in the words of the program" "^chat: nothing.gguf: no such file or folder" ./chat -m nothing.gguf
bad "a context above the model's" "the model was made for" ./chat -m "$model" -c 1000000 -p x
bad "unknown flag, none near" "unknown flag --zzzzzzzzz" ./chat -m "$model" --zzzzzzzzz
for value in nan inf 1e309 -1 12abc 0x10 ""; do bad "--learning-rate '$value'" "must be a number" ./finetune --learning-rate "$value"; done
for value in 99999999999999999999 -1 1.5 12abc ""; do bad "--iters '$value'" "must be a whole number" ./finetune --iters "$value"; done
bad "--top-p above one" "must be a number from 0 to 1" ./chat -m "$model" --top-p 2
bad "a choice that does not exist" "auto|nf4|fp4|none" ./finetune --quant int3
bad "a flag without its value" "needs a value" ./finetune -m
bad "a flag that is required" "missing -m" ./chat
bad "training on nothing" "missing --data" ./finetune -m models/tiny.gguf -o "$dir/none"
bad "a shape and a model" "without -m" ./finetune --dry-run --shape 7b -m models/tiny.gguf
bad "a shape without --dry-run" "with --dry-run" ./finetune --shape 7b -o "$dir/none"
bad "a limit that is no size" "is no size" ./finetune --dry-run --shape 7b --memory-limit much
bad "panels of no size" "keep-panels: .some. is no size" ./finetune --dry-run --shape 7b --keep-panels some
bad "a limit that nothing fits into" "are missing: --max-seq-len" ./finetune --dry-run --shape 65b --max-seq-len 2048 --memory-limit 8G
bad "a GPU that nothing fits into" "are missing: " ./finetune --dry-run --shape 65b --max-seq-len 2048 --device cuda --memory-limit 64G,8G
bad "the limit of a GPU, for a CPU" "the second size is for a CUDA device" ./finetune --dry-run --shape 1b --device cpu --memory-limit 64G,40G
bad "the same where it trains" "the second size is for a CUDA device" $tune -o "$dir/x" --device cpu --memory-limit 64G,40G
bad "training on a GPU that is not there" "make CUDA=1 builds one" $tune -o "$dir/x" --device cuda
bad "a plan for a GPU by its number" "make CUDA=1 builds one" ./finetune --dry-run --shape 1b --device cuda:1
if ls "$dir"/qlora-outline-* > /dev/null 2>&1; then failed "no outline stays behind" "it is there"; else ok "no outline stays behind"; fi
bad "recomputing a little of nothing" "leave it or --light-recomputation out" ./finetune --dry-run --shape 7b --no-grad-checkpoint --light-recomputation
bad "what nothing is recomputed from" "leave it or --inputs-apart out" ./finetune --dry-run --shape 7b --no-grad-checkpoint --inputs-apart
bad "a page budget without pages" "paged optimizer" ./finetune --dry-run --shape 7b --optim adamw --page-budget 100
bad "no output folder" "missing -o" ./finetune -m "$model" --data "$dir/chats.jsonl"
bad "a stray argument" "unexpected argument" ./chat -m "$model" stray
bad "a range of layers that is none" "is no whole number" $tune -o "$dir/x" --lora-layers 1-x
bad "a rank pattern without a rank" "NAME=NUMBER" $tune -o "$dir/x" --lora-rank-pattern q_proj
bad "an exclusion that excludes nothing" "names no linear layer" $tune -o "$dir/x" --lora-exclude what
bad "the shape of an adapter that has one" "--lora-r shapes a new adapter" $tune -o "$dir/x" --adapter "$dir/folder"
bad "a start for an adapter that has begun" "--lora-init shapes a new adapter" ./finetune -m "$model" --data "$dir/chats.jsonl" -o "$dir/x" --init-lora-weights pissa --adapter "$dir/folder"
bad "no adapter to go on with" "nothing: no such file or folder; an adapter is" ./finetune -m "$model" --data "$dir/chats.jsonl" -o "$dir/x" --adapter "$dir/nothing"
bad "overwrite and resume" "choose one" $tune -o "$dir/x" --overwrite --resume auto
bad "the head as a layer" "the head and the embedding stay as they are); use all" $tune -o "$dir/x1" --lora-modules lm_head
bad "no such layers" "." $tune -o "$dir/x1" --lora-modules nothing_proj
bad "a shape that bench does not know" "tiny|135m|360m|1b|3b|7b|8b|13b" ./bench --synthetic 9t
bad "chat: an unknown type of cache" "q4_k" ./chat -m "$model" --cache q4_k -p hi
bad "evaluate: stride above context" "stride" ./evaluate -m "$model" --data "$dir/chats.jsonl" --stride 64 --context 32

# ---- Model files
for program in chat hello tokenize; do
    case $program in hello) args="" ;; *) args="-m" ;; esac
    bad "$program: missing model" "." ./$program $args "$dir/nothing.gguf"
done
bad "quantize: missing model" "." ./quantize "$dir/nothing.gguf" "$dir/q.gguf"
bad "evaluate: missing model" "." ./evaluate -m "$dir/nothing.gguf" --data "$dir/chats.jsonl"
: > "$dir/empty.gguf"
bad "empty model" "." ./chat -m "$dir/empty.gguf" -p x
cp "$dir/chats.jsonl" "$dir/text.gguf"
bad "a text as model" "." ./chat -m "$dir/text.gguf" -p x
mkdir "$dir/folder"
bad "a folder without a model" "." ./chat -m "$dir/folder" -p x
size=$(wc -c < "$model")
for cut in 3 4 20 100 5000 $((size / 2)) $((size - 1)); do
    head -c "$cut" "$model" > "$dir/cut.gguf"
    bad "model cut at $cut" "." ./chat -m "$dir/cut.gguf" --no-template -p x
done
lie() {                                                # lie NAME KEY BYTES...: writes the four bytes of a u32 after its key and type
    name=$1 key=$2; shift 2
    cp "$model" "$dir/lie.gguf"
    at=$(($(after "$model" "$key") + 4))
    for byte in "$@"; do put "$dir/lie.gguf" $at "$byte"; at=$((at + 1)); done
    bad "$name" "." ./chat -m "$dir/lie.gguf" --no-template -p x
}
lie "layers: 2^32 - 1" llama.block_count 377 377 377 377
lie "layers: 99" llama.block_count 143 0 0 0
lie "heads: 0" llama.attention.head_count 0 0 0 0
lie "heads: 5" llama.attention.head_count 5 0 0 0
lie "width: 65" llama.embedding_length 101 0 0 0
lie "width: 2^31" llama.embedding_length 0 0 0 200
lie "feed-forward: 96" llama.feed_forward_length 140 0 0 0
cp "$model" "$dir/type.gguf"
put "$dir/type.gguf" $(($(after "$model" blk.0.attn_q.weight) + 4 + 16)) 310
bad "a tensor of an unknown type" "." ./chat -m "$dir/type.gguf" --no-template -p x
sed 's/llama/lxama/g' "$model" > "$dir/family.gguf"
bad "an unknown architecture" "lxama" ./chat -m "$dir/family.gguf" --no-template -p x
# A flipped bit may land in a weight and change nothing that can be seen; what it must not do is crash or hang.
flips=0
for at in 5 8 16 17 24 31 60 100 200 300 333 400 512 700 1000 2000 $((size / 3)) $((size - 40)); do
    cp "$model" "$dir/flip.gguf"
    put "$dir/flip.gguf" "$at" 251
    timeout 60 ./chat -m "$dir/flip.gguf" --no-template --quiet -n 2 -p x > /dev/null 2> "$dir/err"
    status=$?
    if [ $status -gt 2 ] || { [ $status -ne 0 ] && [ "$(wc -l < "$dir/err")" -ne 1 ]; }; then failed "byte $at changed" "status $status: $(head -n 1 "$dir/err")"; flips=1; fi
done
[ $flips -eq 0 ] && ok "changed bytes neither crash nor hang"

# ---- Data
data() { name=$1 pattern=$2; bad "$name" "$pattern" ./finetune -m "$model" --data "$dir/data.jsonl" $small -o "$dir/never"; }
bad "missing data" "." ./finetune -m "$model" --data "$dir/nothing.jsonl" -o "$dir/never"
: > "$dir/data.jsonl"; data "empty data" "."
printf '\n  \n' > "$dir/data.jsonl"; data "data of blank lines" "."
{ head -n 1 "$dir/chats.jsonl"; echo '{"messages": [{"role": "user"'; } > "$dir/data.jsonl"; data "malformed line" ":2:"
{ head -n 1 "$dir/chats.jsonl"; echo '{"messages": [{"role": "user", "content": 5}]}'; } > "$dir/data.jsonl"; data "a field of the wrong type" ":2:"
{ head -n 1 "$dir/chats.jsonl"; echo '{"text": "of another kind"}'; } > "$dir/data.jsonl"; data "two formats in one file" ":2:"
echo '{"messages": [{"role": "user", "content": "only a question"}]}' > "$dir/data.jsonl"; data "nothing to train on" "."
echo '{"messages": [{"role": "wizard", "content": "hm"}, {"role": "assistant", "content": "hm"}]}' > "$dir/data.jsonl"; data "an unknown role" "wizard"
echo '{"colour": "blue"}' > "$dir/data.jsonl"; data "an unknown format" ":1:"
echo '[1, 2' > "$dir/data.jsonl"; data "not rows at all" "."
printf 'short\n' > "$dir/short.txt"
bad "a text shorter than the context" "fewer than one context" ./evaluate -m "$model" --data "$dir/short.txt"
: > "$dir/none.txt"
bad "an empty text" "empty" ./evaluate -m "$model" --data "$dir/none.txt"
echo '{"query": "a", "choices": ["b", "c"], "gold": 7}' > "$dir/data.jsonl"
bad "a right answer out of range" "data.jsonl:1: " ./evaluate -m "$model" --data "$dir/data.jsonl"
bad "a file to tokenize that is not there" "." ./tokenize -m "$model" -f "$dir/nothing.txt"
[ -e "$dir/never" ] && failed "refused data leaves no output" "$(ls -A "$dir/never")" || ok "refused data leaves no output"

# ---- Adapters
bad "missing adapter" "nothing: no such file or folder; an adapter is" ./chat -m "$model" --adapter "$dir/nothing" -p x
mkdir "$dir/adapter"
bad "an empty adapter folder" "holds no adapter .*name the folder" ./chat -m "$model" --adapter "$dir/adapter" -p x
echo '{"r": 4' > "$dir/adapter/adapter_config.json"
bad "a malformed adapter" "." ./chat -m "$model" --adapter "$dir/adapter" -p x

# ---- Output folders
mkdir "$dir/full" && echo mine > "$dir/full/file"
bad "an output folder that is not empty" "not empty" $tune -o "$dir/full"
[ "$(cat "$dir/full/file")" = mine ] && ok "its file is untouched" || failed "its file is untouched" "it changed"
bad "an output that is a file" "is a file" $tune -o "$dir/full/file"
bad "an output that cannot be made" "." $tune -o /proc/qlora-output
bad "quantize: an output that exists" "exists" ./quantize "$model" "$dir/full"
bad "quantize: an output that cannot be made" "." ./quantize "$model" /proc/qlora.gguf
bad "quantize: the output is the model" "the model itself" ./quantize "$model" "$model" --overwrite
bad "export: no output" "missing -o" ./export -m "$model"
bad "quantize: a folder that is called like a file" "end it in .gguf" ./quantize "$model" "$dir/out.GGUF"
bad "evaluate: a stride above the context" "must not be above" ./evaluate -m "$model" -f "$dir/chats.jsonl" -c 64 --stride 65
bad "layers that are kept whole, and where they wait" "leave one out" ./finetune --dry-run --shape 7b --light-recomputation --inputs-apart
bad "export: a folder that is called like a file" "out.txt would be a folder" ./export -m "$model" -o "$dir/out.txt"
bad "export: a type that does not exist" "f16|bf16" ./export -m "$model" -o "$dir/x.gguf" --type int3
bad "export: a type spelled otherwise" "did you mean q8_0" ./export -m "$model" -o "$dir/x.gguf" --type Q8_O
bad "export: llama.cpp's other types" "did you mean q4_0" ./export -m "$model" -o "$dir/x.gguf" --type Q4_K
bad "export: a type unlike any" "is \"zzzzzzzz\" (export" ./export -m "$model" -o "$dir/x.gguf" --type zzzzzzzz
bad "export: missing model" "nothing.gguf" ./export -m "$dir/nothing.gguf" -o "$dir/x.gguf"
bad "export: missing adapter" "nothing" ./export -m "$model" --adapter "$dir/nothing" -o "$dir/x.gguf"
bad "export: a folder in a folder that is not there" "." ./export -m "$model" -o "$dir/not/there"
bad "export: a file in a folder that is not there" "." ./export -m "$model" -o "$dir/not/there.gguf"
bad "export: an output that exists" "exists" ./export -m "$model" -o "$dir/chats.jsonl"
bad "export: a folder that exists" "folders are not replaced" ./export -m "$model" -o "$dir/full" --overwrite
bad "export: an output that cannot be made" "." ./export -m "$model" -o /proc/qlora.gguf
bad "export: the output is the model" "the model or the adapter itself" ./export -m "$model" -o "$model" --overwrite
bad "export: blocks in a folder" "end -o in .gguf" ./export -m "$model" -o "$dir/never" --type q8_0
bad "export: an adapter alone without one" "name it with --adapter" ./export -m "$model" -o "$dir/x.gguf" --type lora
bad "export: a probe that is not there" "nothing.txt" ./export -m "$model" -o "$dir/x.gguf" --probe "$dir/nothing.txt"
bad "export: an empty probe" "." ./export -m "$model" -o "$dir/x.gguf" --probe "$dir/none.txt"
bad "export: a malformed adapter" "." ./export -m "$model" --adapter "$dir/adapter" -o "$dir/x.gguf"
[ -e "$dir/x.gguf" ] && failed "a refused export leaves no output" "x.gguf is there" || ok "a refused export leaves no output"
if [ "$(id -u)" -ne 0 ]; then
    mkdir "$dir/readonly" && chmod a-w "$dir/readonly"
    bad "a read-only output folder" "." $tune -o "$dir/readonly"
else
    echo "skipped a read-only output folder: root may write anywhere"
fi
good "a run to spoil" $tune -o "$dir/run" --iters 2 --save-every 1
before=$(cat "$dir/run/adapter_model.safetensors" "$dir/run/checkpoints/step-2/"* 2> /dev/null | cksum)
( ulimit -f 8; bad "a disk that is full" "." $tune -o "$dir/run" --iters 4 --save-every 1 --resume auto; exit $failures ) || failures=$((failures + 1))
after=$(cat "$dir/run/adapter_model.safetensors" "$dir/run/checkpoints/step-2/"* 2> /dev/null | cksum)
bad "export: an adapter for another model" "another model" ./export -m tests/golden/model/bnb --adapter "$dir/run" -o "$dir/x.gguf"
bad "export: the adapter alone for another model" "another model" ./export -m tests/golden/model/bnb --adapter "$dir/run" -o "$dir/x.gguf" --type lora
mkdir "$dir/outputs"
for out in merged.gguf merged adapter.gguf; do
    type=f16
    [ $out = adapter.gguf ] && type=lora
    ( ulimit -f 8; bad "export of $out: a disk that is full" "." ./export -m "$model" --adapter "$dir/run" -o "$dir/outputs/$out" --type $type; exit $failures ) || failures=$((failures + 1))
done
echo "an old result" > "$dir/outputs/old.gguf"
( ulimit -f 8; bad "export over an old file: a disk that is full" "." ./export -m "$model" -o "$dir/outputs/old.gguf" --overwrite; exit $failures ) || failures=$((failures + 1))
( ulimit -f 8; bad "a random model: a disk that is full" "write .*/outputs/synthetic-135m-q4_0.gguf: ." ./bench --synthetic 135m --folder "$dir/outputs"; exit $failures ) || failures=$((failures + 1))
[ "$(ls -A "$dir/outputs")" = old.gguf ] && ok "exports that failed leave nothing" || failed "exports that failed leave nothing" "$(ls -A "$dir/outputs" | tr '\n' ' ')"
[ "$(cat "$dir/outputs/old.gguf")" = "an old result" ] && ok "and what was there stays" || failed "and what was there stays" "it changed"
[ "$before" = "$after" ] && ok "the full disk cost neither adapter nor checkpoint" || failed "the full disk cost neither adapter nor checkpoint" "they changed"
ls -A "$dir/run" "$dir/run/checkpoints" | grep -q part && failed "no parts are left behind" "$(ls -A "$dir/run" "$dir/run/checkpoints")" || ok "no parts are left behind"
if command -v flock > /dev/null; then
    flock "$dir/run/.lock" sleep 5 > /dev/null 2>&1 & holder=$!
    sleep 0.3
    bad "two runs in one folder" "another run" $tune -o "$dir/run" --resume auto
    kill $holder 2> /dev/null
fi
exit $((failures > 0))
