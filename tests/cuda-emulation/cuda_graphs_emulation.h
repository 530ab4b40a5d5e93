// cuda_graphs_emulation.h - captured graphs: what streams would have done, done again at each launch in any order that
// its edges allow. Part of cuda_runtime_emulation.h.
#pragma once

enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal = 0,
    cudaStreamCaptureModeThreadLocal = 1,
    cudaStreamCaptureModeRelaxed = 2
};
enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone = 0,
    cudaStreamCaptureStatusActive = 1,
    cudaStreamCaptureStatusInvalidated = 2
};
struct EmulatedGraph { cuda_emulation::Graph graph; };
using cudaGraph_t = EmulatedGraph*;
struct EmulatedGraphExec { std::shared_ptr<const cuda_emulation::Graph> graph; };
using cudaGraphExec_t = EmulatedGraphExec*;

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    if (!stream || stream->capture) return failed(cudaErrorStreamCaptureUnsupported);
    stream->capture = std::make_shared<Capture>();
    stream->capture->streams.insert(stream);
    if (mode != cudaStreamCaptureModeGlobal) stream->capture->thread = std::this_thread::get_id();
    stream->tail.clear();
    return cudaSuccess;
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    const cuda_emulation::Queue& q = cuda_emulation::queue_of(stream);
    *status = !q.capture             ? cudaStreamCaptureStatusNone
              : q.capture->is_broken ? cudaStreamCaptureStatusInvalidated
                                     : cudaStreamCaptureStatusActive;
    return cuda_emulation::take_error();
}

namespace cuda_emulation {
// Every step comes before one of `ends`: nothing was left behind in another stream.
inline bool is_joined(const Graph& g, const std::vector<size_t>& ends) {
    std::vector<char> reached(g.steps.size());
    for (const size_t i : ends) reached[i] = 1;
    for (size_t i = g.steps.size(); i-- > 0;)
        if (reached[i])
            for (const size_t before : g.steps[i].after) reached[before] = 1;
    return std::all_of(reached.begin(), reached.end(), [](char r) { return r != 0; });
}
}  // namespace cuda_emulation

inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    using namespace cuda_emulation;
    const Locked locked;
    *graph = nullptr;
    const cudaError_t code = take_error();
    if (!stream || !stream->capture) return failed(cudaErrorInvalidValue);
    const std::shared_ptr<Capture> capture = stream->capture;
    const std::vector<size_t> ends = stream->tail;
    for (Queue* q : capture->streams) {
        q->capture = nullptr;
        q->tail.clear();
    }
    if (code != cudaSuccess) return code;
    if (capture->is_broken) return failed(cudaErrorStreamCaptureInvalidated);
    if (!is_joined(capture->graph, ends)) return failed(cudaErrorStreamCaptureUnjoined);
    *graph = new EmulatedGraph{capture->graph};
    ++live_graphs;
    return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long = 0) {
    using namespace cuda_emulation;
    *exec = nullptr;
    if (const cudaError_t code = take_error()) return code;
    *exec = new EmulatedGraphExec{std::make_shared<const Graph>(graph->graph)};
    ++live_graphs;
    return cudaSuccess;
}
inline cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cuda_emulation::take_error(); }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    using namespace cuda_emulation;
    const Locked locked;
    if (const cudaError_t code = take_error()) return code;
    const uint64_t seed = options.seed * 7919 + ++streams().waits;
    streams().add(queue_of(stream), [graph = exec->graph, seed] { run_steps(*graph, seed); });
    return cudaSuccess;
}
inline cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void**, size_t* count) {
    *count = graph->graph.steps.size();
    return cuda_emulation::take_error();
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    --cuda_emulation::live_graphs;
    return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    --cuda_emulation::live_graphs;
    return cudaSuccess;
}
