// pager_test.cpp - states of the optimizer that are paged: the same bytes however they lie, no more of the device than
// the budget, no fault of managed memory, and nothing allocated where it would not fit.
#include "tests/cuda/planted.h"

#include "src/model/draft.h"
#include "src/run/optimizer.h"
#include "tests/model/tiny.h"
#include "tests/run/run_support.h"
#include "tests/support/graph_support.h"

#include <cstdlib>
#include <random>

namespace cuda_pager_test {

using cuda_emulation_tests::orders;
using qlora::AdamW;

constexpr int64_t piece = 2 << 20;                     // one page of managed memory
// Four pieces and a bit, of `bytes` of each moment.
int64_t count_of(int bits, int64_t bytes) { return 4 * bytes / (bits == 8 ? 1 : 4) + 700; }

struct Result { std::vector<std::vector<uint8_t>> bytes; std::string kind; int64_t moved = 0, held = 0, faults = 0; };

Result run(std::shared_ptr<qlora::BackendImpl> b, const AdamW& o, int64_t bytes) {
    const int64_t count = count_of(o.bits, bytes);
    constexpr int steps = 3;
    std::mt19937 random(7);
    std::vector<float> v(static_cast<size_t>(count));
    const auto values = b->allocate(count * 4), gradients = b->allocate(count * 4);
    qlora::FlatAdamW optimizer(b, values, gradients, count, o, bytes);
    for (float& x : v) x = float(random() % 2001) / 1000 - 1;
    b->upload(*values, 0, v.data(), count * 4);
    int64_t faults = cuda_emulation::memory().device_faults;
    for (int t = 1; t <= steps; ++t) {
        for (float& x : v) x = float(random() % 2001) / 1000 - 1;
        b->upload(*gradients, 0, v.data(), count * 4);
        optimizer.step(1e-3f, t, 1, optimizer.norm());
        if (t != 2) continue;
        // a checkpoint is saved and loaded in between; its copies may fault
        b->synchronize();
        const int64_t before = cuda_emulation::memory().device_faults;
        for (const auto& state : optimizer.states()) {
            std::vector<uint8_t> copy(size_t(state.buffer->bytes));
            b->download(*state.buffer, 0, copy.data(), state.buffer->bytes);
            b->upload(*state.buffer, 0, copy.data(), state.buffer->bytes);
        }
        b->synchronize();
        faults += cuda_emulation::memory().device_faults - before;
    }
    b->synchronize();
    Result r;
    r.faults = cuda_emulation::memory().device_faults - faults;
    r.moved = optimizer.paged_bytes();
    r.kind = optimizer.paging();
    r.held = optimizer.held_bytes();
    const auto keep = [&](const qlora::Buffer& from) {
        r.bytes.emplace_back(size_t(from.bytes));
        b->download(from, 0, r.bytes.back().data(), from.bytes);
    };
    keep(*values);
    for (const auto& state : optimizer.states()) keep(*state.buffer);
    return r;
}

AdamW adamw(int bits, int64_t budget) {
    AdamW o;
    o.bits = bits;
    o.paged = budget > 0;
    o.page_budget = budget;
    return o;
}

struct Pages {                                         // while it lives, the kind is this one
    explicit Pages(const char* kind) { ::setenv("QLORA_PAGES", kind, 1); }
    ~Pages() { ::unsetenv("QLORA_PAGES"); }
};

struct CudaPager : cuda_emulation_tests::Emulation {};

std::shared_ptr<qlora::BackendImpl> cuda() { return qlora::make_cuda_backend(0, qlora::Compute::f32); }

void expect_paged(const Result& paged, const Result& want, const char* kind, int bits, int64_t bytes) {
    EXPECT_EQ(paged.kind, kind);
    EXPECT_TRUE(paged.bytes == want.bytes) << bits << " bits, " << kind;
    EXPECT_EQ(paged.faults, 0) << kind;
    const int64_t count = count_of(bits, bytes), scales = bits == 8 ? 8 * ((count + 255) / 256) : 0;
    EXPECT_LE(paged.held - scales, 6 * bytes) << kind;
    // in and out in each of the three steps, but for what a walk finds where the last one left it
    EXPECT_GT(paged.moved, 0);
    EXPECT_LT(paged.moved, 3 * 2 * 2 * count * (bits == 8 ? 1 : 4)) << kind;
}

TEST_F(CudaPager, TheSameBytesResidentPinnedAndInAFile) {
    constexpr int64_t bytes = 64 << 10;
    for (const int bits : {32, 8}) {
        const Result want = run(graph_support::cpu(), adamw(bits, 0), bytes);
        expect_paged(run(graph_support::cpu(), adamw(bits, 4 * bytes), bytes), want, "file", bits, bytes);
        for (const auto order : orders) {
            cuda_emulation::options = {order, 5};
            const Result resident = run(cuda(), adamw(bits, 0), bytes);
            EXPECT_EQ(resident.kind, "");
            EXPECT_TRUE(resident.bytes == want.bytes) << bits;
            expect_paged(run(cuda(), adamw(bits, 6 * bytes), bytes), want, "pinned", bits, bytes);
        }
    }
}

TEST_F(CudaPager, TheSameBytesInManagedMemoryThatNeverFaults) {
    const Pages pages("managed");
    for (const int bits : {32, 8}) {
        const Result want = run(graph_support::cpu(), adamw(bits, 0), piece);
        cuda_emulation::options = {cuda_emulation_tests::Order::random, 5};
        expect_paged(run(cuda(), adamw(bits, 6 * piece), piece), want, "managed", bits, piece);
    }
}

// Where the host's memory cannot be pinned, nobody has to ask for managed memory. Between two steps, which is when
// layers want the memory, no more of the states than their budget is on the device.
TEST_F(CudaPager, ManagedMemoryIsChosenByItself) {
    auto& memory = cuda_emulation::memory();
    const auto used_after_a_step = [&](const AdamW& o, std::string* kind) {
        const auto b = cuda();
        const int64_t count = count_of(o.bits, piece);
        const auto values = b->allocate(count * 4), gradients = b->allocate(count * 4);
        const size_t before = memory.used;
        qlora::FlatAdamW optimizer(b, values, gradients, count, o, piece);
        optimizer.step(1e-3f, 1, 1, 1);
        b->synchronize();
        *kind = optimizer.paging();
        return int64_t(memory.used - before);
    };
    std::string resident, paged;
    const int64_t whole = used_after_a_step(adamw(32, 0), &resident);
    memory.pinnable = size_t(12) << 20;                // what uploads go through, and little more
    const Result managed = run(cuda(), adamw(32, 6 * piece), piece);
    const int64_t window = used_after_a_step(adamw(32, 6 * piece), &paged);
    memory.pinnable = SIZE_MAX;
    expect_paged(managed, run(graph_support::cpu(), adamw(32, 0), piece), "managed", 32, piece);
    EXPECT_EQ(resident, "");
    EXPECT_EQ(paged, "managed");
    EXPECT_LE(window, 7 * piece);                      // of ten pieces and a bit
    EXPECT_GE(whole - window, 2 * piece);
}

TEST_F(CudaPager, RefusesWhatDoesNotFitBeforeAnythingIsTaken) {
    auto& memory = cuda_emulation::memory();
    const auto b = qlora::make_cuda_backend(0, qlora::Compute::f32);
    const size_t capacity = memory.capacity, used = memory.used;
    const qlora::PageRequest request{{{20 * piece, piece}, {20 * piece, piece}}, 6 * piece, {}};
    const int live = cuda_emulation::live_allocations;
    memory.capacity = used + size_t(5 * piece);        // less than the window
    EXPECT_THROW((void)b->pager(request), qlora::Error);
    EXPECT_EQ(cuda_emulation::live_allocations, live);
    memory.capacity = used + size_t(20 * piece);       // the window fits, all of it as managed memory does not
    {
        const Pages pages("managed");
        EXPECT_THROW((void)b->pager(request), qlora::Error);
        EXPECT_EQ(cuda_emulation::live_allocations, live);
    }
    EXPECT_EQ(b->pager(request)->kind(), "pinned");
    memory.capacity = capacity;
    EXPECT_EQ(cuda_emulation::live_allocations, live);
}

// Planted: work on a piece that was not brought. The emulation counts the fault.
TEST_F(CudaPager, TheEmulationSeesAPieceThatIsNotThere) {
    const Pages pages("managed");
    auto& memory = cuda_emulation::memory();
    const auto b = qlora::make_cuda_backend(0, qlora::Compute::f32);
    const auto pager = b->pager({{{8 * piece, piece}, {8 * piece, piece}}, 6 * piece, {}});
    const int64_t faults = memory.device_faults;
    qlora::GraphImpl g(b);
    (void)qlora::accumulate(g.state({piece / 4}, pager->piece(0, 7)), g.state({piece / 4}, b->allocate(piece)));
    g.run();
    b->synchronize();
    EXPECT_GT(memory.device_faults, faults);
}

// The table of a model with a head of its own: few of its rows are read at a time.
TEST_F(CudaPager, AnEmbeddingStaysOnTheHost) {
    std::vector<float> values(300 * 64);
    for (size_t i = 0; i < values.size(); ++i) values[i] = float(i);
    const auto w = std::make_shared<const qlora::Weight>(qlora::dense_weight("table", {300, 64}, values));
    const std::vector<int32_t> ids{7, 299, 0, 7};
    const auto rows = [&](const std::shared_ptr<qlora::BackendImpl>& b) {
        qlora::GraphImpl g(b);
        const auto tokens = g.input({4}, qlora::DType::i32);
        const auto out = qlora::embed(g.weight(w, qlora::Placement::host), tokens);
        g.output(out);
        g.write(tokens, ids.data(), 16);
        g.run();
        std::vector<float> read(4 * 64);
        g.read(out, read.data(), int64_t(read.size()) * 4);
        return read;
    };
    EXPECT_EQ(rows(cuda()), rows(graph_support::cpu()));
    const auto b = cuda();
    b->synchronize();
    const size_t before = cuda_emulation::memory().used;
    const auto held = b->hold(w, qlora::Placement::host);
    EXPECT_EQ(cuda_emulation::memory().used, before);
    EXPECT_EQ(qlora::on_host(held)->decoded(), values);
    const auto on_device = b->hold(w, qlora::Placement::device);
    EXPECT_GT(cuda_emulation::memory().used, before);
}

// Inputs of layers on the host: each is copied beside the layers that follow it, and comes while another is recomputed.
// Three runs, so that the recording is replayed too.
std::vector<float> trained(const qlora::Backend& b, bool apart, int64_t kept, qlora::MemoryPlan* plan = nullptr) {
    static const std::string path = [] {
        std::string file = testing::TempDir() + "qlora_cuda_apart.gguf";
        qlora::save_gguf_model(*tiny::make({.layers = 4, .vocabulary = 64}), file);
        return file;
    }();
    const qlora::Lora lora = qlora::Lora::create(qlora::Model::load(path, {.backend = b}), {.rank = 2});
    qlora::TrainOptions o;
    o.max_steps = 3;
    o.accumulate = 1;
    o.context = 16;
    o.learning_rate = 1e-2f;
    o.inputs_apart = apart;
    o.kept_layers = kept;
    qlora::Trainer trainer(lora, run_support::dataset(run_support::random_rows(3, 3, 9, 16)), o);
    while (trainer.step()) {}
    if (plan) *plan = trainer.plan();
    return run_support::values_of(lora);
}

TEST_F(CudaPager, InputsOnTheHostChangeNoByte) {
    qlora::MemoryPlan apart, whole;
    for (const qlora::Compute compute : {qlora::Compute::f32, qlora::Compute::bf16}) {
        const auto b = qlora::handle_of<qlora::Backend>(qlora::make_cuda_backend(0, compute));
        const std::vector<float> want = trained(b, false, 0, &whole);
        for (const auto order : orders) {
            if (compute == qlora::Compute::bf16 && order != cuda_emulation_tests::Order::random) continue;
            cuda_emulation::options = {order, 5};
            EXPECT_EQ(trained(b, true, 0, &apart), want) << int(order);
        }
        cuda_emulation::options = {};
        if (compute == qlora::Compute::f32) { EXPECT_EQ(trained(b, true, 1), want); }
    }
    const auto bytes = [](const qlora::MemoryPlan& plan, const char* name) {
        for (const auto& item : plan.items) if (item.name == name) return item.bytes;
        return int64_t(0);
    };
    EXPECT_LT(bytes(apart, "checkpointed inputs"), bytes(whole, "checkpointed inputs"));
    EXPECT_GT(bytes(apart, "checkpointed inputs on the host"), 0);
}

}  // namespace cuda_pager_test
