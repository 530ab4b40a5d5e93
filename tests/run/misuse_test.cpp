// misuse_test.cpp - what a program may get wrong in calling the library is an Error that says what: sizes beyond all
// bounds, values that no enum has, objects that were moved from, calls into a session, trainer, batch or graph that is
// busy, models in a forked child.
#include "src/base/access.h"
#include "src/model/lora.h"
#include "src/run/session.h"
#include "tests/run/speaker.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

namespace misuse_test {

using run_support::contains;
using run_support::error_of;

constexpr int64_t huge = std::numeric_limits<int64_t>::max();

struct Misuse : testing::Test {
    qlora::Model model = run_support::tiny_model();
    qlora::Lora lora = qlora::Lora::create(model, {.rank = 2});
    qlora::Dataset data = run_support::dataset(run_support::random_rows(4));
    qlora::Tokens tokens{1, 2, 3};
    template <class Use>
    void expect_error(const std::string& part, const Use& use) {
        const std::string error = error_of(use);
        EXPECT_TRUE(contains(error, part)) << "\"" << part << "\" is not in: " << error;
        EXPECT_LT(error.size(), 400u) << error;
    }
};

TEST_F(Misuse, SizesBeyondAllBounds) {
    const auto train = [&](const qlora::TrainOptions& o) { return [&, o] { qlora::Trainer(lora, data, o).step(); }; };
    for (const int64_t bad : {huge, huge - 1, int64_t(0), int64_t(-1), std::numeric_limits<int64_t>::min()}) {
        expect_error("batch is", train({.batch = bad}));
        expect_error("accumulate is", train({.accumulate = bad}));
        expect_error("context is", train({.context = bad}));
        if (bad != 0) expect_error("max_steps is", train({.max_steps = bad}));
        expect_error("rank", [&] { (void)qlora::Lora::create(model, {.rank = bad}); });
        if (bad != 0) expect_error("context", [&] { qlora::Session(model, {.context = bad}); });
        if (bad < 1) expect_error("perplexity", [&] { (void)qlora::perplexity(model, tokens, bad, 1); });
        expect_error("perplexity", [&] { (void)qlora::perplexity(model, tokens, 2, bad); });
        if (bad != 0) expect_error("", [&] { (void)qlora::Graph(model.backend()).param({bad}); });
        expect_error("shape", [&] { (void)qlora::Graph(model.backend()).param({4, bad}); });
        expect_error("row", [&] { (void)data.row(bad == 0 ? -1 : bad); });
    }
    EXPECT_GT(qlora::perplexity(model, tokens, huge, huge - 1).tokens, 0);      // more than there is: all of it
    expect_error("memory", [&] { (void)qlora::Graph(model.backend()).input({int64_t(1) << 50}); });
    for (const int threads : {-1, 257, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()})
        expect_error("threads", [&] { (void)qlora::Backend::cpu(threads); });
    // far more than there are: for those who test determinism
    EXPECT_EQ(qlora::Backend::cpu(256).name().rfind("cpu, 256 threads", 0), 0u);
    expect_error("fraction", [&] { (void)data.split(std::numeric_limits<float>::quiet_NaN()); });
}

TEST_F(Misuse, MoreThanMemoryIsRefusedBeforeItIsTaken) {
    auto large = std::make_shared<qlora::ModelImpl>(*impl_of(model));
    large->config.context = int64_t(1) << 30;
    large->config.layers = 1 << 20;                     // each of its buffers would fit, all together would not
    expect_error("bytes of memory are needed", [&] { (void)qlora::make_cache(*large, 1000); });
    expect_error("use a smaller context", [&] {
        qlora::Session(qlora::handle_of<qlora::Model>(large), {.context = int64_t(1) << 29});
    });
}

TEST_F(Misuse, ValuesThatNoEnumHas) {
    for (const int bad : {-1, 99, 256, 1 << 30}) {
        expect_error("compute", [&] { (void)qlora::Backend::cpu(1, qlora::Compute(bad)); });
        expect_error("optimizer.bits", [&] { qlora::Trainer(lora, data, {.optimizer = {.bits = bad}}); });
        expect_error("schedule", [&] { qlora::Trainer(lora, data, {.schedule = qlora::Schedule(bad)}); });
        expect_error("init", [&] { (void)qlora::Lora::create(model, {.rank = 2, .init = qlora::LoraInit(bad)}); });
        expect_error("loss", [&] {
            (void)qlora::Dataset::load("examples/data/about-qlora.jsonl", qlora::Tokenizer::load("models/tiny.gguf"),
                                       {.loss = qlora::Loss(bad)});
        });
    }
    for (const uint8_t bad : {uint8_t(60), uint8_t(200), uint8_t(255)}) {
        const auto type = qlora::DType(bad);
        expect_error("number type", [&] { (void)qlora::name_of(type); });
        expect_error("number type", [&] { (void)model.convert(type); });
        expect_error("number type", [&] { model.save("/nowhere/x.gguf", {.as = type}); });
        expect_error("number type", [&] { (void)lora.merge(type); });
        expect_error("number type", [&] { (void)run_support::tiny_model(1, type); });
        expect_error("number type", [&] { (void)qlora::Graph(model.backend()).input({2}, type); });
    }
}

TEST_F(Misuse, MovedFromObjects) {
    const auto gone = [](auto& object) { auto other = std::move(object); };
    qlora::Session session(model);
    qlora::Trainer trainer(lora, data);
    qlora::Graph graph(model.backend());
    qlora::Model no_model = model;
    qlora::Lora no_lora = lora;
    qlora::Dataset no_data = data;
    qlora::Tokenizer words = qlora::Tokenizer::load("models/tiny.gguf");
    qlora::Backend backend = model.backend();
    gone(session), gone(trainer), gone(graph), gone(no_model), gone(no_lora), gone(no_data), gone(words), gone(backend);
    const std::string moved = "moved from", empty = "empty handle";
    expect_error(moved, [&] { session.chat("x"); });
    expect_error(moved, [&] { session.complete("x"); });
    expect_error(moved, [&] { session.reset(); });
    expect_error(moved, [&] { session.set_history({}); });
    expect_error(moved, [&] { (void)session.history(); });
    expect_error(moved, [&] { (void)session.stats(); });
    expect_error(moved, [&] { trainer.step(); });
    expect_error(moved, [&] { (void)trainer.plan(); });
    expect_error(moved, [&] { (void)trainer.last(); });
    expect_error(moved, [&] { (void)trainer.evaluate(data); });
    expect_error(moved, [&] { trainer.save("/nowhere"); });
    expect_error(moved, [&] { trainer.resume("/nowhere"); });
    expect_error(moved, [&] { graph.run(); });
    expect_error(moved, [&] { (void)graph.input({1}); });
    expect_error(moved, [&] { (void)graph.param({1}); });
    expect_error(moved, [&] { (void)graph.weight(model, "x"); });
    expect_error(moved, [&] { graph.step(1); });
    expect_error(moved, [&] { (void)graph.planned_bytes(); });
    expect_error(moved, [&] { (void)graph.used_bytes(); });
    expect_error(empty, [&] { (void)no_model.info(); });
    expect_error(empty, [&] { (void)no_model.logits(tokens); });
    expect_error(empty, [&] { (void)no_model.tokenizer(); });
    expect_error(empty, [&] { no_model.save("/nowhere"); });
    expect_error(empty, [&] { qlora::Session{no_model}; });
    expect_error(empty, [&] { qlora::Session{no_lora}; });
    expect_error(empty, [&] { (void)qlora::Lora::create(no_model); });
    expect_error(empty, [&] { (void)qlora::Lora::load(no_model, "x"); });
    expect_error(empty, [&] { no_lora.save("/nowhere"); });
    expect_error(empty, [&] { (void)no_lora.merge(); });
    expect_error(empty, [&] { (void)no_lora.parameters(); });
    expect_error(empty, [&] { qlora::Trainer(no_lora, data); });
    expect_error(empty, [&] { qlora::Trainer(lora, no_data); });
    expect_error(empty, [&] { (void)qlora::evaluate(model, no_data); });
    expect_error(empty, [&] { (void)qlora::perplexity(no_model, tokens); });
    expect_error(empty, [&] { (void)no_data.info(); });
    expect_error(empty, [&] { (void)no_data.split(0.5f); });
    expect_error(empty, [&] { (void)words.encode("x"); });
    expect_error(empty, [&] { (void)words.size(); });
    expect_error(empty, [&] { (void)qlora::Dataset::load("x.jsonl", words); });
    expect_error(empty, [&] { (void)backend.name(); });
    expect_error("empty handle", [&] { (void)qlora::Model::load("models/tiny.gguf", {.backend = backend}); });
    expect_error("empty backend", [&] { qlora::Graph{backend}; });
    expect_error(empty, [&] { (void)backend.memory_used(); });
    expect_error(empty, [&] { backend.limit_memory(1); });
    expect_error(empty, [&] { (void)qlora::Adapted(no_lora); });
}

TEST_F(Misuse, MovedFromObjectsMayBeAssignedTo) {
    qlora::Trainer trainer(lora, data), other_trainer = std::move(trainer);
    trainer = std::move(other_trainer);
    EXPECT_TRUE(trainer.step());
    qlora::Graph graph(model.backend()), other_graph = std::move(graph);
    graph = qlora::Graph(model.backend());
    EXPECT_EQ(graph.input({3}).shape(), qlora::Shape{3});
    const qlora::Model speaks = qlora::Model::load("models/tiny.gguf", {.backend = qlora::Backend::cpu(1)});
    qlora::Batch batch(speaks), other_batch = std::move(batch);
    expect_error("moved from", [&] { (void)batch.free_slots(); });
    batch = std::move(other_batch);
    EXPECT_EQ(batch.free_slots(), 4);
    batch = std::move(*&batch);                        // to itself: nothing happens
    EXPECT_EQ(batch.free_slots(), 4);
    qlora::Lora copy = lora, taken = std::move(copy);
    copy = taken;
    EXPECT_EQ(copy, lora);
}

// What a handle holds is the library's own.
template <class Handle>
concept Shows = requires(const Handle& h) { h.impl(); } || requires(const Handle& h) { h.memory_files(); };
template <class Handle, class Impl>
constexpr bool closed = !Shows<Handle> && !std::is_constructible_v<Handle, std::shared_ptr<Impl>> &&
                        !std::is_constructible_v<Handle, std::shared_ptr<const Impl>>;
static_assert(closed<qlora::Backend, qlora::BackendImpl> && closed<qlora::Model, qlora::ModelImpl> &&
              closed<qlora::Lora, qlora::LoraImpl> && closed<qlora::Tokenizer, qlora::TokenizerImpl> &&
              closed<qlora::Dataset, qlora::DatasetImpl> && !Shows<qlora::Source>);

struct BusySession : testing::Test {
    qlora::Model model = qlora::Model::load("models/tiny.gguf", {.backend = qlora::Backend::cpu(1)});
    qlora::Sampling few{.temperature = 0, .max_tokens = 6};
};

TEST_F(BusySession, IsNotEnteredFromItsOwnCallback) {
    qlora::Session session(model, {.context = 200}), other(model, {.context = 200});
    const std::string expected = other.chat("Who goes there?", few).text;
    int refused = 0, pieces = 0;
    const std::string reply = session.chat("Who goes there?", few, [&](std::string_view) {
        ++pieces;
        const auto refuse = [&](const auto& use) { refused += contains(error_of(use), "in use already"); };
        refuse([&] { session.chat("again", few); });
        refuse([&] { session.complete("again", few); });
        refuse([&] { session.reset(); });
        refuse([&] { session.set_history({}); });
        EXPECT_TRUE(session.history().empty());
        (void)session.stats();
        (void)other.complete("another session may be used", few);
        return true;
    }).text;
    EXPECT_EQ(refused, 4 * pieces);
    EXPECT_EQ(reply, expected);
    EXPECT_EQ(session.chat("and then?", few).text.empty(), false);          // usable again
    EXPECT_TRUE(contains(error_of([&] { session.chat("x", {.temperature = -1}); }), "temperature"));
    EXPECT_EQ(session.history().size(), 4u);            // and after an error too
    EXPECT_FALSE(session.chat("still there?", few).text.empty());
}

TEST_F(BusySession, MayBeDroppedByItsOwnCallback) {
    auto session = std::make_unique<qlora::Session>(model, qlora::SessionOptions{.context = 200});
    const std::string reply = session->chat("Who goes there?", few, [&](std::string_view) {
        *session = qlora::Session(model, {.context = 100});
        return true;
    }).text;
    EXPECT_FALSE(reply.empty());
    EXPECT_EQ(session->stats().context, 100);
}

TEST_F(BusySession, TwoThreadsGetAnAnswerOrAnError) {
    qlora::Session session(model, {.context = 200});
    std::atomic<int> answers{0}, errors{0};
    const auto talk = [&] {
        for (int i = 0; i < 20; ++i) {
            const std::string error = error_of([&] { session.complete("Who goes there?", few); });
            ++(error == "no error" ? answers : errors);
            EXPECT_TRUE(error == "no error" || contains(error, "in use already")) << error;
        }
    };
    std::thread second(talk);
    talk();
    second.join();
    EXPECT_GT(answers.load(), 0);
    EXPECT_EQ(answers + errors, 40);
}

TEST_F(BusySession, StoppedWithinThePromptLeavesTheDialogueAsItWas) {
    qlora::Session session(model, {.context = 1000});
    session.chat("Who goes there?", few);
    std::string question;
    for (int i = 0; i < 10; ++i) question += "A question that is read in several pieces. ";
    int asked = 0, texts = 0;
    const std::string reply = session.chat(question, few, [&](std::string_view piece) {
        (piece.empty() ? asked : texts)++;
        return false;
    }).text;
    EXPECT_EQ(reply, "");
    EXPECT_EQ(asked, 1);
    EXPECT_EQ(texts, 0);
    ASSERT_EQ(session.history().size(), 2u);
    qlora::Session fresh(model, {.context = 1000});
    fresh.chat("Who goes there?", few);
    // what was read already is not lost, and not wrong
    EXPECT_EQ(session.chat(question, few).text, fresh.chat(question, few).text);
    EXPECT_EQ(session.history().size(), 4u);
    EXPECT_EQ(session.complete(question, few, [](std::string_view piece) { return !piece.empty(); }).text, "");
}

TEST_F(BusySession, AnotherThreadMayNotLookWhileItSpeaks) {
    qlora::Session session(model, {.context = 200});
    int refused = 0, pieces = 0;
    session.chat("Who goes there?", few, [&](std::string_view) {
        ++pieces;
        std::thread([&] {
            refused += contains(error_of([&] { (void)session.history(); }), "in use already");
            refused += contains(error_of([&] { (void)session.stats(); }), "in use already");
        }).join();
        return true;
    });
    EXPECT_EQ(refused, 2 * pieces);
    EXPECT_EQ(session.history().size(), 2u);
}

struct BusyTrainer : Misuse {
    qlora::TrainOptions options{.batch = 1, .accumulate = 2, .context = 64};
};

TEST_F(BusyTrainer, IsNotEnteredFromItsOwnCallback) {
    qlora::Trainer trainer(lora, data, options), other(lora, data, options);
    const qlora::Lora elsewhere = qlora::Lora::create(model, {.rank = 2, .seed = 1});
    qlora::Trainer free(elsewhere, data, options);
    int refused = 0, asked = 0;
    ASSERT_TRUE(trainer.step([&](int64_t, int64_t) {
        ++asked;
        const auto refuse = [&](const char* part, const auto& use) { refused += contains(error_of(use), part); };
        refuse("in use already", [&] { trainer.step(); });
        refuse("in use already", [&] { (void)trainer.plan(); });
        refuse("in use already", [&] { (void)trainer.evaluate(data); });
        refuse("in use already", [&] { trainer.save("/nowhere"); });
        refuse("in use already", [&] { trainer.set_learning_rate(1); });
        refuse("of a trainer that is at work on the same adapter", [&] { other.step(); });
        refuse("of a trainer that is at work on the same adapter", [&] { (void)other.evaluate(data); });
        EXPECT_EQ(trainer.last().step, 0);
        EXPECT_NE(lora.fingerprint(), 0u);              // reading is allowed
        if (asked == 1) free.step();                    // and so is another adapter
        return true;
    }));
    EXPECT_EQ(asked, 3);
    EXPECT_EQ(refused, 7 * asked);
    EXPECT_EQ(free.last().step, 1);
    EXPECT_TRUE(other.step());
}

TEST_F(BusyTrainer, MayBeDroppedByItsOwnCallback) {
    auto trainer = std::make_unique<qlora::Trainer>(lora, data, options);
    const uint64_t before = lora.fingerprint();
    EXPECT_TRUE(trainer->step([&](int64_t, int64_t) {
        trainer.reset();
        return true;
    }));
    EXPECT_NE(lora.fingerprint(), before) << "the step is made";
    trainer = std::make_unique<qlora::Trainer>(lora, data, options);
    int asked = 0;
    EXPECT_TRUE(std::isfinite(trainer->evaluate(data, [&] {
        if (asked++ == 0) *trainer = qlora::Trainer(lora, data, options);
        return true;
    })));
    EXPECT_EQ(trainer->last().step, 0);
    EXPECT_TRUE(trainer->step());
}

// Each of 40 calls is made or refused; every call that was made counts.
template <class Use>
void expect_made_or_refused(int expected, const Use& use) {
    std::atomic<int> made{0}, refused{0};
    const auto work = [&] {
        for (int i = 0; i < 20; ++i) {
            const std::string error = error_of(use);
            ++(error == "no error" ? made : refused);
            EXPECT_TRUE(error == "no error" || contains(error, "in use already")) << error;
        }
    };
    std::thread second(work);
    work();
    second.join();
    EXPECT_GE(made.load(), expected);
    EXPECT_EQ(made + refused, 40);
}

TEST_F(BusyTrainer, TwoThreadsStepOrGetAnError) {
    options.epochs = 100;
    qlora::Trainer trainer(lora, data, options);
    std::atomic<int64_t> made{0};
    expect_made_or_refused(1, [&] { trainer.step(), ++made; });
    EXPECT_EQ(trainer.last().step, made.load());
}

TEST_F(Misuse, TwoThreadsRunAGraphOrGetAnError) {
    qlora::Graph graph(model.backend());
    const qlora::Tensor x = graph.input({64, 64}), y = qlora::matmul(x, x);
    graph.write(x, std::vector<float>(64 * 64, 1));
    expect_made_or_refused(1, [&] {
        graph.run();
        (void)graph.read(y);
        (void)y.shape();
    });
    EXPECT_EQ(graph.read(y)[0], 64);
}

TEST_F(BusySession, ABatchIsNotEnteredFromItsOwnCallback) {
    const qlora::Tokens prompt = model.tokenizer().encode("Who goes there?", true);
    auto batch = std::make_unique<qlora::Batch>(model, qlora::BatchOptions{.slots = 2, .context = 100});
    const qlora::Sampling talkative = run_support::endless(model, few);
    const int64_t slot = batch->add(prompt, talkative);
    int refused = 0, pieces = 0;
    while (batch->step([&](int64_t of, std::string_view) {
        ++pieces;
        refused += contains(error_of([&] { (void)batch->add(prompt, few); }), "in use already");
        refused += contains(error_of([&] { batch->step(); }), "in use already");
        refused += contains(error_of([&] { batch->remove(of); }), "in use already");
        EXPECT_EQ(batch->free_slots(), 1);
        EXPECT_EQ(of, slot);
        (void)batch->running(of);
        return true;
    })) {}
    EXPECT_GT(pieces, 0);
    EXPECT_EQ(refused, 3 * pieces);
    EXPECT_FALSE(batch->remove(slot).text.empty());
    (void)batch->add(prompt, talkative);
    bool dropped = false;
    while (!dropped && batch->step([&](int64_t, std::string_view) {
        batch.reset();
        return dropped = true;
    })) {}
    EXPECT_TRUE(dropped);
}

TEST_F(BusySession, TwoThreadsInABatchGetAnAnswerOrAnError) {
    qlora::Batch batch(model, {.slots = 4, .context = 100});
    const qlora::Tokens prompt = model.tokenizer().encode("Who goes there?", true);
    for (int i = 0; i < 4; ++i) (void)batch.add(prompt, run_support::endless(model, few));
    expect_made_or_refused(1, [&] { batch.step(), (void)batch.free_slots(); });
}

TEST_F(Misuse, AModelInAForkedChildWorksAndIsDestroyed) {
    auto parent = std::make_unique<qlora::Model>(run_support::tiny_model(3));
    const std::vector<float> expected = parent->logits(tokens);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        ::alarm(30);
        const bool same = parent->logits(tokens) == expected;
        parent.reset();
        ::_exit(same ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_EQ(parent->logits(tokens), expected);
}

}  // namespace misuse_test
