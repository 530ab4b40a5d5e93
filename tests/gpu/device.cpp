// device.cpp - a real device under the tests of tests/cuda, for gpu_check.
#include "tests/cuda/device_under_test.h"

namespace device_under_test {

bool is_emulated() { return false; }
void in_every_order(const std::function<void(const char* order)>& run) { run("the device's order"); }

}  // namespace device_under_test
