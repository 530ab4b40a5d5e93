// panels_test.cpp - panels that are kept: the same bytes of every product, of every instruction set and number type,
// and which of them a budget keeps.
#include "src/cpu/panels.h"
#include "src/base/half.h"
#include "src/base/rng.h"
#include "src/tensor/encode.h"
#include "tests/support/every_set.h"
#include "tests/support/normals.h"

#include <gtest/gtest.h>

#include <cstring>

namespace panels_test {

using namespace qlora;
using every_set_support::every_set;
using normals_support::normals;

// q4_k has no encoder: random codes under scales of a size that occurs.
Weight random_q4_k(int64_t rows, int64_t cols) {
    auto bytes = std::make_shared<std::vector<uint8_t>>(size_t(bytes_of(DType::q4_k, rows * cols)));
    Rng rng{3, 1};
    for (uint8_t& b : *bytes) b = uint8_t(rng.next());
    for (size_t block = 0; block < bytes->size(); block += 144)
        for (const size_t at : {size_t(0), size_t(2)}) {
            const uint16_t scale = f16_from_f32(0.05f + 0.1f * rng.uniform());
            std::memcpy(&(*bytes)[block + at], &scale, 2);
        }
    Weight w;
    w.name = "w";
    w.dtype = DType::q4_k;
    w.shape = {rows, cols};
    w.data = bytes->data();
    w.owner = bytes;
    return w;
}

Weight weight_of(DType type, int64_t rows, int64_t cols) {
    if (type == DType::q4_k) return random_q4_k(rows, cols);
    return convert_weight(dense_weight("w", {rows, cols}, normals(rows * cols, 3)), type);
}

struct Memory {                                        // of panels, with a mark behind its end
    explicit Memory(int64_t bytes) : size(bytes), held(size_t(bytes) + 128, char(0x5a)) {
        const uintptr_t at = (reinterpret_cast<uintptr_t>(held.data()) + 63) / 64 * 64;
        panels.memory = reinterpret_cast<char*>(at);
    }
    bool whole() const {
        for (int64_t i = 0; i < 64; ++i)
            if (panels.memory[size + i] != char(0x5a)) return false;
        return true;
    }
    int64_t size;
    std::vector<char> held;
    KeptPanels panels;
};

std::vector<float> product(Cpu& cpu, Pass pass, int64_t m, const WeightRef& w, KeptPanels* kept) {
    const int64_t in = pass == Pass::forward ? w.cols : w.rows, out = w.rows + w.cols - in;
    const std::vector<float> x = normals(m * in, 7);
    std::vector<float> y(size_t(m * out), 0.25f);
    if (pass == Pass::forward) gemm_nt(cpu, m, x.data(), in, w, y.data(), out, 0.5f, 2, kept);
    else gemm_nn(cpu, m, x.data(), in, w, y.data(), out, 0.5f, 2, kept);
    return y;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

// Depths of one stretch, of several, of several slabs and of an odd one; columns that fill no panel; rows that are cut.
TEST(Panels, KeptOnesGiveTheSameBytes) {
    const int64_t sizes[][2] = {{40, 256}, {33, 1280}, {1090, 32}, {9, 2304}, {4101, 1}, {35, 577}};
    for (const Kernels& set : every_set()) {
        for (const Compute compute : {Compute::f32, Compute::bf16, Compute::mixed}) {
            for (const DType type : {DType::nf4, DType::q8_0, DType::f16, DType::q4_k}) {
                for (const auto& [n, k] : sizes) {
                    if (n * k % type_info(type).block || k % std::min<int64_t>(type_info(type).block, 256)) continue;
                    const Weight w = weight_of(type, n, k);
                    for (const Pass pass : {Pass::forward, Pass::backward}) {
                        Cpu one(1, compute, set), three(3, compute, set);
                        Memory memory(panel_bytes(one, w.ref(), pass)), other(memory.size);
                        for (const int64_t m : {17, 3, 800}) {
                            if (m == 800 && (n * k > 11'000 || type != DType::nf4)) continue;
                            const std::vector<float> want = product(one, pass, m, w.ref(), nullptr);
                            EXPECT_TRUE(same(product(three, pass, m, w.ref(), &memory.panels), want))
                                << set.name << ' ' << name_of(compute) << ' ' << name_of(type) << ' ' << n << 'x' << k
                                << " m " << m << (pass == Pass::forward ? " forward" : " backward");
                            EXPECT_TRUE(same(product(one, pass, m, w.ref(), &other.panels), want));
                        }
                        EXPECT_TRUE(memory.whole() && other.whole()) << set.name;
                        EXPECT_EQ(std::memcmp(memory.panels.memory, other.panels.memory, size_t(memory.size)), 0);
                        if (HasFailure()) return;
                    }
                }
            }
        }
    }
}

TEST(Panels, AreDecodedOnce) {
    Cpu cpu(2);
    auto codes = std::make_shared<std::vector<uint8_t>>();
    Weight w = weight_of(DType::q8_0, 48, 64);
    codes->assign(w.data, w.data + bytes_of(w.dtype, w.elements()));
    w.data = codes->data();
    for (const Pass pass : {Pass::forward, Pass::backward}) {
        Memory memory(panel_bytes(cpu, w.ref(), pass));
        const std::vector<float> first = product(cpu, pass, 20, w.ref(), &memory.panels);
        std::fill(codes->begin(), codes->end(), uint8_t(0));           // nobody looks at them any more
        EXPECT_TRUE(same(product(cpu, pass, 20, w.ref(), &memory.panels), first));
        EXPECT_FALSE(same(product(cpu, pass, 20, w.ref(), nullptr), first));
        for (size_t i = 0; i < codes->size(); ++i) (*codes)[i] = uint8_t(i % 50);
    }
}

// What a store takes, and of which memory.
struct Taken {
    std::vector<int64_t> sizes;
    PanelStore::Allocate allocate() {
        return [this](int64_t bytes) {
            sizes.push_back(bytes);
            return std::shared_ptr<char>(static_cast<char*>(::operator new(size_t(bytes), std::align_val_t(64))),
                                         [](char* p) { ::operator delete(p, std::align_val_t(64)); });
        };
    }
};

TEST(PanelStore, KeepsFirstWhatGainsMost) {
    const Cpu cpu(1, Compute::f32, kernels_named("scalar"));
    std::vector<WeightPtr> w;
    for (int i = 0; i < 3; ++i) w.push_back(std::make_shared<Weight>(weight_of(DType::nf4, 64, 64)));
    w.push_back(std::make_shared<Weight>(weight_of(DType::f32, 64, 64)));
    std::vector<PanelUse> uses;
    for (const WeightPtr& one : w) uses.push_back({one, Pass::forward, 1});
    for (const WeightPtr& one : w) uses.push_back({one, Pass::backward, 1});
    for (size_t i = 3; i-- > 0;) uses.push_back({w[i], Pass::forward, 1});  // recomputed
    const int64_t each = 64 * 64 * 4;
    const auto kept = [&](int64_t budget) {
        Taken taken;
        PanelStore store(cpu, uses, budget, taken.allocate());
        std::string names;
        for (const Pass pass : {Pass::forward, Pass::backward})
            for (size_t i = 0; i < w.size(); ++i)
                if (store.find(w[i]->ref(), pass)) names += (pass == Pass::forward ? 'f' : 'b') + std::to_string(i);
        EXPECT_LE(store.bytes(), budget);
        EXPECT_EQ(store.bytes(), int64_t(names.size() / 2) * each);
        EXPECT_EQ(taken.sizes, store.bytes() ? std::vector<int64_t>{store.bytes()} : std::vector<int64_t>{});
        return names;
    };
    EXPECT_EQ(kept(0), "");
    EXPECT_EQ(kept(each - 1), "");
    EXPECT_EQ(kept(each), "f0");                       // twice a run
    EXPECT_EQ(kept(3 * each), "f0f1f2");
    EXPECT_EQ(kept(5 * each - 1), "f0f1f2b0");
    EXPECT_EQ(kept(100 * each), "f0f1f2b0b1b2");       // of f32 nothing is decoded
}

// With bf16 on the way back only, its half of the bytes is worth as much as two products forward, and comes first.
TEST(PanelStore, CountsBytes) {
    for (const Kernels& set : every_set()) {
        const Cpu cpu(1, Compute::mixed, set);
        const WeightPtr w = std::make_shared<Weight>(weight_of(DType::nf4, 64, 64));
        const PanelUse uses[] = {{w, Pass::forward, 2}, {w, Pass::backward, 1}};
        Taken taken;
        PanelStore store(cpu, uses, 64 * 64 * 4, taken.allocate());
        const bool pairs = cpu.gradients() == Compute::bf16;
        EXPECT_EQ(store.find(w->ref(), Pass::forward) != nullptr, !pairs) << set.name;
        EXPECT_EQ(store.find(w->ref(), Pass::backward) != nullptr, pairs) << set.name;
    }
}

TEST(PanelStore, APartOfAMatrixIsAnother) {
    const Cpu cpu(1);
    const WeightPtr whole = std::make_shared<Weight>(weight_of(DType::q8_0, 64, 64)),
                    part = std::make_shared<Weight>(rows_of(*whole, std::vector<RowRange>{{0, 32}}));
    ASSERT_EQ(whole->data, part->data);
    std::vector<PanelUse> uses{{part, Pass::forward, 1}};
    Taken taken;
    PanelStore store(cpu, uses, 1 << 20, taken.allocate());
    uses.clear();
    EXPECT_TRUE(store.find(part->ref(), Pass::forward));
    EXPECT_FALSE(store.find(whole->ref(), Pass::forward));
    EXPECT_FALSE(store.find(part->ref(), Pass::backward));
    EXPECT_EQ(part.use_count(), 2);                    // it stays as long as its panels
}

}  // namespace panels_test
