// memory_test.cpp - models, tokenizers and adapters out of memory are those of the files with the same bytes.
#include "src/base/access.h"
#include "src/base/source.h"
#include "src/model/draft.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

namespace memory_test {

using namespace qlora;

const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8};

std::string temporary(const std::string& name) {
    const std::string path = testing::TempDir() + "qlora_memory_" + name;
    std::filesystem::remove_all(path);
    return path;
}

Files files_of(const std::string& folder) {
    Files out;
    for (const std::string& name : names_in(folder)) out[name] = read_file(folder + "/" + name);
    return out;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

template <class Call>
std::string error_of(const Call& call) {
    try { call(); } catch (const Error& e) { return e.what(); }
    return "no error";
}

Model load(const Source& source, std::optional<DType> quantize = {}) {
    return Model::load(source, {.backend = handle_of<Backend>(tiny::backend()), .quantize = quantize});
}

TEST(Memory, ModelsAreThoseOfTheirFiles) {
    const std::string file = temporary("model.gguf"), folder = temporary("folder");
    save_gguf_model(*tiny::make({.family = "qwen3", .hidden = 64, .feed_forward = 96}), file);
    load(file).save(folder);
    const std::string gguf = read_file(file);
    for (const std::optional<DType> quantize : {std::optional<DType>(), std::optional(DType::nf4)}) {
        const std::vector<float> expected = load(file, quantize).logits(ids);
        const Model one = load(Source::memory(bytes_of(gguf), "built in"), quantize);
        EXPECT_EQ(one.logits(ids), expected);
        EXPECT_EQ(one.info().path, "built in");
        const Model many = load(Source::folder(files_of(folder), "built in"), quantize);
        EXPECT_EQ(many.logits(ids), expected);
        const std::string again = temporary("again.gguf");
        load(file, quantize).save(again + ".expected.gguf");
        one.save(again);
        EXPECT_EQ(read_file(again), read_file(again + ".expected.gguf"));
    }
}

// Code that the linker put where it likes: kernels need more than a byte's alignment.
TEST(Memory, BytesNeedNoAlignment) {
    const std::string file = temporary("model.gguf");
    const auto model = handle_of<Model>(tiny::make({.hidden = 64, .feed_forward = 96}));
    for (const bool codes : {false, true}) {           // 4-bit codes have scales beside them
        if (codes) model.convert(DType::nf4).save(file);
        else model.save(file);
        const std::string gguf = read_file(file);
        const std::vector<float> expected = load(file).logits(ids);
        for (size_t shift = 1; shift < 4; ++shift) {
            const std::string moved = std::string(shift, 'x') + gguf;
            EXPECT_EQ(load(Source::memory(bytes_of(moved).subspan(shift))).logits(ids), expected) << shift;
        }
    }
}

TEST(Memory, TheOwnerStaysAsLongAsAnybodyReads) {
    const std::string file = temporary("model.gguf");
    save_gguf_model(*tiny::make({}), file);
    const std::string gguf = read_file(file);
    auto owner = std::make_shared<std::vector<std::byte>>(gguf.size() + 64);
    std::byte* const at = owner->data() + (64 - reinterpret_cast<uintptr_t>(owner->data()) % 64) % 64;
    std::memcpy(at, gguf.data(), gguf.size());         // aligned: else it would be copied
    const std::weak_ptr<const std::vector<std::byte>> watched = owner;
    {
        const Model model = load(Source::memory({at, gguf.size()}, "owned", owner));
        owner.reset();
        EXPECT_FALSE(watched.expired());
        EXPECT_FALSE(model.logits(ids).empty());
    }
    EXPECT_TRUE(watched.expired());
}

TEST(Memory, Tokenizers) {
    const std::string json = data_path("tokenizer/smollm2/tokenizer.json");
    if (!exists(json)) GTEST_SKIP() << "needs ../shared/data/tokenizer";
    const std::string text = "A small t\xC3\xA9st: 1234 tokens?", bytes = read_file(json);
    const Tokens expected = Tokenizer::load(json).encode(text);
    EXPECT_EQ(Tokenizer::load(Source::memory(bytes_of(bytes), "smollm2")).encode(text), expected);
    EXPECT_EQ(Tokenizer::load(Source::folder(Files{{"tokenizer.json", bytes}})).encode(text), expected);
    EXPECT_NE(error_of([&] { (void)Tokenizer::load(Source::memory(bytes_of("GGUF"), "cut")); }).find("cut"),
              std::string::npos);
    EXPECT_NE(error_of([&] { (void)Tokenizer::load(Source::folder(Files{}, "nothing")); }).find("nothing"),
              std::string::npos);
}

TEST(Memory, AdaptersAreThoseOfTheirFolders) {
    const std::string file = temporary("model.gguf"), folder = temporary("adapter"), gguf = temporary("adapter.gguf");
    save_gguf_model(*tiny::make({.family = "llama", .hidden = 64, .feed_forward = 96, .adjacent = true}), file);
    const Model model = load(file);
    for (const LoraOptions& options : {LoraOptions{.rank = 4}, LoraOptions{.rank = 4, .dora = true},
                                       LoraOptions{.rank = 4, .init = LoraInit::pissa}}) {
        const Lora lora = Lora::create(model, options);
        lora.save(folder);
        EXPECT_EQ(lora.files(), files_of(folder));
        const Source memory = Source::folder(lora.files(), "adapter in memory");
        EXPECT_EQ(Lora::load(model, memory).logits(ids), Lora::load(model, folder).logits(ids));
        EXPECT_EQ(Lora::recorded_base(memory)->model, file);
        if (options.dora) continue;
        lora.save(gguf);
        const std::string bytes = read_file(gguf);
        EXPECT_EQ(Lora::load(model, Source::memory(bytes_of(bytes))).logits(ids),
                  Lora::load(model, gguf).logits(ids));
    }
}

TEST(Memory, WhatIsCutOrMissingIsNamed) {
    const std::string file = temporary("model.gguf"), folder = temporary("folder");
    save_gguf_model(*tiny::make({}), file);
    load(file).save(folder);
    const std::string gguf = read_file(file);
    for (const size_t size : {size_t(0), size_t(4), size_t(100), gguf.size() - 1}) {
        // an exact copy: a reader beyond its end is found by the sanitizers
        const std::vector<std::byte> cut(bytes_of(gguf).begin(), bytes_of(gguf).begin() + ptrdiff_t(size));
        EXPECT_NE(error_of([&] { load(Source::memory(cut, "cut")); }).find("cut"), std::string::npos) << size;
    }
    for (const char* name : {"config.json", "model.safetensors"}) {
        Files files = files_of(folder);
        files.erase(name);
        const std::string error = error_of([&] { load(Source::folder(files, "in memory")); });
        EXPECT_NE(error.find("in memory"), std::string::npos) << error;
        EXPECT_NE(error.find(name), std::string::npos) << error;
    }
}

}  // namespace memory_test
