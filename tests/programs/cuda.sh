#!/bin/sh
# cuda.sh BUILD - the CUDA wing compiles for real devices, without warnings, where there is a compiler for it. Its kernels are run by
# the unit tests, on an emulation.
build=${1:-build}
log=$build/cuda.log
mkdir -p "$build"
if ! command -v nvcc > /dev/null && [ ! -x /usr/local/cuda/bin/nvcc ] && [ -z "${NVCC:-}" ]; then
    echo "skipped CUDA compilation: needs nvcc (the CUDA Toolkit, or NVCC=path)"
    exit 0
fi
if make -s cuda WERROR=1 BUILD="$build" > "$log" 2>&1; then echo "ok CUDA compilation for sm_80 and sm_90a"; exit 0; fi
echo "FAILED CUDA compilation: see $log"
head -n 20 "$log"
exit 1
