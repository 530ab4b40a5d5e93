// device_under_test.h - the CUDA backend as tests see it: on the emulation in the unit tests
// (tests/cuda/backend_test.cpp compiles the wing for it), on a real device in gpu_check. Which one is a matter of
// linking.
#pragma once
#include "src/graph/graph.h"

namespace qlora { inline namespace QLORA_ABI {
int64_t cuda_kernels_started();                        // by this process so far
}}  // namespace qlora

namespace device_under_test {

inline std::shared_ptr<qlora::BackendImpl> backend(qlora::Compute compute = qlora::Compute::f32) {
    return qlora::make_cuda_backend(0, compute);
}

bool is_emulated();
// The emulation runs threads and blocks in several orders, a device in its own: run() for each.
void in_every_order(const std::function<void(const char* order)>& run);

}  // namespace device_under_test
