#!/bin/sh
# data.sh - rows in the forms in which people have them, what is said of those that are not read whole, and questions with known answers.
. "$(dirname "$0")/support.inc"
look="./finetune -m models/tiny.gguf --dry-run"

# ---- Files
printf 'question,answer\r\n"a, ""b""",yes\r\nc,no\r\n' > "$dir/table.csv"
good "a table" $look --data "$dir/table.csv"
says "its rows" "2 rows (prompt/completion)"
printf '{"data": [{"question": "a", "answer": "b"},\n {"question": "c", "answer": "d"},]}' > "$dir/wrapped.json"
good "an array in an object, with a comma too many" $look --data "$dir/wrapped.json"
says "its rows" "2 rows"
printf '{\n  "question": "a",\n  "answer": "b"\n}\n{\n  "question": "c",\n  "answer": "d"\n}\n' > "$dir/pretty.jsonl"
good "records over several lines" $look --data "$dir/pretty.jsonl"
says "its rows" "2 rows"
printf '\377\376{\0"\0t\0e\0x\0t\0"\0:\0"\0a\0b\0"\0}\0\n\0' > "$dir/wide.jsonl"
good "UTF-16" $look --data "$dir/wide.jsonl"
says "its rows" "1 rows (text)"
printf '\037\213\010\0' > "$dir/packed.jsonl"
bad "a compressed file by another name" "packed.jsonl: is compressed (gzip)" $look --data "$dir/packed.jsonl"
printf 'a,b\n1\n' > "$dir/short.csv"
bad "a table with a field too few" "short.csv:2: 1 fields" $look --data "$dir/short.csv"
printf '{"question": {"0": "a"}, "answer": {"0": "b"}}' > "$dir/columns.json"
bad "a table by columns" "column by column" $look --data "$dir/columns.json"
printf '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}\n' > "$dir/image.jsonl"
bad "an image" "image.jsonl:1: messages\[0\]: content holds image" $look --data "$dir/image.jsonl"

# ---- Rows
i=0
while [ $i -lt 8 ]; do printf '{"q": "x%s", "a": "y", "id": %s}\n' $i $i; i=$((i + 1)); done > "$dir/own.jsonl"
bad "columns by other names" "say which column is what" $look --data "$dir/own.jsonl"
good "columns that are named" $look --data "$dir/own.jsonl" --columns q=prompt,a=completion
says "and what is not used" "8 rows (prompt/completion).*not used: id (8)"
bad "a column that is not there" "own.jsonl:1: there is no column b" $look --data "$dir/own.jsonl" --columns q=prompt,b=completion
bad "columns without a name of ours" "needs THEIRS=OURS" $look --data "$dir/own.jsonl" --columns q
{ head -n 2 "$dir/own.jsonl"; echo 'no json'; printf '{"q": "z", "a": ""}\n{"q": "%s", "a": "y"}\n' "$(seq 1 99 | tr '\n' ' ')"; } > "$dir/mixed.jsonl"
bad "a bad row" "mixed.jsonl:3" $look --data "$dir/mixed.jsonl" --columns q=prompt,a=completion
good "bad rows left out" $look --data "$dir/mixed.jsonl" --columns q=prompt,a=completion --bad-rows skip --max-seq-len 64
says "their count and the first" "1 bad rows left out, the first: .*mixed.jsonl:3"
says "the dropped ones by line" "dropped 2 with nothing to train on (.*mixed.jsonl:4, 5)"
says "the cut ones by line" "truncated 1 (.*mixed.jsonl:5)"
good "long rows left out" $look --data "$dir/mixed.jsonl" --columns q=prompt,a=completion --bad-rows skip --max-seq-len 64 --long-rows drop
says "and named" "1 too long left out (.*mixed.jsonl:5)"
good "long rows split" $look --data "$dir/mixed.jsonl" --columns q=prompt,a=completion --bad-rows skip --max-seq-len 64 --long-rows split
says "and named" "3 rows .*1 too long split (.*mixed.jsonl:5)"
printf '%s\n' '{"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "c"}]}' > "$dir/pairs.jsonl"
good "pairs of answers" $look --data "$dir/pairs.jsonl"
says "the chosen one is trained on, which is said" "1 rows (chosen of pairs).*not used: rejected (1)"
printf '%s\n' '{"message_id": "1", "parent_id": null, "text": "a", "role": "prompter"}' '{"message_id": "2", "parent_id": "1", "text": "b", "role": "assistant"}' '{"message_id": "3", "parent_id": "0", "text": "b", "role": "assistant"}' > "$dir/flat.jsonl"
good "messages of trees, one a row" $look --data "$dir/flat.jsonl" --bad-rows skip
says "are gathered" "1 rows (oasst tree).*1 bad rows left out, the first: .*flat.jsonl:3"
printf '{"prompt": "a", "completion": "b"}\n{"prompt": "a" "completion": "b"}\n' > "$dir/broken.jsonl"
bad "a broken row, with one place" "^finetune: dataset [^ ]*broken.jsonl:2: column 16: expected" $look --data "$dir/broken.jsonl"
bad "of a file to measure too" "^evaluate: [^ ]*broken.jsonl:2: column 16: expected" ./evaluate -m models/tiny.gguf --data "$dir/broken.jsonl" --answers "$dir/rows"
head -n 2 "$dir/own.jsonl" > "$dir/few.jsonl"
good "shares" $look --data "$dir/own.jsonl:0.25" --data "$dir/few.jsonl:0.75" --columns q=prompt,a=completion --val-split 0.2
says "of one set" "own.jsonl: 25 % of the rows, 2 an epoch, of the 6"
says "of the other" "few.jsonl: 75 % of the rows, 5 an epoch, of the 1"
bad "a share for one of two" "every file a share" $look --data "$dir/own.jsonl:0.25" --data "$dir/few.jsonl"
bad "a share of nothing" "must be above 0" $look --data "$dir/own.jsonl:0" --data "$dir/few.jsonl:1"
./export -m models/tiny.gguf -o "$dir/gemma" --type f32 --no-check > "$dir/out" 2>&1
printf '%s' "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}" > "$dir/gemma/chat_template.jinja"
printf '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' > "$dir/told.jsonl"
good "a system text without such a role" ./finetune -m "$dir/gemma" --dry-run --data "$dir/told.jsonl"
says "it is put before the question" "\[user\]Be brief\."
says "and that is said" "no system role: 1 system texts put before"
good "or left out" ./finetune -m "$dir/gemma" --dry-run --data "$dir/told.jsonl" --system drop
says "which is said" "not used: system text (1)"
bad "or refused" "told.jsonl:1: the chat template has no system role" ./finetune -m "$dir/gemma" --dry-run --data "$dir/told.jsonl" --system error
good "the same in a chat" ./chat -m "$dir/gemma" -s "Be brief." -p "a" -n 2
warns "and it says so" "no system role"

# ---- Questions: row by row as transformers answers them (tools/make_accuracy_golden.py)
for kind in choices contexts outputs continuations; do
    good "questions: $kind" ./evaluate -m models/tiny.gguf --compute f32 --data tests/golden/questions/$kind.jsonl --answers "$dir/rows"
    sed 's/"reply": .*, "right"/"right"/' "$dir/rows" | cmp -s - tests/golden/questions/$kind.expected.jsonl && ok "$kind as expected" || failed "$kind as expected" "$(diff "$dir/rows" tests/golden/questions/$kind.expected.jsonl | head -n 2)"
done
for kind in answers mmlu piqa arc; do
    good "questions: $kind, one of them shown" ./evaluate -m models/tiny.gguf --compute f32 --data tests/golden/questions/$kind.jsonl --shots 1 -n 16 --answers "$dir/rows"
    cmp -s "$dir/rows" tests/golden/questions/$kind.expected.jsonl && ok "$kind as expected" || failed "$kind as expected" "$(diff "$dir/rows" tests/golden/questions/$kind.expected.jsonl | head -n 2)"
done
good "answers into a pipe" sh -c "./evaluate -m models/tiny.gguf --data tests/golden/questions/piqa.jsonl --answers /dev/stdout | tee '$dir/both'"
says "every row" '^{"choice": 1, "right": '
[ -L /dev/stdout ] && ok "and the device is left as it was" || failed "and the device is left as it was" "$(ls -l /dev/stdout)"
good "by subject" ./evaluate -m models/tiny.gguf --data tests/golden/questions/outputs.jsonl --shots 2 --json
says "two are shown, four asked" '"questions": 4, "shots": 2.*"subjects": {"numbers"'
printf '{"question": "1+1?", "answer": "so #### 2"}\n{"question": "1+2?", "answer": "so #### 3"}\n' > "$dir/sums.jsonl"
good "answers are generated" ./evaluate -m models/tiny.gguf --data "$dir/sums.jsonl" --shots 1 -n 4
says "and compared" "accuracy [01]\.0000 .*of 1"
good "the loss of the same file" ./evaluate -m models/tiny.gguf --data "$dir/sums.jsonl"
says "is a loss" "^loss"
bad "more shots than questions" "leaves none to ask" ./evaluate -m models/tiny.gguf --data "$dir/sums.jsonl" --shots 2
printf '{"question_id": 1, "text": "Who?"}\n{"question_id": 2, "turns": ["Who?", "Why?"]}\n' > "$dir/bench.jsonl"
good "a file of questions is answered" ./evaluate -m models/tiny.gguf --data "$dir/bench.jsonl" --answers "$dir/said.jsonl" -n 8
says "how many" "2 rows answered"
grep -q '^{"question_id": 1, "text": "Who?", "answer": "' "$dir/said.jsonl" && grep -q '"answers": \[".*", ".*"\]}$' "$dir/said.jsonl" && ok "each row with what was said" || failed "each row with what was said" "$(head -n 2 "$dir/said.jsonl")"
./chat -m models/tiny.gguf -p "Who?" -n 8 --temp 0 --cache auto -q > "$dir/alone" 2> "$dir/err"
[ "$(sed -n '1s/.*"answer": "\(.*\)"}/\1/p' "$dir/said.jsonl")" = "$(sed 's/"/\\"/g' "$dir/alone")" ] && ok "as in a chat" || failed "as in a chat" "$(head -n 1 "$dir/said.jsonl") and $(cat "$dir/alone")"
exit $((failures > 0))
