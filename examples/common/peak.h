// peak.h - what this machine can do at most, measured here and now: the yardstick that bench puts beside every number.
#pragma once

namespace program {

double fma_peak(int threads);                          // floating-point operations a second, f32 multiply-adds (two each) in the widest vectors
double copy_peak(int threads);                         // bytes a second, read plus written, of copying memory far larger than any cache

}  // namespace program
