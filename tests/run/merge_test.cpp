// merge_test.cpp - a merged model is base + adapter; every type round-trips through files; the measured distance is
// what it says it is.
#include "src/base/access.h"
#include "src/run/merge.h"

#include "src/format/gguf.h"
#include "src/model/lora_impl.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

namespace merge_test {

using namespace qlora;

const Tokens ids{3, 17, 5, 22, 9, 31, 2, 8, 14, 30};

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_merge_" + name;
    std::filesystem::remove_all(path);
    return path;
}

std::shared_ptr<LoraImpl> trained(std::shared_ptr<const ModelImpl> model,
                                  LoraOptions options = {.rank = 3, .alpha = 5}) {
    auto lora = create_lora(model, options);
    std::vector<float> v = lora_values(*lora);
    Rng rng{7, 1, 0};
    for (float& x : v) x += 0.1f * rng.normal();
    set_lora_values(*lora, v);
    return lora;
}

std::shared_ptr<ModelImpl> quantized(const ModelImpl& model, DType type) { return convert_model(model, type, true); }

double farthest(const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    double most = 0;
    for (size_t i = 0; i < a.size(); ++i) most = std::max(most, double(std::fabs(a[i] - b[i])));
    return most;
}

TEST(Merge, IsTheBaseWithTheAdapter) {
    for (const char* family : {"llama", "mistral", "qwen2", "qwen3", "gemma2", "starcoder2", "olmo", "deci", "phi3", "gpt2", "gpt_bigcode", "gpt_neox"})
        for (const bool tied : {false, true})
            for (const bool four_bit : {false, true}) {
                auto model = tiny::make(
                    {.family = family, .tied = tied, .adjacent = tied && std::string(family) == "llama"});
                if (four_bit) model = quantized(*model, DType::nf4);
                const auto lora = trained(model);
                const std::vector<float> expected = tiny::logits(model, lora.get(), ids),
                                         base = tiny::logits(model, nullptr, ids);
                const auto merged = merge_lora(*lora, DType::f32, true);
                EXPECT_LT(farthest(tiny::logits(merged, nullptr, ids), expected), 1e-4) << family;
                EXPECT_GT(farthest(base, expected), 0.1) << family << ": the adapter must do something";
                EXPECT_EQ(tiny::logits(model, nullptr, ids), base) << "the source stays as it is";
            }
}

TEST(Merge, OnlyAdaptedLayersChange) {
    const auto model = quantized(*tiny::make({}), DType::nf4);
    const auto lora = trained(model, {.rank = 2, .alpha = 4, .modules = "q_proj,down_proj"});
    const auto merged = merge_lora(*lora, DType::nf4, true);
    for (size_t i = 0; i < model->layers.size(); ++i)
        for (int m = 0; m < module_count; ++m) {
            const bool adapted = Module(m) == Module::q_proj || Module(m) == Module::down_proj;
            EXPECT_EQ(merged->at(Module(m), i) == model->at(Module(m), i), !adapted)
                << "layer " << i << ", " << name_of(Module(m));
        }
    EXPECT_EQ(merged->at(Slot::embedding), model->at(Slot::embedding));
}

TEST(Merge, SameBytesOnAnyNumberOfThreads) {
    auto one = tiny::make({}), three = tiny::make({});
    three->backend = tiny::backend(3);
    const auto a = merge_lora(*trained(one), DType::q8_0, true), b = merge_lora(*trained(three), DType::q8_0, true);
    for (size_t i = 0; i < a->layers.size(); ++i)
        for (int m = 0; m < module_count; ++m)
            EXPECT_EQ(a->at(Module(m), i)->decoded(), b->at(Module(m), i)->decoded());
}

TEST(Convert, EachTensorHasItsType) {
    const auto model = tiny::make({.hidden = 64, .heads = 4, .head_dim = 16, .feed_forward = 80});
    const struct {
        DType asked, linear, down, head;
    } table[] = {
        {DType::f16, DType::f16, DType::f16, DType::f16},        {DType::bf16, DType::bf16, DType::bf16, DType::bf16},
        {DType::q8_0, DType::q8_0, DType::f16, DType::q8_0},     {DType::q4_0, DType::q4_0, DType::f16, DType::q8_0},
        {DType::iq4_nl, DType::iq4_nl, DType::f16, DType::q8_0}, {DType::nf4, DType::nf4, DType::nf4, DType::f32},
        {DType::fp4, DType::fp4, DType::fp4, DType::f32}};
    for (const auto& row : table) {
        const auto out = convert_model(*model, row.asked, true);
        EXPECT_EQ(out->at(Module::q_proj, 1)->dtype, row.linear);
        EXPECT_EQ(out->at(Module::down_proj, 1)->dtype, row.down)
            << "rows of 80 are not whole blocks of 32";
        EXPECT_EQ(out->at(Slot::embedding)->dtype, row.head);
        EXPECT_EQ(out->at(Slot::head)->dtype, row.head);
        EXPECT_EQ(out->at(Slot::attention_norm, 0)->dtype, DType::f32);
    }
    const auto tied = tiny::make({.tied = true});
    const auto half = convert_model(*tied, DType::f16, true);
    EXPECT_EQ(half->at(Slot::head), half->at(Slot::embedding));
    EXPECT_THROW(convert_model(*model, DType::q6_k, true), Error);
}

TEST(Convert, EveryTypeRoundTripsThroughGguf) {
    for (const char* family : {"llama", "qwen2", "qwen3", "gemma2", "starcoder2", "olmo", "deci", "phi3", "gpt2", "gpt_bigcode", "gpt_neox"})
        for (const bool adjacent : {false, true}) {
            if (adjacent && std::string(family) != "llama") continue;
            const auto model = tiny::make({.family = family, .hidden = 64, .feed_forward = 96, .adjacent = adjacent});
            for (const DType type :
                 {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::iq4_nl, DType::nf4}) {
                const auto merged = merge_lora(*trained(model), type, true);
                const std::string path = temporary("type.gguf");
                save_gguf_model(*merged, path);
                const auto again = tiny::load(path);
                EXPECT_EQ(describe(*again).weights, describe(*merged).weights);
                // rows of q and k may be in another order
                EXPECT_LT(farthest(tiny::logits(again, nullptr, ids), tiny::logits(merged, nullptr, ids)), 1e-4)
                    << name_of(type);
                // From that file into another type: llama.cpp's number of the new type, and none of our own keys left
                // over.
                const std::string second = temporary("second.gguf");
                save_gguf_model(*convert_model(*again, type == DType::f16 ? DType::bf16 : DType::f16, true), second);
                const auto file = Gguf::open(second);
                EXPECT_EQ(file->integer("general.file_type", -1), type == DType::f16 ? 32 : 1);
                for (const char* key : {"qlora.type", "qlora.block", "qlora.adjacent_pairs"})
                    EXPECT_EQ(file->pair(key), nullptr) << key << ", " << name_of(type);
                EXPECT_LT(farthest(tiny::logits(tiny::load(second), nullptr, ids), tiny::logits(merged, nullptr, ids)),
                          0.1);
            }
        }
}

TEST(Convert, HuggingFaceFolders) {
    const std::string source = data_path("model/stories260K/hf");
    if (!exists(source)) GTEST_SKIP() << "needs ../shared/data/model/stories260K";
    const auto model = tiny::load(source, DType::nf4);
    const auto lora = trained(model, {.rank = 4, .alpha = 4});
    const struct {
        DType type;
        const char* name;
    } dense[] = {{DType::f32, "float32"}, {DType::f16, "float16"}, {DType::bf16, "bfloat16"}};
    for (const auto& d : dense) {
        const auto merged = merge_lora(*lora, d.type, true);
        const std::string folder = temporary("folder");
        save_hf_model(*merged, folder);
        const auto again = tiny::load(folder);
        EXPECT_EQ(tiny::logits(again, nullptr, ids), tiny::logits(merged, nullptr, ids));
        const Json config = Json::parse(read_file(folder + "/config.json"), folder);
        const Json *v5 = config.find("dtype"), *v4 = config.find("torch_dtype");
        ASSERT_TRUE(v4 || v5);
        if (v4) { EXPECT_EQ(v4->string(), d.name); }
        if (v5) { EXPECT_EQ(v5->string(), d.name); }
        EXPECT_EQ(config.find("quantization_config"), nullptr);
    }
    // Into 4 bits, then out of that folder into bf16: the mark of quantization comes and goes.
    const auto merged = merge_lora(*lora, DType::nf4, true);
    const std::string four = temporary("four"), back = temporary("back");
    save_hf_model(*merged, four);
    const auto again = tiny::load(four);
    EXPECT_EQ(tiny::logits(again, nullptr, ids), tiny::logits(merged, nullptr, ids));
    EXPECT_NE(Json::parse(read_file(four + "/config.json"), four).find("quantization_config"), nullptr);
    save_hf_model(*convert_model(*again, DType::bf16, true), back);
    EXPECT_EQ(Json::parse(read_file(back + "/config.json"), back).find("quantization_config"), nullptr);
    EXPECT_LT(farthest(tiny::logits(tiny::load(back), nullptr, ids), tiny::logits(merged, nullptr, ids)), 0.3);
    EXPECT_THROW(save_hf_model(*merge_lora(*lora, DType::q8_0, true), temporary("q8")), Error);
}

std::string bytes_of_files(const std::string& path) {
    if (!is_folder(path)) return read_file(path);
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(path))
        files[entry.path().filename()] = read_file(entry.path());
    std::string all;
    for (const auto& [name, content] : files) all += name + content;
    return all;
}

// The way without the whole result in memory writes the same bytes.
TEST(SaveAs, IsConvertAndSave) {
    const std::string source = temporary("source.gguf");
    save_gguf_model(*tiny::make({.hidden = 64, .feed_forward = 96}), source);
    const auto model = tiny::load(source);
    const auto lora = trained(model);
    for (const LoraImpl* adapter : {static_cast<const LoraImpl*>(nullptr), static_cast<const LoraImpl*>(lora.get())})
        for (const bool gguf : {true, false})
            for (const DType type :
                 {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::iq4_nl, DType::nf4}) {
                if (!gguf && (type == DType::q8_0 || type == DType::q4_0 || type == DType::iq4_nl)) continue;
                const std::string a = temporary(gguf ? "a.gguf" : "a"), b = temporary(gguf ? "b.gguf" : "b");
                float last = 0;
                int calls = 0;
                save_model_as(*model, adapter, a, type, true, [&](float f) {
                    EXPECT_GT(f, last);
                    last = f;
                    ++calls;
                    return true;
                });
                const auto whole = adapter ? merge_lora(*adapter, type, true) : convert_model(*model, type, true);
                if (gguf) save_gguf_model(*whole, b);
                else save_hf_model(*whole, b);
                EXPECT_TRUE(bytes_of_files(a) == bytes_of_files(b)) << name_of(type) << (gguf ? " gguf" : " folder");
                EXPECT_EQ(last, calls ? 1.0f : 0.0f);
                EXPECT_TRUE(calls > 0 || (type == DType::f32 && !adapter));
            }
}

TEST(SaveAs, CancelledLeavesNothing) {
    const auto model = tiny::make({.hidden = 64});
    for (const DType type : {DType::f16, DType::nf4}) {
        const std::string folder = temporary("cancelled");
        std::filesystem::create_directory(folder);
        int calls = 0;
        std::string error = "saved";
        try {
            save_model_as(*model, nullptr, folder + "/x.gguf", type, true, [&](float) { return ++calls < 3; });
        } catch (const Error& e) { error = e.what(); }
        EXPECT_NE(error.find("nothing was written"), std::string::npos) << error;
        EXPECT_EQ(calls, 3);
        EXPECT_TRUE(std::filesystem::is_empty(folder));
    }
}

TEST(Difference, OfAModelFromItselfIsNothing) {
    const auto model = tiny::make({});
    const Difference d = measure_difference(model, nullptr, model, nullptr, ids);
    EXPECT_EQ(d.mean_logit, 0);
    EXPECT_EQ(d.max_logit, 0);
    EXPECT_NEAR(d.kl, 0, 1e-12);
    EXPECT_NEAR(d.same_best, 1, 1e-12);
    EXPECT_EQ(d.tokens, int64_t(ids.size()));
    double nll = 0;
    for (const float v : tiny::nll(model, nullptr, ids)) nll += v;
    EXPECT_NEAR(d.nll_expected, nll / double(ids.size() - 1), 1e-5);
    EXPECT_EQ(d.nll_actual, d.nll_expected);
}

// Against its definition, computed here from the logits.
TEST(Difference, IsItsDefinition) {
    const auto model = tiny::make({});
    const auto lora = trained(model);
    const std::vector<float> p = tiny::logits(model, lora.get(), ids), q = tiny::logits(model, nullptr, ids);
    const size_t n = 40;
    double mean = 0, most = 0, kl = 0, same = 0;
    for (size_t r = 0; r < ids.size(); ++r) {
        double zp = 0, zq = 0;
        size_t bp = 0, bq = 0;
        for (size_t i = 0; i < n; ++i) {
            const double d = std::fabs(double(p[r * n + i]) - double(q[r * n + i]));
            mean += d;
            most = std::max(most, d);
            zp += std::exp(double(p[r * n + i]));
            zq += std::exp(double(q[r * n + i]));
            if (p[r * n + i] > p[r * n + bp]) bp = i;
            if (q[r * n + i] > q[r * n + bq]) bq = i;
        }
        for (size_t i = 0; i < n; ++i)
            kl += std::exp(double(p[r * n + i])) / zp *
                  (double(p[r * n + i]) - double(q[r * n + i]) - std::log(zp / zq));
        same += bp == bq;
    }
    const Difference d = measure_difference(model, lora.get(), model, nullptr, ids);
    EXPECT_NEAR(d.mean_logit, mean / double(n * ids.size()), 1e-9);
    EXPECT_NEAR(d.max_logit, most, 1e-9);
    EXPECT_NEAR(d.kl, kl / double(ids.size()), 1e-9);
    EXPECT_NEAR(d.same_best, same / double(ids.size()), 1e-9);
    EXPECT_GT(d.kl, 0);
}

TEST(Difference, LongTextsAndBadOnes) {
    const auto model = tiny::make({});
    const auto rough = convert_model(*model, DType::nf4, true);
    Tokens text;
    for (int i = 0; i < 300; ++i) text.push_back(Token((i * 7 + i / 9) % 40));
    const Difference d = measure_difference(model, nullptr, rough, nullptr, text);
    EXPECT_EQ(d.tokens, 300);
    EXPECT_GT(d.mean_logit, 0);
    EXPECT_LT(measure_difference(model, nullptr, convert_model(*model, DType::bf16, true), nullptr, text).kl, d.kl / 10)
        << "16 bits are closer than 4";
    EXPECT_THROW(measure_difference(model, nullptr, rough, nullptr, std::span(text).first(1)), Error);
    text[5] = 40;
    EXPECT_THROW(measure_difference(model, nullptr, rough, nullptr, text), Error);
    EXPECT_THROW(measure_difference(model, nullptr, tiny::make({.vocabulary = 41}), nullptr, ids), Error);
}

// One save for all: as held, converted, merged, in shards.
TEST(Save, SaysInItsOptionsWhatIsWritten) {
    const auto model = qlora::handle_of<qlora::Model>(tiny::make({}));
    const auto lora = qlora::handle_of<qlora::Lora>(trained(impl_of(model)));
    const std::string folder = temporary("save"), gguf = temporary("save.gguf");
    const auto logits = [](const std::string& path) { return tiny::logits(tiny::load(path), nullptr, ids); };
    lora.save(gguf, {.merged = true});
    EXPECT_LT(farthest(logits(gguf), lora.merge().logits(ids)), 1e-4);
    model.save(gguf, {.as = DType::bf16});
    EXPECT_LT(farthest(logits(gguf), model.convert(DType::bf16).logits(ids)), 1e-4);
    model.save(folder, {.shard_bytes = 4096});
    EXPECT_TRUE(exists(folder + "/model.safetensors.index.json"));
    EXPECT_LT(farthest(logits(folder), model.logits(ids)), 1e-4);
    const std::string halves = temporary("halves");
    model.save(halves, {.as = DType::f16, .shard_bytes = 4096});
    EXPECT_TRUE(exists(halves + "/model.safetensors.index.json"));
    const auto error_of = [](const auto& call) {
        try { call(); } catch (const Error& e) { return std::string(e.what()); }
        return std::string("no error");
    };
    EXPECT_NE(error_of([&] { lora.save(folder + "/x", {.as = DType::f16}); }).find("merged"), std::string::npos);
    EXPECT_NE(error_of([&] { model.save(folder + "/x", {.shard_bytes = 0}); }).find("shard_bytes"), std::string::npos);
}

}  // namespace merge_test
