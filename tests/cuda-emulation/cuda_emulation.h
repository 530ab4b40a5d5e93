// cuda_emulation.h - enough of CUDA to run our kernels on a CPU: for tests only, included before any file of src/cuda.
//
// Each CUDA thread is a fiber. The threads of a block run one after the other, each until it waits at __syncthreads()
// or at a warp operation; when none can run, whatever is complete is released. The order is forward, reverse or random:
// a kernel that forgets a barrier gives different results in different orders. Shared memory and cudaMalloc start as
// NaN (0xFF) and end where they end, so that the address sanitizer sees an access beyond them. What CUDA leaves
// undefined - threads of a block at different barriers, a shuffle that reads a lane outside its mask, a wait that never
// ends - is an exception here.
//
// The runtime does queued work as late as it may, streams in an order drawn by the seed. Device memory is inaccessible
// while host code runs. A Failure comes out of the call that did the work: of run(), or of a wait for a stream.
//
// What it cannot show: speed, real memory ordering between blocks, and the rounding of approximate instructions.
#pragma once
#define QLORA_CUDA_EMULATION

#include "tests/cuda-emulation/cuda_language.h"            // types, arithmetic, atomics
#include "tests/cuda-emulation/cuda_fibers.h"              // stacks and switching
#include "tests/cuda-emulation/cuda_blocks.h"              // threads, barriers, groups, the scheduler
#include "tests/cuda-emulation/cuda_launch.h"              // grids, shared memory, options
#include "tests/cuda-emulation/cuda_warps.h"               // __syncthreads(), shuffles, ballots
#include "tests/cuda-emulation/cuda_mma_emulation.h"       // cp.async, ldmatrix, mma
#include "tests/cuda-emulation/cuda_hopper_emulation.h"    // bulk copies, mbarriers, wgmma
#include "tests/cuda-emulation/cuda_runtime_emulation.h"   // memory, streams, events, graphs
