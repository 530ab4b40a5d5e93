// bitsandbytes_test.cpp - 4-bit checkpoints against bitsandbytes (tools/make_family_golden.py wrote the references).
#include "src/format/safetensors.h"
#include "src/model/base_record.h"
#include "src/model/hf_model.h"
#include "src/run/merge.h"
#include "tests/model/reference.h"

#include <cmath>
#include <filesystem>

namespace bitsandbytes_test {

using namespace qlora;
using reference::expect_rows, reference::folder_of, reference::golden, reference::reference_ids;

// A fused matrix is quantized as one: the codes and scales that bitsandbytes has for it.
TEST(BitsAndBytes, FusedMatricesAreQuantizedAsOne) {
    const Json fused = golden("fused.json");
    for (const auto& [name, reference] : fused.object()) {
        const std::string target = testing::TempDir() + "qlora_family_fused";
        std::filesystem::remove_all(target);
        const auto model = tiny::load(folder_of("fused_" + name, reference), DType::nf4);
        save_hf_model(*model, target);
        const auto file = SafeTensors::open(target + "/model.safetensors");
        const auto hex = [&](const std::string& tensor) {
            const SafeTensor* t = file->find(tensor);
            std::string out;
            for (int64_t i = 0; t && i < t->bytes; ++i) {
                char two[3];
                std::snprintf(two, sizeof two, "%02x", t->data[i]);
                out += two;
            }
            return out;
        };
        for (const auto& [tensor, state] : reference.find("quantized")->object()) {
            EXPECT_EQ(hex(tensor), state.find("codes")->string()) << tensor;
            // The mean of the scales may differ in its last bit (src/tensor/nf4.h), and codes beside a tie with it.
            const std::string scales = hex(tensor + ".absmax"), expected = state.find("absmax")->string();
            ASSERT_EQ(scales.size(), expected.size()) << tensor;
            int apart = 0;
            for (size_t i = 0; i < scales.size(); i += 2) {
                const int a = std::stoi(scales.substr(i, 2), nullptr, 16),
                          b = std::stoi(expected.substr(i, 2), nullptr, 16);
                EXPECT_LE(std::abs(a - b), 1) << tensor;
                apart += a != b;
            }
            EXPECT_LE(apart * 20, int(scales.size())) << tensor;
            const SafeTensor* groups = file->find(tensor + ".nested_absmax");
            ASSERT_NE(groups, nullptr) << tensor;
            const std::vector<float> ours = file->floats(*groups);
            const Json::Array& theirs = state.find("nested_absmax")->array();
            ASSERT_EQ(ours.size(), theirs.size()) << tensor;
            for (size_t i = 0; i < ours.size(); ++i) EXPECT_NEAR(ours[i], theirs[i].number(), 1e-6) << tensor;
        }
        // Loaded again, and through a GGUF file, it is the same model.
        const std::vector<float> scores = tiny::logits(model, nullptr, reference_ids());
        EXPECT_EQ(tiny::logits(tiny::load(target), nullptr, reference_ids()), scores) << name;
        save_gguf_model(*model, target + ".gguf");
        EXPECT_EQ(tiny::logits(tiny::load(target + ".gguf"), nullptr, reference_ids()), scores) << name;
        // An adapter of the reference's record is followed to the same codes.
        const auto again = convert_model(*tiny::load(folder_of("fused_again", reference)), DType::nf4, true);
        EXPECT_EQ(fingerprint_of(*again).dump(), fingerprint_of(*model).dump()) << name;
    }
}

TEST(BitsAndBytes, CheckpointsLoadAsStored) {
    const auto model = tiny::load(golden_path("model/bnb"));
    EXPECT_EQ(model->at(Module::q_proj, 0)->dtype, DType::nf4);
    EXPECT_EQ(model->at(Module::q_proj, 0)->quant.absmax, nullptr);
    EXPECT_EQ(model->at(Module::down_proj, 1)->dtype, DType::fp4);
    EXPECT_NE(model->at(Module::down_proj, 1)->quant.absmax, nullptr);
    EXPECT_EQ(model->at(Module::q_proj, 2)->dtype, DType::bf16);
    const Json reference = golden("bnb.json");
    expect_rows(tiny::logits(model, nullptr, reference_ids()), *reference.find("logits"));
}

// One rule: level * (map[code] * group scale + offset), in floats and in this order, with and without double
// quantization.
TEST(BitsAndBytes, DecodesToTheSameFloats) {
    const auto model = tiny::load(golden_path("model/bnb"));
    const Json reference = golden("bnb.json");
    for (const int layer : {0, 1}) {
        const Json* expected = reference.find("decoded")->find(str("model.layers.", layer, ".mlp.up_proj.weight"));
        ASSERT_NE(expected, nullptr);
        const std::vector<float> values = model->at(Module::up_proj, layer)->decoded();
        EXPECT_EQ(expected->array().size(), (values.size() + 40) / 41);
        for (size_t i = 0; i < expected->array().size(); ++i)
            EXPECT_EQ(values[i * 41], float(expected->array()[i].number())) << layer << ", " << i;
    }
}

// What bitsandbytes saved, loaded and saved by us, is the same tensors; a model quantized here goes through a folder
// bit for bit.
TEST(BitsAndBytes, FoldersAreSavedBitForBit) {
    const std::string source = golden_path("model/bnb"), target = testing::TempDir() + "qlora_family_saved";
    std::filesystem::remove_all(target);
    save_hf_model(*tiny::load(source), target);
    const auto a = SafeTensors::open(source + "/model.safetensors"),
               b = SafeTensors::open(target + "/model.safetensors");
    ASSERT_EQ(a->tensors().size(), b->tensors().size());
    for (const SafeTensor& t : a->tensors()) {
        const SafeTensor* s = b->find(t.name);
        ASSERT_NE(s, nullptr) << t.name;
        EXPECT_EQ(s->shape, t.shape) << t.name;
        EXPECT_EQ(s->dtype, t.dtype) << t.name;
        EXPECT_TRUE(s->bytes == t.bytes && std::memcmp(s->data, t.data, size_t(t.bytes)) == 0) << t.name;
    }
    // Layer 2 is bf16 there. Quantized by us, it says so, as bitsandbytes would; the layers that were quantized before
    // keep their word.
    const std::string quantized = target + "_quantized";
    std::filesystem::remove_all(quantized);
    save_hf_model(*tiny::load(source, DType::nf4), quantized);
    const auto c = SafeTensors::open(quantized + "/model.safetensors");
    for (const auto& [layer, dtype] : {std::pair{0, "float32"}, {2, "bfloat16"}}) {
        const SafeTensor* state = c->find(
            str("model.layers.", layer, ".mlp.up_proj.weight.quant_state.bitsandbytes__nf4"));
        ASSERT_NE(state, nullptr);
        EXPECT_EQ(Json::parse({reinterpret_cast<const char*>(state->data), size_t(state->bytes)}, "state")
                      .find("dtype")
                      ->string(),
                  dtype);
    }
    EXPECT_THROW(save_hf_model(*tiny::load(source), target), Error) << "a folder that exists is not overwritten";
    const Json families = golden("families.json");
    for (const bool twice : {false, true}) {
        const auto model = tiny::load(folder_of("qwen3_nf4", *families.find("cases")->find("qwen3")), DType::nf4,
                                      twice);
        std::filesystem::remove_all(target);
        save_hf_model(*model, target);
        EXPECT_EQ(tiny::logits(tiny::load(target), nullptr, reference_ids()),
                  tiny::logits(model, nullptr, reference_ids()));
    }
}

TEST(BitsAndBytes, EveryLieIsNamed) {
    const std::string source = golden_path("model/bnb"), folder = testing::TempDir() + "qlora_family_bnb",
                      name = "model.layers.0.mlp.up_proj.weight";
    const auto good = SafeTensors::open(source + "/model.safetensors");
    const std::string state = name + ".quant_state.bitsandbytes__nf4";
    const SafeTensor& t = *good->find(state);
    const std::string text(reinterpret_cast<const char*>(t.data), size_t(t.bytes));
    std::filesystem::remove_all(folder);
    std::filesystem::create_directory(folder);
    std::filesystem::copy_file(source + "/config.json", folder + "/config.json");
    // The checkpoint with one tensor replaced (or left out: bytes empty).
    auto error_with = [&](const std::string& victim, const std::string& dtype, Shape shape,
                          std::string bytes) -> std::string {
        SafeTensorsWriter w;
        for (const SafeTensor& s : good->tensors()) {
            if (s.name != victim)
                w.tensors.push_back(
                    {s.name, s.dtype, s.shape, s.bytes, [&s](AtomicFile& f) { f.write(s.data, s.bytes); }});
            else if (!bytes.empty())
                w.tensors.push_back({s.name, dtype, shape, int64_t(bytes.size()),
                                     [bytes](AtomicFile& f) { f.write(bytes.data(), int64_t(bytes.size())); }});
        }
        w.write(folder + "/model.safetensors");
        try {
            tiny::load(folder);
        } catch (const Error& e) { return e.what(); }
        return "loaded";
    };
    auto with_state = [&](const std::string& json) { return error_with(state, "U8", {int64_t(json.size())}, json); };
    auto replaced = [&](std::string from, const std::string& to) {
        std::string json = text;
        EXPECT_NE(json.find(from), json.npos) << json;
        return with_state(json.replace(json.find(from), from.size(), to));
    };
    EXPECT_EQ(with_state(text), "loaded");
    EXPECT_NE(replaced("\"float32\"", "\"float8\"").find("dtype"), std::string::npos);
    EXPECT_NE(replaced("[128, 64]", "[128, 128]").find("bytes"), std::string::npos);
    EXPECT_NE(replaced("[128, 64]", "[64, 128]").find("shape"), std::string::npos);
    EXPECT_NE(replaced("[128, 64]", "[-128, -64]").find("dimension"), std::string::npos);
    EXPECT_NE(replaced("[128, 64]", "[1099511627776, 1099511627776]").find("dimension"), std::string::npos);
    EXPECT_NE(replaced("[128, 64]", "[128]").find("two integers"), std::string::npos);
    EXPECT_NE(replaced("\"blocksize\": 64", "\"blocksize\": 0").find("blocksize"), std::string::npos);
    EXPECT_NE(replaced("\"blocksize\": 64", "\"blocksize\": 128").find("absmax"), std::string::npos);
    EXPECT_NE(replaced("\"nested_blocksize\": 256", "\"nested_blocksize\": 3").find("nested_blocksize"),
              std::string::npos);
    EXPECT_NE(replaced("\"nf4\"", "\"fp4\"").find("quant_type"), std::string::npos);
    EXPECT_NE(with_state("not json").find("column 1"), std::string::npos);
    const float nan = std::nanf("");
    std::string map(64, '\0');
    std::memcpy(map.data() + 8, &nan, 4);
    EXPECT_NE(error_with(name + ".quant_map", "F32", {16}, map).find("nan"), std::string::npos);
    EXPECT_NE(error_with(name + ".quant_map", "F32", {15}, std::string(60, '\0')).find("expected 16"),
              std::string::npos);
    EXPECT_NE(error_with(name + ".quant_map", "", {}, "").find("missing"), std::string::npos);
    EXPECT_NE(error_with(name + ".absmax", "U8", {127}, std::string(127, '\0')).find("absmax"), std::string::npos);
    EXPECT_NE(error_with(name + ".nested_absmax", "F32", {2}, std::string(8, '\0')).find("expected 1"),
              std::string::npos);
    EXPECT_NE(error_with(name, "U8", {100, 1}, std::string(100, '\0')).find("bytes"), std::string::npos);
    EXPECT_NE(error_with(state, "", {}, ""), "loaded");
}

}  // namespace bitsandbytes_test
