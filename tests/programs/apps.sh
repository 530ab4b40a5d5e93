#!/bin/sh
# apps.sh - the three small apps: a classifier, a program with its model inside, an assistant that learns.
. "$(dirname "$0")/support.inc"
speaker=models/tiny.gguf

# ---- classify
good "two texts are classified" ./classify $speaker "yes,no" "Who goes there?" "Speak."
[ "$(grep -c -E '^(yes|no)	[01]\.[0-9]{3}	' "$dir/out")" -eq 2 ] && ok "a label and how sure, for each" ||
    failed "a label and how sure, for each" "$(tr '\n' '|' < "$dir/out")"
cp "$dir/out" "$dir/first"
printf 'Who goes there?\nSpeak.\n' | ./classify $speaker "yes,no" > "$dir/second" 2> "$dir/err"
cmp -s "$dir/first" "$dir/second" && ok "the same from the standard input" ||
    failed "the same from the standard input" "$(tr '\n' '|' < "$dir/second")"
bad "one label" "two labels" ./classify $speaker yes text
bad "a model that is not there" "no such file" ./classify "$dir/none.gguf" "a,b" text

# ---- embed
good "the built-in model speaks" ./embed "O Romeo"
says "it goes on with the text" "^O Romeo."
cp "$dir/out" "$dir/first"
embed=$(pwd)/embed
(mkdir -p "$dir/empty" && cd "$dir/empty" && "$embed" "O Romeo") > "$dir/second" 2>&1
cmp -s "$dir/first" "$dir/second" && ok "in a folder without any file" ||
    failed "in a folder without any file" "$(head -n 1 "$dir/second")"
good "the same model from its file" ./chat -m $speaker --quant none --no-template -p "O Romeo" -n 60 --temp 0 -q --compute f32
[ "$(tr -d '\n' < "$dir/first")" = "O Romeo$(tr -d '\n' < "$dir/out")" ] && ok "says the same" ||
    failed "says the same" "$(head -c 200 "$dir/out")"

# ---- learn
told() { grep -c '' "$dir/l/told.txt"; }
printf 'Who are you?\n!I am the captain of this ship.\n' | ./learn $speaker "$dir/l" > "$dir/out" 2> "$dir/err" &&
    [ -f "$dir/l/adapter/adapter_config.json" ] && [ "$(told)" -eq 2 ] && ok "it learns from one answer" ||
    failed "it learns from one answer" "$(tail -n 1 "$dir/err")"
warns "and says so" "learned from 1 answers: 8 steps, loss [0-9.]*"
loss() { sed -n 's/.*loss //p' "$dir/err"; }
first=$(loss)
printf 'What is it?\n!It is a whale.\n' | ./learn $speaker "$dir/l" > "$dir/out" 2> "$dir/err"
warns "after a restart it learns from both" "learned from 2 answers: 16 steps"
./learn $speaker "$dir/l" > "$dir/out" 2> "$dir/err" < /dev/null
warns "and goes on with what it knew" "learned from 2 answers"
awk "BEGIN { exit !($(loss) < $first) }" && ok "its loss has fallen" || failed "its loss has fallen" "$first, then $(loss)"
printf 'And now?\n!Nothing.\n' | ./learn $speaker "$dir/l" 0 > "$dir/out" 2> "$dir/err"
warns "no time, no step" "learned from 3 answers: 0 steps"
bad "too little memory" "the limit is 1048576" ./learn $speaker "$dir/l" 60 1
[ "$(told)" -eq 6 ] && ok "what it was told stays" || failed "what it was told stays" "$(told) lines"
exit $((failures > 0))
