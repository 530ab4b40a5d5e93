// safetensors_test.cpp - round trips, the attacks on record, and truncation at every byte.
#include "src/format/safetensors.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <fstream>

namespace safetensors_test {

using namespace qlora;

std::string temporary(const std::string& name) { return testing::TempDir() + "qlora_st_" + name; }

std::string file_of(const std::string& json, size_t data, uint64_t length = 0) {
    if (!length) length = json.size();
    std::string s(reinterpret_cast<const char*>(&length), 8);
    return s + json + std::string(data, '\1');
}

std::string error_of(const std::string& bytes) {
    const std::string path = temporary("hostile.safetensors");
    std::ofstream(path, std::ios::binary) << bytes;
    try { SafeTensors::open(path); } catch (const Error& e) { return e.what(); }
    return "";
}

std::string small_file() {
    SafeTensorsWriter w;
    w.add("b", {2, 3}, {1, 2, 3, 4, 5, 6});
    w.add("a", {}, {7});
    w.add("none", {0, 4}, {});
    w.tensors.push_back({"bytes", "U8", {3}, 3, [](AtomicFile& f) { f.write("xyz", 3); }});
    w.tensors.push_back({"half", "BF16", {1}, 2, [](AtomicFile& f) { f.write("\x80\x3f", 2); }});
    const std::string path = temporary("small.safetensors");
    w.write(path);
    return path;
}

TEST(SafeTensors, WritesWhatItReads) {
    const auto s = SafeTensors::open(small_file());
    ASSERT_EQ(s->tensors().size(), 5u);
    EXPECT_EQ(s->metadata().at(0).second, "pt");
    EXPECT_EQ(s->floats(*s->find("b")), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(s->floats(*s->find("a")), (std::vector<float>{7}));
    EXPECT_EQ(s->find("a")->shape, Shape{});
    EXPECT_EQ(s->find("none")->bytes, 0);
    EXPECT_EQ(s->floats(*s->find("half")), (std::vector<float>{1}));
    EXPECT_EQ(s->weight(*s->find("half")).dtype, DType::bf16);
    EXPECT_EQ(s->find("nothing"), nullptr);
    EXPECT_THROW(s->weight(*s->find("bytes")), Error);
    // Largest elements first, then names: the reference writer's order.
    EXPECT_EQ(s->tensors()[0].name, "a");
    EXPECT_EQ(s->tensors()[4].name, "bytes");
}

TEST(SafeTensorsHostile, EveryLieIsNamed) {
    const std::string ok = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
    EXPECT_EQ(error_of(file_of(ok, 8)), "");
    for (const char* front : {" ", "\n", "\t \r\n  "})
        EXPECT_EQ(error_of(file_of(front + ok, 8)), "") << "as the reference: any JSON white space";
    EXPECT_EQ(error_of(file_of(ok + "   ", 8)), "");
    auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
        return "{\"a\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
    };
    std::string many = "{";
    for (int i = 0; i < 2000; ++i)
        many += str(i ? "," : "", "\"t", i, "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}");
    many += "}";
    const struct { const char* expected; std::string bytes; } table[] = {
        {"truncated", "1234567"},
        {"more than the limit", file_of(ok, 8, uint64_t(1) << 63)},
        {"more than the limit", file_of(ok, 8, 100000001)},
        {"truncated", file_of(ok, 8, 1000)},
        {"does not start with", std::string(8, '\0') + "data"},
        {"does not start with", file_of("   ", 0)},
        {"does not start with", file_of("\v" + ok, 8)},
        {"NUL", file_of(ok + std::string(2, '\0'), 8)},
        {"UTF-8", file_of("{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8)},
        {"hostile.safetensors", file_of("{" + std::string(100000, '['), 0)},
        {"hole or an overlap", file_of(many, 8)},
        {"hole or an overlap", file_of(one("F32", "[1]", "[4,8]"), 8)},
        {"the file at", file_of(ok, 12)},
        {"truncated", file_of(ok, 4)},
        {"needs 8 bytes", file_of(one("F32", "[2]", "[8,0]"), 8)},
        {"needs 12 bytes", file_of(one("F32", "[3]", "[0,8]"), 8)},
        {"out of range", file_of(one("F32", "[4294967296,4294967296]", "[0,8]"), 8)},
        {"integers >= 0", file_of(one("F32", "[-2]", "[0,8]"), 8)},
        {"integers >= 0", file_of(one("F32", "[2.0]", "[0,8]"), 8)},
        {"integers >= 0", file_of(one("F32", "[2]", "[-0,8]"), 8)},
        {"integers >= 0", file_of(one("F32", "[18446744073709551616]", "[0,8]"), 8)},
        {"out of range", file_of(one("F64", "[2305843009213693952]", "[0,0]"), 0)},
        {"integers >= 0", file_of(one("F32", "[true]", "[0,8]"), 8)},
        {"integers >= 0", file_of(one("F32", "[\"2\"]", "[0,8]"), 8)},
        {"integers >= 0", file_of(one("F32", "[1e308]", "[0,8]"), 8)},
        {"integers >= 0", file_of(one("F32", "[2]", "[0,8.0]"), 8)},
        {"at most 8", file_of(one("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8)},
        {"unknown type", file_of(one("F7", "[2]", "[0,8]"), 8)},
        {"whole bytes", file_of(one("F4", "[3]", "[0,1]"), 1)},
        {"__metadata__", file_of("{\"__metadata__\":{\"k\":1}," + ok.substr(1), 8)},
        {"hostile.safetensors", file_of("{" + ok.substr(1, ok.size() - 2) + "," + ok.substr(1), 8)},
        {"unknown field", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8)},
        {"lacks", file_of(R"({"a":{"dtype":"F32","shape":[2]}})", 8)},
    };
    for (const auto& row : table)
        EXPECT_NE(error_of(row.bytes).find(row.expected), std::string::npos)
            << row.expected << " / " << error_of(row.bytes);
}

TEST(SafeTensorsHostile, TruncatedAndFlippedAnywhere) {
    const std::string bytes = read_file(small_file());
    for (size_t n = 0; n < bytes.size(); ++n) EXPECT_NE(error_of(bytes.substr(0, n)), "") << n;
    for (size_t n = 0; n < bytes.size(); ++n) {
        std::string flipped = bytes;
        flipped[n] = char(flipped[n] ^ 0x41);
        error_of(flipped);                             // an Error or a file that opens, never anything else
    }
}

TEST(SafeTensors, ReadsARealFile) {
    const std::string path = data_path("model/stories260K/hf/model.safetensors");
    if (!exists(path)) GTEST_SKIP() << "needs ../shared/data/model/stories260K";
    const auto s = SafeTensors::open(path);
    EXPECT_EQ(s->tensors().size(), 47u);
    EXPECT_EQ(s->find("model.embed_tokens.weight")->shape, (Shape{512, 64}));
}

}  // namespace safetensors_test
