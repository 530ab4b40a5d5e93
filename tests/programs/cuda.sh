#!/bin/sh
# cuda.sh BUILD [--write] - the CUDA wing compiles for real devices without warnings, where there is a compiler for it,
# and no kernel keeps values in memory that tests/golden/cuda_kernels.txt (registers, shared memory, stack frame and
# spills of every kernel; --write makes it anew) does not know of. The kernels are run by the unit tests, on an emulation.
build=${1:-build}
golden=tests/golden/cuda_kernels.txt
log=$build/cuda.log
mkdir -p "$build"
if ! command -v nvcc > /dev/null && [ ! -x /usr/local/cuda/bin/nvcc ] && [ -z "${NVCC:-}" ]; then
    echo "skipped CUDA compilation: needs nvcc (the CUDA Toolkit, or NVCC=path)"
    exit 0
fi
rm -f "$build/qlora-cuda.o"
if ! make -s cuda WERROR=1 BUILD="$build" > "$log" 2>&1; then
    echo "FAILED CUDA compilation: see $log"
    grep -v '^ptxas info\|bytes stack frame' "$log" | head -n 20
    exit 1
fi
# arch, kernel, registers, bytes of shared memory, of the stack frame, of spills
c++filt < "$log" | awk '
    /Compiling entry function/ { name = $0; sub(/.*function .(void )?/, "", name); sub(/. for .*/, "", name)
        arch = $0; sub(/.* for ./, "", arch); sub(/.$/, "", arch)
        gsub(/qlora::v[0-9_]*::cuda::/, "", name); sub(/\([^()]*(\([^()]*\)[^()]*)*\)$/, "", name); gsub(/ /, "", name) }
    /bytes stack frame/ { stack = $1; spills = $5 + $9 }
    /Used [0-9]+ registers/ { shared = 0; for (i = 1; i < NF; ++i) if ($(i + 2) ~ /^smem/) shared = $i
        for (i = 1; i < NF; ++i) if ($i == "Used") registers = $(i + 1)
        print arch, name, registers, shared, stack, spills }' | sort > "$build/cuda_kernels.txt"
if [ "${2:-}" = --write ]; then
    { echo "# made by tests/programs/cuda.sh BUILD --write, $(date +%F), at $(git rev-parse --short HEAD)"
      echo "# arch kernel registers shared-bytes stack-bytes spilled-bytes"
      cat "$build/cuda_kernels.txt"; } > "$golden"
    echo "wrote $golden: $(wc -l < "$build/cuda_kernels.txt") kernels"
    exit 0
fi
worse=$(awk 'NR == FNR { if ($1 !~ /^#/) known[$1 " " $2] = $5 + $6; next }
    $5 + $6 > known[$1 " " $2] + 0 { print $1, $2 ": " $5 " bytes of stack, " $6 " spilled" }' "$golden" "$build/cuda_kernels.txt")
if [ -n "$worse" ]; then
    echo "FAILED CUDA compilation: kernels keep more in memory than $golden says"
    echo "$worse" | head -n 20
    exit 1
fi
echo "ok CUDA compilation for sm_80 and sm_90a: $(wc -l < "$build/cuda_kernels.txt") kernels, no new spills"
