// float8_files_test.cpp - checkpoints in FP8 and NVFP4 as people download them: folders of every layout, what is made
// of them, and folders that lie.
#include "src/base/access.h"
#include "src/base/half.h"
#include "src/format/safetensors.h"
#include "src/model/base_record.h"
#include "src/model/gguf_model.h"
#include "src/model/hf_model.h"
#include "src/model/lora.h"
#include "src/run/merge.h"
#include "src/tensor/encode.h"
#include "src/tensor/nf4.h"
#include "tests/model/tiny.h"
#include "tests/run/run_support.h"

#include <cstring>
#include <fstream>
#include <map>

namespace float8_files_test {

using namespace qlora;

const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8, 14, 30};

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_float8_" + name;
    std::filesystem::remove_all(path);
    return path;
}

enum class Style { tiles, rows, tensor, channels, modelopt, compressed };
constexpr Style styles[] = {Style::tiles, Style::rows, Style::tensor, Style::channels, Style::modelopt,
                            Style::compressed};
bool is_nvfp4(Style s) { return s == Style::modelopt || s == Style::compressed; }

float e4m3(uint8_t c) {
    const int exponent = c >> 3 & 15, fraction = c & 7;
    const float size = exponent ? std::ldexp(1 + float(fraction) / 8, exponent - 7) : std::ldexp(float(fraction), -9);
    return c & 128 ? -size : size;
}

struct Stored { std::string type; Shape shape; std::string bytes; };

template <class T> std::string bytes_of(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// A folder whose linear layers are random codes in the layout of a style, and what their values are.
struct Folder {
    std::string path;
    std::map<std::string, Stored> tensors;
    Json config;
    std::map<std::string, std::vector<float>> values;
    std::shared_ptr<ModelImpl> dense;

    Folder(const std::string& name, Style style) : path(temporary(name)) {
        dense = tiny::make({.hidden = 128, .heads = 4, .kv_heads = 2, .head_dim = 32, .feed_forward = 192});
        save_hf_model(*dense, path);
        const auto file = SafeTensors::open(path + "/model.safetensors");
        for (const SafeTensor& t : file->tensors())
            tensors[t.name] = {t.dtype, t.shape, {reinterpret_cast<const char*>(t.data), size_t(t.bytes)}};
        config = Json::parse(read_file(path + "/config.json"), "config");
        for_each_tensor(dense->config, [&](const Row& row, int64_t layer) {
            if (row.kind == Kind::linear || (row.slot == Slot::head && style == Style::compressed))
                replace(row, layer, style);
        });
        const char* text =
            style == Style::tiles      ? R"({"quant_method": "fp8", "weight_block_size": [48, 64], "activation_scheme": "dynamic"})"
            : style == Style::tensor   ? R"({"quant_method": "fp8", "weight_block_size": null, "activation_scheme": "static"})"
            : style == Style::modelopt ? R"({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]})"
            : style == Style::compressed
                ? R"({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}})"
                : R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {"weights": {"num_bits": 8}, "format": null}}})";
        config.set("quantization_config", Json::parse(text, "config"));
        write();
    }

    void replace(const Row& row, int64_t layer, Style style) {
        const std::string name = tensor_name(World::hf, dense->config, row, layer),
                          stem = name.substr(0, name.size() - 7);
        const Shape shape = shape_of(dense->config, row, layer);
        const int64_t out = shape[0], in = shape[1];
        Rng rng{9, uint64_t(layer), uint64_t(row.slot)};
        std::vector<float>& v = values[name];
        v.resize(size_t(out * in));
        tensors.erase(name);
        if (is_nvfp4(style)) {
            static const float levels[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
            std::vector<uint8_t> codes(v.size() / 2), scales(v.size() / 16);
            for (uint8_t& c : codes) c = uint8_t(rng.next());
            for (uint8_t& c : scales) c = uint8_t(1 + rng.below(126));
            const bool divide = style == Style::compressed;
            const float whole = divide ? 2345.678f : 0.000321f;
            for (size_t i = 0; i < v.size(); ++i) {
                const int code = codes[i / 2] >> (i % 2 * 4) & 15;
                const float scale = divide ? e4m3(scales[i / 16]) / whole : e4m3(scales[i / 16]) * whole;
                v[i] = (code & 8 ? -levels[code & 7] : levels[code & 7]) * scale;
            }
            tensors[stem + (divide ? ".weight_packed" : ".weight")] = {"U8", {out, in / 2}, bytes_of(codes)};
            tensors[stem + ".weight_scale"] = {"F8_E4M3", {out, in / 16}, bytes_of(scales)};
            tensors[stem + (divide ? ".weight_global_scale" : ".weight_scale_2")] = {
                "F32", divide ? Shape{1} : Shape{}, bytes_of(std::vector<float>{whole})};
            return;
        }
        std::vector<uint8_t> codes(v.size());
        for (uint8_t& c : codes) c = uint8_t(rng.below(100) + 128 * rng.below(2));
        const int64_t tr = style == Style::tiles ? 48 : style == Style::tensor ? out : 1,
                      tc = style == Style::tiles ? 64 : in, across = (in + tc - 1) / tc, down = (out + tr - 1) / tr;
        std::vector<float> scales(size_t(down * across));
        std::vector<uint16_t> halves;
        for (float& s : scales) {                      // bf16 holds them
            halves.push_back(bf16_from_f32(0.002f + 0.004f * rng.uniform()));
            s = f32_from_bf16(halves.back());
        }
        for (int64_t r = 0; r < out; ++r)
            for (int64_t c = 0; c < in; ++c)
                v[size_t(r * in + c)] = e4m3(codes[size_t(r * in + c)]) * scales[size_t(r / tr * across + c / tc)];
        tensors[stem + ".weight"] = {"F8_E4M3", shape, bytes_of(codes)};
        const Shape sizes = style == Style::tiles  ? Shape{down, across}
                            : style == Style::rows ? Shape{out, 1}
                            : style == Style::tensor ? Shape{} : Shape{out};
        if (style == Style::tiles || style == Style::tensor)
            tensors[stem + ".weight_scale_inv"] = {"BF16", sizes, bytes_of(halves)};
        else tensors[stem + ".weight_scale"] = {"F32", sizes, bytes_of(scales)};
    }

    void write() const {
        std::ofstream(path + "/config.json") << config.dump();
        SafeTensorsWriter out;
        for (const auto& [name, t] : tensors)
            out.tensors.push_back({name, t.type, t.shape, int64_t(t.bytes.size()), [t = t](AtomicFile& f) {
                f.write(t.bytes.data(), int64_t(t.bytes.size()));
            }});
        out.write(path + "/model.safetensors");
    }

    // The same model in floats.
    std::shared_ptr<ModelImpl> in_floats() const {
        auto out = std::make_shared<ModelImpl>(*tiny::load(path));
        for_each_tensor(out->config, [&](const Row& row, int64_t layer) {
            const auto it = values.find(tensor_name(World::hf, out->config, row, layer));
            if (it == values.end()) return;
            out->at(row.slot, layer) = std::make_shared<const Weight>(
                dense_weight(it->first, shape_of(out->config, row, layer), it->second));
        });
        return out;
    }

    std::string error() const {
        write();
        try { tiny::load(path); } catch (const Error& e) { return e.what(); }
        return "";
    }
};

TEST(Float8Files, EveryLayoutIsReadBitForBit) {
    for (const Style style : styles) {
        const Folder folder("layouts", style);
        const auto model = tiny::load(folder.path);
        for_each_tensor(model->config, [&](const Row& row, int64_t layer) {
            const auto it = folder.values.find(tensor_name(World::hf, model->config, row, layer));
            if (it == folder.values.end()) return;
            EXPECT_EQ(model->at(row.slot, layer)->dtype, is_nvfp4(style) ? DType::nvfp4 : DType::f8_e4m3);
            EXPECT_EQ(model->at(row.slot, layer)->decoded(), it->second) << it->first;
        });
        EXPECT_EQ(tiny::logits(model, nullptr, ids), tiny::logits(folder.in_floats(), nullptr, ids));
        EXPECT_EQ(describe(*model).weights, is_nvfp4(style) ? "nvfp4" : "f8_e4m3");
        EXPECT_EQ(describe(*model).notes, std::vector<std::string>());
    }
}

TEST(Float8Files, FourBitsAreMadeOfTheirValues) {
    for (const Style style : {Style::tiles, Style::modelopt}) {
        const Folder folder("quantized", style);
        const auto model = tiny::load(folder.path, DType::nf4), floats = folder.in_floats();
        const Weight expected = quantize_4bit(*floats->at(Module::k_proj, 1), DType::nf4, true);
        EXPECT_EQ(model->at(Module::k_proj, 1)->dtype, DType::nf4);
        EXPECT_EQ(model->at(Module::k_proj, 1)->decoded(), expected.decoded());
        // saved, the folder says nothing any more of what it was made from
        const std::string saved = temporary("saved_nf4");
        save_hf_model(*model, saved);
        const Json q = *Json::parse(read_file(saved + "/config.json"), "config").find("quantization_config");
        EXPECT_EQ(q.find("quant_method")->string(), "bitsandbytes");
        EXPECT_FALSE(q.find("weight_block_size") || q.find("quant_algo"));
        EXPECT_EQ(tiny::logits(tiny::load(saved), nullptr, ids), tiny::logits(model, nullptr, ids));
    }
}

TEST(Float8Files, AreWrittenInOtherTypes) {
    for (const Style style : styles) {
        const Folder folder("written", style);
        const auto model = tiny::load(folder.path);
        for (const DType type : {DType::bf16, DType::q8_0}) {
            const std::string gguf = temporary("written.gguf");
            save_model_as(*model, nullptr, gguf, type, true, {});
            const Weight expected = convert_weight(*folder.in_floats()->at(Module::down_proj, 1), type);
            EXPECT_EQ(tiny::load(gguf)->at(Module::down_proj, 1)->decoded(), expected.decoded()) << int(style);
        }
        const std::string dense = temporary("written_bf16");
        save_model_as(*model, nullptr, dense, DType::bf16, true, {});
        EXPECT_FALSE(Json::parse(read_file(dense + "/config.json"), "config").find("quantization_config"));
        EXPECT_EQ(tiny::load(dense)->at(Module::up_proj, 0)->dtype, DType::bf16);
        const auto refusal = [&](const std::string& path) -> std::string {
            try { path.ends_with(".gguf") ? save_gguf_model(*model, path) : save_hf_model(*model, path); }
            catch (const Error& e) { return e.what(); }
            return "";
        };
        EXPECT_NE(refusal(temporary("as_it_is")).find("nf4"), std::string::npos);
        const std::string said = refusal(temporary("as_it_is.gguf"));
        if (is_nvfp4(style)) EXPECT_EQ(said, "");
        else EXPECT_NE(said.find("f8_e4m3, which GGUF cannot hold; choose bf16 or q8_0"), std::string::npos) << said;
    }
}

// Layers that a family holds as one, as Phi-3's queries, keys and values: cut along whole tiles, quantized as one.
TEST(Float8Files, FusedLayersAreCutAndQuantizedAsOne) {
    const auto dense = tiny::make({.family = "phi3", .hidden = 128, .heads = 4, .kv_heads = 2, .head_dim = 32,
                                   .feed_forward = 192});
    for (const int64_t tile : {0, 1, 32, 64, 96}) {    // rows; 0: one scale for all
        const std::string path = temporary("fused"), floats = temporary("fused_floats");
        save_hf_model(*dense, path);
        save_hf_model(*dense, floats);
        SafeTensorsWriter coded, decoded;
        const auto file = SafeTensors::open(path + "/model.safetensors");
        Rng rng{3, uint64_t(tile), 0};
        for (const SafeTensor& t : file->tensors()) {
            const bool one = t.name.find("qkv_proj") != t.name.npos || t.name.find("gate_up_proj") != t.name.npos;
            if (!one) coded.add(t.name, t.shape, file->floats(t)), decoded.add(t.name, t.shape, file->floats(t));
            if (!one) continue;
            const int64_t out = t.shape[0], in = t.shape[1], rows = tile ? tile : out, cols = tile > 1 ? tile : in,
                          down = (out + rows - 1) / rows, across = (in + cols - 1) / cols;
            std::vector<float> scales(size_t(down * across)), v;
            std::string codes;
            for (float& s : scales) s = 0.002f + 0.004f * rng.uniform();
            for (int64_t i = 0; i < out * in; ++i) {
                codes.push_back(char(rng.below(100) + 128 * rng.below(2)));
                v.push_back(e4m3(uint8_t(codes.back())) * scales[size_t(i / in / rows * across + i % in / cols)]);
            }
            decoded.add(t.name, t.shape, v);
            coded.tensors.push_back({t.name, "F8_E4M3", t.shape, out * in, [codes](AtomicFile& f) {
                f.write(codes.data(), int64_t(codes.size()));
            }});
            const Shape shape = tile == 0 ? Shape{1} : tile == 1 ? Shape{out} : Shape{down, across};
            coded.add(t.name + "_scale" + (tile > 1 ? "_inv" : ""), shape, scales);
        }
        coded.write(path + "/coded");
        decoded.write(floats + "/decoded");
        std::filesystem::rename(path + "/coded", path + "/model.safetensors");
        std::filesystem::rename(floats + "/decoded", floats + "/model.safetensors");
        Json config = Json::parse(read_file(path + "/config.json"), "config"), said;
        if (tile > 1)
            said.set("quant_method", "fp8").set("weight_block_size", Json(Json::Array{tile, tile}));
        else
            said = Json::parse(R"({"quant_method": "compressed-tensors", "format": "float-quantized",
                                   "config_groups": {"group_0": {"weights": {"num_bits": 8}}}})", "said");
        std::ofstream(path + "/config.json") << config.set("quantization_config", said).dump();
        const std::string error = run_support::error_of([&] { tiny::load(path); });
        if (tile == 96) {                              // keys begin inside of a tile
            EXPECT_NE(error.find("are not whole tiles of 96 rows"), error.npos) << error;
            continue;
        }
        ASSERT_EQ(error, "no error") << tile;
        const auto model = tiny::load(path), expected = tiny::load(floats);
        for (const Module m : {Module::q_proj, Module::k_proj, Module::v_proj, Module::gate_proj, Module::up_proj}) {
            EXPECT_EQ(model->at(m, 1)->dtype, DType::f8_e4m3);
            EXPECT_EQ(model->at(m, 1)->decoded(), expected->at(m, 1)->decoded()) << tile << " " << int(m);
        }
        const std::string a = temporary("fused_a"), b = temporary("fused_b");
        save_hf_model(*tiny::load(path, DType::nf4), a);
        save_hf_model(*tiny::load(floats, DType::nf4), b);
        EXPECT_EQ(read_file(a + "/model.safetensors"), read_file(b + "/model.safetensors")) << tile;
        const std::string gguf = temporary("fused.gguf"), bf16 = temporary("fused_bf16");
        save_model_as(*model, nullptr, gguf, DType::f32, true, {});
        EXPECT_EQ(tiny::load(gguf)->at(Module::k_proj, 0)->decoded(), expected->at(Module::k_proj, 0)->decoded());
        save_model_as(*model, nullptr, bf16, DType::bf16, true, {});
        EXPECT_EQ(tiny::load(bf16)->at(Module::up_proj, 1)->decoded(),
                  convert_weight(*expected->at(Module::up_proj, 1), DType::bf16).decoded());
        const std::string refused = run_support::error_of([&] { save_hf_model(*model, temporary("fused_as_it_is")); });
        EXPECT_NE(refused.find("f8_e4m3, which a Hugging Face folder cannot hold"), refused.npos) << refused;
    }
}

// nvfp4 goes into a GGUF file as it is: blocks of type 40, the scale of a tensor beside it.
TEST(Float8Files, BlocksGoToGgufAndBack) {
    const Folder folder("gguf", Style::modelopt);
    const auto model = tiny::load(folder.path);
    const std::string path = temporary("nvfp4.gguf"), second = temporary("second.gguf");
    save_gguf_model(*model, path);
    const auto file = Gguf::open(path);
    EXPECT_EQ(file->tensor("blk.1.attn_q.weight")->ggml_type, 40);
    EXPECT_EQ(file->weight(*file->tensor("blk.1.attn_q.scale")).decoded(), std::vector<float>{0.000321f});
    EXPECT_EQ(file->integer("general.file_type"), 39);
    const auto again = tiny::load(path);
    EXPECT_EQ(again->at(Module::o_proj, 1)->dtype, DType::nvfp4);
    EXPECT_EQ(again->at(Module::o_proj, 1)->decoded(), model->at(Module::o_proj, 1)->decoded());
    const std::vector<float> a = tiny::logits(again, nullptr, ids), b = tiny::logits(model, nullptr, ids);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4);
    save_gguf_model(*again, second);
    EXPECT_EQ(read_file(second), read_file(path));
    EXPECT_NE(fingerprint_of(*again).dump(), fingerprint_of(*model).dump());    // other order of rows

    const auto changed = [&](const std::string& name, int type, const std::string& bytes) -> std::string {
        GgufWriter out;
        for (const GgufPair& p : file->pairs()) out.copy(*file, p);
        const auto add = [&](const std::string& n, int t, Shape shape, std::string data) {
            out.add({n, t, std::move(shape), int64_t(data.size()), [data](AtomicFile& f) {
                f.write(data.data(), int64_t(data.size()));
            }});
        };
        for (const GgufTensor& t : file->tensors())
            if (t.name != name)
                add(t.name, t.ggml_type, t.shape, {reinterpret_cast<const char*>(file->data(t)), size_t(t.bytes)});
        if (!bytes.empty()) add(name, type, {int64_t(bytes.size()) / 4}, bytes);
        out.write(second);
        try { return str("notes: ", tiny::load(second)->notes.size()); } catch (const Error& e) { return e.what(); }
    };
    const std::string scale = "blk.0.ffn_up.scale";
    const auto floats = [](std::vector<float> v) { return bytes_of(v); };
    EXPECT_NE(changed(scale, 0, floats({std::nanf("")})).find(scale + " is "), std::string::npos);
    EXPECT_NE(changed(scale, 0, floats({-1})).find("expected a positive number"), std::string::npos);
    EXPECT_NE(changed(scale, 0, floats({1, 2})).find("expected one f32"), std::string::npos);
    EXPECT_NE(changed(scale, 26, floats({1})).find("expected one f32"), std::string::npos);
    EXPECT_NE(changed("output.scale", 0, floats({1})).find("is not part of"), std::string::npos);
    EXPECT_EQ(changed("blk.0.ffn_up.input_scale", 0, floats({1})), "notes: 1");
    EXPECT_EQ(changed(scale, 0, ""), "notes: 0");       // none: 1
}

TEST(Float8Files, AdaptersTrainOnThemAsOnTheirValues) {
    for (const Style style : {Style::tiles, Style::compressed}) {
        const Folder folder("trained", style);
        const auto train = [&](std::shared_ptr<const ModelImpl> model) {
            const auto lora = create_lora(model, {.rank = 4, .alpha = 8, .seed = 5});
            auto rows = run_support::random_rows(4, 3, 8, 20);
            for (auto& r : rows) for (Token& t : r.tokens) t = t % 40;
            TrainOptions o;
            o.batch = 2, o.context = 32, o.learning_rate = 1e-2f;
            TrainerImpl trainer(lora, impl_of(run_support::dataset(rows)), o);
            while (trainer.step()) {}
            return run_support::download(lora->values, handle_of<Lora>(lora));
        };
        const std::vector<float> on_codes = train(tiny::load(folder.path)), on_floats = train(folder.in_floats());
        EXPECT_EQ(on_codes, on_floats);
    }
}

TEST(Float8Files, AFingerprintCountsScales) {
    for (const Style style : {Style::tiles, Style::modelopt}) {
        Folder folder("fingerprint", style);
        const std::string before = fingerprint_of(*tiny::load(folder.path)).dump(),
                          scale = style == Style::tiles ? "weight_scale_inv" : "weight_scale_2";
        folder.tensors.at("model.layers.1.mlp.up_proj." + scale).bytes[0] ^= 1;
        folder.write();
        EXPECT_NE(fingerprint_of(*tiny::load(folder.path)).dump(), before);
    }
}

TEST(Float8Files, ScalesOfActivationsAndCachesAreSaidOnce) {
    Folder folder("notes", Style::tensor);
    const Stored one{"F32", {}, bytes_of(std::vector<float>{1})};
    for (const char* name : {"0.mlp.up_proj.input_scale", "1.mlp.up_proj.activation_scale",
                             "0.self_attn.k_proj.k_scale", "0.self_attn.v_scale", "1.self_attn.v_proj.v_scale"})
        folder.tensors[std::string("model.layers.") + name] = one;
    folder.write();
    const std::vector<std::string> notes = describe(*tiny::load(folder.path)).notes;
    ASSERT_EQ(notes.size(), 2u);
    EXPECT_NE(notes[0].find("input_scale"), std::string::npos);
    EXPECT_NE(notes[1].find("k_scale"), std::string::npos);
}

TEST(Float8Files, LiesAreRefused) {
    const std::string stem = "model.layers.1.mlp.up_proj.";
    const auto floats = [](std::vector<float> v) { return bytes_of(v); };
    const auto refused = [&](Style style, const std::string& what, const std::function<void(Folder&)>& change) {
        Folder folder("lies", style);
        ASSERT_EQ(folder.error(), "");
        change(folder);
        const std::string said = folder.error();
        EXPECT_NE(said.find(what), std::string::npos) << "expected \"" << what << "\" in: " << said;
    };
    const float infinite = std::numeric_limits<float>::infinity();
    // FP8
    refused(Style::tiles, "neither is there", [&](Folder& f) { f.tensors.erase(stem + "weight_scale_inv"); });
    refused(Style::tiles, "both are there",
            [&](Folder& f) { f.tensors[stem + "weight_scale"] = f.tensors[stem + "weight_scale_inv"]; });
    refused(Style::tiles, "belongs to 4-bit weights",
            [&](Folder& f) { f.tensors[stem + "weight_scale_2"] = {"F32", {1}, floats({1})}; });
    refused(Style::tiles, "expected one scale, one for each row, or [4, 2]", [&](Folder& f) {
        f.tensors[stem + "weight_scale_inv"] = {"F32", {2, 4}, floats({1, 1, 1, 1, 1, 1, 1, 1})};
    });
    refused(Style::tiles, "expected one scale", [&](Folder& f) { f.config.set("quantization_config", Json()); });
    refused(Style::tensor, "holds inf",
            [&](Folder& f) { f.tensors[stem + "weight_scale_inv"] = {"F32", {}, floats({infinite})}; });
    refused(Style::rows, "holds nan",
            [&](Folder& f) { f.tensors[stem + "weight_scale"].bytes.replace(0, 4, "\xff\xff\xff\x7f"); });
    refused(Style::tensor, "expected a matrix", [&](Folder& f) { f.tensors[stem + "weight"].shape = {128 * 192}; });
    refused(Style::tensor, "has shape", [&](Folder& f) { f.tensors[stem + "weight"].shape = {96, 256}; });
    refused(Style::tensor, "has type F8_E4M3", [&](Folder& f) {      // not of a linear layer
        f.tensors["model.norm.weight"] = {"F8_E4M3", {128}, std::string(128, '\x38')};
    });
    refused(Style::tensor, "is not part of", [&](Folder& f) {
        f.tensors["model.embed_tokens.weight_scale"] = {"F32", {}, floats({1})};
    });
    refused(Style::tensor, "is not part of", [&](Folder& f) {      // a scale that nobody would multiply with
        f.tensors["lm_head.weight_scale"] = {"F32", {}, floats({1})};
    });
    refused(Style::tensor, "is not part of",
            [&](Folder& f) { f.tensors[stem + "weight_zero_point"] = {"F32", {}, floats({1})}; });
    refused(Style::tiles, "weight_block_size", [&](Folder& f) {
        f.config.set("quantization_config", Json::parse(R"({"quant_method": "fp8", "weight_block_size": [0, 128]})", ""));
    });
    // NVFP4
    refused(Style::modelopt, "weight_scale is missing", [&](Folder& f) { f.tensors.erase(stem + "weight_scale"); });
    refused(Style::modelopt, "neither is there", [&](Folder& f) { f.tensors.erase(stem + "weight_scale_2"); });
    refused(Style::compressed, "there are both", [&](Folder& f) {
        f.tensors[stem + "weight"] = f.tensors[stem + "weight_packed"];
    });
    refused(Style::modelopt, "has 2 values, expected one",
            [&](Folder& f) { f.tensors[stem + "weight_scale_2"] = {"F32", {2}, floats({1, 1})}; });
    for (const float scale : {0.0f, -1.0f, 3e38f})
        refused(Style::modelopt, "weight_scale_2 is ",
                [&](Folder& f) { f.tensors[stem + "weight_scale_2"].bytes = floats({scale}); });
    refused(Style::compressed, "holds nan",
            [&](Folder& f) { f.tensors[stem + "weight_global_scale"].bytes = floats({std::nanf("")}); });
    refused(Style::modelopt, "holds nan at 5", [&](Folder& f) { f.tensors[stem + "weight_scale"].bytes[5] = '\x7f'; });
    refused(Style::modelopt, "holds -1 at 6", [&](Folder& f) { f.tensors[stem + "weight_scale"].bytes[6] = '\xb8'; });
    refused(Style::modelopt, "expected F8_E4M3", [&](Folder& f) { f.tensors[stem + "weight_scale"].type = "U8"; });
    refused(Style::modelopt, "expected F8_E4M3",
            [&](Folder& f) { f.tensors[stem + "weight_scale"].shape = {128 * 192 / 16}; });
    refused(Style::modelopt, "whole blocks of 64", [&](Folder& f) {
        f.tensors[stem + "weight"].shape = {256, 48};
        f.tensors[stem + "weight_scale"].shape = {256, 6};
    });
    refused(Style::modelopt, "is not part of", [&](Folder& f) {
        f.tensors[stem + "pre_quant_scale"] = {"F32", {1}, floats({1})};
    });
}

TEST(Float8Files, OtherMethodsAreNamedWithWhatToDo) {
    const struct { const char *quantization, *named, *remedy; } table[] = {
        {R"({"quant_method": "gptq", "bits": 4})", "\"gptq\"", "convert_hf_to_gguf.py"},
        {R"({"quant_method": "mxfp4"})", "\"mxfp4\"", "convert_hf_to_gguf.py"},
        {R"({"quant_method": "awq"})", "\"awq\"", "./quantize ORIGINAL_DIR NF4_DIR"},
        {R"({"quant_method": "auto-round"})", "\"auto-round\"", "./quantize"},
        {R"({"quant_method": "hqq"})", "\"hqq\"", "GGUF"},
        {R"({"quant_algo": "NVFP4"})", "\"\"", "./quantize"},
        {R"({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"})", "\"W4A8_AWQ\"", "./quantize"},
        {R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})", "\"pack-quantized\"", "./quantize"},
        {R"({"quant_method": "compressed-tensors", "config_groups": {"g": {"format": "int-quantized"}}})",
         "\"int-quantized\"", "./quantize"},
        {R"({"quant_method": "compressed-tensors", "config_groups": [1]})", "config_groups", ""},
        {R"({"quant_method": "bitsandbytes", "load_in_8bit": true})", "8 bits", "4"},
        {R"({"quant_method": 7})", "quant_method", ""}};
    Folder folder("methods", Style::tensor);
    for (const auto& row : table) {
        folder.config.set("quantization_config", Json::parse(row.quantization, ""));
        const std::string said = folder.error();
        EXPECT_NE(said.find(row.named), std::string::npos) << said;
        EXPECT_NE(said.find(row.remedy), std::string::npos) << said;
    }
}

}  // namespace float8_files_test
