// gguf_parts_test.cpp - a model cut into files is the model, to the bit; parts that are missing or do not fit are
// named.
#include "src/base/file.h"
#include "src/format/gguf.h"
#include "tests/run/run_support.h"

namespace gguf_parts_test {

using qlora::Json;
using run_support::contains;
using run_support::error_of;
using Type = qlora::GgufWriter::Type;

// Every `count`-th tensor of the tiny model, from `number` on.
void write_part(const std::string& path, int64_t number, int64_t count, int64_t says_number) {
    const auto whole = qlora::Gguf::open("models/tiny.gguf");
    qlora::GgufWriter out;
    if (number == 0)
        for (const qlora::GgufPair& pair : whole->pairs()) out.copy(*whole, pair);
    out.set("split.no", Type::u16, Json(says_number));
    out.set("split.count", Type::u16, Json(count));
    out.set("split.tensors.count", Type::i32, Json(int64_t(whole->tensors().size())));
    for (size_t i = size_t(number); i < whole->tensors().size(); i += size_t(count)) {
        const qlora::GgufTensor& t = whole->tensors()[i];
        out.add({t.name, t.ggml_type, t.shape, t.bytes,
                 [whole, &t](qlora::AtomicFile& f) { f.write(whole->data(t), size_t(t.bytes)); }});
    }
    out.write(path);
}

TEST(GgufParts, AreTheModel) {
    const run_support::TemporaryFolder folder{"qlora-parts"};
    const std::string first = folder / "m-00001-of-00002.gguf", second = folder / "m-00002-of-00002.gguf";
    write_part(first, 0, 2, 0);
    EXPECT_TRUE(contains(error_of([&] { (void)qlora::Model::load(first); }), "m-00002-of-00002.gguf"));
    write_part(second, 1, 2, 1);
    const qlora::Model whole = qlora::Model::load("models/tiny.gguf"), parts = qlora::Model::load(first);
    const qlora::Tokens tokens = whole.tokenizer().encode("What is an adapter?");
    EXPECT_EQ(parts.tokenizer().encode("What is an adapter?"), tokens);
    EXPECT_EQ(parts.logits(tokens), whole.logits(tokens));
    EXPECT_TRUE(contains(error_of([&] { (void)qlora::Model::load(second); }), "give the first"));
    // a file in memory has no neighbours, even where some lie on the disk under its name
    const std::string bytes = qlora::read_file(first);
    const auto in_memory = qlora::Source::memory(std::as_bytes(std::span(bytes)), first);
    EXPECT_TRUE(contains(error_of([&] { (void)qlora::Model::load(in_memory); }), "give the path of the first file"));
    parts.save(folder / "one.gguf");    // a file of its own, which says nothing of parts
    EXPECT_EQ(qlora::Gguf::open(folder / "one.gguf")->pair("split.count"), nullptr);
    EXPECT_EQ(qlora::Model::load(folder / "one.gguf").logits(tokens), whole.logits(tokens));
    write_part(second, 1, 2, 0);
    EXPECT_TRUE(contains(error_of([&] { (void)qlora::Model::load(first); }), "belongs to another model"));
    write_part(second, 0, 2, 1);
    EXPECT_TRUE(contains(error_of([&] { (void)qlora::Model::load(first); }), "is in another part too"));
    write_part(folder / "alone.gguf", 0, 2, 0);
    EXPECT_TRUE(contains(error_of([&] { (void)qlora::Model::load(folder / "alone.gguf"); }), "must end in"));
}

}    // namespace gguf_parts_test
