#!/bin/sh
# The check of a GPU (tests/gpu_check.sh) on the emulation: it runs to its last line, says what fails, and goes on behind it.
# usage: gpu_check.sh BUILD, from the top of the checkout.
build=${1:-build}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
[ -x "$build/gpu_check" ] || { echo "skipped the check of a GPU on the emulation: make test builds $build/gpu_check"; exit 0; }
failures=0
ok() { echo "ok $1"; }
failed() { echo "FAILED $1: $2"; failures=$((failures + 1)); }

OUT=$dir/gpu QLORA_EMULATED=1 sh tests/gpu_check.sh "$build" > "$dir/out" 2>&1
status=$?
if [ $status -eq 0 ] && tail -n 1 "$dir/out" | grep -q '^ok memory, '; then ok "the check of a GPU runs to its end on the emulation"
else failed "the check of a GPU runs to its end on the emulation" "status $status: $(tail -n 3 "$dir/out" | tr '\n' '|')"; fi
for stage in copy library operations runs resume training speed memory; do
    grep -q "^ok $stage, " "$dir/out" && ok "its stage $stage" || failed "its stage $stage" "$(grep "$stage" "$dir/out" | head -n 1)"
done
if grep -q '^memory of 65B in small .*GiB planned' "$dir/out"; then ok "its rows of memory"
else failed "its rows of memory" "$(cat "$dir/gpu/memory.log" | tail -n 3 | tr '\n' '|')"; fi
if [ "$(grep -c '^training of small, \(f32\|bf16\): loss .* off the CPU' "$dir/out")" -eq 4 ]; then ok "its rows of training"
else failed "its rows of training" "$(tail -n 3 "$dir/gpu/training.log" | tr '\n' '|')"; fi
if grep -q "^left out: the library's product: " "$dir/out"; then ok "what is not here is left out with a line"
else failed "what is not here is left out with a line" "$(tail -n 3 "$dir/gpu/library.log" | tr '\n' '|')"; fi
# A check whose every stage fails
mkdir -p "$dir/bin" && printf '#!/bin/sh\necho "Failure in $1"\nexit 3\n' > "$dir/gpu_check" && chmod +x "$dir/gpu_check" && cp "$dir/gpu_check" "$dir/bin/bench"
OUT=$dir/gpu QLORA_EMULATED=1 sh tests/gpu_check.sh "$dir" > "$dir/out" 2>&1
status=$?
if [ $status -ne 0 ] && [ "$(grep -c '^FAILED .*, status 3' "$dir/out")" -eq 16 ] && grep -q '^gpu_check: 8 stages failed' "$dir/out"; then ok "what fails is said, and does not stop the next"
else failed "what fails is said, and does not stop the next" "status $status: $(tail -n 3 "$dir/out" | tr '\n' '|')"; fi
exit $((failures > 0))
