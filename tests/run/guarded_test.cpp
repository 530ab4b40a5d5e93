// guarded_test.cpp - nobody outside a backend touches its memory: everything a program does runs on a backend whose
// pages are inaccessible while host code runs, and gives the same bytes as on the CPU.
#include "tests/support/guarded_backend.h"

#include "src/base/access.h"
#include "src/model/lora_impl.h"
#include "tests/run/run_support.h"

#include <sstream>

namespace guarded_test {

using run_support::TemporaryFolder;
using run_support::values_of;
using qlora::Backend;
using qlora::DType;
using qlora::LoraInit;

struct Case {
    const char* name;
    std::optional<DType> quantize = {};
    bool double_quant = true, dora = false, checkpoint = false;
    LoraInit init = LoraInit::standard;
    qlora::AdamW optimizer = {};
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

Backend guarded_backend() { return handle_of<Backend>(std::make_shared<guarded::GuardedBackend>()); }
Backend cpu_backend() { return Backend::cpu(2, qlora::Compute::f32); }

// What the time of day has no part in: a manifest says how many seconds a step took, and has a sum over itself.
std::string timeless(const std::string& name, const std::string& text) {
    if (!name.ends_with("manifest.json")) return text;
    std::istringstream lines(text);
    std::string kept, line;
    while (std::getline(lines, line))
        if (!run_support::contains(line, "\"seconds\"") && !line.starts_with(" \"hash\"")) kept += line + "\n";
    return kept;
}

// A folder's files and their contents, or one file.
std::map<std::string, std::string> contents(const std::string& path) {
    std::map<std::string, std::string> files;
    if (!std::filesystem::is_directory(path)) return {{"", qlora::read_file(path)}};
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
        if (!entry.is_regular_file()) continue;
        const std::string name = std::filesystem::relative(entry.path(), path).string();
        files[name] = timeless(name, qlora::read_file(entry.path().string()));
    }
    return files;
}

// All that a program does with an adapter, on one backend: what came out, by name. Saved things are at `folder`.
struct Everything {
    std::map<std::string, std::vector<double>> numbers;
    std::vector<std::string> saved;
};

qlora::Lora adapter(const qlora::Model& model, const Case& c) {
    qlora::LoraOptions o{.rank = 2, .alpha = 4, .dropout = 0.1f, .seed = 5};
    o.dora = c.dora;
    o.init = c.init;
    return qlora::Lora::create(model, o);
}

qlora::TrainOptions training(const Case& c) {
    qlora::TrainOptions o;
    o.epochs = 3;
    o.batch = 2;
    o.accumulate = 2;
    o.context = 64;
    o.learning_rate = 1e-2f;
    o.checkpoint_activations = c.checkpoint;
    o.optimizer = c.optimizer;
    return o;
}

std::vector<double> doubles(const std::vector<float>& v) { return {v.begin(), v.end()}; }

void train(const qlora::Model& model, const Case& c, const TemporaryFolder& folder, Everything& out) {
    const qlora::Dataset rows = run_support::dataset(run_support::random_rows(10));
    qlora::Trainer trainer(adapter(model, c), rows, training(c));
    (void)trainer.plan();
    for (int i = 0; i < 2; ++i) {
        ASSERT_TRUE(trainer.step());
        out.numbers["losses"].push_back(trainer.last().loss);
        out.numbers["norms"].push_back(trainer.last().grad_norm);
    }
    trainer.save(folder / "checkpoint");
    const qlora::Lora lora = adapter(model, c);
    qlora::Trainer resumed(lora, rows, training(c));
    EXPECT_EQ(resumed.resume(folder / "checkpoint"), std::vector<std::string>{});
    ASSERT_TRUE(resumed.step());
    out.numbers["held out"].push_back(resumed.evaluate(rows));
    resumed.save(folder / "later");
    lora.save(folder / "peft");
    if (!c.dora) lora.save(folder / "adapter.gguf");
    out.numbers["factors"] = doubles(values_of(lora));
    out.saved = {"checkpoint", "later", "peft"};
    if (!c.dora) out.saved.push_back("adapter.gguf");
}

void use(const qlora::Model& model, const Case& c, const TemporaryFolder& folder, Everything& out) {
    const qlora::Lora lora = qlora::Lora::load(model, folder / "peft");
    const qlora::Tokens prompt{1, 5, 9, 13};
    out.numbers["logits"] = doubles(lora.logits(prompt));
    qlora::Tokens text;
    for (int i = 0; i < 40; ++i) text.push_back(1 + i * 7 % 60);
    out.numbers["perplexity"].push_back(qlora::perplexity(lora, text, 32, 16).nll);
    out.numbers["difference"].push_back(qlora::difference(lora, lora.merge(), text).kl);
    out.numbers["converted"] = doubles(model.convert(DType::nf4).logits(prompt));
    if (c.init == LoraInit::pissa) return;             // its base is no model to save
    model.save(folder / "folder");
    if (!c.quantize || c.double_quant) model.save(folder / "model.gguf");
    lora.save(folder / "merged.gguf", {.as = DType::q8_0, .merged = true});
    lora.save(folder / "merged", {.as = DType::bf16, .merged = true});
    out.saved.insert(out.saved.end(), {"folder", "merged.gguf", "merged"});
}

Everything everything(const Backend& backend, const Case& c, const TemporaryFolder& folder) {
    Everything out;
    const qlora::Model model = qlora::Model::load(
        golden_path("training/model"), {.backend = backend, .quantize = c.quantize, .double_quant = c.double_quant});
    train(model, c, folder, out);
    use(model, c, folder, out);
    return out;
}

class Guarded : public ::testing::TestWithParam<Case> {};

TEST_P(Guarded, EverythingRunsAndGivesTheBytesOfTheCpu) {
    const TemporaryFolder here("guarded"), there("unguarded");
    const Everything guarded = everything(guarded_backend(), GetParam(), here),
                     plain = everything(cpu_backend(), GetParam(), there);
    EXPECT_EQ(guarded.numbers, plain.numbers);
    ASSERT_EQ(guarded.saved, plain.saved);
    for (const std::string& name : plain.saved) EXPECT_EQ(contents(here / name), contents(there / name)) << name;
}

INSTANTIATE_TEST_SUITE_P(
    Adapters, Guarded,
    ::testing::Values(Case{.name = "Float"}, Case{.name = "Nf4", .quantize = DType::nf4},
                      Case{.name = "Fp4Single", .quantize = DType::fp4, .double_quant = false},
                      Case{.name = "Dora", .quantize = DType::nf4, .dora = true},
                      Case{.name = "Loftq", .quantize = DType::nf4, .init = LoraInit::loftq},
                      Case{.name = "Pissa", .quantize = DType::nf4, .init = LoraInit::pissa},
                      Case{.name = "EightBit", .quantize = DType::nf4, .checkpoint = true,
                           .optimizer = {.bits = 8, .paged = false}}),
    [](const ::testing::TestParamInfo<Case>& tested) { return std::string(tested.param.name); });

template <class T>
std::string bytes_of(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// What an app does with a model, in bytes: replies alone and together, states, scores, vectors, adapters of adapters.
std::vector<std::string> said_on(const Backend& backend, DType cache) {
    std::vector<std::string> out;
    const qlora::Model model = qlora::Model::load("models/tiny.gguf", {.backend = backend, .quantize = DType::nf4});
    const qlora::Lora lora = adapter(model, {.name = ""});
    qlora::Session session(lora, {.context = 64, .cache = cache});
    const qlora::Sampling greedy{.temperature = 0, .max_tokens = 20},
                          drawn{.temperature = 0.8f, .max_tokens = 20, .seed = 3};
    out.push_back(session.complete("O Romeo", greedy).text);
    out.push_back(session.complete("O Romeo", drawn).text);
    qlora::Session fork = session.fork();
    out.push_back(fork.chat("Who goes there?", drawn).text);
    out.push_back(fork.save());
    session.restore(out.back());
    session.adapt(lora, 0.5f);
    out.push_back(session.chat("And then?", greedy).text);
    const qlora::Tokens prompt = model.tokenizer().encode("To be, or not", true);
    qlora::Batch batch(model, {.slots = 3, .context = 64, .cache = cache});
    for (const std::optional<qlora::Lora>& with : {std::optional<qlora::Lora>(), std::optional(lora)})
        (void)batch.add(prompt, drawn, with);
    while (batch.step()) {}
    for (const int64_t slot : {0, 1}) out.push_back(batch.remove(slot).text);
    out.push_back(bytes_of(qlora::score(lora, prompt, std::vector<qlora::Tokens>{{5, 6, 7}, {9}})));
    out.push_back(bytes_of(qlora::embeddings(lora, std::vector<std::string>{"To be", "O"})));
    const float scale = 2;
    for (const qlora::Lora& made : {lora.copy(), qlora::Lora::sum({&lora, 1}, {&scale, 1})})
        for (const auto& [name, bytes] : made.files()) out.push_back(bytes);
    return out;
}

TEST(Guarded, AppsGetWhatTheyGetOnTheCpu) {
    for (const DType cache : {DType::f32, DType::f16, DType::q8_0})
        EXPECT_EQ(said_on(guarded_backend(), cache), said_on(cpu_backend(), cache));
}

// The guard guards: what these two do outside of the backend is what the rest of the program must not do.
TEST(GuardedDeathTest, FollowingAPointerEndsTheProcess) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    guarded::GuardedBackend backend(1);
    const qlora::BufferRef buffer = backend.allocate(64, qlora::Memory::device);
    const float value = 3;
    backend.upload(*buffer, 0, &value, 4);
    EXPECT_DEATH({ std::printf("%g", double(*static_cast<volatile float*>(buffer->data))); }, "");
    const qlora::WeightPtr w = backend.hold(
        std::make_shared<const qlora::Weight>(qlora::dense_weight("w", {2}, {1, 2})), qlora::Placement::device);
    EXPECT_EQ(w->decoded(), (std::vector<float>{1, 2}));
    EXPECT_DEATH({ std::printf("%d", int(*static_cast<const volatile uint8_t*>(w->data))); }, "");
}

}  // namespace guarded_test
