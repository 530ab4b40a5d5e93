// planned.cpp - a CUDA device that is not there. It stores results, asks for scratch and fuses operations as the
// backend does, and has no kernels: its outline makes the plans of a device.
#include "src/cuda/plan/planned.h"

#include "src/cpu/cpu.h"
#include "src/cuda/plan/table.h"
#include "src/graph/outline.h"

#include <array>

namespace qlora { inline namespace QLORA_ABI {
namespace planned_room {

const Kernel* scratch_alone(Op op) {
    static const auto table = [] {
        std::array<Kernel, size_t(Op::count)> kernels;
        for (size_t i = 0; i < kernels.size(); ++i) kernels[i].scratch = cuda::scratch_of(Op(i));
        return kernels;
    }();
    return &table[size_t(op)];
}
const Fusion products{cuda::qmatmul_room::fusion_name, cuda::qmatmul_room::products_of_x, nullptr};

class Planned : public cuda::Planning {
public:
    explicit Planned(const cuda::Facts& facts) { static_cast<cuda::Facts&>(*this) = facts; }
    std::string name() const override { return str("cuda, planned for sm_", capability); }
    Json machine() const override {
        return Json()
            .set("device", "cuda")
            .set("instructions", str("sm_", capability))
            .set("compute", std::string(name_of(compute())))
            .set("gradients", std::string(name_of(gradients())))
            .set("threads", int64_t(0));
    }
    Cpu& host() override { return cpu_; }
    int64_t memory_free() const override { return MemoryLimit::none; }         // nobody was asked
    std::shared_ptr<BackendImpl> outline() const override {
        return std::make_shared<Outline<Planned>>(static_cast<const cuda::Facts&>(*this));
    }

    const Kernel* kernel(Op op) const override { return scratch_alone(op); }
    std::span<const Fusion> fusions() const override { return std::span(&products, exact ? 0 : 1); }

    BufferRef allocate(int64_t, Memory) override { refuse(); }
    BufferRef apart(int64_t, const std::string&) override { refuse(); }
    void zero(Buffer&, int64_t, int64_t) override { refuse(); }
    void copy(const Buffer&, int64_t, Buffer&, int64_t, int64_t) override { refuse(); }
    void upload(Buffer&, int64_t, const void*, int64_t) override { refuse(); }
    void download(const Buffer&, int64_t, void*, int64_t) override { refuse(); }
    std::shared_ptr<Pager> pager(const PageRequest&) override { refuse(); }
    WeightPtr hold(WeightPtr, Placement) override { refuse(); }
    void run(GraphImpl&, const Plan&) override { refuse(); }

private:
    [[noreturn]] static void refuse() {
        fail(Errc::device, "cuda: this device is planned for (Backend::planned_cuda) and not there: Model::outline "
                           "takes it and nothing else; use Backend::cuda() or Backend::cpu()");
    }
    Cpu cpu_;                                          // for work that is no graph's
};

}  // namespace planned_room

std::shared_ptr<BackendImpl> make_planned_cuda_backend(const cuda::Facts& facts) {
    return std::make_shared<planned_room::Planned>(facts);
}

}}  // namespace qlora
