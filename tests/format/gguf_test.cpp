// gguf_test.cpp - files written and read back, a table of lying files, and truncation and bit flips at every byte of a
// header.
#include "src/format/gguf.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

namespace gguf_test {

using namespace qlora;
using Type = GgufWriter::Type;

std::string temporary(const std::string& name) { return testing::TempDir() + "qlora_gguf_" + name; }

void save(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

template <class T>
void put(std::string& out, T v) { out.append(reinterpret_cast<const char*>(&v), sizeof v); }
void put_text(std::string& out, const std::string& s) { put(out, uint64_t(s.size())); out += s; }

std::string header(uint64_t tensors, uint64_t pairs, uint32_t version = 3) {
    std::string s = "GGUF";
    put(s, version); put(s, tensors); put(s, pairs);
    return s;
}

std::string tensor(const std::string& name, std::vector<uint64_t> ne, int32_t type, uint64_t offset) {
    std::string s;
    put_text(s, name);
    put(s, uint32_t(ne.size()));
    for (uint64_t n : ne) put(s, n);
    put(s, type); put(s, offset);
    return s;
}

std::string with_data(std::string s, size_t bytes) {
    s.resize((s.size() + 31) / 32 * 32 + bytes, '\1');
    return s;
}

// The error's text, or "" when the file opens.
std::string error_of(const std::string& bytes) {
    const std::string path = temporary("hostile.gguf");
    save(path, bytes);
    try { Gguf::open(path); } catch (const Error& e) { return e.what(); }
    return "";
}

std::string small_file() {
    const std::string path = temporary("small.gguf");
    GgufWriter w;
    w.set("general.architecture", Type::string, Json("llama"));
    w.set("a.u32", Type::u32, Json(int64_t(4000000000)));
    w.set("a.i8", Type::i8, Json(-5));
    w.set("a.f32", Type::f32, Json(0.5));
    w.set("a.flag", Type::boolean, Json(true));
    w.set_array("a.words", Type::string, {Json("one"), Json(""), Json("drei")});
    w.set_array("a.numbers", Type::f32, {Json(1.5), Json(-2.0)});
    w.set_array("a.ints", Type::i32, {Json(7), Json(-8)});
    const std::vector<float> x{1, 2, 3, 4, 5, 6};
    w.add({"x", 0, {2, 3}, 24, [x](AtomicFile& f) { f.write(x.data(), 24); }});
    w.add({"raw", 24, {5}, 5, [](AtomicFile& f) { f.write("abcde", 5); }});
    w.write(path);
    return path;
}

TEST(Gguf, WritesWhatItReads) {
    const auto g = Gguf::open(small_file());
    EXPECT_EQ(g->version(), 3);
    EXPECT_EQ(g->string("general.architecture", ""), "llama");
    EXPECT_EQ(g->integer("a.u32"), 4000000000);
    EXPECT_EQ(g->integer("a.i8"), -5);
    EXPECT_EQ(g->number("a.f32", 0), 0.5);
    EXPECT_TRUE(g->boolean("a.flag", false));
    EXPECT_EQ(g->strings("a.words"), (std::vector<std::string>{"one", "", "drei"}));
    EXPECT_EQ(g->floats("a.numbers"), (std::vector<float>{1.5f, -2.0f}));
    EXPECT_EQ(g->integers("a.ints"), (std::vector<int64_t>{7, -8}));
    EXPECT_EQ(g->integer("absent", 9), 9);
    EXPECT_THROW(g->integer("absent"), Error);
    EXPECT_THROW(g->integer("a.ints"), Error);
    EXPECT_THROW(g->strings("a.ints"), Error);
    ASSERT_NE(g->tensor("x"), nullptr);
    const Weight w = g->weight(*g->tensor("x"));
    EXPECT_EQ(w.shape, (Shape{2, 3}));
    float first[6];
    std::memcpy(first, w.data, sizeof first);
    EXPECT_EQ(first[5], 6);
    ASSERT_NE(g->tensor("raw"), nullptr);
    EXPECT_EQ(g->tensor("raw")->bytes, 5);
    EXPECT_THROW(g->weight(*g->tensor("raw")), Error);
}

TEST(Gguf, CopiesMetadataByteForByte) {
    const auto g = Gguf::open(small_file());
    GgufWriter w;
    for (const GgufPair& p : g->pairs()) w.copy(*g, p);
    const std::string path = temporary("copy.gguf");
    w.write(path);
    const auto h = Gguf::open(path);
    ASSERT_EQ(h->pairs().size(), g->pairs().size());
    for (size_t i = 0; i < g->pairs().size(); ++i) {
        EXPECT_EQ(h->pairs()[i].key, g->pairs()[i].key);
        EXPECT_EQ(h->pairs()[i].type, g->pairs()[i].type);
        EXPECT_EQ(h->bytes_of_pair(h->pairs()[i]), g->bytes_of_pair(g->pairs()[i]));
    }
}

// In memory of its own: the same answers when the file has been written over.
TEST(Gguf, PairsOutliveTheirFile) {
    const std::string path = temporary("pairs.gguf");
    save(path, read_file(small_file()));
    const auto g = Gguf::open(path);
    const GgufPairs copy = g->copy(), again = copy.copy();
    save(path, std::string(read_file(path).size() + 1, 'x'));
    const auto original = Gguf::open(small_file());
    for (const GgufPairs* pairs : {&copy, &again}) {
        ASSERT_EQ(pairs->pairs().size(), original->pairs().size());
        for (const GgufPair& p : pairs->pairs())
            EXPECT_EQ(pairs->bytes_of_pair(p), original->bytes_of_pair(*original->pair(p.key))) << p.key;
        EXPECT_EQ(pairs->string("general.architecture", ""), "llama");
        EXPECT_EQ(pairs->integer("a.u32"), 4000000000);
        EXPECT_EQ(pairs->strings("a.words"), (std::vector<std::string>{"one", "", "drei"}));
        EXPECT_EQ(pairs->floats("a.numbers"), (std::vector<float>{1.5f, -2.0f}));
        EXPECT_THROW(pairs->integer("a.ints"), Error);
    }
    EXPECT_THROW(g->string("general.architecture", ""), Error) << "the file was written to";
}

TEST(Gguf, ReadsARealVocabulary) {
    const std::string path = data_path("tokenizer/ggml-vocab-llama-spm.gguf");
    if (!exists(path)) GTEST_SKIP() << "needs ../shared/data/tokenizer";
    const auto g = Gguf::open(path);
    EXPECT_EQ(g->strings("tokenizer.ggml.tokens").size(), 32000u);
    EXPECT_EQ(g->floats("tokenizer.ggml.scores").size(), 32000u);
    EXPECT_EQ(g->integers("tokenizer.ggml.token_type")[0], 2);
    EXPECT_TRUE(g->tensors().empty());
}

template <class T>
std::string pair_of(const std::string& key, Type type, T value) {
    std::string s;
    put_text(s, key); put(s, uint32_t(type)); put(s, value);
    return s;
}

// ---- what stock readers take

// Hashes and ids may have all 64 bits; only as a size such a value is out of range.
TEST(GgufAsStockReaders, TakesUnsignedMetadataOfAnyValue) {
    const std::string path = temporary("unsigned.gguf");
    std::string array = header(0, 3) + pair_of("a.hash", Type::u64, ~uint64_t(0)) +
                        pair_of("a.small", Type::u64, uint64_t(7));
    put_text(array, "a.hashes");
    put(array, uint32_t(9));
    put(array, uint32_t(10));
    put(array, uint64_t(1));
    put(array, ~uint64_t(0));
    save(path, array);
    const auto g = Gguf::open(path);
    EXPECT_EQ(g->number("a.hash", 0), 0x1p64);
    EXPECT_EQ(g->floats("a.hashes"), (std::vector<float>{0x1p64f}));
    EXPECT_EQ(g->integer("a.small"), 7);
    EXPECT_THROW(g->integer("a.hash"), Error);
    EXPECT_THROW(g->integers("a.hashes"), Error);
    GgufWriter w;                                      // and it is copied as it is
    for (const GgufPair& p : g->pairs()) w.copy(*g, p);
    w.write(temporary("unsigned-copy.gguf"));
    const auto copy = Gguf::open(temporary("unsigned-copy.gguf"));
    for (const GgufPair& p : g->pairs()) EXPECT_EQ(copy->bytes_of_pair(*copy->pair(p.key)), g->bytes_of_pair(p));
}

TEST(GgufAsStockReaders, TakesTensorsWithoutElements) {
    const std::string path = temporary("empty.gguf");
    save(path, with_data(header(4, 0) + tensor("none", {0}, 0, 0) + tensor("a", {8}, 0, 0) +
                             tensor("blocks", {32, 0}, 2, 32) + tensor("last", {0, 5}, 1, 32),
                         32));
    const auto g = Gguf::open(path);
    for (const char* name : {"none", "blocks", "last"}) {
        EXPECT_EQ(g->tensor(name)->bytes, 0);
        EXPECT_TRUE(g->weight(*g->tensor(name)).decoded().empty()) << name;
    }
    EXPECT_EQ(g->weight(*g->tensor("a")).decoded().size(), 8u);
}

// A tensor at an odd byte is read as it is written; what kernels get is aligned.
TEST(GgufAsStockReaders, TakesSmallAlignments) {
    for (const uint32_t alignment : {1u, 2u, 4u, 8u}) {
        const std::string path = temporary("aligned.gguf");
        std::string bytes = header(3, 1) + pair_of("general.alignment", Type::u32, alignment);
        bytes += tensor("raw", {alignment}, 24, 0) + tensor("floats", {2}, 0, alignment) +
                 tensor("halves", {1}, 1, alignment + 8);
        bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
        bytes.append(alignment, 'x');
        put(bytes, 1.5f); put(bytes, -2.0f); put(bytes, uint16_t(0x3C00));
        save(path, bytes);
        const auto g = Gguf::open(path);
        const Weight floats = g->weight(*g->tensor("floats")), halves = g->weight(*g->tensor("halves"));
        EXPECT_EQ(floats.decoded(), (std::vector<float>{1.5f, -2.0f})) << alignment;
        EXPECT_EQ(halves.decoded(), (std::vector<float>{1})) << alignment;
        EXPECT_EQ(reinterpret_cast<uintptr_t>(floats.data) % 4, 0u) << alignment;
        EXPECT_EQ(reinterpret_cast<uintptr_t>(halves.data) % 2, 0u) << alignment;
    }
}

TEST(GgufHostile, EveryLieIsNamed) {
    std::string twice = header(0, 2);
    for (int i = 0; i < 2; ++i) { put_text(twice, "key"); put(twice, uint32_t(4)); put(twice, uint32_t(1)); }
    std::string array_bomb = header(0, 1);
    put_text(array_bomb, "k");
    put(array_bomb, uint32_t(9));
    put(array_bomb, uint32_t(8));
    put(array_bomb, uint64_t(1) << 29);
    std::string array_huge = header(0, 1);
    put_text(array_huge, "k");
    put(array_huge, uint32_t(9));
    put(array_huge, uint32_t(10));
    put(array_huge, ~uint64_t(0));
    std::string nested = header(0, 1);
    put_text(nested, "k");
    put(nested, uint32_t(9));
    put(nested, uint32_t(9));
    put(nested, uint64_t(1));
    put(nested, uint64_t(0));
    std::string long_text = header(0, 1);
    put_text(long_text, "k"); put(long_text, uint32_t(8)); put(long_text, ~uint64_t(0) - 3);
    std::string alignment = header(0, 1);
    put_text(alignment, "general.alignment"); put(alignment, uint32_t(4)); put(alignment, uint32_t(24));
    std::string zero_alignment = header(0, 1);
    put_text(zero_alignment, "general.alignment"); put(zero_alignment, uint32_t(4)); put(zero_alignment, uint32_t(0));
    std::string bad_type = header(0, 1);
    put_text(bad_type, "k"); put(bad_type, uint32_t(13)); put(bad_type, uint64_t(0));
    std::string empty_key = header(0, 1);
    put_text(empty_key, ""); put(empty_key, uint32_t(4)); put(empty_key, uint64_t(0));
    const struct { const char* expected; std::string bytes; } table[] = {
        {"not a GGUF file", "GGUX" + header(0, 0).substr(4)},
        {"not a GGUF file", ""},
        {"version 1", header(0, 0, 1)},
        {"version 4", header(0, 0, 4)},
        {"big-endian", header(0, 0, 0x03000000u)},
        {"number of tensors", header(~uint64_t(0), 0)},
        {"number of metadata pairs", header(0, uint64_t(1) << 40)},
        {"do not fit", header(1000, 0)},
        {"do not fit", header(0, 1000)},
        {"occurs twice", twice},
        {"is truncated", array_bomb},
        {"more than the limit", array_huge},
        {"array of value type 9", nested},
        {"more than the limit", long_text},
        {"power of two", alignment},
        {"power of two", zero_alignment},
        {"unknown value type 13", bad_type},
        {"key is empty", empty_key},
        {"overlap", with_data(header(2, 0) + tensor("a", {8}, 0, 0) + tensor("b", {8}, 0, 0), 64)},
        {"occurs twice", with_data(header(2, 0) + tensor("a", {8}, 0, 0) + tensor("a", {8}, 0, 32), 64)},
        {"not a multiple of the alignment", with_data(header(1, 0) + tensor("a", {8}, 0, 4), 64)},
        {"needs 4096 bytes", with_data(header(1, 0) + tensor("a", {1024}, 0, 0), 64)},
        {"beyond the end", with_data(header(1, 0) + tensor("a", {8}, 0, uint64_t(1) << 50), 64)},
        {"out of range", with_data(header(1, 0) + tensor("a", {uint64_t(1) << 32, uint64_t(1) << 32}, 0, 0), 64)},
        {"out of range", with_data(header(1, 0) + tensor("a", {uint64_t(1) << 62}, 0, 0), 64)},
        {"dimension 1", with_data(header(1, 0) + tensor("a", {8, ~uint64_t(0)}, 0, 0), 64)},
        {"5 dimensions", with_data(header(1, 0) + tensor("a", {1, 1, 1, 1, 1}, 0, 0), 64)},
        {"whole blocks of 32", with_data(header(1, 0) + tensor("a", {8}, 2, 0), 64)},
        {"negative type", with_data(header(1, 0) + tensor("a", {8}, -1, 0), 64)},
        {"more than the limit of 63", with_data(header(1, 0) + tensor(std::string(64, 'x'), {8}, 0, 0), 64)},
        {"name is empty", with_data(header(1, 0) + tensor("", {8}, 0, 0), 64)},
    };
    for (const auto& row : table)
        EXPECT_NE(error_of(row.bytes).find(row.expected), std::string::npos)
            << row.expected << " / " << error_of(row.bytes);
    EXPECT_EQ(error_of(with_data(header(1, 0) + tensor("a", {8}, 0, 0), 32)), "");
    // A type that we do not know is fine until somebody wants the tensor.
    EXPECT_EQ(error_of(with_data(header(1, 0) + tensor("a", {8}, 19, 0), 32)), "");
}

// Whatever a truncation or a flipped bit does, the result is a typed error or a file that opens: never a crash (run
// under ASan too).
TEST(GgufHostile, TruncatedAndFlippedAnywhere) {
    const std::string bytes = read_file(small_file());
    size_t opened = 0;
    for (size_t n = 0; n < bytes.size(); ++n) opened += error_of(bytes.substr(0, n)).empty();
    EXPECT_LT(opened, 32u) << "only padding may be cut off";
    const std::string path = temporary("flipped.gguf");
    for (size_t n = 0; n < bytes.size(); ++n) {
        std::string flipped = bytes;
        flipped[n] = char(flipped[n] ^ (n % 2 ? 0x80 : 0x01));
        save(path, flipped);
        try {
            const auto g = Gguf::open(path);
            for (const GgufPair& p : g->pairs())
                if (p.type == 9 && p.element == 8) g->strings(p.key);
                else if (p.type == 9) g->floats(p.key);
        } catch (const Error&) {
        }
    }
}

TEST(GgufHostile, WriterRefusesWhatReadersRefuse) {
    GgufWriter w;
    w.add({std::string(64, 'n'), 0, {1}, 4, [](AtomicFile& f) { f.write("abcd", 4); }});
    EXPECT_THROW(w.write(temporary("w.gguf")), Error);
    w.tensors[0].name = "n";
    w.tensors[0].bytes = 8;
    EXPECT_THROW(w.write(temporary("w.gguf")), Error);
    w.set("k", Type::u8, Json(300));
    EXPECT_THROW(w.write(temporary("w.gguf")), Error);
    EXPECT_FALSE(exists(temporary("w.gguf")));
}

}  // namespace gguf_test
