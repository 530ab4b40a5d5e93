#!/bin/sh
# The doors into the library: one generated file in two translation units (which is also the unity build), and CMake install.
# usage: tests/dropin/check.sh BUILD_FOLDER [one-file | whole]; run from the top of the checkout. Prints "ok NAME" or "FAILED NAME" a check.
# With CMake the library alone is built; "whole": programs and tests too, and ctest runs them, and nothing else; then the programs once more, as a
# project of their own that finds the installed library; "one-file": without CMake.
build=${1:-build}/dropin
what=${2:-both}
cxx=${CXX:-g++}
inside="-fPIC -fvisibility=hidden -DQLORA_PUBLIC="
rm -rf "$build"
mkdir -p "$build/one-file"
failed=0
check() {
    name=$1; shift
    if "$@" > "$build/log" 2>&1; then echo "ok $name"; else echo "FAILED $name"; sed 's/^/    /' "$build/log" | head -n 40; failed=1; fi
}

one_file() {
    make -s dist BUILD="$build/dist-build" && cp "$build/dist-build/dist/qlora.h" tests/dropin/user_a.cpp tests/dropin/user_b.cpp "$build/one-file" || return 1
    flags="-std=c++20 -O1 -Wall -Wextra -Wconversion -Wshadow -Werror -pthread"
    # the second one as for a plugin: see plugin()
    (cd "$build/one-file" && $cxx $flags -c user_a.cpp -o a.o & cd "$build/one-file" && $cxx $flags $inside -c user_b.cpp -o b.o && wait &&
     $cxx a.o b.o -pthread -o consumer && ./consumer)
}
# The examples in the comments of qlora.h and in the README, word for word, each in a function of its own that has what they take for granted; run on
# the tiny model.
examples_of() {
    awk -v takes="const qlora::Model& model, const qlora::Lora& lora, const qlora::Dataset& data, const qlora::TrainOptions& options, const std::string& text, const std::vector<qlora::Tokens>& prompts" '
        function close_block() {
            if (block ~ /qlora::/) { printf "void example_%d(%s) {\n    (void)model, (void)lora, (void)data, (void)options, (void)text, (void)prompts;\n    {\n%s    }\n}\n", ++count, takes, block }
            block = ""
        }
        FNR == 1 { close_block(); fenced = 0 }
        /^```/ { close_block(); fenced = /^```cpp/; next }
        fenced { if (!/^#include/) block = block $0 "\n"; next }
        FILENAME ~ /[.]h$/ && /^\/\/   [^*0-9]/ && (block != "" || !/^\/\/    /) { block = block substr($0, 5) "\n"; next }
        { close_block() }
        END { close_block(); printf "using Example = decltype(&example_1);\nconst std::vector<Example> examples{"; for (i = 1; i <= count; ++i) printf "example_%d, ", i; print "};" }
    ' qlora.h README.md
}
examples() {
    examples_of > "$build/one-file/examples.inc" && cp tests/dropin/examples.cpp "$build/one-file" &&
    cp models/tiny.gguf "$build/one-file/model.gguf" && cp examples/data/about-qlora-valid.jsonl "$build/one-file/chats.jsonl" &&
    (cd "$build/one-file" && $cxx -std=c++20 -O1 -Wall -Wextra -Wno-shadow -Werror -pthread -c examples.cpp && $cxx examples.o b.o -pthread -o examples && ./examples)
}
symbols() {                                            # nothing of ours outside qlora:: is exported
    nm -C --defined-only -g "$build/one-file/b.o" | grep -v -E ' (W|V|u|w|v) ' | grep -v -E 'qlora::|errors_are_catchable' | grep -E ' [TDBR] ' && return 1
    return 0
}
# A shared object with the library inside of it shows what it wants to show; whoever opens it needs nothing of ours.
plugin() {
    cp tests/dropin/plugin.cpp tests/dropin/plugin_host.cpp "$build/one-file" && cp models/tiny.gguf "$build/one-file/model.gguf" || return 1
    (cd "$build/one-file" && $cxx -std=c++20 -O1 -pthread $inside -shared plugin.cpp b.o -o plugin.so && $cxx -std=c++20 plugin_host.cpp -ldl -o plugin_host &&
     ./plugin_host && nm -D --defined-only plugin.so | grep -v ' [VWuvw] ' | cut -d' ' -f3 > plugin.names && cat plugin.names &&
     [ "$(cat plugin.names)" = plugin_answer ] && ! nm -D --defined-only plugin.so | grep -E ' _ZT?[A-Z]*5qlora')    # std's templates are weak names
}
# Without any library of the system, as containers from nothing want it.
static_program() {
    (cd "$build/one-file" && $cxx -static a.o b.o -pthread -o static && ./static && ! ldd static > ldd.log 2>&1)
}
# A copy of the house, in which one program includes a room.
lint_refuses() {
    house=$build/house
    mkdir -p "$house" && make -s "$build/amalgamate" BUILD="$build" && cp -r examples "$house/" &&
    ln -s "$(pwd)/src" "$(pwd)/tests" "$(pwd)/tools" "$(pwd)"/qlora.* "$(pwd)/qlora-cuda.cu" "$house/" || return 1
    for include in '"src/base/file.h"' '<src/base/file.h>' '"examples/../src/base/file.h"' '"../src/base/file.h"'; do
        printf '#include %s\n' "$include" > "$house/examples/extra.cpp"
        (cd "$house" && ../amalgamate --check 2>&1) | grep -q "examples/extra.cpp includes .*src/base/file.h" ||
            { echo "not refused: $include"; return 1; }
    done
    printf '#include "qlora.h"\n#include "examples/common/flags.h"\n#include <string>\n' > "$house/examples/extra.cpp"
    (cd "$house" && ../amalgamate --check 2>&1) | grep "examples/extra.cpp" && return 1
    return 0
}
programs_alone() {                                     # ... and one that includes a room does not build
    cmake -S examples -B "$build/programs" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS=-O0 -DCMAKE_PREFIX_PATH="$(pwd)/$build/prefix" &&
    cmake --build "$build/programs" -j 2 && "$build/programs/chat" -m models/tiny.gguf --no-template -p "O Romeo" -n 4 --temp 0 || return 1
    flags=$(sed -n 's/^CXX_INCLUDES = //p' "$build/programs/CMakeFiles/chat.dir/flags.make")
    printf '#include "qlora.h"\n#include "examples/common/load.h"\n' > "$build/program.cpp"
    $cxx -std=c++20 $flags -fsyntax-only "$build/program.cpp" || return 1
    for header in src/base/file.h ../src/base/file.h; do
        printf '#include "%s"\n' "$header" > "$build/program.cpp"
        ! $cxx -std=c++20 $flags -fsyntax-only "$build/program.cpp" || { echo "in reach: $header"; return 1; }
    done
}
cmake_install() {
    root=$(pwd)
    mkdir -p "$build/app" && cp tests/dropin/user_a.cpp "$build/app" &&
    sed '/QLORA_IMPLEMENTATION/d' tests/dropin/user_b.cpp > "$build/app/user_b.cpp" &&
    cat > "$build/app/CMakeLists.txt" <<'END' &&
cmake_minimum_required(VERSION 3.20)
project(app CXX)
find_package(qlora 0.1 REQUIRED)
add_executable(app user_a.cpp user_b.cpp)
target_link_libraries(app PRIVATE qlora::qlora)
END
    cmake -S "$root" -B "$build/cmake" "$@" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DCMAKE_INSTALL_PREFIX="$root/$build/prefix" &&
    cmake --build "$build/cmake" -j 2 && ctest --test-dir "$build/cmake" --output-on-failure && cmake --install "$build/cmake" &&
    cmake -S "$build/app" -B "$build/app/build" -DCMAKE_PREFIX_PATH="$root/$build/prefix" && cmake --build "$build/app/build" && "$build/app/build/app" &&
    grep -q lqlora "$build"/prefix/lib*/pkgconfig/qlora.pc "$build"/prefix/lib*/*/pkgconfig/qlora.pc 2>/dev/null || test -n "$(find "$build/prefix" -name qlora.pc)"
}

if [ "$what" != whole ]; then
    check "one file, two translation units, -Werror" one_file
    check "the examples of qlora.h and of the README compile and run" examples
    check "one file exports qlora:: only" symbols
    check "a plugin with the library inside shows its own name only" plugin
    if echo 'int main() {}' | $cxx -static -x c++ - -o "$build/none" 2> /dev/null; then check "a static program" static_program
    else echo "skipped a static program: no static libraries for $cxx"; fi
    check "lint refuses a program that includes a room" lint_refuses
fi
if [ "$what" = one-file ]; then exit $failed; fi
if ! command -v cmake > /dev/null; then echo "skipped CMake install: no cmake"
elif [ "$what" = whole ]; then
    check "CMake: programs, ctest, install and find_package" cmake_install -DQLORA_PROGRAMS=ON -DQLORA_TESTS=ON -DCMAKE_CXX_FLAGS=-O1
    check "CMake: the programs alone, against the installed library" programs_alone
else check "CMake install and find_package" cmake_install -DQLORA_PROGRAMS=OFF -DCMAKE_CXX_FLAGS=-O0; fi
exit $failed
