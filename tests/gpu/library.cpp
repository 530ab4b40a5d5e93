// library.cpp - gpu_check: NVIDIA's own product of matrices, cuBLASLt, as the second ceiling beside the copy. It is
// found when the program runs; without it a line says so.
#include "src/base/half.h"
#include "tests/cuda/device_under_test.h"
#include "tests/support/graph_support.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include <dlfcn.h>

extern "C" int cudaDeviceSynchronize() __attribute__((weak));              // of the runtime that is linked, if it is

namespace gpu_library {

using namespace qlora;
using Clock = std::chrono::steady_clock;

// The part of cublasLt.h that is used here: handles are opaque, what is returned is 0 or an error.
namespace lt {
constexpr int f32 = 0, bf16 = 14, compute_f32 = 68, transpose_a = 3, workspace_bytes = 1;
struct Choice { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };
using Handle = void*;
int (*create)(Handle*);
int (*new_product)(Handle*, int compute, int scale);
int (*set_product)(Handle, int attribute, const void*, size_t);
int (*new_layout)(Handle*, int type, uint64_t rows, uint64_t cols, int64_t ld);
int (*new_preference)(Handle*);
int (*set_preference)(Handle, int attribute, const void*, size_t);
int (*choose)(Handle, Handle product, Handle a, Handle b, Handle c, Handle d, Handle preference, int wanted, Choice*,
              int* found);
int (*multiply)(Handle, Handle product, const void* alpha, const void* a, Handle, const void* b, Handle,
                const void* beta, const void* c, Handle, void* d, Handle, const Choice*, void* workspace, size_t,
                void* stream);
}  // namespace lt

// What is missing; empty: all is there.
std::string open() {
    void* library = nullptr;
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"})
        if (!library) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) return "no cuBLASLt here (LD_LIBRARY_PATH says where)";
    std::string missing;
    const auto find = [&](auto& function, const char* name) {
        void* const at = dlsym(library, name);
        if (!at) missing = str("cuBLASLt has no ", name);
        std::memcpy(&function, &at, sizeof at);
    };
    find(lt::create, "cublasLtCreate");
    find(lt::new_product, "cublasLtMatmulDescCreate");
    find(lt::set_product, "cublasLtMatmulDescSetAttribute");
    find(lt::new_layout, "cublasLtMatrixLayoutCreate");
    find(lt::new_preference, "cublasLtMatmulPreferenceCreate");
    find(lt::set_preference, "cublasLtMatmulPreferenceSetAttribute");
    find(lt::choose, "cublasLtMatmulAlgoGetHeuristic");
    find(lt::multiply, "cublasLtMatmul");
    return missing;
}

// y {rows, out} = x {rows, in} W^T, all in bf16; the library's matrices lie by columns, so it computes y^T = W x^T.
void measure(BackendImpl& backend, lt::Handle handle, int64_t rows, int64_t out, int64_t in) {
    constexpr size_t most = size_t(32) << 20;
    const auto matrix = [&](int64_t count) {
        const std::vector<float> some = graph_support::random_values(65536, 1);
        std::vector<uint16_t> bits(static_cast<size_t>(count));
        for (size_t i = 0; i < bits.size(); ++i) bits[i] = bf16_from_f32(some[i % 65521]);
        const BufferRef b = backend.allocate(count * 2);
        backend.upload(*b, 0, bits.data(), count * 2);
        return b;
    };
    const BufferRef x = matrix(rows * in), w = matrix(out * in), y = backend.allocate(rows * out * 2),
                    workspace = backend.allocate(int64_t(most));
    backend.synchronize();
    lt::Handle product = nullptr, a = nullptr, b = nullptr, c = nullptr, preference = nullptr;
    const int yes = 1;
    const float one = 1, zero = 0;
    lt::Choice choice{};
    int found = 0, status = lt::new_product(&product, lt::compute_f32, lt::f32);
    const auto then = [&](int code) { status = status ? status : code; };
    then(lt::set_product(product, lt::transpose_a, &yes, sizeof yes));
    then(lt::new_layout(&a, lt::bf16, uint64_t(in), uint64_t(out), in));
    then(lt::new_layout(&b, lt::bf16, uint64_t(in), uint64_t(rows), in));
    then(lt::new_layout(&c, lt::bf16, uint64_t(out), uint64_t(rows), out));
    then(lt::new_preference(&preference));
    then(lt::set_preference(preference, lt::workspace_bytes, &most, sizeof most));
    if (!status) then(lt::choose(handle, product, a, b, c, c, preference, 1, &choice, &found));
    const auto run = [&] {
        then(lt::multiply(handle, product, &one, w->data, a, x->data, b, &zero, y->data, c, y->data, c, &choice,
                          workspace->data, most, nullptr));
    };
    for (int i = 0; i < 3 && !status && found; ++i) run();
    if (!status) then(cudaDeviceSynchronize());
    if (status || !found) {
        std::printf("left out: the library's product of %lld rows, its status is %d\n", static_cast<long long>(rows),
                    status);
        return;
    }
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
        const auto start = Clock::now();
        for (int k = 0; k < 10; ++k) run();
        then(cudaDeviceSynchronize());
        times.push_back(std::chrono::duration<double>(Clock::now() - start).count() / 10);
    }
    std::nth_element(times.begin(), times.begin() + 2, times.end());
    EXPECT_EQ(status, 0);
    std::printf("%-62s %10.1f us  %7.1f TFLOP/s\n",
                str("the library's product, bf16, ", rows, " rows, ", out, " x ", in).c_str(), times[2] * 1e6,
                2 * double(rows) * double(out) * double(in) / times[2] / 1e12);
    std::fflush(stdout);
}

TEST(Library, Products) {
    const bool emulated = device_under_test::is_emulated() || !cudaDeviceSynchronize;
    std::string missing = emulated ? "the emulation has none" : open();
    lt::Handle handle = nullptr;
    const auto backend = device_under_test::backend(Compute::bf16);
    if (missing.empty())
        if (const int status = lt::create(&handle)) missing = str("cublasLtCreate says ", status);
    if (!missing.empty()) {
        std::printf("left out: the library's product: %s\n", missing.c_str());
        return;
    }
    for (const int64_t rows : {1, 64, 512, 4096}) measure(*backend, handle, rows, 14336, 4096);
    measure(*backend, handle, 4096, 4096, 14336);
}

}  // namespace gpu_library
