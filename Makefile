# make          the library and the programs (finetune, chat, quantize, export, evaluate, tokenize, bench, hello, graph)
# make demo     fetch a real model, quantize it to NF4, fine-tune it, and talk to it before and after
# make test     build and run every test; it prints what it leaves to:
# make test-all all of that, and every instruction set, clang++, the sanitizers, CMake (hours on two cores)
# make lint     the include inspector: floors, file sizes
# make dist     build/dist/qlora.h, the library in one file
# make CUDA=1   the same programs with the CUDA backend, for the devices of this machine or else for all that nvcc knows
#               (CUDA_ARCHS="80 90a" names them, NVCC= the compiler)
# make cuda     only compile the CUDA wing, for CUDA_ARCHS or else for sm_80 and sm_90a
# make fuzz     the readers of files for libFuzzer (needs clang)
# make CXX=x86_64-w64-mingw32-g++-posix BUILD=build/windows programs    for Windows, in build/windows/bin
# make bench    speed of prompt, generation and training, each beside a peak measured in the same run
# Variables: CXX, CXXFLAGS, SANITIZE=address,undefined | thread, BUILD=folder of the objects, GTEST=how tests are linked
CXX      ?= g++
CXXFLAGS ?= -O3 -g1
GTEST    ?= -lgtest -lgtest_main
BUILD    ?= $(if $(CUDA),build/cuda,build)
# g++ 12 warns inside its own std::string at -O3 (-Wrestrict); clang counts signs among conversions.
comma    := ,
CLANG    := $(findstring clang,$(CXX))
# A warning is an error in make test and with WERROR=1. In make test under the compilers that the code is known to be
# clean with alone: a newer one warns of more, and that must not break a user's build.
WERROR   ?= $(if $(filter test,$(MAKECMDGOALS)),$(filter g++-12 clang-14,$(or $(CLANG),g++)-$(firstword $(subst ., ,$(shell $(CXX) -dumpversion)))))
WARN     := -Wall -Wextra -Wconversion -Wshadow $(if $(CLANG),-Wno-sign-conversion,-Wno-restrict) $(if $(WERROR),-Werror)
FLAGS    := -std=c++20 -I. -pthread -D_FILE_OFFSET_BITS=64 $(WARN) $(CXXFLAGS) $(if $(CUDA),-DQLORA_CUDA) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
# Programs for Windows need nothing beside them. Its stack is aligned to 16 bytes, which GCC forgets where it keeps wider
# vectors there (GCC's bug 54412): the assembler is told to move vectors without that assumption.
EXE      := $(if $(findstring mingw,$(CXX)),.exe)
FLAGS    += $(if $(EXE),-static -Wa$(comma)-muse-unaligned-vector-move)
PROGRAMS := $(patsubst examples/%.cpp,%,$(wildcard examples/*.cpp))
ROOMS    := $(wildcard src/*/*.cpp) $(wildcard src/*/*/*.cpp)
OBJECTS  := $(ROOMS:%.cpp=$(BUILD)/%.o) $(if $(CUDA),$(BUILD)/qlora-cuda.o)
COMMON   := $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard examples/common/*.cpp))
TESTS    := $(wildcard tests/*/*_test.cpp)
TEST_OBJECTS := $(TESTS:%.cpp=$(BUILD)/%.o)
# A program with more than one file has the others in a folder of its name.
parts     = $(patsubst %.cpp,$(BUILD)/%.o,$(wildcard examples/$(1)/*.cpp))
PARTS    := $(foreach p,$(PROGRAMS),$(call parts,$(p)))
LIBRARY  := $(BUILD)/libqlora.a
ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

# Only asked for where it is needed: running nvcc takes a moment. 90a is 90 with the instructions that only it has.
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc) nvcc)
ifneq ($(CUDA)$(filter cuda,$(MAKECMDGOALS)),)
HERE := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u)
KNOWN := $(patsubst sm_%,%,$(shell $(NVCC) --list-gpu-code 2>/dev/null))
CUDA_ARCHS ?= $(patsubst 90,90a,$(or $(if $(CUDA),$(HERE)),$(if $(CUDA),$(filter 75 80 86 89 90 100 103 120 121,$(KNOWN))),80 90))
CUDA_LIBRARIES := $(if $(CUDA),-L$(dir $(shell command -v $(NVCC)))../lib64 -lcudart_static -ldl -lrt)
endif

.PHONY: all test unit lint dist demo tiny clean
all: $(PROGRAMS)

BINARIES := $(PROGRAMS:%=$(BUILD)/bin/%$(EXE))
.PHONY: programs $(PROGRAMS)
programs: $(BINARIES)
$(foreach p,$(PROGRAMS),$(eval $(BUILD)/bin/$(p)$(EXE): $(call parts,$(p))))
$(BINARIES): $(BUILD)/bin/%$(EXE): $(BUILD)/examples/%.o $(COMMON) $(LIBRARY)
	@mkdir -p $(dir $@)
	$(CXX) $(FLAGS) $^ $(CUDA_LIBRARIES) -o $@

# At the top of the checkout, those of the BUILD that was asked for last. bench, asked for by name, also runs.
$(PROGRAMS): %: $(BUILD)/bin/%$(EXE)
	@cmp -s $< $@$(EXE) || cp -f $< $@$(EXE)
	$(if $(filter $@,$(filter bench,$(MAKECMDGOALS))),./bench --synthetic 135m)

$(LIBRARY): $(OBJECTS)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/examples/embed.o: models/tiny.gguf            # its bytes are part of the program

$(BUILD)/%.o: %.cpp
	@mkdir -p $(dir $@)
	$(CXX) $(FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/tests/%.o: tests/%.cpp
	@mkdir -p $(dir $@)
	$(CXX) $(FLAGS) -O1 -MMD -MP -c $< -o $@

$(BUILD)/unit$(EXE): $(TEST_OBJECTS) $(LIBRARY)
	$(CXX) $(FLAGS) $^ $(GTEST) -o $@

unit: $(BUILD)/unit$(EXE)

# The tests of the CUDA backend and its speed, on a real device or (without CUDA=1) on the emulation:
# tests/gpu_check.sh runs them, a stage at a time.
GPU_CHECK := tests/gpu/speed.cpp tests/gpu/memory.cpp tests/gpu/training.cpp tests/gpu/library.cpp $(if $(CUDA),tests/gpu/device.cpp,tests/cuda/backend_test.cpp) \
             $(filter-out %/backend_test.cpp,$(shell grep -l device_under_test.h tests/cuda/*_test.cpp))
GPU_CHECK := $(GPU_CHECK:%.cpp=$(BUILD)/%.o)
$(BUILD)/gpu_check: $(GPU_CHECK) $(LIBRARY)
	$(CXX) $(FLAGS) $^ $(GTEST) -ldl $(CUDA_LIBRARIES) -o $@

$(TEST_OBJECTS): | gtest
.PHONY: gtest
gtest:
	@echo '#include <gtest/gtest.h>' | $(CXX) -std=c++20 -E -x c++ - > /dev/null 2>&1 || \
	{ echo "The tests need GoogleTest: apt-get install libgtest-dev (Debian, Ubuntu), dnf install gtest-devel (Fedora), brew install googletest (macOS)"; exit 1; }

test: all $(BUILD)/unit $(BUILD)/gpu_check lint
	CXX="$(CXX)" QLORA_FLAGS="$(strip $(CXXFLAGS) $(SANITIZE))" sh tests/run.sh $(BUILD)

.PHONY: test-all
test-all:
	sh tests/all.sh $(BUILD)

$(BUILD)/amalgamate: tools/amalgamate.cpp
	@mkdir -p $(BUILD)
	$(CXX) -std=c++20 -O1 $(WARN) $< -o $@

lint: $(BUILD)/amalgamate
	$(BUILD)/amalgamate --check

dist: $(BUILD)/amalgamate
	@mkdir -p $(BUILD)/dist
	$(BUILD)/amalgamate qlora.h > $(BUILD)/dist/qlora.h
	$(BUILD)/amalgamate qlora-cuda.cu > $(BUILD)/dist/qlora-cuda.cu

# The wing has no CPU code: its kernels are run by the tests on an emulation, here they are compiled for real devices.
.PHONY: cuda
cuda: $(BUILD)/qlora-cuda.o
$(BUILD)/qlora-cuda.o: qlora-cuda.cu qlora.h $(wildcard src/cuda/*.cuh src/cuda/plan/*.h src/base/*.h src/tensor/*.h src/cpu/cpu.h src/graph/*)
	@mkdir -p $(BUILD)
	$(NVCC) -std=c++20 -I. -O3 $(if $(WERROR),-Werror all-warnings --resource-usage) -Xcompiler -Wall,-Wextra,-Wconversion,-Wshadow --threads 0 $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -c $< -o $@

# Everything that reads a stranger's bytes, for libFuzzer; tests/fuzz/fuzz.cpp says how to run it. Null pointers fault
# without a check of their own; vector code is checked for addresses alone: on its unrolled products clang 14 spends over
# ten minutes a file otherwise.
.PHONY: fuzz
$(BUILD)/src/cpu/avx%.o: FLAGS += $(if $(findstring fuzzer,$(CXXFLAGS)),-fno-sanitize=undefined)
fuzz:
	$(MAKE) BUILD=$(BUILD)/fuzz CXX="$(if $(findstring clang,$(CXX)),$(CXX),clang++)" CXXFLAGS="-O1 -g1 -fsanitize=fuzzer-no-link" SANITIZE="address,undefined -fno-sanitize=null" $(BUILD)/fuzz/fuzz
$(BUILD)/fuzz: tests/fuzz/fuzz.cpp $(LIBRARY) $(wildcard tests/fuzz/*.h)
	$(CXX) $(FLAGS) -O0 -fsanitize=fuzzer $(filter-out %.h,$^) -o $@

# How models/tiny.gguf is made (see models/README.md); TEXT is the tiny Shakespeare corpus.
$(BUILD)/train_tiny: $(BUILD)/tools/train_tiny.o $(LIBRARY)
	$(CXX) $(FLAGS) $^ -o $@
tiny: $(BUILD)/train_tiny
	$(BUILD)/train_tiny $(TEXT) models/tiny.gguf

demo: all
	sh examples/demo.sh

clean:
	rm -rf $(BUILD) $(PROGRAMS)

-include $(OBJECTS:.o=.d) $(TEST_OBJECTS:.o=.d) $(GPU_CHECK:.o=.d) $(COMMON:.o=.d) $(PARTS:.o=.d) $(PROGRAMS:%=$(BUILD)/examples/%.d)
