// normals.h - normal random floats for tests of products: the same for one stream.
#pragma once
#include "src/base/rng.h"

#include <vector>

namespace normals_support {

inline std::vector<float> normals(int64_t n, uint64_t stream) {
    qlora::Rng rng{11, stream};
    std::vector<float> v(size_t(n), 0.0f);
    for (float& x : v) x = rng.normal();
    return v;
}

}  // namespace normals_support
