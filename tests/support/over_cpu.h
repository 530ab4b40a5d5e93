// over_cpu.h - a backend that does everything as the CPU does: tests derive from it what they change.
#pragma once
#include "src/graph/graph.h"

namespace over_cpu {

using namespace qlora;

struct OverCpu : BackendImpl {
    explicit OverCpu(int threads = 2, Compute compute = Compute::f32) : inner(make_cpu_backend(threads, compute)) {
        limit = inner->limit;
    }
    std::string name() const override { return "over " + inner->name(); }
    Json machine() const override { return inner->machine(); }
    Compute compute() const override { return inner->compute(); }
    Compute gradients() const override { return inner->gradients(); }
    Cpu& host() override { return inner->host(); }
    int64_t memory_free() const override { return inner->memory_free(); }
    BufferRef allocate(int64_t bytes, Memory kind) override { return inner->allocate(bytes, kind); }
    void zero(Buffer& at, int64_t offset, int64_t bytes) override { inner->zero(at, offset, bytes); }
    void copy(const Buffer& from, int64_t from_offset, Buffer& to, int64_t to_offset, int64_t bytes) override {
        inner->copy(from, from_offset, to, to_offset, bytes);
    }
    void upload(Buffer& to, int64_t offset, const void* from, int64_t bytes) override {
        inner->upload(to, offset, from, bytes);
    }
    void download(const Buffer& from, int64_t offset, void* to, int64_t bytes) override {
        inner->download(from, offset, to, bytes);
    }
    const Kernel* kernel(Op op) const override { return inner->kernel(op); }
    std::span<const Fusion> fusions() const override { return inner->fusions(); }
    void run(GraphImpl& g, const Plan& plan) override { inner->run(g, plan); }
    Work work() const override { return inner->work(); }
    std::shared_ptr<BackendImpl> inner;
};

}  // namespace over_cpu
