// gemm_hopper_test.cpp - products by warpgroups on the emulation, in several orders of threads and of copies; and what
// the emulation must notice in kernels that use their instructions wrongly: each mistake is planted here.
#include "tests/cuda/gemm_case.h"

namespace cuda_gemm_hopper_tests {

using namespace gemm_case;

TEST(CudaGemmHopper, WarpgroupsSumEveryForm) {
    for (const bool wide : {true, false})
        for (const bool b_across : {false, true}) {
            const auto sums = [&](Case t, int stretches = 1) {
                t.b_across = b_across;
                check(t, false, wide ? Tiling::wide : Tiling::narrow, stretches);
            };
            sums({128, 256, 64});
            Case edges{136, wide ? 264 : 136, wide ? 328 : 456};    // and the ring goes round
            edges.c = DType::f32, edges.alpha = 0.5f;
            sums(edges);
            Case added{130, 136, 72};
            added.alpha = -2, added.beta = 0.5f, added.pad = 8;
            sums(added);
            Case apart{72, 200, 200};
            apart.c = DType::f32, apart.beta = 1, apart.apart = true;
            sums(apart, 3);
            Case packed{20, 30, 77};
            packed.a = packed.b = DType::f32, packed.shift = 1;
            sums(packed);
            sums({8, 8, 8}, 3);                        // two stretches are empty
        }
}

TEST(CudaGemmHopper, SizesAndTheDriverChooseIt) {
    const auto tiling = [](int64_t m, int64_t n, int64_t k, int capability = 90, bool a_across = false) {
        cuda::Product p;
        p.m = m, p.n = n, p.k = k, p.a_across = a_across;
        p.a.type = p.b.type = DType::bf16;
        return cuda::gemm_room::way_of({capability, false, cuda::gemm_room::finds_warpgroups(capability)}, p);
    };
    EXPECT_EQ(tiling(4096, 4096, 4096).tiling, Tiling::wide);
    EXPECT_EQ(tiling(1024, 4096, 4096).tiling, Tiling::wide);
    EXPECT_EQ(tiling(512, 4096, 4096).tiling, Tiling::narrow);    // 64 wide tiles would be half of the processors
    EXPECT_EQ(tiling(512, 4096, 4096).stretches, 1);
    EXPECT_EQ(tiling(128, 4096, 4096).stretches, 4);
    EXPECT_EQ(tiling(64, 4096, 4096).tiling, Tiling::slim);
    EXPECT_EQ(tiling(4096, 4096, 4096, 90, true).tiling, Tiling::medium);
    EXPECT_EQ(tiling(4096, 4096, 4096, 100).tiling, Tiling::large);
    check({128, 128, 64}, false);
    cuda_emulation::tensor_maps = false;
    EXPECT_EQ(tiling(4096, 4096, 4096).tiling, Tiling::large);
    cuda_emulation::tensor_maps = true;
}

// ---- Mistakes. The thread sanitizer reports threads that were abandoned in the middle itself.
#if defined(__SANITIZE_THREAD__)
#define QLORA_SKIP_MISTAKES GTEST_SKIP() << "the thread sanitizer reports abandoned threads itself"
#else
#define QLORA_SKIP_MISTAKES
#endif
constexpr int box_bytes = 64 * 128;

std::string mistake(const std::function<void(unsigned char*, uint64_t*)>& kernel) {
    try {
        cuda_emulation::run(dim3(1), 128, box_bytes + 8, [&] {
            QLORA_DYNAMIC_SHARED(unsigned char, memory);
            uint64_t* const arrived = reinterpret_cast<uint64_t*>(memory + box_bytes);
            if (threadIdx.x == 0) cuda::mbarrier_init(arrived, 1);
            __syncthreads();
            kernel(memory, arrived);
        });
    } catch (const cuda_emulation::Failure& e) {
        return e.what();
    }
    return "none";
}
#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

struct Box {
    std::vector<uint16_t> ones = std::vector<uint16_t>(64 * 64, 0x3F80);
    cuda::TensorMap map(int lines = 64) const { return cuda::tensor_map(ones.data(), 64, 64, 64, lines); }
};

TEST(CudaHopperEmulation, AWaitIsForAnnouncedBytesThatArrive) {
    QLORA_SKIP_MISTAKES;
    const Box box;
    const cuda::TensorMap map = box.map();
    const auto copied = [&](int announced, bool copy) {
        return mistake([&](unsigned char* memory, uint64_t* arrived) {
            if (threadIdx.x == 0) {
                if (announced) cuda::mbarrier_expect(arrived, announced);
                if (copy) cuda::bulk_copy(memory, map, 0, 0, arrived);
            }
            cuda::mbarrier_wait(arrived, 0);
            EXPECT_EQ(reinterpret_cast<uint16_t*>(memory)[threadIdx.x], 0x3F80);
        });
    };
    EXPECT_EQ(copied(box_bytes, true), "none");
    EXPECT_SAYS(copied(0, true), "a wait that never ends");
    EXPECT_SAYS(copied(box_bytes, false), "a wait that never ends");
    EXPECT_SAYS(copied(box_bytes / 2, true), "a wait that never ends");
    EXPECT_SAYS(mistake([&](unsigned char* memory, uint64_t* arrived) {
        if (threadIdx.x == 0) cuda::bulk_copy(memory, map, 0, 0, arrived);
    }), "nobody waited for");
    EXPECT_SAYS(mistake([&](unsigned char* memory, uint64_t* arrived) {
        cuda::bulk_copy(memory + 512, map, 0, 0, arrived);
    }), "multiple of 1024");
}

// All of a warpgroup sum the ones of a box: accumulators are 16 after each product.
struct Sums {
    float d[16][4] = {};
    void start(const unsigned char* memory, bool fence = true) {
        const uint64_t ones = cuda::matrix_at(memory, 16, 1024);
        if (fence) cuda::wgmma_fence();
        cuda::wgmma<true>(d, ones, cuda::matrix_at(memory, 0, 1024));
        cuda::wgmma_commit();
    }
    bool are(float value) const {
        for (const auto& four : d)
            for (const float x : four)
                if (std::isnan(value) ? !std::isnan(x) : x != value) return false;
        return true;
    }
};

TEST(CudaHopperEmulation, SumsAreThereAfterTheWait) {
    QLORA_SKIP_MISTAKES;
    const auto fill = [](unsigned char* memory) {
        for (int i = int(threadIdx.x); i < box_bytes / 2; i += 128) reinterpret_cast<uint16_t*>(memory)[i] = 0x3F80;
        __syncthreads();
    };
    EXPECT_EQ(mistake([&](unsigned char* memory, uint64_t*) {
        fill(memory);
        Sums sums;
        sums.start(memory);
        EXPECT_TRUE(sums.are(NAN));
        sums.start(memory);
        cuda::wgmma_wait<1>();
        EXPECT_TRUE(sums.are(NAN));                    // the second product adds to them
        cuda::wgmma_wait<0>();
        EXPECT_TRUE(sums.are(32));
    }), "none");
    EXPECT_SAYS(mistake([&](unsigned char* memory, uint64_t*) {
        fill(memory);
        Sums().start(memory);
    }), "products that nobody waited for");
    EXPECT_SAYS(mistake([&](unsigned char* memory, uint64_t*) {
        fill(memory);
        Sums sums;
        sums.start(memory, false);
    }), "no wgmma_fence()");
    EXPECT_SAYS(mistake([&](unsigned char* memory, uint64_t*) {
        fill(memory);
        Sums sums;
        sums.start(memory);
        sums.d[3][1] = 0;
        cuda::wgmma_wait<0>();
    }), "written during a product");
    EXPECT_SAYS(mistake([&](unsigned char* memory, uint64_t*) {
        fill(memory);
        Sums sums;
        sums.start(memory + (threadIdx.x == 5 ? 1024 : 0));
        cuda::wgmma_wait<0>();
    }), "different products");
}

// Shared memory is read until the wait: what is put there before it is what counts.
TEST(CudaHopperEmulation, ARefillBeforeTheWaitShows) {
    QLORA_SKIP_MISTAKES;
    EXPECT_EQ(mistake([](unsigned char* memory, uint64_t*) {
        const auto fill = [&](uint16_t bits) {
            for (int i = int(threadIdx.x); i < box_bytes / 2; i += 128) reinterpret_cast<uint16_t*>(memory)[i] = bits;
            __syncthreads();
        };
        fill(0x3F80);
        Sums sums;
        sums.start(memory);
        fill(0x4000);
        cuda::wgmma_wait<0>();
        EXPECT_TRUE(sums.are(64));
    }), "none");
}

}  // namespace cuda_gemm_hopper_tests
