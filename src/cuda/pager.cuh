// pager.cuh - states of an optimizer that are larger than their share of the device: piece by piece in, updated, out,
// on three streams, so that one piece comes and another leaves while a third is updated.
//
//   pinned    host memory that cannot be paged, and a window of device memory: 90 GB/s both ways together on an H100
//   managed   unified memory, moved by prefetches only, so that it never faults: 21 GB/s there, so where pinned memory
//             cannot be had; QLORA_PAGES=managed or pinned chooses
//
// Two rules, checked before anything is allocated: the window holds three pieces and stays within its budget and what
// is free; managed memory and what is in use never exceed the device together: the driver has no reason to evict.
// Piece i has the place i modulo the window: walks forward and backward in turn find there what the last one left.
#pragma once
#include "src/cuda/device.cuh"
#include "src/graph/pager.h"

#include <cstdlib>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// Bytes to leave free: what the driver takes for code, queues and recorded runs.
constexpr int64_t paging_reserve = int64_t(256) << 20;

inline cudaError_t prefetch(void* data, int64_t bytes, int device, cudaStream_t stream) {     // device -1: the host
#if CUDART_VERSION >= 13000
    cudaMemLocation to{};
    to.type = device < 0 ? cudaMemLocationTypeHost : cudaMemLocationTypeDevice;
    to.id = device < 0 ? 0 : device;
    return cudaMemPrefetchAsync(data, size_t(bytes), to, 0, stream);
#else
    return cudaMemPrefetchAsync(data, size_t(bytes), device < 0 ? cudaCpuDeviceId : device, stream);
#endif
}

class DevicePager final : public Pager {
public:
    DevicePager(const PageRequest& request, std::shared_ptr<Stream> compute, int64_t room, int64_t reserve)
        : request_(request), compute_(std::move(compute)) {
        const int64_t least = least_window * request.piece_bytes(),
                      budget = request.budget > 0 ? std::max(request.budget, least) : room / 2;
        window_ = std::min(std::min(budget, room - reserve) / request.piece_bytes(), request.pieces());
        if (window_ < std::min(least_window, request.pieces()))
            fail(Errc::memory, "page states of the optimizer: ", room, " bytes of the device are free, ", reserve,
                 " of them stay so, and three pieces of ", request.piece_bytes(), " are needed; use a lower "
                 "rank, 8-bit states or a smaller model");
        try {
            choose(room - reserve);
        } catch (...) {
            clear();
            throw;
        }
    }
    ~DevicePager() override { clear(); }
    DevicePager(const DevicePager&) = delete;
    DevicePager& operator=(const DevicePager&) = delete;

    std::string kind() const override { return managed_ ? "managed" : "pinned"; }
    int64_t held_bytes() const override { return window_ * request_.piece_bytes(); }
    const BufferRef& array(size_t a) const override { return arrays_[a]; }
    BufferRef piece(size_t a, int64_t i) const override {
        const int64_t bytes = range(a, i).bytes;
        if (managed_) return slice(arrays_[a], range(a, i).first, bytes);
        return slice(windows_[a], i % window_ * request_.arrays[a].piece, bytes);
    }
    void bring(int64_t i, int64_t next) override {
        compute_->use();
        if (settled_) {                                // what was written into the arrays meanwhile
            check(cudaEventRecord(written_, compute_->get()), "mark the states as written");
            check(cudaStreamWaitEvent(in_, written_, 0), "wait for the states");
            for (size_t a = 0; managed_ && a < arrays_.size(); ++a)
                check(prefetch(arrays_[a]->data, arrays_[a]->bytes, -1, in_), "prefetch the states");
            settled_ = false;
        }
        fetch(i);
        if (next >= 0 && window_ > 1) fetch(next);
        check(cudaStreamWaitEvent(compute_->get(), place(i).ready, 0), "wait for a piece");
    }
    void leave(int64_t i) override {
        check(cudaEventRecord(place(i).done, compute_->get()), "mark a piece as updated");
    }
    void settle() override {
        compute_->use();
        for (Place& p : places_) send_home(p);
        check(cudaStreamSynchronize(out_), "wait for the states");
        settled_ = true;
    }

private:
    struct Place {
        int64_t piece = -1;
        cudaEvent_t ready = nullptr, done = nullptr, gone = nullptr;
    };
    struct Range { int64_t first, bytes; };
    Range range(size_t a, int64_t i) const {
        const auto& of = request_.arrays[a];
        return {i * of.piece, std::min(of.piece, of.bytes - i * of.piece)};
    }
    Place& place(int64_t i) { return places_[size_t(i % window_)]; }

    void choose(int64_t room) {
        int concurrent = 0;
        check(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, compute_->device()),
              "ask for the properties of the device");
        const char* const named = std::getenv("QLORA_PAGES");
        const std::string wanted = named ? named : "";
        const bool may_manage = concurrent && request_.bytes() <= room;
        if (wanted == "managed" && !may_manage)
            fail(Errc::memory, "page states of the optimizer: QLORA_PAGES=managed needs a device that the host shares "
                 "such memory with, and ", request_.bytes(), " bytes of ", room, " free; leave it out");
        if (wanted == "managed" || (!take_pinned() && may_manage)) take_managed();
        if (arrays_.empty())
            fail(Errc::memory, "page states of the optimizer: ", request_.bytes(), " bytes of the host cannot be "
                 "pinned; raise the limit (ulimit -l), use 8-bit states or a lower rank");
        check(cudaStreamCreateWithFlags(&in_, cudaStreamNonBlocking), "create a stream");
        check(cudaStreamCreateWithFlags(&out_, cudaStreamNonBlocking), "create a stream");
        check(cudaEventCreateWithFlags(&written_, cudaEventDisableTiming), "create an event");
        places_.resize(size_t(window_));
        for (Place& p : places_)
            for (cudaEvent_t* e : {&p.ready, &p.done, &p.gone})
                check(cudaEventCreateWithFlags(e, cudaEventDisableTiming), "create an event");
        for (size_t a = 0; a < request_.arrays.size() && !managed_; ++a) {
            void* data = nullptr;
            check(cudaMalloc(&data, size_t(window_ * request_.arrays[a].piece)), "allocate the window");
            windows_.push_back(owned(data, window_ * request_.arrays[a].piece, cudaFree));
        }
    }
    BufferRef owned(void* data, int64_t bytes, cudaError_t (*give)(void*)) const {
        return std::make_shared<Buffer>(Buffer{data, bytes, std::shared_ptr<void>(data, [give, q = compute_](void* p) {
            q->use_at_end();
            give(p);
        })});
    }
    bool take_pinned() {
        for (const auto& a : request_.arrays) {
            void* data = nullptr;
            if (cudaMallocHost(&data, size_t(a.bytes)) != cudaSuccess) {
                cudaGetLastError();
                arrays_.clear();
                return false;
            }
            arrays_.push_back(owned(data, a.bytes, cudaFreeHost));
            std::memset(data, 0, size_t(a.bytes));
        }
        return true;
    }
    void take_managed() {
        managed_ = true;
        for (const auto& a : request_.arrays) {
            void* data = nullptr;
            check(cudaMallocManaged(&data, size_t(a.bytes), cudaMemAttachGlobal), "allocate managed memory");
            arrays_.push_back(owned(data, a.bytes, cudaFree));
            std::memset(data, 0, size_t(a.bytes));
        }
    }
    void clear() {
        compute_->use_at_end();
        cudaStreamSynchronize(compute_->get());        // updates may still be on their way to memory that goes now
        for (const cudaStream_t s : {in_, out_})
            if (s) cudaStreamSynchronize(s), cudaStreamDestroy(s);
        for (Place& p : places_)
            for (const cudaEvent_t e : {p.ready, p.done, p.gone})
                if (e) cudaEventDestroy(e);
        if (written_) cudaEventDestroy(written_);
        cudaGetLastError();
    }

    void fetch(int64_t i) {
        Place& p = place(i);
        if (p.piece == i) return;
        send_home(p);
        p.piece = i;
        check(cudaStreamWaitEvent(in_, p.gone, 0), "wait for room");
        move(i, true);
        check(cudaEventRecord(p.ready, in_), "mark a piece as here");
    }
    void send_home(Place& p) {
        if (p.piece < 0) return;
        check(cudaStreamWaitEvent(out_, p.done, 0), "wait for an update");
        move(p.piece, false);
        check(cudaEventRecord(p.gone, out_), "mark a piece as gone");
        p.piece = -1;
    }
    void move(int64_t i, bool in) {
        const cudaStream_t stream = in ? in_ : out_;
        for (size_t a = 0; a < arrays_.size(); ++a) {
            const auto [first, bytes] = range(a, i);
            char* const home = static_cast<char*>(arrays_[a]->data) + first;
            moved_ += bytes;
            if (managed_) {
                check(prefetch(home, bytes, in ? compute_->device() : -1, stream), "prefetch a piece");
                continue;
            }
            char* const here = static_cast<char*>(windows_[a]->data) + i % window_ * request_.arrays[a].piece;
            check(cudaMemcpyAsync(in ? here : home, in ? home : here, size_t(bytes),
                                  in ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, stream), "copy a piece");
        }
    }

    const PageRequest request_;
    const std::shared_ptr<Stream> compute_;
    int64_t window_ = 0;                               // pieces
    bool managed_ = false, settled_ = true;
    std::vector<BufferRef> arrays_, windows_;
    std::vector<Place> places_;
    cudaStream_t in_ = nullptr, out_ = nullptr;
    cudaEvent_t written_ = nullptr;
};

}  // namespace cuda
}}  // namespace qlora
