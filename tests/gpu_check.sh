#!/bin/sh
# gpu_check.sh [BUILD] - what an NVIDIA device says about the CUDA backend, in about 8 minutes: two ceilings (the copy,
# the library's product), every operation and whole runs against the CPU, runs that go on on the other backend, ten
# steps at the shape of a 135M model beside the losses that the CPU had; then kernels beside the ceilings, the memory of
# 7B, 33B and 65B models, generation and training of synthetic models, the same by PyTorch, and the memory checker. Rows
# appear as soon as they are known; a stage that fails or takes too long does not stop the next, what is not here is
# left out with a line. The last lines are the table. Builds what it needs: make CUDA=1. PYTHON says which one has
# PyTorch.
# QLORA_EMULATED=1: the same on the emulation, with tiny shapes, to see that it runs to its end (tests/programs/gpu_check.sh).
cd "$(dirname "$0")/.." || exit 1
emulated=${QLORA_EMULATED:-}
build=${1:-$([ -n "$emulated" ] && echo build || echo build/cuda)}
out=${OUT:-$build/gpu}
began=$(date +%s)
mkdir -p "$out"
: > "$out/rows"
failures=0

# stage NAME SECONDS COMMAND...
stage() {
    name=$1 limit=$2; shift 2
    [ -z "$emulated" ] || limit=$((limit * 10))        # of a card's time
    start=$(date +%s)
    timeout -s KILL "$limit" "$@" > "$out/$name.log" 2>&1
    status=$?
    grep -E '^[^[].*(us  |TFLOP|GB/s|tokens/s|GiB)|^(prompt|generation|with an adapter|training|left out)|FAILED|Failure|error' \
        "$out/$name.log" | head -n 40 | tee -a "$out/rows"
    line="ok $name"
    [ $status -eq 0 ] || { line="FAILED $name, status $status, see $out/$name.log" failures=$((failures + 1)); }
    echo "$line, $(($(date +%s) - start)) s" | tee -a "$out/rows"
}

if [ -n "$emulated" ]; then devices=emulation
else devices=$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null); fi
[ -n "$devices" ] || { echo "gpu_check: no NVIDIA device here (nvidia-smi finds none)"; exit 77; }
echo "device: $devices" | tee -a "$out/rows"
if [ ! -x "$build/gpu_check" ] || [ ! -x "$build/bin/bench" ]; then
    make -s CUDA="$([ -n "$emulated" ] || echo 1)" BUILD="$build" "$build/gpu_check" "$build/bin/bench" > "$out/build.log" 2>&1 ||
        { echo "FAILED build, see $out/build.log"; exit 1; }
fi
check=$build/gpu_check
stage copy 30 "$check" --gtest_filter='Speed.Copy'
stage library 30 "$check" --gtest_filter='Library.*'
stage operations 60 "$check" --gtest_filter='Cuda*-CudaRun.*'
stage runs 90 "$check" --gtest_filter='CudaRun.*-CudaRun.ARunGoesOn*'
stage resume 30 "$check" --gtest_filter='CudaRun.ARunGoesOn*'
stage training 60 "$check" --gtest_filter='Training.*'
stage speed 90 "$check" --gtest_filter='Speed.*'
stage memory 90 "$check" --gtest_filter='Memory.*'
if [ -z "$emulated" ]; then
    bench() { stage "bench-$1" "$2" "$build/bin/bench" --synthetic "$1" --device cuda --folder "$out" --repeats 7; }
    bench 135m 60
    bench 1b 90
    if command -v "${PYTHON:-python3}" > /dev/null; then stage peer-1b 90 "${PYTHON:-python3}" tools/gpu_peer.py 1b
    else echo "left out: the peer: there is no ${PYTHON:-python3}" | tee -a "$out/rows"; fi
    bench 8b 180
    if command -v compute-sanitizer > /dev/null; then
        stage memory-checker 90 compute-sanitizer --error-exitcode 9 "$check" --gtest_filter='CudaSweep.TheSameBytesTwice'
    else echo "left out: compute-sanitizer is not here" | tee -a "$out/rows"; fi
fi
echo
echo "gpu_check: $failures stages failed, $(($(date +%s) - began)) s"
tail -n 40 "$out/rows"
[ $failures -eq 0 ]
