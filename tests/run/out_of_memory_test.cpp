// out_of_memory_test.cpp - the n-th allocation of a text, a chat, a save and a run of two steps fails: either that is
// an exception, and nothing is left behind, or the result is the same to the byte. Never an end of the process, never a
// result with a part missing.
#include "src/run/checkpoint.h"
#include "src/run/session.h"
#include "tests/run/run_support.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> countdown{-1};                     // allocations until one fails; below 0: none does
std::atomic<int64_t> counted{0};

bool fails() {
    counted.fetch_add(1, std::memory_order_relaxed);
    return countdown.load(std::memory_order_relaxed) >= 0 && countdown.fetch_sub(1) == 0;
}

}  // namespace

// Not inlined: half of a pair in its place looks to the compiler like new with free, or malloc with delete.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    void* const p = fails() ? nullptr : std::malloc(bytes ? bytes : 1);
    if (!p) throw std::bad_alloc();
    return p;
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    return fails() ? nullptr : std::malloc(bytes ? bytes : 1);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }

namespace out_of_memory_test {

namespace fs = std::filesystem;

// Runs `work` with each of about `samples` of its allocations failing; it returns what must be the same where nothing
// threw.
template <class Work>
void survive(const char* what, int64_t samples, const Work& work) {
    const std::string expected = work();
    counted = 0;
    EXPECT_EQ(work(), expected) << what << ": not even twice the same";
    const int64_t total = counted.load();
    ASSERT_GT(total, 10) << what;
    int64_t thrown = 0;
    // Every one of the first and the last, where files are opened and closed, and a sample of those between.
    const int64_t step = std::max<int64_t>(1, total / samples);
    for (int64_t n = 0; n < total; n += n < samples / 2 || total - n <= samples / 2 + step ? 1 : step) {
        std::string got;
        countdown = n;
        try {
            got = work();
        } catch (const std::bad_alloc&) {
            got = "thrown";
        } catch (const qlora::Error&) {
            got = "thrown";
        }
        countdown = -1;
        if (got == "thrown") ++thrown;
        else EXPECT_EQ(got, expected) << what << ": allocation " << n << " of " << total;
    }
    EXPECT_GT(thrown, 0) << what;
}

TEST(OutOfMemory, TextsAreWholeOrThrown) {
    const std::string part(600, 'x');
    survive("a text of parts", 200, [&] {
        std::string all;
        for (int i = 0; i < 10; ++i) all += qlora::str("tensor ", part, " of ", i, ' ', qlora::Shape{1, 2, i}, 0.5 * i);
        return all;
    });
}

TEST(OutOfMemory, Chat) {
    const qlora::Model model = qlora::Model::load("models/tiny.gguf", {.backend = qlora::Backend::cpu(2)});
    survive("a chat", 60, [&] {
        qlora::Session session(model, {.context = 256});
        const std::string reply = session.chat("Who goes there?", {.temperature = 0, .max_tokens = 4}).text;
        EXPECT_EQ(session.history().size(), 2u);
        return reply;
    });
}

TEST(OutOfMemory, Load) {
    survive("loading", 60, [&] {
        return std::to_string(qlora::Model::load("models/tiny.gguf", {.backend = qlora::Backend::cpu(1)}).info().bytes);
    });
}

std::string bytes_in(const fs::path& path) {
    std::string all;
    for (const std::string& name : qlora::names_in(path.string()))
        all += name +
               (fs::is_directory(path / name) ? bytes_in(path / name) : qlora::read_file((path / name).string()));
    return all;
}

TEST(OutOfMemory, SavesAndTrains) {
    const run_support::TemporaryFolder folder("qlora-memory-");
    const qlora::Model model = run_support::tiny_model(2);
    const qlora::Dataset data = run_support::dataset(run_support::random_rows(6));
    const qlora::Lora lora = qlora::Lora::create(model, {.rank = 2});
    int number = 0;
    const auto saved = [&](const auto& save) {
        return [&, save] {
            const std::string out = folder / ("out" + std::to_string(number++ % 2));
            struct Gone { const std::string& path; ~Gone() { qlora::remove_tree(path); } } gone{out};
            save(out);
            const int64_t kept = countdown.exchange(-1);    // what follows is the test's own
            const std::string content = bytes_in(out);
            EXPECT_EQ(qlora::names_in(folder.path.string()).size(), 1u);       // nothing beside it
            countdown = kept;
            return content;
        };
    };
    survive("a saved adapter", 50, saved([&](const std::string& out) { lora.save(out); }));
    survive("a saved model", 30, saved([&](const std::string& out) { model.save(out); }));
    survive("two steps and a checkpoint", 40, saved([&](const std::string& out) {
                qlora::Trainer trainer(qlora::Lora::create(model, {.rank = 2}), data,
                                       {.max_steps = 2, .batch = 2, .accumulate = 1, .context = 64});
                while (trainer.step()) {}
                trainer.save(out);
                // the one thing in there that is never the same: how long the step took
                const int64_t kept = countdown.exchange(-1);
                qlora::remove_tree(out + "/manifest.json");
                countdown = kept;
            }));
}

}  // namespace out_of_memory_test
