// cuda_queue_emulation.h - streams, events, copies, launches and graphs of the runtime. Part of
// cuda_runtime_emulation.h.
#pragma once

constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2;

// ---- Streams.
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    using namespace cuda_emulation;
    const Locked locked;
    *stream = nullptr;
    if (const cudaError_t code = take_error()) return code;
    streams().all.push_back(*stream = new Queue);
    ++live_streams;
    return cudaSuccess;
}
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
    return cudaStreamCreateWithFlags(stream, flags);
}
// Its work is still done.
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    using namespace cuda_emulation;
    const Locked locked;
    if (!stream) return failed(cudaErrorInvalidValue);
    stream->is_destroyed = true;
    --live_streams;
    if (stream->entries.empty()) streams().remove(stream);
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    using namespace cuda_emulation;
    const Locked locked;
    if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
    if (const cudaError_t code = take_error()) return code;
    streams().finish(queue_of(stream));
    return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
    using namespace cuda_emulation;
    const Locked locked;
    if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
    if (const cudaError_t code = take_error()) return code;
    streams().finish_all();
    return cudaSuccess;
}
namespace cuda_emulation {
// A question brings the device one entry forward, so that a loop of them ends.
template <class F> cudaError_t ask(Queue* whose, const F& is_done) {
    const Locked locked;
    if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
    if (const cudaError_t code = take_error()) return code;
    if (is_done()) return cudaSuccess;
    const int64_t before = streams().queued();
    streams().work_until(whose, [&] { return streams().queued() < before; });
    return cudaErrorNotReady;
}
}  // namespace cuda_emulation
inline cudaError_t cudaStreamQuery(cudaStream_t stream) {
    cuda_emulation::Queue& q = cuda_emulation::queue_of(stream);
    return cuda_emulation::ask(&q, [&] { return q.entries.empty(); });
}

// ---- Events.
struct EmulatedEvent {
    std::shared_ptr<cuda_emulation::EventState> state = std::make_shared<cuda_emulation::EventState>();
    std::shared_ptr<cuda_emulation::Capture> capture;  // where it was recorded last, and behind which steps
    std::vector<size_t> steps;
};
using cudaEvent_t = EmulatedEvent*;

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    using namespace cuda_emulation;
    const Locked locked;
    *event = nullptr;
    if (const cudaError_t code = take_error()) return code;
    *event = new EmulatedEvent;
    ++live_events;
    return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const cuda_emulation::Locked locked;
    if (!event) return cuda_emulation::failed(cudaErrorInvalidValue);
    delete event;
    --cuda_emulation::live_events;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    Queue& q = queue_of(stream);
    event->capture = q.capture;
    event->steps = q.tail;
    if (q.capture) return cudaSuccess;
    ++event->state->recorded;
    q.entries.push_back({nullptr, event->state, nullptr, 0});
    return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned = 0) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    Queue& q = queue_of(stream);
    if (event->capture) {
        if (q.capture && q.capture != event->capture) return failed(cudaErrorStreamCaptureIsolation);
        q.capture = event->capture;
        q.capture->streams.insert(&q);
        q.tail.insert(q.tail.end(), event->steps.begin(), event->steps.end());
        return cudaSuccess;
    }
    if (q.capture) {
        q.capture->is_broken = true;
        return failed(cudaErrorStreamCaptureIsolation);
    }
    q.entries.push_back({nullptr, nullptr, event->state, event->state->recorded});
    return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t event) {
    return cuda_emulation::ask(nullptr, [event] { return event->state->done >= event->state->recorded; });
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    using namespace cuda_emulation;
    const Locked locked;
    if (breaks_capture()) return failed(cudaErrorStreamCaptureUnsupported);
    if (const cudaError_t code = take_error()) return code;
    const auto holds = [event](const Queue* q) {
        return std::any_of(q->entries.begin(), q->entries.end(),
                           [&](const Entry& e) { return e.record == event->state; });
    };
    const auto whose = std::find_if(streams().all.begin(), streams().all.end(), holds);
    streams().work_until(whose == streams().all.end() ? nullptr : *whose,
                         [event] { return event->state->done >= event->state->recorded; });
    return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 1;
    return cuda_emulation::take_error();
}

// ---- Copies, from where the memory lies: pageable memory of the host is read at once, everything else late.
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t stream = nullptr) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    const Kind target = kind_of(to), source = kind_of(from);
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && ((to_device ? target == Kind::pageable : target == Kind::device) ||
                                      (from_device ? source == Kind::pageable : source == Kind::device)))
        return failed(cudaErrorInvalidValue);
    if (!fits(to, bytes) || !fits(from, bytes)) return failed(cudaErrorInvalidValue);
    if (!bytes) return cudaSuccess;
    Queue& q = queue_of(stream);
    std::shared_ptr<std::vector<char>> staged;
    if (source == Kind::pageable && !q.capture) {
        const char* const first = static_cast<const char*>(from);
        staged = std::make_shared<std::vector<char>>(first, first + bytes);
    }
    streams().add(q, [=] {
        if (!fits(to, bytes) || (!staged && !fits(from, bytes))) throw Failure("a copy uses freed memory");
        std::memcpy(to, staged ? staged->data() : from, bytes);
        ++copies_done;
        if (target == Kind::pageable && source == Kind::device) bytes_to_host += int64_t(bytes);
    });
    if (target == Kind::pageable && source == Kind::pageable && !q.capture) streams().finish(q);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    if (const cudaError_t code = cudaMemcpyAsync(to, from, bytes, kind, nullptr)) return code;
    return cudaStreamSynchronize(nullptr);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream = nullptr) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    if (kind_of(to) == Kind::pageable || !fits(to, bytes)) return failed(cudaErrorInvalidValue);
    streams().add(queue_of(stream), [=] {
        if (!fits(to, bytes)) throw Failure("a memset uses freed memory");
        std::memset(to, value, bytes);
    });
    return cudaSuccess;
}

using cudaHostFn_t = void (*)(void*);
inline cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    streams().add(queue_of(stream), [=] {
        memory().close();                              // it is host code
        function(data);
        memory().open();
    });
    return cudaSuccess;
}

namespace cuda_emulation {
inline void launch(dim3 grid, unsigned threads, size_t shared, cudaStream_t stream, std::function<void()> body) {
    const Locked locked;
    if (take_error() != cudaSuccess) return;
    if (!is_launchable(grid, threads, shared)) {
        failed(cudaErrorInvalidConfiguration);
        return;
    }
    streams().add(queue_of(stream), [=, body = std::move(body), how = options] {
        run_grid(grid, threads, shared, body, how);
        ++launches_done;
    });
}
}  // namespace cuda_emulation
