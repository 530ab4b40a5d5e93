#!/bin/sh
# failing_calls.sh - the n-th allocation of a program fails, the C library's own ones included: one clear line and a status of 1, or the same
# result to the byte; never an abort. And interrupted reads are not the end of the input. QLORA_SAMPLES sets how many allocations are tried.
. "$(dirname "$0")/support.inc"
samples=${QLORA_SAMPLES:-20}
if ! ${CC:-cc} -O1 -shared -fPIC tests/support/failing_calls.c -o "$dir/failing.so" -ldl 2> "$dir/err" || ! LD_PRELOAD=$dir/failing.so true 2> /dev/null; then
    echo "skipped failing calls: no library to preload can be made here ($(head -n 1 "$dir/err"))"
    exit 0
fi
if ldd ./finetune 2> /dev/null | grep -q -e libasan -e libtsan; then
    echo "skipped failing calls: a sanitizer has its own allocator"
    exit 0
fi

# survives NAME RESULT COMMAND...: RESULT is the file, folder or "out" (what it prints) that must be the same where it ends with 0.
survives() {
    name=$1 result=$2; shift 2
    content() { if [ "$result" = out ]; then cat "$dir/out"; else find "$result" -type f -not -name metrics.jsonl -not -name loss.svg -not -name manifest.json | sort | xargs cat; fi; }
    rm -rf "$result"
    if ! COUNT_FILE=$dir/count LD_PRELOAD=$dir/failing.so "$@" > "$dir/out" 2> "$dir/err" < /dev/null; then failed "$name" "$(head -n 1 "$dir/err")"; return; fi
    expected=$(content | cksum) total=$(cat "$dir/count") bad=0 errors=0 tried=0
    seed=7
    while [ $tried -lt "$samples" ]; do
        # Half of them among the first, where files are opened; the others anywhere.
        seed=$(((seed * 1103515245 + 12345) % 2147483648))
        if [ $((tried % 2)) -eq 0 ]; then n=$((seed / 7 % (total / 8 + 1))); else n=$((seed / 7 % total)); fi
        tried=$((tried + 1))
        rm -rf "$result"
        FAIL_ALLOCATION=$n LD_PRELOAD=$dir/failing.so timeout 120 "$@" > "$dir/out" 2> "$dir/err" < /dev/null
        status=$?
        lines=$(wc -l < "$dir/err")
        if [ $status -eq 0 ] && [ "$(content | cksum)" = "$expected" ]; then continue; fi
        if [ $status -eq 1 ] && [ "$lines" -eq 1 ]; then errors=$((errors + 1)); continue; fi
        # A run goes on without one of its checkpoints, and says so.
        if [ $status -eq 0 ] && grep -q "warning: checkpoint not saved" "$dir/out" "$dir/err"; then errors=$((errors + 1)); continue; fi
        failed "$name: allocation $n of $total" "status $status, $lines lines: $(head -n 1 "$dir/err")"
        bad=1
    done
    [ $errors -gt 0 ] || failed "$name" "none of $samples failures was an error"
    [ $bad -eq 0 ] && ok "$name: $samples of $total allocations, $errors clean errors, the rest without a trace"
}
tune="./finetune -m $model --data $dir/chats.jsonl $small"
good "an adapter" $tune -o "$dir/adapter" --iters 1
survives "a chat" out ./chat -m "$model" --no-template -p x -n 4 --temp 0 -q -t 2
survives "an adapter saved" "$dir/copy" ./export -m "$model" --adapter "$dir/adapter" --type lora -o "$dir/copy" -t 2 --no-check
survives "two steps" "$dir/run" $tune -o "$dir/run" --iters 2 --save-every 1 -t 2

# ---- Before main: what is made there cannot be caught, so nothing may be.
for program in finetune chat quantize export evaluate tokenize bench graph; do
    COUNT_FILE=$dir/count LD_PRELOAD=$dir/failing.so ./$program --version > "$dir/out" 2>&1
    total=$(cat "$dir/count") n=0 aborted=
    while [ $n -lt "$total" ]; do
        FAIL_ALLOCATION=$n LD_PRELOAD=$dir/failing.so ./$program --version > "$dir/out" 2>&1
        [ $? -le 1 ] || aborted="$aborted $n"
        n=$((n + 1))
    done
    [ -z "$aborted" ] && ok "$program --version: $total of $total allocations" || failed "$program --version" "aborts at allocation$aborted"
done

# ---- Interrupted reads
i=0
while [ $i -lt 40 ]; do echo "line $i, some words"; i=$((i + 1)); done > "$dir/lines.txt"
./tokenize -m "$model" < "$dir/lines.txt" > "$dir/whole"
INTERRUPT_READS=1 LD_PRELOAD=$dir/failing.so ./tokenize -m "$model" < "$dir/lines.txt" > "$dir/pieces"
[ "$(wc -l < "$dir/whole")" -eq 40 ] && cmp -s "$dir/whole" "$dir/pieces" && ok "tokenize reads on after an interruption" || failed "tokenize reads on after an interruption" "$(wc -l < "$dir/pieces") lines of 40"
head -n 3 "$dir/lines.txt" | INTERRUPT_READS=1 LD_PRELOAD=$dir/failing.so ./chat -m "$model" -n 2 --temp 0 > "$dir/out" 2> "$dir/err"
[ "$(grep -c 'tok/s' "$dir/err")" -eq 3 ] && ok "chat does too" || failed "chat does too" "$(grep -c 'tok/s' "$dir/err") answers of 3"
./tokenize -m "$model" < / > "$dir/out" 2> "$dir/err"
status=$?
[ $status -eq 1 ] && grep -q "reading the standard input: " "$dir/err" && ok "an input that cannot be read is an error" || failed "an input that cannot be read is an error" "status $status: $(cat "$dir/err")"
exit $((failures > 0))
