// peak.h - what this machine can do at most, measured here and now: the yardstick that bench puts beside every number.
#pragma once
#include <cstdint>
#include <string_view>

namespace program {

// Floating-point operations a second (a multiply-add is two) of `threads` threads with the widest vectors of an
// instruction set: "amx", "avx512_bf16", "avx512", "avx2", or any other name for plain C++. bf16: products of bf16
// numbers summed in f32, where the set has them.
double multiply_add_peak(int threads, std::string_view isa, bool bf16);

// Bytes a second that `threads` threads read from `bytes` bytes of memory, each its own part, from start to end again
// and again: bytes as many as the measured work reads, so that what stays in a cache there stays in it here.
double read_peak(int threads, int64_t bytes);

}  // namespace program
