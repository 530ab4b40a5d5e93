#!/bin/sh
# all.sh BUILD [PART...] - make test-all: the gate (make test), and what it leaves out for the sake of time: the other
# instruction sets, clang++, the sanitizers, the whole of the CMake build. Parts run one after another, each in a folder
# of its own under BUILD; PART names those to run (default: all). One line a part, then what was left out; the exit
# status is 1 after any failure. QLORA_ALL_FLAGS: how the parts beside the gate are compiled (default -O1 -g1).
set -u
build=${1:-build}
[ $# -gt 0 ] && shift
cd "$(dirname "$0")/.."
unset MAKEFLAGS MFLAGS MAKELEVEL                       # the makes below are not parts of the one that called this
flags=${QLORA_ALL_FLAGS:--O1 -g1}
logs=$build/all
mkdir -p "$logs"
: > "$logs/ran" > "$logs/left"
failures=0

left() { echo "$*" >> "$logs/left"; }

# part NAME FUNCTION [ARGUMENT...]: the function's last line says what was run.
part() {
    name=$1; shift
    start=$(date +%s)
    "$@" > "$logs/$name.log" 2>&1
    status=$?
    took=$(($(date +%s) - start))
    line="$name: $(tail -n 1 "$logs/$name.log"), $took s"
    if [ $status -eq 0 ]; then line="ok $line"
    else line="FAILED $line; see $logs/$name.log" failures=$((failures + 1)); fi
    echo "$line" | tee -a "$logs/ran"
    sed -n "s/^skipped /$name: /p; s/^\[  SKIPPED \] \([A-Z][^ ]*\)$/$name: \1/p" "$logs/$name.log" >> "$logs/left"
}

# unit BINARY: all its tests; the last line counts them.
unit() {
    "$1" > "$1.log" 2>&1
    status=$?
    grep -v '^\[ RUN  \|^\[       OK\|^\[-----' "$1.log"
    count() { n=$(sed -n "s/^\[  $1 \] \([0-9]*\) test.*/\1/p" "$log" | tail -n 1); echo "${n:-0}"; }
    log=$1.log
    echo "$(count 'PASSED ') tests passed, $(count 'FAILED ') failed, $(count SKIPPED) skipped, status $status"
    return $status
}

gate() { make test BUILD="$build" WERROR=1; }

# Every set but the machine's best, which the gate ran.
sets() {
    make programs unit BUILD="$build" > "$logs/sets.log" 2>&1
    all=$(QLORA_ISA=? "$build/bin/hello" models/tiny.gguf x 2>&1 | sed -n 's/.*expected //p' | sed 's/,\| or / /g')
    missing=$("$build/unit" --gtest_filter=Kernels.EverySetOfTheListIsRun |
        sed -n 's/,//g; s/.*machine has no \(.*\): .*/\1/p')
    present=
    for set in $all; do
        case " $missing " in
            *" $set "*) left "QLORA_ISA=$set: this machine lacks it";;
            *) present="$present $set";;
        esac
    done
    for set in $present; do
        if [ "$set" != "${present##* }" ]; then part "set-$set" with_set "$set"
        else echo "ok set-$set: the best of this machine: make test used it" | tee -a "$logs/ran"; fi
    done
    [ -n "$present" ] || part sets false
}
with_set() { (QLORA_ISA=$1 && export QLORA_ISA && unit "$build/unit"); }

# sanitized FOLDER SANITIZERS [MAKE ARGUMENT...]: the library as one translation unit, which is sooner compiled.
sanitized() {
    folder=$build/$1 with=$2; shift 2
    make "$folder/unit" BUILD="$folder" SANITIZE="$with" CXXFLAGS="$flags" ROOMS=qlora.cpp "$@" && unit "$folder/unit"
}
# Where threads are named, and of the CUDA emulation, whose threads are fibers, what is small: all of it takes over ten minutes.
threaded() {
    named=$(grep -lE 'std::thread|ThreadPool|threads|cpu\([2-9]' tests/*/*_test.cpp | grep -v '^tests/cuda/')
    sanitized tsan thread TESTS="$(echo $named tests/cuda/nf4_test.cpp tests/cuda/emulation*_test.cpp tests/cuda/gemm*_test.cpp)"
}

clang() {
    make programs unit BUILD="$build/clang" CXX=clang++ CXXFLAGS="$flags" WERROR=1 &&
    CXX=clang++ sh tests/dropin/check.sh "$build/clang" one-file && unit "$build/clang/unit"
}
# foreign NAME COMPILER [RUNNER]: the library, its tests and one program by another compiler or for another processor,
# with GoogleTest of its own, because the installed one is of this machine's. Static programs: an emulator finds no
# libraries of theirs. What takes long anywhere, or needs the other programs, is left to the gate.
google=/usr/src/googletest/googletest
foreign() {
    folder=$build/$1 compiler=$2 runner=${3:-}
    [ -n "$runner" ] && link=-static || link=
    mkdir -p "$folder"
    for part in gtest-all gtest_main; do
        $compiler -std=c++20 -O1 -pthread -I$google -I$google/include -c $google/src/$part.cc -o "$folder/$part.o" ||
            return 1
    done
    tests="$(ls tests/base/*_test.cpp tests/cpu/*_test.cpp tests/tensor/*_test.cpp tests/format/*_test.cpp \
        tests/graph/*_test.cpp tests/ops/*_test.cpp tests/text/*_test.cpp tests/model/family_test.cpp tests/model/bitsandbytes_test.cpp | tr '\n' ' ')
        tests/run/session_test.cpp tests/run/trainer_test.cpp tests/run/resume_test.cpp"
    make "$folder/unit" "$folder/bin/finetune" "$folder/bin/chat" BUILD="$folder" CXX="$compiler" ROOMS=qlora.cpp \
        CXXFLAGS="$flags $link" GTEST="$folder/gtest-all.o $folder/gtest_main.o" TESTS="$(echo $tests)" || return 1
    $runner "$folder/bin/finetune" -m models/tiny.gguf --data examples/data/about-qlora.jsonl -o "$folder/adapter" \
        --overwrite --max-steps 2 --batch-size 1 --grad-accum 1 -c 128 || return 1
    $runner "$folder/bin/chat" -m models/tiny.gguf --adapter "$folder/adapter" -p Hello -n 8 || return 1
    printf '#!/bin/sh\nexec %s "%s" "$@"\n' "$runner" "$folder/unit" > "$folder/run"
    chmod +x "$folder/run"
    unit "$folder/run"
}
# abroad NAME COMPILER RUNNER PACKAGES: where the compiler and the emulator are there.
abroad() {
    wanted "$1" || return 0
    if command -v "${2%% *}" > /dev/null && { [ -z "$3" ] || command -v "$3" > /dev/null; } && [ -d $google ]
    then part "$1" foreign "$1" "$2" "$3"
    else left "$1: apt-get install $4 libgtest-dev"; fi
}

# windows: the programs as mingw-w64 builds them, run by wine: an answer, a run that goes on with the losses of this
# machine's own programs, whose adapter they take, a model that is quantized and asked.
wine=$(command -v wine64 || command -v wine || ls /usr/lib/wine/wine64 2> /dev/null)
mingw=x86_64-w64-mingw32-g++-posix
train() {                                              # train BIN OUT SUFFIX [RUNNER]
    tuned="-m models/tiny.gguf --data examples/data/about-qlora.jsonl --batch-size 1 --grad-accum 1 -c 128 --lr 1e-5
        --compute f32 --threads 2 --seed 1 --save-steps 1 -o $2"
    $4 "$1/finetune$3" $tuned --overwrite --max-steps 2 && $4 "$1/finetune$3" $tuned --resume auto --max-steps 4 &&
    sed -n 's/.*"loss":[ ]*\([^,]*\),.*/\1/p' "$2/metrics.jsonl" > "$2.losses"
}
windows() {
    folder=$build/windows bin=$build/windows/bin
    export WINEDEBUG=-all WINEPREFIX="$(cd "$build" && pwd)/wine"
    make "$bin/finetune.exe" "$bin/chat.exe" "$bin/quantize.exe" "$bin/hello.exe" "$bin/evaluate.exe" BUILD="$folder" \
        CXX=$mingw ROOMS=qlora.cpp CXXFLAGS="$flags" &&
        make "$build/bin/finetune" "$build/bin/evaluate" BUILD="$build" || return 1
    [ -n "$wine" ] || { echo "skipped running them: apt-get install wine64"; echo "built"; return 0; }
    train "$bin" "$folder/adapter" .exe "$wine" && train "$build/bin" "$folder/own" "" "" || return 1
    paste "$folder/adapter.losses" "$folder/own.losses" | awk '
        { d = $1 - $2; if (d < 0) d = -d; if (NF != 2 || d > 1e-5 * $2) bad = 1 } END { exit bad || NR != 4 }' || return 1
    for each in "$wine $bin/evaluate.exe" "$build/bin/evaluate"; do      # the base is the same to the bit
        $each -m models/tiny.gguf --adapter "$folder/adapter" --data examples/data/about-qlora-valid.jsonl || return 1
    done
    $wine "$bin/chat.exe" -m models/tiny.gguf --adapter "$folder/adapter" -p Hello -n 8 || return 1
    rm -rf "$folder/small.gguf"
    $wine "$bin/quantize.exe" models/tiny.gguf "$folder/small.gguf" && $wine "$bin/hello.exe" "$folder/small.gguf" Hi ||
        return 1
    echo "4 steps with the losses of this machine's programs, an answer, a quantized model"
}

cmake_whole() { sh tests/dropin/check.sh "$build" whole && echo "programs, ctest, install, a consumer of the package"; }

wanted() { case " $parts " in *" $1 "*) true;; *) left "$1: not asked for"; false;; esac; }
every="test sets clang asan tsan cmake libcxx aarch64 arm riscv64 windows"
for name in "$@"; do
    case " $every " in *" $name "*) ;; *) echo "$name is no part; the parts are: $every"; exit 2;; esac
done
parts=${*:-$every}
wanted test && part test gate
wanted sets && sets
if wanted clang; then if command -v clang++ > /dev/null; then part clang clang; else left "clang: no clang++"; fi; fi
wanted asan && part asan sanitized asan address,undefined
wanted tsan && part tsan threaded
if wanted cmake; then if command -v cmake > /dev/null; then part cmake cmake_whole; else left "cmake: no cmake"; fi; fi
abroad libcxx "clang++ -stdlib=libc++" "" "clang libc++-dev libc++abi-dev"
abroad aarch64 aarch64-linux-gnu-g++ qemu-aarch64 "g++-aarch64-linux-gnu qemu-user"
abroad arm arm-linux-gnueabihf-g++ qemu-arm "g++-arm-linux-gnueabihf qemu-user"
abroad riscv64 riscv64-linux-gnu-g++ qemu-riscv64 "g++-riscv64-linux-gnu qemu-user"
if wanted windows; then
    if command -v $mingw > /dev/null; then part windows windows; else left "windows: apt-get install g++-mingw-w64-x86-64"; fi
fi
left "fuzzing: make fuzz, for hours"
left "a real device: the CUDA kernels ran on the emulation"

echo
echo "run:"; sed 's/^/    /' "$logs/ran"
echo "left out:"; sort -u "$logs/left" | sed 's/^/    /'
echo "$failures parts failed"
[ $failures -eq 0 ]
