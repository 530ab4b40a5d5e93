// values.h - where floats of the graph lie and how they are stored. How kernels read and write them: values.cuh.
#pragma once
#include "src/graph/graph.h"

#ifdef __CUDACC__
#define QLORA_DEVICE __device__
#else
#define QLORA_DEVICE
#endif

namespace qlora { inline namespace QLORA_ABI {
namespace cuda {

// What a kernel reads.
struct Values {
    const void* data = nullptr;
    DType type = DType::f32;                           // f32, bf16 or f16
    QLORA_DEVICE inline float operator[](int64_t i) const;
};

// What a kernel writes.
struct Places {
    void* data = nullptr;
    DType type = DType::f32;                           // f32, bf16 or f16
    QLORA_DEVICE inline void set(int64_t i, float value) const;
};

// Place `i` of a result and what follows it.
inline Places places_from(const Places& y, int64_t i) {
    return {static_cast<char*>(y.data) + bytes_of(y.type, i), y.type};
}

inline bool aligned_to(const void* p, size_t bytes) { return reinterpret_cast<size_t>(p) % bytes == 0; }
inline bool is_power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

inline int64_t last_dim(const Node& n) { return n.shape.back(); }
inline int64_t leading(const Node& n) { return n.elements() / n.shape.back(); }

}  // namespace cuda
}}  // namespace qlora
