// cpu_backend.cpp - the CPU as a backend: host memory, and a loop that calls the kernel of each planned step.
#include "src/base/large_pages.h"
#include "src/base/limits.h"
#include "src/base/unnamed_file.h"
#include "src/graph/outline.h"
#include "src/graph/pager.h"
#include "src/ops/rooms.h"

#include <cstdlib>

namespace qlora { inline namespace QLORA_ABI {
namespace cpu_backend_room {

constexpr int64_t alignment = 64;                      // a cache line, and the widest vector
// bytes: below this, asking for the free memory is not worth its system calls
constexpr int64_t worth_checking = int64_t(64) << 20;

// Kernels::worth_waking is multiply-adds of an operation, on average over a graph, below which one thread is faster:
// handing an operation to others and waiting for them takes 1 or 2 microseconds, and this is what a core does in them.
// Two Zen 3 cores with AVX2, tokens/s on one and on two threads: 7.9 and 7.0 thousand at 3,200 multiply-adds an
// operation, 1.3 and 1.9 at 14,000, 4.6 and 3.6 to 5.9 at 26,000; two Zen 5 cores with AVX-512, a tiny model: 11.4 and
// 8.2. On average, because threads that slept through a small operation must be woken for the next.
bool is_small(const GraphImpl& g, const Plan& plan, const Kernels& kernels) {
    int64_t work = 0;
    for (const int32_t id : plan.order) {
        const Node& n = g.node(id);
        work += n.elements();
        // a product with a stored matrix: every row of the other factor meets all of it
        for (const int32_t s : n.src) {
            if (s < 0 || !g.node(s).weight || g.node(s).shape.size() != 2 || n.op == Op::embedding) continue;
            const Node& x = g.node(n.src[0]);
            work += x.elements() / x.shape.back() * g.node(s).elements();
        }
    }
    return work < kernels.worth_waking * int64_t(plan.order.size());
}

class CpuBackend : public BackendImpl {
public:
    CpuBackend(int threads, Compute compute, const Kernels& kernels)
        : cpu_(threads, compute, kernels), choose_(threads == 0) {}
    std::shared_ptr<BackendImpl> outline() const override {
        return std::make_shared<Outline<CpuBackend>>(cpu_.pool.size(), cpu_.compute, *cpu_.kernels);
    }

    std::string name() const override {
        const int threads = cpu_.pool.size();
        return str("cpu, ", threads, threads == 1 ? " thread, " : " threads, ", cpu_.kernels->name);
    }
    Json machine() const override {
        return Json()
            .set("device", "cpu")
            .set("instructions", std::string(cpu_.kernels->name))
            .set("compute", std::string(name_of(cpu_.compute)))
            .set("gradients", std::string(name_of(cpu_.gradients())))
            .set("threads", int64_t(cpu_.pool.size()));
    }
    Compute compute() const override { return cpu_.effective(); }
    Compute gradients() const override { return cpu_.gradients(); }
    Cpu& host() override { return cpu_; }
    int64_t memory_free() const override { return available_memory(); }

    BufferRef allocate(int64_t bytes, Memory) override {
        // calloc and not aligned_alloc: large zeroed memory comes from the system page by page, when it is first
        // touched. That is also why calloc alone does not notice that a large request cannot be met: the machine would,
        // later, by killing the process.
        const bool refuse = bytes < 0 || (bytes > worth_checking && bytes > available_memory());
        const auto counted = limit->take(std::max<int64_t>(bytes, 0), "cpu");
        void* raw = refuse ? nullptr : std::calloc(size_t(bytes + 2 * alignment), 1);
        if (!raw)
            fail(Errc::memory, "cpu: ", bytes,
                 " bytes of memory are not available; use a smaller model, context or batch");
        wish_large_pages(raw, size_t(bytes + 2 * alignment));
        const uintptr_t aligned = (reinterpret_cast<uintptr_t>(raw) + alignment - 1) / alignment * alignment;
        return std::make_shared<Buffer>(Buffer{reinterpret_cast<void*>(aligned), bytes,
                                               std::shared_ptr<void>(raw, [counted](void* p) { std::free(p); })});
    }

    void zero(Buffer& at, int64_t offset, int64_t bytes) override {
        if (bytes) std::memset(bytes_at("cpu: zero", at, offset, bytes), 0, size_t(bytes));
    }
    void copy(const Buffer& from, int64_t from_offset, Buffer& to, int64_t to_offset, int64_t bytes) override {
        const char* source = bytes_at("cpu: copy", from, from_offset, bytes);
        if (bytes) std::memmove(bytes_at("cpu: copy", to, to_offset, bytes), source, size_t(bytes));
    }
    void upload(Buffer& to, int64_t offset, const void* from, int64_t bytes) override {
        if (bytes) std::memcpy(bytes_at("cpu: upload", to, offset, bytes), from, size_t(bytes));
    }
    void download(const Buffer& from, int64_t offset, void* to, int64_t bytes) override {
        if (bytes) std::memcpy(to, bytes_at("cpu: download", from, offset, bytes), size_t(bytes));
    }

    std::shared_ptr<Pager> pager(const PageRequest& request) override { return cpu_pager(request, memory_left()); }

    BufferRef apart(int64_t bytes, const std::string& folder) override {
        const std::shared_ptr<void> at = map_unnamed_file(
            folder, bytes, "inputs of layers in a file",
            "choose another folder (AdamW::page_folder), or keep them in memory (TrainOptions::inputs_apart)");
        return std::make_shared<Buffer>(Buffer{at.get(), bytes, at, true});
    }

    const Kernel* kernel(Op op) const override { return cpu_kernel(op); }
    std::span<const Fusion> fusions() const override { return fusions_; }

    void run(GraphImpl& g, const Plan& plan) override {
        const ThreadPool::Alone alone(choose_ && is_small(g, plan, *cpu_.kernels));
        run_steps(g, plan);
    }

    bool is_readable_here() const override { return true; }
    int64_t rows_alike(const WeightRef& w) const override { return qlora::rows_alike(cpu_, w); }
    int64_t rows_of_half_factors() const override {
        return cpu_.effective() == Compute::mixed && cpu_.kernels->dots_of(DType::f16) ? gemv_rows : 0;
    }

    Work work() const override { return {cpu_.work.operations.load(), cpu_.work.bytes.load()}; }

private:
    Cpu cpu_;
    const std::array<Fusion, 2> fusions_{adapted_cpu, qmatmuls_cpu};
    const bool choose_;                                // the caller left the number of threads to us
};

}  // namespace cpu_backend_room

std::shared_ptr<BackendImpl> make_cpu_backend(int threads, Compute compute, std::string_view instructions) {
    return std::make_shared<cpu_backend_room::CpuBackend>(threads, compute, kernels_named(instructions));
}

}}  // namespace qlora
