// kernels_portable.cpp - the table of plain C++, which every machine runs and every other set may fall back on.
#include "src/cpu/kernels.h"

namespace qlora { inline namespace QLORA_ABI {

extern const Kernels kernels_portable;

constinit const Kernels kernels_portable{.name = "scalar",
                                         .supported = [] { return true; },
                                         .worth_waking = 2'500,
                                         .vec = vec_portable,
                                         .tile = tile_portable,
                                         .gemm = gemm_portable};

}}  // namespace qlora
