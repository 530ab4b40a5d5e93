// loops.cpp - the hot loops, one after the other, for callgrind to count their instructions:
// tests/programs/instructions.sh runs it. Sizes are those of a small model's layer; what lies in the weights does not
// matter, no loop looks at it.
#include "src/ops/ops.h"
#include "src/tensor/encode.h"

#include "tests/support/every_set.h"

#include <valgrind/callgrind.h>

#include <string>

namespace loops {

using namespace qlora;

constexpr int64_t rows = 64, cols = 1024;

template <class Loop>
void count(const std::string& name, const Kernels& set, const Loop& loop) {
    loop();                                            // memory is allocated, tables are made
    CALLGRIND_ZERO_STATS;
    CALLGRIND_TOGGLE_COLLECT;
    loop();
    CALLGRIND_TOGGLE_COLLECT;
    const std::string full = std::string(set.name) + " " + name;
    CALLGRIND_DUMP_STATS_AT(full.c_str());
}

Weight stored(DType type) {
    const Weight dense = dense_weight("w", {rows, cols}, std::vector<float>(size_t(rows * cols), 0.5f));
    if (is_4bit(type)) return convert_weight(dense, type);
    auto bytes = std::make_shared<std::vector<uint8_t>>(size_t(bytes_of(type, rows * cols)));
    Weight w;
    w.name = "w";
    w.dtype = type;
    w.shape = {rows, cols};
    w.data = bytes->data();
    w.owner = std::move(bytes);
    return w;
}

void products(const Kernels& set) {
    Cpu cpu(1, Compute::f32, set), mixed(1, Compute::mixed, set);
    std::vector<float> x(size_t(16 * cols), 0.25f), y(size_t(16 * rows)), dx(size_t(16 * cols));
    for (int i = 0; i < dtype_count; ++i) {
        const DType type = DType(i);
        if (type == DType::i32 || type == DType::u8) continue;
        if (type == DType::f8_e4m3 || type == DType::nvfp4) continue;  // which decode as f16 does, by rows
        const Weight w = stored(type);
        const std::string name(name_of(type));
        count("one token times " + name, set, [&] { gemm_nt(cpu, 1, x.data(), cols, w.ref(), y.data(), rows); });
        if (mixed.effective() == Compute::mixed && type_info(type).block > 1)
            count("one token in integers times " + name, set,
                  [&] { gemm_nt(mixed, 1, x.data(), cols, w.ref(), y.data(), rows); });
        if (type != DType::f32 && type != DType::nf4 && type != DType::q4_k) continue;
        count("16 tokens times " + name, set, [&] { gemm_nt(cpu, 16, x.data(), cols, w.ref(), y.data(), rows); });
        count("gradient through " + name, set, [&] { gemm_nn(cpu, 16, y.data(), rows, w.ref(), dx.data(), cols); });
    }
    count("gradient of factors", set,
          [&] { gemm_tn(cpu, 16, 16, cols, y.data(), rows, x.data(), cols, dx.data(), cols); });
}

// 8 heads of 64 over 2 of keys and values.
void attention_over(const Kernels& set, int64_t queries, int64_t keys, DType cache) {
    GraphImpl g(make_cpu_backend(1, Compute::f32, set.name));
    const Tensor q = g.input({queries, 512}), first = g.input({queries}, DType::i32),
                 last = g.input({queries}, DType::i32);
    const Tensor k = g.state({2, keys, 64}, {}, cache), v = g.state({2, keys, 64}, {}, cache);
    g.output(attention(q, k, v, first, last, {8, 2, 64, 0.125f}));
    std::vector<int32_t> ends;
    ends.assign(size_t(queries), int32_t(keys));
    g.write(last, ends.data(), queries * 4);
    count(std::to_string(queries) + " queries over " + std::to_string(keys) + " keys in " + std::string(name_of(cache)),
          set, [&] { g.run(); });
}

// 4 rows of 1024, of which the sums and the products by row are the work.
void norms(const Kernels& set) {
    const auto of = [&](const char* name, const auto& build) {
        GraphImpl g(make_cpu_backend(1, Compute::f32, set.name));
        g.output(build(g.input({4, 1024}), g.input({1024})));
        count(std::string(name) + " of 4 x 1024", set, [&] { g.run(); });
    };
    of("rms_norm", [](Tensor x, Tensor w) { return rms_norm(x, w); });
    of("layer_norm", [](Tensor x, Tensor w) { return layer_norm(x, w, w); });
}

void vectors(const Kernels& set) {
    std::vector<float> x(4096, 0.5f), y(4096);
    const float *in = x.data(), *none = nullptr;
    float* out = y.data();
    count("softmax of 4096", set, [&] { set.vec.exp_sum(x.data(), 1, y.data(), 4096); });
    count("swiglu of 4096", set, [&] { set.vec.swiglu(in, in, out, 4096); });
    count("gradient of swiglu of 4096", set, [&] { set.vec.swiglu_back(in, in, in, out, 4096); });
    count("geglu of 4096", set, [&] { set.vec.geglu(in, in, out, 4096); });
    count("gradient of geglu of 4096", set, [&] { set.vec.geglu_back(in, in, in, out, 4096); });
    count("gelu of 4096", set, [&] { set.vec.geglu(in, none, out, 4096); });
    count("gelu by erf of 4096", set, [&] { set.vec.geglu_erf(in, none, out, 4096); });
    count("gradient of gelu by erf of 4096", set, [&] { set.vec.geglu_erf_back(in, none, in, out, 4096); });
    count("softcap of 4096", set, [&] { set.vec.softcap(30, in, out, 4096); });
    count("gradient of softcap of 4096", set, [&] { set.vec.softcap_back(30, in, in, out, 4096); });
    norms(set);
}

}  // namespace loops

int main() {
    for (const qlora::Kernels& set : every_set_support::every_set()) {
        if (set.name != "scalar" && set.name != "avx2") continue;    // valgrind knows no AVX-512
        loops::products(set);
        for (const qlora::DType cache : {qlora::DType::f32, qlora::DType::f16, qlora::DType::bf16, qlora::DType::q8_0})
            loops::attention_over(set, 1, 512, cache);
        loops::attention_over(set, 64, 512, qlora::DType::f32);
        loops::vectors(set);
    }
}
