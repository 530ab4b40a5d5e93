// planned.h - a CUDA device that is planned for and need not be there, in any build.
#pragma once
#include "src/cuda/plan/facts.h"

namespace qlora { inline namespace QLORA_ABI {

// Its outline() makes the plans of such a device; whatever else is asked of it is Error{device}.
std::shared_ptr<BackendImpl> make_planned_cuda_backend(const cuda::Facts&);

// Where nobody names a device: without products by warpgroups all from sm_80 on have one plan. With them, on sm_90, it
// is up to 2 % smaller (or 0.01 % larger), since C has other tiles and k other stretches.
constexpr cuda::Facts any_device(Compute compute) { return {80, compute == Compute::f32, false}; }

}}  // namespace qlora
