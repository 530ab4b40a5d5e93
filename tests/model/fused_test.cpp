// fused_test.cpp - files that hold query, key and value in one tensor, and gate and up: loaded, they are the same
// model.
#include "src/base/access.h"
#include "src/format/safetensors.h"
#include "src/model/gguf_model.h"
#include "src/tensor/encode.h"
#include "src/tensor/nf4.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>

namespace fused_test {

using namespace qlora;

const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8, 14, 30};

constexpr Slot qkv[] = {Slot::q_proj, Slot::k_proj, Slot::v_proj}, gate_up[] = {Slot::gate_proj, Slot::up_proj};
// As Phi-3 has them: in GGUF the name of the second is that of one of its parts.
constexpr Fused fused[] = {{"attn_qkv", "self_attn.qkv_proj", qkv}, {"ffn_up", "mlp.gate_up_proj", gate_up}};

Family with_fused(const std::string& name) {
    Family family = *family_named(name);
    family.names.fused = fused;
    return family;
}

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_fused_" + name;
    std::filesystem::remove_all(path);
    return path;
}

std::shared_ptr<ModelImpl> load(const std::string& path, const Family* as, std::optional<DType> quantize = {}) {
    const LoadOptions options{.backend = handle_of<Backend>(tiny::backend()), .quantize = quantize};
    return is_folder(path) ? load_hf_model(path, options, as) : load_gguf_model(path, options, as);
}

std::shared_ptr<ModelImpl> stored_as(const ModelImpl& model, DType type) {
    auto out = std::make_shared<ModelImpl>(model);
    for_each_weight(*out, [&](const Row& row, WeightPtr& w) {
        if (row.kind == Kind::linear) w = std::make_shared<const Weight>(convert_weight(*w, type));
    });
    return out;
}

struct Stored { std::string type; Shape shape; std::string bytes; };
using File = std::map<std::string, Stored>;

File tensors_of(const std::string& path) {
    File out;
    if (is_folder(path)) {
        const auto file = SafeTensors::open(path + "/model.safetensors");
        for (const SafeTensor& t : file->tensors())
            out[t.name] = {t.dtype, t.shape, {reinterpret_cast<const char*>(t.data), size_t(t.bytes)}};
        return out;
    }
    const auto file = Gguf::open(path);
    for (const GgufTensor& t : file->tensors())
        out[t.name] = {std::to_string(t.ggml_type), t.shape,
                       {reinterpret_cast<const char*>(file->data(t)), size_t(t.bytes)}};
    return out;
}

// The file again with other tensors.
void replace_tensors(const std::string& path, const File& tensors) {
    const auto write = [](const std::string& bytes) {
        return [bytes](AtomicFile& f) { f.write(bytes.data(), int64_t(bytes.size())); };
    };
    if (is_folder(path)) {
        SafeTensorsWriter out;
        for (const auto& [name, t] : tensors)
            out.tensors.push_back({name, t.type, t.shape, int64_t(t.bytes.size()), write(t.bytes)});
        return out.write(path + "/model.safetensors");
    }
    const auto file = Gguf::open(path);
    GgufWriter out;
    for (const GgufPair& p : file->pairs()) out.copy(*file, p);
    for (const auto& [name, t] : tensors)
        out.add({name, std::stoi(t.type), t.shape, int64_t(t.bytes.size()), write(t.bytes)});
    out.write(path);
}

// Puts the parts below each other under the name of the whole.
void fuse(File& tensors, const Config& c, World world) {
    for (int64_t layer = 0; layer < c.layers; ++layer)
        for (const Fused& f : fused)
            for (const bool bias : {false, true}) {
                const auto name = [&](Slot s) {
                    return tensor_name(world, c, row_of(c, bias ? bias_of(s) : s), layer);
                };
                if (!tensors.contains(name(f.linears[0]))) continue;
                Stored whole;
                for (const Slot s : f.linears) {
                    const Stored part = tensors.at(name(s));
                    tensors.erase(name(s));
                    if (whole.shape.empty()) whole = {part.type, part.shape, {}};
                    else whole.shape[0] += part.shape[0];
                    whole.bytes += part.bytes;
                }
                tensors[str(world == World::gguf ? "blk." : "model.layers.", layer, ".",
                            world == World::gguf ? f.gguf : f.hf, bias ? ".bias" : ".weight")] = whole;
            }
}

void expect_same_model(const ModelImpl& a, const ModelImpl& b, const std::string& what) {
    EXPECT_EQ(describe(a).parameters, describe(b).parameters) << what;
    for_each_tensor(a.config, [&](const Row& row, int64_t layer) {
        const WeightPtr &x = a.at(row.slot, layer), &y = b.at(row.slot, layer);
        EXPECT_EQ(x->dtype, y->dtype) << what;
        EXPECT_EQ(x->shape, y->shape) << what;
        EXPECT_EQ(x->decoded(), y->decoded()) << what << ", " << tensor_name(World::hf, a.config, row, layer);
    });
}

TEST(Fused, IsTheSameModel) {
    for (const char* name : {"llama", "qwen2"})        // with biases, too
        for (const DType type : {DType::f32, DType::bf16, DType::q8_0})
            for (const bool folder : {false, true}) {
                if (folder && type == DType::q8_0) continue;
                const std::string what = str(name, " ", name_of(type), folder ? " folder" : " gguf"),
                                  path = temporary(folder ? "whole" : "whole.gguf");
                const auto model = tiny::make({.family = name, .hidden = 64, .feed_forward = 96});
                const auto made = stored_as(*model, type);
                if (folder) save_hf_model(*made, path);
                else save_gguf_model(*made, path);
                const auto apart = tiny::load(path);
                File tensors = tensors_of(path);
                const size_t before = tensors.size();
                fuse(tensors, apart->config, folder ? World::hf : World::gguf);
                EXPECT_EQ(tensors.size(), before - 2 * (3 + (std::string(name) == "qwen2" ? 2 : 0))) << what;
                const auto four_apart = tiny::load(path, DType::nf4);
                const Family family = with_fused(name);
                expect_same_model(*load(path, &family), *apart, what + ", not fused");
                replace_tensors(path, tensors);
                const auto whole = load(path, &family), four_whole = load(path, &family, DType::nf4);
                expect_same_model(*whole, *apart, what);
                expect_same_model(*four_whole, *four_apart, what + ", quantized");
                EXPECT_EQ(tiny::logits(whole, nullptr, ids), tiny::logits(apart, nullptr, ids)) << what;
                EXPECT_EQ(four_whole->original(Module::v_proj, 1)->decoded(),
                          apart->at(Module::v_proj, 1)->decoded()) << what;
                EXPECT_EQ(whole->at(Module::q_proj, 0)->owner, whole->at(Module::v_proj, 0)->owner)
                    << what << ": parts are views of the same map";
                EXPECT_NE(whole->at(Module::q_proj, 0)->file, nullptr) << what;
            }
}

std::string error_of(const std::string& path, const Family* as) {
    try { load(path, as); } catch (const Error& e) { return e.what(); }
    return "loaded";
}

TEST(Fused, WhatIsLeftOverOrOfAnotherShapeIsRefused) {
    const std::string path = temporary("lies.gguf");
    save_gguf_model(*tiny::make({.adjacent = true}), path);
    const Config c = tiny::load(path)->config;
    const File apart = tensors_of(path);
    File whole = apart;
    fuse(whole, c, World::gguf);
    const Family family = with_fused("llama");
    const auto expect = [&](const File& tensors, const Family* as, const std::string& text) {
        replace_tensors(path, tensors);
        EXPECT_NE(error_of(path, as).find(text), std::string::npos) << error_of(path, as);
    };
    expect(whole, nullptr, "attn_qkv.weight is not part of");
    for (const char* extra : {"blk.0.attn_k.weight", "blk.1.attn_q.weight", "blk.0.ffn_gate.weight"}) {
        File both = whole;
        both[extra] = apart.at(extra);
        replace_tensors(path, both);
        EXPECT_NE(error_of(path, &family), "loaded") << extra;
    }
    File missing = apart;
    missing["blk.0.attn_qkv.weight"] = whole.at("blk.0.attn_qkv.weight");
    expect(missing, &family, "attn_qkv.weight is not part of");
    File shape = whole;
    Stored& t = shape.at("blk.1.ffn_up.weight");
    t.shape[0] -= 1;
    t.bytes.resize(t.bytes.size() / size_t(t.shape[0] + 1) * size_t(t.shape[0]));
    expect(shape, &family, "has shape");
}

// 4-bit codes keep their values where they are cut, inside of a group of 256 blocks (head_dim 16) too.
TEST(Fused, FourBitIsCut) {
    for (const int64_t head_dim : {16, 64})
        for (const bool double_quant : {false, true}) {
            const std::string path = temporary("four.gguf");
            const auto model = tiny::make({.hidden = 64, .kv_heads = 4, .head_dim = head_dim, .feed_forward = 256});
            save_gguf_model(*model, path);
            const auto file = Gguf::open(path);
            File tensors = tensors_of(path);
            fuse(tensors, model->config, World::gguf);
            GgufWriter out;
            for (const GgufPair& p : file->pairs()) out.copy(*file, p);
            out.set("qlora.type", GgufWriter::Type::string, Json("nf4"));
            out.set("qlora.block", GgufWriter::Type::u32, Json(64));
            std::map<std::string, std::vector<float>> expected;
            for (const auto& [name, t] : tensors) {
                std::vector<float> values(t.bytes.size() / 4);
                std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
                Weight w = dense_weight(name, t.shape, std::move(values));
                const bool linear = t.shape.size() == 2 && name.starts_with("blk.");
                if (linear) w = quantize_4bit(w, DType::nf4, double_quant);
                expected[name] = w.decoded();
                const auto held = std::make_shared<const Weight>(std::move(w));
                if (linear) write_four_bit(out, name, held);
                else out.add({name, 0, t.shape, held->bytes(),
                              [held](AtomicFile& f) { f.write(held->data, held->bytes()); }});
            }
            out.write(path);
            const Family family = with_fused("llama");
            const auto loaded = load(path, &family);
            for (const Fused& f : fused) {
                std::vector<float> joined;
                for (const Slot s : f.linears) {
                    EXPECT_EQ(loaded->at(s, 1)->dtype, DType::nf4);
                    const std::vector<float> part = loaded->at(s, 1)->decoded();
                    joined.insert(joined.end(), part.begin(), part.end());
                }
                EXPECT_EQ(joined, expected.at(str("blk.1.", f.gguf, ".weight"))) << f.gguf << ' ' << double_quant;
            }
        }
}

}  // namespace fused_test
