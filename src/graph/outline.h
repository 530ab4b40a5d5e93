// outline.h - a backend without memory: a plan is made of sizes, not of numbers. Buffers are addresses that nobody may
// follow, weights stay where they are, and what would read or compute is refused.
#pragma once
#include "src/base/system.h"
#include "src/graph/pager.h"

namespace qlora { inline namespace QLORA_ABI {

// Addresses of their own, as buffers that share none must have; touching one ends the process.
inline BufferRef address_of_nothing(int64_t bytes) {
    const size_t size = size_t(std::max<int64_t>(bytes, 1));
    void* const at = sys::addresses(size);
    if (!at) fail(Errc::memory, "outline: there are no ", bytes, " addresses left");
    return std::make_shared<Buffer>(
        Buffer{at, bytes, std::shared_ptr<void>(at, [size](void* p) { sys::give_back(p, size); })});
}

// As much is held as a pager of this window would.
struct OutlinePager final : Pager {
    OutlinePager(const PageRequest& request, int64_t least) : request_(request) {
        window_ = std::min(std::max(least, request.budget / request.piece_bytes()), request.pieces());
        for (const auto& a : request.arrays) arrays_.push_back(address_of_nothing(a.bytes));
    }
    std::string kind() const override { return "outline"; }
    int64_t held_bytes() const override { return std::min(window_ * request_.piece_bytes(), request_.bytes()); }
    const BufferRef& array(size_t a) const override { return arrays_[a]; }
    BufferRef piece(size_t a, int64_t i) const override {
        const int64_t first = i * request_.arrays[a].piece;
        return slice(arrays_[a], first, std::min(request_.arrays[a].piece, request_.arrays[a].bytes - first));
    }
    void bring(int64_t, int64_t) override {}
    void leave(int64_t) override {}
    void settle() override {}
private:
    const PageRequest request_;
    int64_t window_ = 0;
    std::vector<BufferRef> arrays_;
};

template <class Of>
struct Outline final : Of {
    using Of::Of;
    bool is_outline() const override { return true; }
    std::shared_ptr<BackendImpl> outline() const override { fail(Errc::argument, "outline: this is one already"); }
    BufferRef allocate(int64_t bytes, Memory) override { return address_of_nothing(bytes); }
    BufferRef apart(int64_t bytes, const std::string&) override { return address_of_nothing(bytes); }
    void zero(Buffer&, int64_t, int64_t) override {}
    void copy(const Buffer&, int64_t, Buffer&, int64_t, int64_t) override {}
    void upload(Buffer&, int64_t, const void*, int64_t) override {}
    void download(const Buffer&, int64_t, void*, int64_t) override { refuse(); }
    WeightPtr hold(WeightPtr w, Placement) override { return w; }
    // Without a budget nothing is paged: what is free here says nothing of the machine that is planned for.
    std::shared_ptr<Pager> pager(const PageRequest& request) override {
        if (request.budget == 0 || request.bytes() <= request.budget) return nullptr;
        return std::make_shared<OutlinePager>(request, this->has_host_memory() ? 1 : least_window);
    }
    void run(GraphImpl&, const Plan&) override { refuse(); }
private:
    [[noreturn]] static void refuse() {
        fail(Errc::argument, "this model is an outline (Model::outline), which can be planned with and nothing else; "
                             "use Model::load");
    }
};

}}  // namespace qlora
