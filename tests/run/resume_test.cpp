// resume_test.cpp - which run a checkpoint belongs to: another base, configuration, tokenizer, data set or adapter is
// refused by name with both values, another machine goes on and says so, checkpoints of version 0.1.0 go on as far as
// they can be compared.
#include "src/base/access.h"
#include "src/model/lora_impl.h"
#include "src/run/checkpoint.h"
#include "src/run/checkpoint_identity.h"
#include "tests/run/run_support.h"

#include <cstring>
#include <filesystem>

namespace resume_test {

using run_support::contains;
using run_support::error_of;
using run_support::values_of;
using qlora::DType;
using qlora::WeightPtr;

qlora::TrainOptions options() {
    qlora::TrainOptions o;
    o.epochs = 3;
    o.batch = 2;
    o.accumulate = 2;
    o.context = 64;
    o.learning_rate = 1e-2f;
    o.schedule = qlora::Schedule::cosine;
    o.optimizer.weight_decay = 0.01f;
    o.seed = 11;
    o.warmup_start = 0;                                // all that version 0.1.0 knew
    return o;
}

qlora::Dataset rows(uint64_t seed = 3) { return run_support::dataset(run_support::random_rows(10, seed)); }

qlora::Model model(bool double_quant = true, const qlora::Backend& backend = qlora::Backend::cpu(1)) {
    return qlora::Model::load(golden_path("training/model"),
                              {.backend = backend, .quantize = DType::nf4, .double_quant = double_quant});
}

qlora::LoraOptions shape(std::string modules = "attention") {
    return {.rank = 2, .alpha = 4, .dropout = 0.1f, .modules = std::move(modules), .seed = 5};
}

std::string saved(const run_support::TemporaryFolder& folder, const qlora::Model& base, int steps = 2) {
    qlora::Trainer trainer(qlora::Lora::create(base, shape()), rows(), options());
    for (int i = 0; i < steps; ++i) EXPECT_TRUE(trainer.step());
    trainer.save(folder / "c");
    return folder / "c";
}

std::string resumed(const qlora::Lora& lora, const std::string& path) {
    qlora::Trainer trainer(lora, rows(), options());
    const std::vector<float> before = values_of(lora);
    const std::string error = error_of([&] { trainer.resume(path); });
    if (error != "no error") {
        EXPECT_EQ(values_of(lora), before);
        EXPECT_EQ(trainer.last().step, 0);
    }
    return error;
}

WeightPtr with(const WeightPtr& w) {                   // its last number is another
    std::vector<float> values = w->decoded();
    values.back() += 1e-3f;
    return std::make_shared<const qlora::Weight>(qlora::dense_weight(w->name, w->shape, std::move(values)));
}

std::shared_ptr<const qlora::TokenizerImpl> words(const char* last) {
    qlora::Vocabulary v;
    v.kind = qlora::Vocabulary::Kind::spm;
    for (int i = 0; i < 63; ++i) v.tokens.push_back(std::string(1, char('0' + i)));
    v.tokens.push_back(last);
    v.scores.assign(64, 0);
    v.types.assign(64, qlora::Vocabulary::Type::normal);
    return qlora::make_tokenizer(std::move(v), "test");
}

// The same tokens, other rules for cutting text into them.
TEST(Resume, RefusesATokenizerThatCutsTextInAnotherWay) {
    const auto cut_by = [](std::vector<std::string> merges, std::vector<float> scores, bool space) {
        qlora::Vocabulary v;
        v.kind = scores.empty() ? qlora::Vocabulary::Kind::byte_bpe : qlora::Vocabulary::Kind::spm;
        v.pre = scores.empty() ? "gpt-2" : "";
        v.tokens = {"a", "b", "c", "ab", "bc"};
        v.merges = std::move(merges);
        v.scores = std::move(scores);
        v.add_space_prefix = space;
        auto m = std::make_shared<qlora::ModelImpl>(*impl_of(model()));
        m->tokenizer = qlora::make_tokenizer(std::move(v), "test");
        return qlora::handle_of<qlora::Model>(m);
    };
    run_support::TemporaryFolder folder("qlora-cut");
    const std::string by_merges = saved(folder, cut_by({"a b", "b c"}, {}, true));
    EXPECT_EQ(resumed(qlora::Lora::create(cut_by({"a b", "b c"}, {}, true), shape()), by_merges), "no error");
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(cut_by({"b c", "a b"}, {}, true), shape()), by_merges),
                         "tokenizer was 5 tokens, "));
    run_support::TemporaryFolder other("qlora-cut-scores");
    const std::string by_scores = saved(other, cut_by({}, {0, 0, 0, 1, 2}, true));
    EXPECT_EQ(resumed(qlora::Lora::create(cut_by({}, {0, 0, 0, 1, 2}, true), shape()), by_scores), "no error");
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(cut_by({}, {0, 0, 0, 2, 1}, true), shape()), by_scores),
                         "tokenizer was 5 tokens, "));
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(cut_by({}, {0, 0, 0, 1, 2}, false), shape()), by_scores),
                         "tokenizer was 5 tokens, "));
}

TEST(Resume, RefusesAnotherBaseByName) {
    using Model = qlora::ModelImpl;
    using qlora::Slot;
    const auto change = [](qlora::WeightPtr& w) { w = with(w); };
    const struct { const char* name; std::function<void(Model&)> change; } table[] = {
        {"fingerprint.norms", [&](Model& m) { change(m.at(Slot::final_norm)); }},
        {"fingerprint.norms", [&](Model& m) { change(m.at(Slot::attention_norm, 0)); }},
        {"fingerprint.embeddings", [&](Model& m) { change(m.at(Slot::embedding)); }},
        {"fingerprint.weights", [&](Model& m) { change(m.at(Slot::down_proj, m.config.layers - 1)); }},
        {"configuration.eps was ", [](Model& m) { m.config.eps *= 1.5f; }},
        {"configuration.context was ", [](Model& m) { m.config.context += 1; }},
        {"configuration.rope_frequencies", [](Model& m) { m.config.inverse_frequencies[0] *= 1.01f; }},
        {"configuration.window was 0 and is 9", [](Model& m) { m.config.window = 9; }},
        {"tokenizer was none and is 64 tokens", [](Model& m) { m.tokenizer = words("x"); }}};
    run_support::TemporaryFolder folder("qlora-base");
    const std::string path = saved(folder, model());
    for (const auto& row : table) {
        auto other = std::make_shared<Model>(*impl_of(model()));
        row.change(*other);
        const std::string error = resumed(
            qlora::Lora::create(qlora::handle_of<qlora::Model>(other), shape()), path);
        EXPECT_TRUE(contains(error, "another base model") && contains(error, row.name)) << row.name << ": " << error;
    }
    const std::string scales = resumed(qlora::Lora::create(model(false), shape()), path);      // --no-double-quant
    EXPECT_TRUE(contains(scales, "double_quant was true and is false") && contains(scales, "fingerprint.scales"))
        << scales;
    EXPECT_FALSE(contains(scales, "fingerprint.norms")) << scales;
    EXPECT_EQ(resumed(qlora::Lora::create(model(), shape()), path), "no error");
    auto one = std::make_shared<Model>(*impl_of(model())), two = std::make_shared<Model>(*one);
    one->tokenizer = words("x");
    two->tokenizer = words("y");
    const std::string spoken = saved(folder, qlora::handle_of<qlora::Model>(one));
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(qlora::handle_of<qlora::Model>(two), shape()), spoken),
                         "tokenizer was 64 tokens, "));
}

TEST(Resume, ComparesLayersAndNotTheirSpelling) {
    run_support::TemporaryFolder folder("qlora-layers");
    const std::string path = saved(folder, model());
    const qlora::Lora loaded = qlora::Lora::load(model(), path + "/adapter");
    EXPECT_EQ(resumed(loaded, path), "no error");
    EXPECT_EQ(resumed(qlora::Lora::create(model(), shape("o_proj, v_proj,k_proj,q_proj")), path), "no error");
    qlora::LoraOptions other = shape("all");
    other.exclude = {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
    EXPECT_EQ(resumed(qlora::Lora::create(model(), other), path), "no error");
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(model(), shape("q_proj")), path),
                         "self_attn.k_proj was rank 2, scale 2 and is absent"));
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(model(), shape("all")), path),
                         "mlp.gate_proj was absent and is rank 2, scale 2"));
    other = shape();
    other.alpha = 8;
    EXPECT_TRUE(
        contains(resumed(qlora::Lora::create(model(), other), path), "was rank 2, scale 2 and is rank 2, scale 4"));
    other = shape();
    other.dora = true;
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(model(), other), path), "dora was false and is true"));
    other = shape();
    other.dropout = 0;
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(model(), other), path), "dropout was 0.1"));
    qlora::Trainer elsewhere(qlora::Lora::create(model(), shape()), rows(4), options());
    EXPECT_TRUE(contains(error_of([&] { elsewhere.resume(path); }), "data set"));
}

TEST(Resume, AnotherMachineGoesOnAndSaysSo) {
    run_support::TemporaryFolder folder("qlora-machine");
    const std::string path = saved(folder, model(true, qlora::Backend::cpu(1, qlora::Compute::bf16, "scalar")));
    const std::optional<qlora::RunMachine> machine = qlora::Trainer::machine_of(path);
    ASSERT_TRUE(machine);
    EXPECT_EQ(machine->device, "cpu");
    EXPECT_EQ(machine->instructions, "scalar");
    EXPECT_EQ(machine->compute, qlora::Compute::bf16);
    EXPECT_EQ(machine->threads, 1);
    qlora::Trainer same(
        qlora::Lora::create(model(true, qlora::Backend::cpu(1, qlora::Compute::bf16, "scalar")), shape()), rows(),
        options());
    EXPECT_TRUE(same.resume(path).empty());
    qlora::Trainer other(
        qlora::Lora::create(model(true, qlora::Backend::cpu(2, qlora::Compute::f32, "scalar")), shape()), rows(),
        options());
    const std::vector<std::string> notes = other.resume(path);
    ASSERT_EQ(notes.size(), 2u);
    EXPECT_TRUE(contains(notes[0], "compute was bf16 and is f32")) << notes[0];
    EXPECT_TRUE(contains(notes[1], "threads was 1 and is 2")) << notes[1];
    EXPECT_TRUE(other.step());
    EXPECT_THROW((void)qlora::Backend::cpu(1, qlora::Compute::f32, "sse9"), qlora::Error);
}

// With Compute::mixed the processor's vendor may decide what gradients are made of; checkpoints from before that was
// recorded say nothing of it.
TEST(Resume, GradientsOfAnotherPrecisionAreSaid) {
    const qlora::TrainerImpl impl(impl_of(qlora::Lora::create(model(), shape())), impl_of(rows()), options());
    const qlora::RunIdentity run = qlora::identity_of(impl);
    const auto notes = [&](const qlora::Json& machine) {
        const qlora::Json manifest = qlora::Json()
                                         .set("options", run.options)
                                         .set("adapter", run.adapter)
                                         .set("model", run.model)
                                         .set("data", run.data)
                                         .set("machine", machine);
        return qlora::check_identity(impl, manifest, "", "here");
    };
    qlora::Json other = run.machine;
    const bool bf16 = run.machine.find("gradients")->string() == "bf16";
    other.set("gradients", bf16 ? "f32" : "bf16");
    EXPECT_TRUE(notes(run.machine).empty());
    ASSERT_EQ(notes(other).size(), 1u);
    EXPECT_TRUE(contains(notes(other)[0], bf16 ? "gradients was f32 and is bf16" : "gradients was bf16 and is f32"));
    std::erase_if(other.object(), [](const qlora::Json::Member& m) { return m.first == "gradients"; });
    EXPECT_TRUE(notes(other).empty());
}

// tests/golden/training/checkpoint_0_1_0 is what version 0.1.0 wrote after four of nine steps, on the base in nf4.
qlora::Lora first_adapter(const qlora::Model& base) {
    return qlora::Lora::create(base, {.rank = 1,
                                      .alpha = 2,
                                      .dropout = 0.1f,
                                      .modules = "attention",
                                      .layers = {0},
                                      .exclude = {"k_proj"},
                                      .rank_pattern = {{"o_proj", 2}}});
}

TEST(ResumeOfVersion010, GoesOnAndSaysWhatItLacks) {
    const std::string path = golden_path("training/checkpoint_0_1_0");
    const qlora::Lora lora = first_adapter(model());
    qlora::Trainer trainer(lora, rows(), options());
    const std::vector<std::string> notes = trainer.resume(path);
    ASSERT_EQ(notes.size(), 1u);
    EXPECT_TRUE(contains(notes[0], "version 0.1.0") && contains(notes[0], "norms")) << notes[0];
    EXPECT_FALSE(qlora::Trainer::machine_of(path));
    EXPECT_EQ(trainer.last().step, 4);
    const std::string factors = qlora::read_file(path + "/factors.bin");
    std::vector<float> expected(factors.size() / 4);
    std::memcpy(expected.data(), factors.data(), factors.size());
    EXPECT_EQ(values_of(lora), expected);
    while (trainer.step()) {}
    EXPECT_EQ(trainer.last().step, 9);
    EXPECT_NE(values_of(lora), expected);
}

TEST(ResumeOfVersion010, RefusesWhatItCanCompare) {
    const std::string path = golden_path("training/checkpoint_0_1_0");
    auto base = std::make_shared<qlora::ModelImpl>(*impl_of(model()));
    base->at(qlora::Module::o_proj, 0) = with(base->at(qlora::Module::o_proj, 0));
    EXPECT_TRUE(contains(resumed(first_adapter(qlora::handle_of<qlora::Model>(base)), path),
                         "another base model"));
    EXPECT_TRUE(contains(resumed(qlora::Lora::create(model(), shape()), path), "another adapter"));
    run_support::TemporaryFolder folder("qlora-010");
    std::filesystem::copy(path, folder.path / "c", std::filesystem::copy_options::recursive);
    std::filesystem::remove_all(folder.path / "c/adapter");
    EXPECT_TRUE(contains(resumed(first_adapter(model()), folder / "c"), "adapter_config.json, which is missing"));
}

TEST(ResumeNumbers, OnlyFiniteOnesAreWrittenAndRead) {
    for (const int bits : {32, 8}) {
        run_support::TemporaryFolder folder("qlora-nan");
        qlora::TrainOptions o = options();
        o.optimizer.bits = bits;
        const qlora::Lora lora = qlora::Lora::create(model(), shape());
        qlora::TrainerImpl trainer(impl_of(lora), impl_of(rows()), o);
        ASSERT_TRUE(trainer.step());
        std::vector<qlora::BufferRef> buffers{impl_of(lora)->values};
        for (const auto& state : trainer.optimizer.states())
            if (state.floats) buffers.push_back(state.buffer);
        EXPECT_EQ(buffers.size(), 3u);
        for (const qlora::BufferRef& buffer : buffers) {
            std::vector<float> good = run_support::download(buffer, lora), bad = good;
            bad.back() = INFINITY;
            impl_of(lora)->base->backend->upload(*buffer, 0, bad.data(), buffer->bytes);
            EXPECT_TRUE(contains(error_of([&] { qlora::save_checkpoint(trainer, folder / "c"); }), "holds inf"));
            EXPECT_FALSE(qlora::exists(folder / "c"));
            impl_of(lora)->base->backend->upload(*buffer, 0, good.data(), buffer->bytes);
        }
        qlora::save_checkpoint(trainer, folder / "c");
        EXPECT_TRUE(qlora::exists(folder / "c"));
    }
}

}  // namespace resume_test
