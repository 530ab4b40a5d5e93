#!/bin/sh
# instructions.sh BUILD [--write] - how many instructions the hot loops take on the portable and the AVX2 set, against tests/golden/instructions.txt:
# a loop that a change makes slower is seen here on any machine, however noisy. Counted by callgrind, which knows no AVX-512. The numbers are those of
# one compiler and its flags; under another one, or without valgrind, this is skipped. After a change that is meant: sh tests/programs/instructions.sh
# build --write.
set -u
build=${1:-build}
golden=tests/golden/instructions.txt
compiler=${CXX:-g++}
flags=${QLORA_FLAGS:--O3 -g1}
tolerance=3                                            # percent: register allocation moves a little with the code around a loop
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

skip() { echo "skipped instruction counts: $1"; exit 0; }
command -v valgrind > /dev/null || skip "needs valgrind"
[ -f /usr/include/valgrind/callgrind.h ] || skip "needs valgrind/callgrind.h"
[ -f "$build/libqlora.a" ] || { echo "FAILED instruction counts: $build/libqlora.a is missing"; exit 1; }
now="$compiler $($compiler -dumpfullversion 2> /dev/null), $(uname -m), $flags"
[ "${2:-}" = --write ] || [ "$now" = "$(head -n 1 $golden)" ] || skip "they are of $(head -n 1 $golden); this is $now"

$compiler -std=c++20 -O1 -I. -pthread tests/instructions/loops.cpp "$build/libqlora.a" -o "$dir/loops" || { echo "FAILED instruction counts: loops.cpp does not compile"; exit 1; }
valgrind --tool=callgrind --collect-atstart=no --callgrind-out-file="$dir/out" "$dir/loops" > "$dir/log" 2>&1 || { echo "FAILED instruction counts: $(tail -n 1 "$dir/log")"; exit 1; }
for file in "$dir"/out.*; do
    printf '%s: %s\n' "$(sed -n 's/^desc: Trigger: Client Request: //p' "$file")" "$(sed -n 's/^\(summary\|totals\): //p' "$file" | head -n 1)"
done | grep -v '^:' | sort > "$dir/now"

if [ "${2:-}" = --write ]; then
    { echo "$now"; cat "$dir/now"; } > $golden
    echo "wrote $golden: $(wc -l < "$dir/now") loops"
    exit 0
fi
tail -n +2 $golden | awk -F': ' -v tolerance=$tolerance '
    NR == FNR { now[$1] = $2; next }
    !($1 in now) { print "FAILED instructions of " $1 ": not counted"; next }
    {
        change = 100 * (now[$1] / $2 - 1)
        if (change > tolerance || change < -tolerance) printf "FAILED instructions of %s: %d, were %d (%+.1f %%)\n", $1, now[$1], $2, change
        else print "ok instructions of " $1
        delete now[$1]
    }
    END { for (name in now) print "FAILED instructions of " name ": not in the golden file" }' "$dir/now" -
