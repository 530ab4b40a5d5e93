// gemm_test.cpp - every form of the products of src/cuda on the emulation.
#include "tests/cuda/gemm_case.h"

namespace cuda_gemm_tests {

using namespace gemm_case;

TEST(CudaGemm, ExactProductsAreSumsInF32) {
    for (const bool a_across : {false, true})
        for (const bool b_across : {false, true}) {
            check({1, 1, 1, a_across, b_across}, true);
            check({17, 23, 77, a_across, b_across, DType::f32, DType::f32, DType::f32}, true);
            check({66, 70, 33, a_across, b_across, DType::f32, DType::bf16, DType::f32, 0.5f, 2, 3, 1}, true);
            check({65, 3, 20, a_across, b_across, DType::bf16, DType::f32, DType::bf16, -1, 1, 0, 0, true}, true);
        }
    check({3, 5, 0, false, false, DType::f32, DType::f32, DType::f32}, true);
    check({3, 5, 0, false, false, DType::f32, DType::f32, DType::f32, 1, 0.5f}, true);
}

TEST(CudaGemm, TensorCoresSumEveryForm) {
#if defined(__SANITIZE_THREAD__)                        // minutes otherwise
    check({66, 72, 200, true, false}, false, Tiling::medium);
    check({24, 72, 256, false, true, DType::bf16, DType::bf16, DType::f32, 1, 1}, false, Tiling::slim, 2);
    check({72, 16, 320}, false, Tiling::rank);
    return;
#endif
    for (const bool b_across : {false, true}) {
        for (const bool a_across : {false, true}) {
            check({17, 23, 77, a_across, b_across}, false, Tiling::medium);                     // all is packed
            check({136, 144, 200, a_across, b_across, DType::bf16, DType::bf16, DType::bf16, 0.5f}, false,
                  Tiling::medium);
            check({72, 130, 72, a_across, b_across, DType::f32, DType::bf16, DType::f32, 2, 1, 8}, false, Tiling::slim,
                  2);
            check({150, 24, 600, a_across, b_across, DType::bf16, DType::f32, DType::bf16, 1, 1, 0, 0, true}, false,
                  Tiling::slim, 3);
            check({16, 136, 330, a_across, b_across, DType::bf16, DType::bf16, DType::f32, 1, 1}, false, Tiling::rank,
                  5);
            check({140, 8, 64, a_across, b_across, DType::bf16, DType::bf16, DType::bf16}, false, Tiling::rank);
            check({1, 1, 1, a_across, b_across, DType::f32, DType::f32, DType::f32}, false, Tiling::rank);
        }
        check({130, 264, 136, false, b_across}, false, Tiling::large);
        check({20, 300, 64, false, b_across, DType::bf16, DType::bf16, DType::f32, 1, 0.5f, 4, 4}, false,
              Tiling::large);
    }
}

TEST(CudaGemm, SizesChooseTheEngine) {
    check({1, 1, 1}, false);
    check({40, 200, 40, false, false, DType::f32, DType::f32, DType::f32}, false);
    check({70, 80, 90, false, true, DType::bf16, DType::bf16, DType::bf16, 1, 0, 0, 1}, false);    // at odd addresses
    check({16, 40, 1100, true, true, DType::bf16, DType::bf16, DType::f32}, false);
    const auto tiling = [](int capability, int64_t m, int64_t n, int64_t k, bool exact = false) {
        cuda::Product p;
        p.m = m, p.n = n, p.k = k;
        p.a.type = p.b.type = DType::bf16;
        return cuda::gemm_room::way_of({capability, exact, true}, p).tiling;
    };
    EXPECT_EQ(tiling(80, 4096, 4096, 4096), Tiling::large);
    EXPECT_EQ(tiling(89, 4096, 4096, 4096), Tiling::medium);
    EXPECT_EQ(tiling(75, 4096, 4096, 4096), Tiling::f32);
    EXPECT_EQ(tiling(90, 4096, 4096, 4096, true), Tiling::f32);
    EXPECT_EQ(tiling(80, 512, 4096, 4096), Tiling::medium);
    EXPECT_EQ(tiling(90, 4096, 16, 4096), Tiling::rank);
    EXPECT_EQ(tiling(90, 4096, 64, 4096), Tiling::slim);
    EXPECT_EQ(tiling(90, 8, 8, 8), Tiling::f32);
}

}  // namespace cuda_gemm_tests
