// generate_test.cpp - what small models of every family say greedily, behind windows and original contexts, against
// transformers' generation with a cache (tools/make_family_golden.py), in sessions and in batches.
#include "src/run/score.h"
#include "src/run/session.h"
#include "tests/model/reference.h"

namespace generate_test {

using namespace qlora;
using reference::golden, reference::reference_ids;

// With a vocabulary of <0>, <1>, ... and nothing that ends a reply.
Model speaking(const std::string& name, const Json& of) {
    Json speaker = of, config = *of.find("config");
    config.set("eos_token_id", Json());
    speaker.set("config", config);
    const std::string folder = reference::folder_of(str("speaks_", name), speaker);
    Json vocab{Json::Object()}, model, decoder;
    const Json* size = config.find("vocab_size");
    if (const Json* rows = config.find("embedding_size")) size = rows;
    for (int64_t i = 0; i < size->integer(); ++i) vocab.set(str("<", i, ">"), i);
    model.set("type", "BPE").set("vocab", vocab).set("merges", Json(Json::Array()));
    std::ofstream(folder + "/tokenizer.json")
        << Json().set("model", model).set("decoder", decoder.set("type", "Fuse")).dump();
    return Model::load(folder, {.backend = Backend::cpu(1, Compute::f32)});
}

// As the references, which never say what they said in the last 20 steps.
Sampling greedy(size_t tokens) {
    Sampling s{.temperature = 0, .max_tokens = int64_t(tokens)};
    s.mask = [](std::span<const Token> reply, std::span<float> scores) {
        for (const Token t : reply.last(std::min<size_t>(reply.size(), 20))) scores[size_t(t)] = -HUGE_VALF;
    };
    return s;
}

Tokens expected_of(const Json& reference) {
    Tokens out;
    for (const Json& t : reference.find("generated")->array()) out.push_back(Token(t.integer()));
    return out;
}

TEST(Generate, AsTransformersDoes) {
    const Json families = golden("families.json");
    Tokens prompt = reference_ids();
    prompt.resize(5);
    int64_t cases = 0;
    for (const auto& [name, reference] : families.find("cases")->object()) {
        if (!reference.find("generated")) continue;    // scores that a cap has made equal
        const Tokens expected = expected_of(reference);
        ASSERT_GE(expected.size(), 40u) << name;
        const Model model = speaking(name, reference);
        const int64_t context = int64_t(prompt.size() + expected.size());
        qlora::Session session(model, {.context = context, .cache = DType::f32});
        EXPECT_EQ(session.complete(prompt, greedy(expected.size())).tokens, expected) << name;
        // Neighbours that are ahead do not change it.
        Batch batch(model, {.slots = 2, .context = context, .cache = DType::f32});
        const int64_t ahead = batch.add(prompt, greedy(expected.size()));
        for (int i = 0; i < 7; ++i) batch.step();
        const int64_t behind = batch.add(prompt, greedy(expected.size()));
        while (batch.step()) {}
        EXPECT_EQ(batch.remove(ahead).tokens, expected) << name;
        EXPECT_EQ(batch.remove(behind).tokens, expected) << name;
        ++cases;
    }
    EXPECT_GE(cases, 56);
}

// "dynamic" changes nothing up to its original context, to the last token; behind it the reason is said.
TEST(Generate, DynamicScalingEndsWithTheOriginalContext) {
    const Json families = golden("families.json");
    const Model model = speaking("dynamic", *families.find("cases")->find("llama_dynamic"));
    EXPECT_EQ(model.info().context, 48);
    (void)model.logits(Tokens(48, 3));
    std::string error;
    try { (void)model.logits(Tokens(49, 3)); } catch (const Error& e) { error = e.what(); }
    EXPECT_NE(error.find("other rotary frequencies with every token, \"dynamic\""), std::string::npos) << error;
}

// Longrope: a text is read anew where it outgrows the original context, and when it is short again; a session that was
// forked, or saved and restored, goes on as if it had not been.
class Longrope : public testing::Test {
protected:
    const Json families = golden("families.json");
    const Json& of = *families.find("cases")->find("phi3_long");       // original context: 8
    const Model model = speaking("longrope", of);
    const Tokens ids = reference_ids();

    static qlora::Session session(const Model& m) { return qlora::Session(m, {.context = 128, .cache = DType::f32}); }
    static Tokens fresh(const Model& m, std::span<const Token> prompt) {
        return session(m).complete(prompt, greedy(12)).tokens;
    }
};

TEST_F(Longrope, ShortAgain) {
    qlora::Session s = session(model);
    const std::span all(ids);
    for (const size_t count : {4u, 11u, 3u, 8u, 9u, 7u})
        EXPECT_EQ(s.complete(all.first(count), greedy(12)).tokens, fresh(model, all.first(count))) << count;
}

TEST_F(Longrope, ForkedAndRestoredAtTheBorder) {
    const std::span all(ids);
    const Tokens whole = fresh(model, all.first(4));
    for (const size_t said : {1u, 4u, 5u, 7u}) {
        qlora::Session s = session(model), other = session(model);
        (void)s.complete(all.first(4), greedy(said));
        Tokens prompt(ids.begin(), ids.begin() + 4);
        prompt.insert(prompt.end(), whole.begin(), whole.begin() + int64_t(said));
        qlora::Session forked = s.fork();
        other.restore(s.save());
        for (qlora::Session* one : {&s, &forked, &other})
            EXPECT_EQ(one->complete(prompt, greedy(12)).tokens, fresh(model, prompt)) << said;
    }
}

// Half of a prompt that was long as a whole, and is not as what was kept of it.
TEST_F(Longrope, APromptThatWasNotReadToItsEnd) {
    auto larger = std::make_shared<ModelImpl>(*impl_of(model));
    larger->config.context = 512;
    larger->config.rope_scaling.original_context = 150;
    const Model m = handle_of<Model>(std::shared_ptr<const ModelImpl>(larger));
    Tokens prompt;
    for (int i = 0; i < 300; ++i) prompt.push_back(Token((i * i + 3 * i) % 37));
    const auto in = [&] { return qlora::Session(m, {.context = 320, .cache = DType::f32}); };
    qlora::Session s = in(), restored = in(), straight = in();
    EXPECT_EQ(s.complete(prompt, greedy(5), [](std::string_view) { return false; }).finish, Finish::cancelled);
    restored.restore(s.save());
    const std::span begun = std::span(std::as_const(prompt)).first(140);
    const Tokens expected = straight.complete(begun, greedy(20)).tokens;
    EXPECT_EQ(restored.complete(begun, greedy(20)).tokens, expected);
    EXPECT_EQ(s.complete(begun, greedy(20)).tokens, expected);
}

TEST_F(Longrope, ContinuationsOnEitherSide) {
    const std::span all(ids);
    const std::vector<Tokens> texts{Tokens{7, 3}, Tokens{1, 2, 9, 4, 5}, Tokens{8, 8, 8}, Tokens{30}};
    std::vector<Continuation> continuations;
    for (const Tokens& t : texts) continuations.push_back({t, {}});
    const std::vector<double> scores = score_continuations(impl_of(model), nullptr, all.first(6), continuations);
    for (size_t i = 0; i < texts.size(); ++i) {
        Tokens whole(ids.begin(), ids.begin() + 6);
        whole.insert(whole.end(), texts[i].begin(), texts[i].end());
        const std::vector<float> nll = tiny::nll(impl_of(model), nullptr, std::span(whole).first(whole.size() - 1));
        const std::vector<float> logits = tiny::logits(impl_of(model), nullptr,
                                                       std::span(whole).first(whole.size() - 1));
        const size_t width = logits.size() / (whole.size() - 1);
        double sum = 0;
        for (size_t at = 5; at + 1 < whole.size(); ++at) {
            double total = 0;
            for (size_t v = 0; v < width; ++v) total += std::exp(double(logits[at * width + v]));
            sum += double(logits[at * width + size_t(whole[at + 1])]) - std::log(total);
        }
        EXPECT_NEAR(scores[i], sum, 1e-4) << i;
    }
}

}  // namespace generate_test
