// backend_test.cpp - compiles the CUDA wing for the emulation: what the tests of this folder run on unless they are
// part of gpu_check.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "qlora-cuda.cu"

#include "tests/cuda/device_under_test.h"

#include <gtest/gtest.h>

namespace device_under_test {

using cuda_emulation::Order;

bool is_emulated() { return true; }

void in_every_order(const std::function<void(const char* order)>& run) {
    const std::pair<Order, const char*> orders[] = {
        {Order::forward, "forward"}, {Order::reverse, "reverse"}, {Order::random, "random"}};
    for (const auto& [order, name] : orders) {
        cuda_emulation::options = {order, 3};
        run(name);
    }
    cuda_emulation::options = {};
}

}  // namespace device_under_test
