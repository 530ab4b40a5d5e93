// source_gone_test.cpp - a model does not know its file: after the source was removed, moved or replaced by another
// one, saves, merges and adapters give the bytes that they gave before.
#include "src/model/lora_impl.h"
#include "src/run/merge.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

namespace source_gone_test {

using namespace qlora;

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_gone_" + name;
    std::filesystem::remove_all(path);
    return path;
}

std::map<std::string, std::string> files_in(const std::string& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
        if (entry.is_regular_file())
            files[entry.path().lexically_relative(folder).string()] = read_file(entry.path().string());
    return files;
}

const char* const tokenizer_json = R"({"version": "1.0", "normalizer": null, "post_processor": null,
    "added_tokens": [{"id": 3, "content": "<e>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})";

// Everything that may travel with a model: five text files, rotary frequencies of their own.
std::string make_folder(const std::string& name, uint64_t seed = 1) {
    const std::string folder = temporary(name);
    auto model = tiny::make({.hidden = 32, .seed = seed});
    RopeScaling s;
    s.kind = RopeScaling::Kind::llama3;
    s.factor = 8;
    s.original_context = 8192;
    set_frequencies(model->config, 500000, s, "test");
    save_hf_model(*model, folder);
    for (const auto& [file, text] : {std::pair{"tokenizer.json", tokenizer_json},
                                     std::pair{"tokenizer_config.json", R"({"eos_token": "<e>", "odd": 1})"},
                                     std::pair{"special_tokens_map.json", R"({"eos_token": "<e>"})"},
                                     std::pair{"chat_template.jinja", "{{ messages[0].content }}"},
                                     std::pair{"generation_config.json", R"({"eos_token_id": [3, 1]})"}})
        write_file_atomic(folder + "/" + file, text);
    return folder;
}

// llama.cpp's own kind: without the tokenizer.json that our writer keeps.
std::string make_gguf(const std::string& name, const std::string& folder, bool ours) {
    const std::string path = temporary(name + "_full.gguf"), plain = temporary(name + ".gguf");
    save_gguf_model(*tiny::load(folder), path);
    if (ours) return path;
    const auto file = Gguf::open(path);
    GgufWriter out;
    for (const GgufPair& p : file->pairs())
        if (p.key != "qlora.family" && p.key != "tokenizer.huggingface.json" && p.key != "qlora.tokenizer_config")
            out.copy(*file, p);
    for (const GgufTensor& t : file->tensors())
        out.add({t.name, t.ggml_type, t.shape, t.bytes,
                 [&file, &t](AtomicFile& f) { f.write(file->data(t), t.bytes); }});
    out.write(plain);
    return plain;
}

std::shared_ptr<LoraImpl> adapter(std::shared_ptr<const ModelImpl> model, LoraInit init) {
    const auto lora = create_lora(std::move(model), {.rank = 3, .alpha = 5, .init = init});
    std::vector<float> v = lora_values(*lora);
    Rng rng{7, 1, 0};
    for (float& x : v) x += 0.1f * rng.normal();
    set_lora_values(*lora, v);
    return lora;
}

// Every kind of file that comes out of a model.
std::map<std::string, std::string> everything(std::shared_ptr<const ModelImpl> model, bool quantized) {
    const std::string to = temporary("out");
    std::filesystem::create_directory(to);
    const auto save = [&](const Draft& draft, const std::string& name) {
        save_gguf_model(draft, to + "/" + name + ".gguf");
        save_hf_model(draft, to + "/" + name);
    };
    save(*model, "plain");
    for (const DType type : {DType::f16, DType::nf4}) {
        save_model_as(*model, nullptr, to + str("/as-", name_of(type), ".gguf"), type, true);
        save_model_as(*model, nullptr, to + str("/as-", name_of(type)), type, true);
    }
    for (const LoraInit init : {LoraInit::standard, LoraInit::pissa, LoraInit::loftq}) {
        if (init == LoraInit::loftq && !quantized) continue;
        const auto lora = adapter(model, init);
        const std::string name = str("adapter-", int(init));
        save_lora_peft(*lora, to + "/" + name);
        save_lora_gguf(*lora, to + "/" + name + ".gguf");
        save_model_as(*lora->base, lora.get(), to + "/" + name + "-merged.gguf", DType::q8_0, true);
        save_model_as(*lora->base, lora.get(), to + "/" + name + "-merged", DType::bf16, true);
        const auto again = load_lora(model, to + "/" + name);          // pissa: splits the weights once more
        save_lora_peft(*again, to + "/" + name + "-again");
    }
    return files_in(to);
}

void expect_same(const std::map<std::string, std::string>& before, const std::map<std::string, std::string>& after,
                 const std::string& what) {
    EXPECT_EQ(before.size(), after.size()) << what;
    for (const auto& [name, bytes] : before) {
        const auto found = after.find(name);
        ASSERT_NE(found, after.end()) << what << ": " << name;
        EXPECT_TRUE(found->second == bytes) << what << ": " << name;
    }
}

TEST(SourceGone, EverythingIsWrittenAsBefore) {
    const std::string folder = make_folder("source"), other = make_folder("other", 2);
    const struct { const char* name; std::string source, replacement; } table[] = {
        {"folder", folder, other},
        {"our GGUF file", make_gguf("ours", folder, true), make_gguf("other", other, true)},
        {"llama.cpp's GGUF file", make_gguf("theirs", folder, false), make_gguf("other", other, true)}};
    for (const auto& row : table)
        for (const bool quantized : {false, true}) {
            const auto model = tiny::load(row.source, quantized ? std::optional(DType::nf4) : std::nullopt);
            const auto before = everything(model, quantized);
            const std::string moved = temporary("moved");
            std::filesystem::rename(row.source, moved);
            std::filesystem::rename(row.replacement, row.source);
            expect_same(before, everything(model, quantized), str(row.name, ", replaced"));
            std::filesystem::rename(row.source, row.replacement);
            if (!quantized) { std::filesystem::rename(moved, row.source); continue; }
            std::filesystem::remove_all(moved);
            expect_same(before, everything(model, quantized), str(row.name, ", removed"));
            break;
        }
}

// An adapter that was trained on 4 bits brings a base into them: its start knows the base as it was.
TEST(SourceGone, ABaseThatFollowsARecordKeepsItsOriginals) {
    const std::string folder = make_folder("recorded"), saved = temporary("adapter"), again = temporary("again");
    save_lora_peft(*adapter(tiny::load(folder, DType::nf4), LoraInit::pissa), saved);
    const auto model = tiny::load(folder);
    std::filesystem::remove_all(folder);
    const auto lora = load_lora(model, saved);
    EXPECT_EQ(lora->options.init, LoraInit::pissa);
    EXPECT_EQ(lora->base->at(Module::q_proj, 0)->dtype, DType::nf4);
    save_lora_peft(*lora, again);
    expect_same(files_in(saved), files_in(again), "again");
}

// What pissa leaves of a model is a model of its own: what it took out must not come back as what quantizing lost.
TEST(SourceGone, WhatPissaLeavesIsItsOwnOriginal) {
    const auto model = tiny::load(make_folder("rest"), DType::nf4);
    const auto lora = adapter(model, LoraInit::pissa);
    EXPECT_NE(model->original(Module::q_proj, 0), model->at(Module::q_proj, 0));
    EXPECT_EQ(lora->base->original(Module::q_proj, 0), lora->base->at(Module::q_proj, 0));
}

// What is original for whom.
TEST(Original, IsWhatALayerWasQuantizedFrom) {
    const std::string folder = make_folder("original"), path = temporary("four.gguf");
    const auto stored = tiny::load(folder), held = tiny::load(folder, DType::nf4);
    const std::vector<float> w = stored->at(Module::up_proj, 1)->decoded();
    const auto original = [](const ModelImpl& m) { return m.original(Module::up_proj, 1)->decoded(); };
    EXPECT_EQ(stored->original(Module::up_proj, 1), stored->at(Module::up_proj, 1));
    EXPECT_EQ(original(*held), w);
    EXPECT_EQ(original(*convert_model(*stored, DType::nf4, true)), w);
    EXPECT_EQ(original(*convert_model(*held, DType::fp4, true)), w);
    const auto half = convert_model(*held, DType::f16, true);
    EXPECT_EQ(original(*half), half->at(Module::up_proj, 1)->decoded()) << "nothing was quantized";
    const auto merged = merge_lora(*adapter(held, LoraInit::standard), DType::nf4, true);
    EXPECT_EQ(original(*merged), merged->at(Module::up_proj, 1)->decoded()) << "what was merged is nowhere any more";
    save_gguf_model(*held, path);
    const auto four = tiny::load(path);
    EXPECT_EQ(original(*four), four->at(Module::up_proj, 1)->decoded());
    // What lies in no file would take the memory that 4 bits save.
    const auto memory = convert_model(*tiny::make({}), DType::nf4, true);
    EXPECT_EQ(memory->original(Module::up_proj, 1), memory->at(Module::up_proj, 1));
}

// safetensors of old writers: the data begins at any byte, and is aligned when it is asked for.
TEST(Original, OfAFileThatIsNotAligned) {
    const std::string folder = make_folder("aligned"), a = temporary("a"), b = temporary("b");
    save_lora_peft(*adapter(tiny::load(folder, DType::nf4), LoraInit::loftq), a);
    const std::string file = folder + "/model.safetensors";
    std::string bytes = read_file(file);
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    bytes.insert(8 + size_t(header), " ");
    ++header;
    std::memcpy(bytes.data(), &header, 8);
    write_file_atomic(file, bytes);
    const auto model = tiny::load(folder, DType::nf4);
    std::filesystem::remove_all(folder);
    save_lora_peft(*adapter(model, LoraInit::loftq), b);
    expect_same(files_in(a), files_in(b), "not aligned");
}

TEST(Original, OfAFileThatWasWrittenToIsAnError) {
    const std::string folder = make_folder("written"), file = folder + "/model.safetensors";
    const auto model = tiny::load(folder, DType::nf4);
    const std::string bytes = std::string(read_file(file).size() + 1, 1);
    std::ofstream(file, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
    try {
        adapter(model, LoraInit::loftq);
        FAIL() << "made";
    } catch (const Error& e) { EXPECT_EQ(e.code, Errc::io) << e.what(); }
}

// Beside source and result one tensor exists at a time, whichever the format.
TEST(Draft, TensorsAreMadeWhenTheirTurnComes) {
    const auto model = tiny::make({.hidden = 64});
    int alive = 0, most = 0, made = 0;
    const Draft draft(*model, [&](Slot slot, int64_t layer) -> DraftTensor {
        const WeightPtr w = model->at(slot, layer);
        if (row_of(model->config, slot).kind != Kind::linear) return w;
        return {w->dtype, w->shape, [&, w] {
            Weight copy = *w;
            most = std::max(most, ++alive);
            ++made;
            copy.owner = std::shared_ptr<const void>(w.get(), [&alive, w](const void*) { --alive; });
            return copy;
        }};
    });
    const std::string a = temporary("draft"), b = temporary("model");
    for (const bool gguf : {true, false}) {
        made = most = 0;
        const auto save = [&](const Draft& d, const std::string& to) {
            if (gguf) save_gguf_model(d, to + ".gguf");
            else save_hf_model(d, to);
        };
        save(draft, a);
        save(*model, b);
        EXPECT_EQ(made, 2 * module_count);
        EXPECT_EQ(most, 1);
        EXPECT_EQ(alive, 0);
        if (gguf) { EXPECT_TRUE(read_file(a + ".gguf") == read_file(b + ".gguf")); }
        else expect_same(files_in(b), files_in(a), "folder");
    }
}

}  // namespace source_gone_test
