// apart.cuh - send, fetch and arrive of src/ops/apart.cpp: copies between the device and memory of the host on a stream
// of their own, beside kernels. A copy begins when what was started before it is done; arrive() makes what follows wait
// for all copies. Both are events, which a recording of a run turns into edges.
#pragma once
#include "src/cuda/room.cuh"

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {
namespace apart_room {

inline void follow(cudaStream_t ahead, cudaStream_t behind, cudaEvent_t mark) {
    check(cudaEventRecord(mark, ahead), "mark a copy");
    check(cudaStreamWaitEvent(behind, mark, 0), "wait for a copy");
}

inline void start(const Call& call, const void* from, void* to) {
    const Aside& aside = device_of(call).aside;
    follow(stream_of(call).get(), aside.stream.get(), aside.begun);
    check(cudaMemcpyAsync(to, from, size_t(call.node.bytes()), cudaMemcpyDefault, aside.stream.get()), "copy apart");
}

inline void send(const Call& call) {
    if (call.source(1).storage != call.node.storage)
        fail(Errc::unsupported, "send: ", name_of(call.source(1).storage), " into a state of ",
             name_of(call.node.storage));
    start(call, call.src[1], call.out);
}
inline void fetch(const Call& call) { start(call, call.src[0], call.out); }
inline void arrive(const Call& call) {
    const Aside& aside = device_of(call).aside;
    follow(aside.stream.get(), stream_of(call).get(), aside.ended);
}

}  // namespace apart_room
}  // namespace cuda

inline const Kernel send_cuda{cuda::apart_room::send};
inline const Kernel fetch_cuda{cuda::apart_room::fetch};
inline const Kernel arrive_cuda{cuda::apart_room::arrive};

}}  // namespace qlora
