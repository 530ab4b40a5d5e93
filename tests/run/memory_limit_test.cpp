// memory_limit_test.cpp - what counts as memory of a backend, and what happens beyond its limit: an Error{memory} with
// the numbers and the remedy, after which everything is as it was.
#include "src/base/access.h"
#include "src/graph/backend.h"
#include "tests/run/speaker.h"

#include <thread>

namespace memory_limit_test {

using namespace qlora;
using run_support::contains;

template <class Call>
std::string refused(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        EXPECT_EQ(error.code, Errc::memory) << error.what();
        return error.what();
    }
    return "no error";
}

Model load(const Backend& backend, std::optional<DType> quantize = {}) {
    return Model::load("models/tiny.gguf", {.backend = backend, .quantize = quantize});
}

TEST(MemoryLimit, CountsWhatIsHeldAndNotWhatIsMapped) {
    const Backend backend = Backend::cpu(1);
    EXPECT_EQ(backend.memory_used(), 0u);
    {
        const Model mapped = load(backend);
        const size_t norms = backend.memory_used();
        EXPECT_LT(norms, size_t(mapped.info().bytes) / 20);
        const Model quantized = load(backend, DType::nf4);
        int64_t linear = 0;
        for_each_weight(*impl_of(quantized), [&](const Row& row, const WeightPtr& w) {
            if (row.kind == Kind::linear) linear += w->bytes();
        });
        EXPECT_EQ(backend.memory_used(), 2 * norms + size_t(linear));
        const Model same = quantized;                  // shares them
        const size_t before = backend.memory_used();
        const Lora lora = Lora::create(quantized, {.rank = 2});
        EXPECT_EQ(backend.memory_used(), before + size_t(lora.parameters()) * 4);
        Session session(lora, {.context = 100, .cache = DType::f32});
        EXPECT_EQ(backend.memory_used(), before + size_t(lora.parameters() * 4 + session.stats().cache_bytes));
        const Graph graph(backend);
    }
    EXPECT_EQ(backend.memory_used(), 0u);
}

TEST(MemoryLimit, BeyondItIsAnErrorThatChangesNothing) {
    Backend backend = Backend::cpu(1);
    const Model model = load(backend);
    const size_t before = backend.memory_used();
    backend.limit_memory(int64_t(before) + 300'000);
    EXPECT_EQ(backend.memory_free(), 300'000u);
    const std::string cache = refused([&] { Session(model, {.context = 1000, .cache = DType::f32}); });
    EXPECT_TRUE(contains(cache, "300000 are free; use a smaller context")) << cache;
    const std::string quantized = refused([&] { (void)load(backend, DType::nf4); });
    EXPECT_TRUE(contains(quantized, str("the limit is ", before + 300'000, " (Backend::limit_memory); raise it")))
        << quantized;
    const std::string graph = refused([&] { (void)Graph(backend).input({100, 1000}); });
    EXPECT_TRUE(contains(graph, "400000 bytes of memory are needed")) << graph;
    EXPECT_EQ(backend.memory_used(), before);
    const Lora lora = Lora::create(model, {.rank = 1, .modules = "q_proj"});
    const Dataset data = run_support::dataset(run_support::random_rows(4));
    EXPECT_NE(refused([&] { Trainer(lora, data).step(); }), "no error");
    const uint64_t factors = lora.fingerprint();
    backend.limit_memory(0);
    EXPECT_GT(backend.memory_free(), 300'000u);
    EXPECT_TRUE(Trainer(lora, data).step());
    EXPECT_NE(lora.fingerprint(), factors);
    backend.limit_memory(1);                           // what is there already stays
    EXPECT_EQ(backend.memory_free(), 0u);
    EXPECT_NE(refused([&] { (void)model.logits(Tokens{1, 2}); }), "no error");
    EXPECT_TRUE(contains(run_support::error_of([&] { backend.limit_memory(-1); }), "-1 bytes, expected 0"));
}

TEST(MemoryLimit, ThreadsShareIt) {
    const auto backend = make_cpu_backend(1, Compute::f32);
    backend->limit->set(1000);
    std::atomic<int> given{0};
    const auto ask = [&] {
        for (int i = 0; i < 1000; ++i) {
            std::vector<BufferRef> kept;
            try {
                for (int k = 0; k < 3; ++k) kept.push_back(backend->allocate(400));
            } catch (const Error&) {
            }
            EXPECT_LE(kept.size(), 2u);
            given += int(kept.size());
        }
    };
    std::thread other(ask);
    ask();
    other.join();
    EXPECT_GT(given.load(), 0);
    EXPECT_EQ(backend->limit->used(), 0);
}

TEST(MemoryLimit, BuffersMayOutliveTheirBackend) {
    auto backend = make_cpu_backend(1, Compute::f32);
    const auto limit = backend->limit;
    BufferRef buffer = backend->allocate(100), part = slice(buffer, 10, 20);
    backend.reset();
    buffer.reset();
    EXPECT_EQ(limit->used(), 100);
    part.reset();
    EXPECT_EQ(limit->used(), 0);
}

}  // namespace memory_limit_test
