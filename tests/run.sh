#!/bin/sh
# run.sh BUILD - every test: the unit tests, the drop-in consumers, the programs. The last line counts; the exit status is 1 after any failure.
# A script prints "ok NAME", "skipped NAME: why" or "FAILED NAME: why", one line a check.
set -u
build=${1:-build}
cd "$(dirname "$0")/.."
passed=0 failed=0 skipped=0
log=$(mktemp) locales=$(mktemp -d)
trap 'rm -rf "$log" "$locales"' EXIT

count() { grep -c "$1" "$log" || true; }

if [ ! -x "$build/unit" ]; then
    echo "$build/unit is missing: make unit builds it; it needs GoogleTest (apt-get install libgtest-dev, or https://github.com/google/googletest)"
    failed=1
else
    # where numbers have a comma, for a test that no locale changes them; without its sources that test is skipped
    localedef -i de_DE -f UTF-8 "$locales/de_DE.UTF-8" > "$log" 2>&1 && LOCPATH=$locales && export LOCPATH
    "$build/unit" --gtest_brief=0 > "$log" 2>&1
    status=$?
    unset LOCPATH
    grep -v '^\[ RUN  \|^\[       OK\|^\[-----' "$log"
    passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -1)
    skipped=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log" | tail -1)
    failed=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -1)
    passed=${passed:-0} skipped=${skipped:-0} failed=${failed:-0}
    # A crash counts nothing by itself.
    if [ $status -ne 0 ] && [ "$failed" -eq 0 ]; then echo "the unit tests ended with status $status"; failed=1; fi
fi

for script in tests/dropin/check.sh tests/programs/*.sh; do
    [ -f "$script" ] || continue
    sh "$script" "$build" > "$log" 2>&1
    status=$?
    cat "$log"
    bad=$(count '^FAILED ')
    [ $status -ne 0 ] && [ "$bad" -eq 0 ] && { echo "FAILED $script: status $status"; bad=1; }
    passed=$((passed + $(count '^ok '))) skipped=$((skipped + $(count '^skipped '))) failed=$((failed + bad))
done

echo "left to make test-all: the other instruction sets, clang++, the sanitizers, the programs and tests by CMake"
[ "$skipped" -gt 0 ] && echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
