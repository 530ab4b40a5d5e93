#!/bin/sh
# readme.sh - what the README says can be checked: every flag in a command of it is one that the program knows, and the table of memory is
# what --dry-run plans. (The C++ in it is compiled and run by tests/dropin/check.sh.)
. "$(dirname "$0")/support.inc"

# "finetune --data" for each flag of each command, in code spans and in indented blocks
flags_of() {
    { grep -o '`\./[a-z]* [^`]*`' README.md; grep '^    \./' README.md | sed 's/  #.*//'; } | tr -d '`' |
        awk '{ sub(/^ *\.\//, "", $1); for (i = 2; i <= NF; ++i) if ($i ~ /^--?[a-z]/) { split($i, part, "="); print $1, part[1] } }' | sort -u
}
flags_of > "$dir/flags"
count=0
while read -r program flag; do
    [ -f "$dir/$program.help" ] || "./$program" --help > "$dir/$program.help" 2> /dev/null
    count=$((count + 1))
    grep -q -e "^[^a-z]*\(.*[, ]\)\{0,1\}$flag\([, =]\|\$\)" "$dir/$program.help" || failed "README: ./$program $flag" "not in its --help"
done < "$dir/flags"
if [ $count -ge 20 ]; then ok "README: $count flags are the programs' own"; else failed "README: flags" "only $count were found"; fi

# The planned peak in GB; --json has bytes.
planned() { ./finetune --dry-run --json --shape "$1" -c "$2" --lora-r 16 --batch-size 1 | sed -n 's/.*"peak_bytes": \([0-9]*\).*/\1/p' | head -n 1; }

# row NAME SHAPE: "| NAME... | where | 512 tokens | 2,048 tokens | ..." within 6 %: the number of processors moves it a little.
row() {
    said=$(grep "^| $1" README.md | awk -F '|' '{ split($4, a, " "); split($5, b, " "); print a[1] * (a[2] == "GB" ? 1e9 : 1e6), b[1] * (b[2] == "GB" ? 1e9 : 1e6) }')
    is="$(planned "$2" 512) $(planned "$2" 2048)"
    if echo "$said $is" | awk '{ exit !(NF == 4 && $1 / $3 < 1.06 && $3 / $1 < 1.06 && $2 / $4 < 1.06 && $4 / $2 < 1.06) }'
    then ok "README: memory of $2"; else failed "README: memory of $2" "says $said, the plan is $is"; fi
}
row "SmolLM2 135M" 135m
row "Llama 3.2 1B" 1b
row "Llama 2 7B" 7b
row "Llama 3.1 8B" 8b
row "Llama 2 13B" 13b
row "Llama 3.3 70B" 70b

[ $failures -eq 0 ]
