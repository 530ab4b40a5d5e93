// backend.cuh - a CUDA device as a backend: its memory, the weights it holds, and a loop that starts the kernel of each
// planned step.
//
// Work is started and never waited for, until somebody downloads. Results that only products read are stored in bf16;
// the residual stream, statistics, the loss, factors and their gradients stay f32. With Compute::f32 everything does.
#pragma once
#include "src/cuda/gemm_hopper.cuh"
#include "src/cuda/memory.cuh"
#include "src/cuda/pager.cuh"
#include "src/cuda/room.cuh"
#include "src/graph/outline.h"

#include <map>
#include <mutex>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

inline const Kernel* kernel_of(Op op) {
    static const Kernel* const table[] = {
#define QLORA_LEAF(name, room) nullptr,
#define QLORA_OP(name, room) &name##_cuda,
#include "src/graph/ops.def"
    };
    return table[size_t(op)];
}

// A plan as the device replays it.
struct Recorded {
    explicit Recorded(std::shared_ptr<Stream> q) : queue(std::move(q)) {}
    ~Recorded() { if (graph) cudaGraphExecDestroy(graph); }
    Recorded(const Recorded&) = delete;
    Recorded& operator=(const Recorded&) = delete;
    template <class F> void record(const F& start) {
        cudaGraph_t made = nullptr;
        refused = true;
        if (cudaStreamBeginCapture(queue->get(), cudaStreamCaptureModeThreadLocal) != cudaSuccess)
            return void(cudaGetLastError());           // run without
        try {
            start();
        } catch (...) {
            cudaStreamEndCapture(queue->get(), &made);
            if (made) cudaGraphDestroy(made);
            throw;
        }
        check(cudaStreamEndCapture(queue->get(), &made), "record a run");
        refused = cudaGraphInstantiate(&graph, made, 0) != cudaSuccess;        // no memory for it, for example
        cudaGraphDestroy(made);
        if (!refused) return;
        cudaGetLastError();
        graph = nullptr;
    }
    std::shared_ptr<Stream> queue;
    cudaGraphExec_t graph = nullptr;
    bool refused = false;
    Work work;                                         // of one run
};

class CudaBackend : public Device {
public:
    CudaBackend(int number, Compute compute) : Device(number), number_(number) {
        exact = compute == Compute::f32;
        cudaDeviceProp p{};
        check(cudaGetDeviceProperties(&p, number), "ask for the properties of the device");
        multiprocessors = p.multiProcessorCount;
        capability = p.major * 10 + p.minor;
        model_ = p.name;
        cudaFuncAttributes known{};
        check(cudaFuncGetAttributes(&known, check_indices), str("use ", model_, ", sm_", capability));
        warpgroups = gemm_room::finds_warpgroups(capability);
        faults_ = Memory(sizeof(Fault));
        fault = faults_.as<Fault>();
        check(cudaMemsetAsync(fault, 0, sizeof(Fault), stream.get()), "clear");
    }

    std::string name() const override { return str("cuda:", stream.device(), ", ", model_); }
    Json machine() const override {
        return Json()
            .set("device", "cuda")
            .set("instructions", str("sm_", capability))
            .set("compute", std::string(name_of(compute())))
            .set("threads", int64_t(multiprocessors));
    }
    Cpu& host() override { return cpu_; }
    int64_t memory_free() const override {
        stream.use();
        return stream.memory_free();
    }

    BufferRef allocate(int64_t bytes, qlora::Memory kind) override {
        const std::lock_guard lock(mutex_);
        stream.use();
        void* data = nullptr;
        const int64_t size = std::max<int64_t>(bytes, 1);
        const auto taken = limit->take(size, "cuda");
        const bool on_host = kind == qlora::Memory::pinned || kind == qlora::Memory::host;
        const cudaError_t code = on_host ? cudaMallocHost(&data, size_t(size)) : cudaMalloc(&data, size_t(size));
        if (code != cudaSuccess) refuse(code, size);
        std::shared_ptr<void> owner(data, [on_host, taken, queue = queue](void* p) {
            queue->use_at_end();
            on_host ? cudaFreeHost(p) : cudaFree(p);
        });
        check(cudaMemsetAsync(data, 0, size_t(size), stream.get()), "clear memory");
        return std::make_shared<Buffer>(Buffer{data, bytes, std::move(owner)});
    }

    void zero(Buffer& at, int64_t offset, int64_t bytes) override {
        const std::lock_guard lock(mutex_);
        stream.use();
        void* const to = bytes_at("cuda: zero", at, offset, bytes);
        if (bytes) check(cudaMemsetAsync(to, 0, size_t(bytes), stream.get()), "clear memory");
    }
    void copy(const Buffer& from, int64_t from_offset, Buffer& to, int64_t to_offset, int64_t bytes) override {
        const std::lock_guard lock(mutex_);
        stream.use();
        const void* const source = bytes_at("cuda: copy", from, from_offset, bytes);
        void* const target = bytes_at("cuda: copy", to, to_offset, bytes);
        if (bytes) check(cudaMemcpyAsync(target, source, size_t(bytes), cudaMemcpyDefault, stream.get()), "copy");
    }
    void upload(Buffer& to, int64_t offset, const void* from, int64_t bytes) override {
        const std::lock_guard lock(mutex_);
        stream.use();
        staging_.send(stream, bytes_at("cuda: upload", to, offset, bytes), from, bytes);
    }
    void download(const Buffer& from, int64_t offset, void* to, int64_t bytes) override {
        const std::lock_guard lock(mutex_);
        stream.use();
        const void* const source = bytes_at("cuda: download", from, offset, bytes);
        wait([&] {
            if (bytes) check(cudaMemcpyAsync(to, source, size_t(bytes), cudaMemcpyDefault, stream.get()), "copy back");
        });
    }
    void synchronize() override {
        const std::lock_guard lock(mutex_);
        stream.use();
        wait([] {});
    }

    std::shared_ptr<BackendImpl> outline() const override {
        return std::make_shared<Outline<CudaBackend>>(number_, compute());
    }
    std::shared_ptr<Pager> pager(const PageRequest& request) override {
        const std::lock_guard lock(mutex_);
        stream.use();
        const int64_t room = std::min(stream.memory_free(), limit->left());
        const int64_t reserve = std::min(paging_reserve, room / 16);
        const int64_t most = request.budget > 0 ? std::min(request.budget, room - reserve) : room / 2;
        if (request.bytes() <= most) return nullptr;
        return std::make_shared<DevicePager>(request, queue, room, reserve);
    }

    WeightPtr hold(WeightPtr w, Placement placement) override {
        if (const auto* held = dynamic_cast<const HeldWeight*>(w->held.get()); held && held->stream == queue) return w;
        w = on_host(std::move(w));
        const std::lock_guard lock(mutex_);
        stream.use();
        auto held = std::make_shared<HeldWeight>();
        held->stream = queue;
        held->on_device = moved(*w, [&](const void* from, int64_t bytes) -> std::shared_ptr<const void> {
            // Codebooks and maps: one of each kind, by which kernels see that two weights share theirs.
            const std::string key = bytes <= 1024 ? std::string(static_cast<const char*>(from), size_t(bytes)) : "";
            if (auto same = key.empty() ? nullptr : constants_[key].lock()) return same;
            void* data = nullptr;
            const auto taken = limit->take(bytes, "weights");
            // of the host, rows of a table are read over the bus when they are asked for
            const bool here = placement == Placement::device;
            const cudaError_t code = here ? cudaMalloc(&data, size_t(bytes)) : cudaMallocHost(&data, size_t(bytes));
            if (code != cudaSuccess) refuse(code, bytes);
            // What it captures goes with the memory and not with the last weak pointer.
            std::shared_ptr<void> owner(data, [here, taken = taken, queue = queue](void* p) mutable {
                queue->use_at_end();
                here ? cudaFree(p) : cudaFreeHost(p);
                taken.reset();
                queue.reset();
            });
            staging_.send(stream, data, from, bytes);
            if (!key.empty() && here) constants_[key] = owner;
            return owner;
        });
        w->check();
        Weight out = held->on_device;
        out.held = held;
        return std::make_shared<const Weight>(std::move(out));
    }

    const Kernel* kernel(Op op) const override { return kernel_of(op); }
    std::span<const Fusion> fusions() const override { return std::span(&qmatmuls_cuda, exact ? 0 : 1); }

    // The first run starts kernel after kernel (which loads their code), the second one is recorded, and from then on a
    // single call starts all: a launch takes 4 us, a node of a recording 0.8 (H100). Addresses and constants of a plan
    // do not change; what does (indices, the step of dropout) is in device memory.
    void run(GraphImpl& g, const Plan& plan) override {
        const std::lock_guard lock(mutex_);
        stream.use();
        auto recorded = std::static_pointer_cast<Recorded>(g.recorded);
        if (!recorded) {
            g.recorded = recorded = std::make_shared<Recorded>(queue);
            const Work before = work();
            run_steps(g, plan);
            recorded->work = {work().operations - before.operations, work().bytes - before.bytes};
            return;
        }
        if (!recorded->graph && !recorded->refused) {
            const Work before = work();
            recorded->record([&] { run_steps(g, plan); });
            counted.add(before.operations - work().operations, before.bytes - work().bytes);   // written down, not done
        }
        if (!recorded->graph) return run_steps(g, plan);
        check(cudaGraphLaunch(recorded->graph, stream.get()), "start a recorded run");
        counted.add(recorded->work.operations, recorded->work.bytes);
    }
    Work work() const override { return {counted.operations.load(), counted.bytes.load()}; }

private:
    [[noreturn]] void refuse(cudaError_t code, int64_t bytes) const {
        cudaGetLastError();
        size_t available = 0, total = 0;
        cudaMemGetInfo(&available, &total);
        if (code != cudaErrorMemoryAllocation) check(code, str("allocate ", bytes, " bytes"));
        fail(Errc::memory, name(), ": ", bytes, " bytes are not available, ", available, " of ", total,
             " are free and this program has ", limit->used(), "; use a smaller context (--context), batch (--batch) "
             "or rank (--rank), or end what else runs there (nvidia-smi shows it)");
    }
    template <class F> void wait(const F& copies) {
        Fault found;
        stream.fetch([&] {
            copies();
            check(cudaMemcpyAsync(&found, fault, sizeof found, cudaMemcpyDeviceToHost, stream.get()), "copy back");
        });
        if (!found.found) return;
        check(cudaMemsetAsync(fault, 0, sizeof(Fault), stream.get()), "clear");
        const char* const op = op_def(Op(found.op)).name;
        if (found.found == wrong_number)
            fail(Errc::numeric, op, ": row ", found.row, " has the number ", found.number, ", which ",
                 name_of(DType(found.type)), " cannot hold", std::isfinite(found.number) ? "; choose bf16 or f32" : "");
        fail(Errc::argument, op, ": id ", found.value, " in row ", found.row, " is outside of 0 to ",
             found.limit - 1);
    }

    const int number_;
    std::string model_;
    Cpu cpu_;                                          // for work that is no graph's
    std::mutex mutex_;                                 // the staging memory, and the order of what belongs together
    Staging staging_;
    std::map<std::string, std::weak_ptr<const void>> constants_;               // small arrays of weights, by content
    Memory faults_;
};

}  // namespace cuda

std::shared_ptr<BackendImpl> make_cuda_backend(int device, Compute compute) {
    return std::make_shared<cuda::CudaBackend>(device, compute);
}
int64_t cuda_kernels_started() { return cuda::launches.load(); }

}}  // namespace qlora
