// svd.h - the largest singular values of a matrix and their vectors.
#pragma once
#include "src/cpu/cpu.h"

namespace qlora { inline namespace QLORA_ABI {

// W ~ sum over i of s[i] u_i v_i^T, the best of this rank.
struct LowRank {
    int64_t rank = 0;
    std::vector<double> s;                             // falling
    std::vector<double> u, v;                          // {rank, rows} and {rank, cols}: unit vectors, one a row
};

// The first `rank` singular triples of w {rows, cols}, rank <= min(rows, cols). A function of w and the instruction set
// alone: the same for any number of threads, every time.
LowRank truncated_svd(Cpu&, const float* w, int64_t rows, int64_t cols, int64_t rank);

}}  // namespace qlora
