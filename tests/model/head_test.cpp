// head_test.cpp - the head in fewer bits: what is held, what tied models look up, what adapters remember, and that a
// plan without weights knows it.
#include "src/base/access.h"
#include "src/model/draft.h"
#include "src/tensor/encode.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace head_test {

using namespace qlora;

const Tokens ids{1, 17, 5, 22, 9, 31, 2, 8};

std::string saved_model(bool tied) {
    const std::string path = testing::TempDir() + "qlora_head_" + (tied ? "tied.gguf" : "own.gguf");
    tiny::Spec o;
    o.hidden = 64;
    o.feed_forward = 96;
    o.tied = tied;
    save_gguf_model(*tiny::make(o), path);
    return path;
}

Model load(const std::string& path, std::optional<DType> head = {}) {
    return Model::load(path, {.backend = handle_of<Backend>(tiny::backend()), .head = head});
}
const Weight& held(const Model& model, Slot slot) { return *impl_of(model)->at(slot); }

TEST(Head, IsHeldInFewerBitsAndTheRestAsItWas) {
    for (const bool tied : {false, true}) {
        const std::string path = saved_model(tied);
        const Model stored = load(path);
        for (const DType type : {DType::q8_0, DType::iq4_nl, DType::q4_0}) {
            const Weight want = convert_weight(held(stored, Slot::head), type);
            for (const Model& model : {load(path, type), stored.with_head(type)}) {
                EXPECT_EQ(held(model, Slot::head).dtype, type);
                EXPECT_EQ(held(model, Slot::head).decoded(), want.decoded());
                EXPECT_EQ(model.info().head, name_of(type));
                // tokens are looked up in what is held, where it is the one matrix
                EXPECT_EQ(held(model, Slot::embedding).decoded(),
                          tied ? want.decoded() : held(stored, Slot::embedding).decoded());
                EXPECT_EQ(model.logits(ids), load(path, type).logits(ids));
                EXPECT_NE(model.logits(ids), stored.logits(ids));
                EXPECT_LT(model.info().bytes, stored.info().bytes);
            }
        }
        EXPECT_EQ(load(path, DType::q8_0).with_head(DType::q8_0).info().head, "q8_0");
        EXPECT_EQ(load(path, DType::iq4_nl).with_head(DType::q8_0).info().head, "iq4_nl");     // has fewer already
        EXPECT_THROW((void)stored.with_head(DType::q6_k), Error);
        EXPECT_THROW((void)load(path, DType::f16), Error);
        EXPECT_EQ(Model::outline(path, {.head = DType::q8_0}).info().bytes, load(path, DType::q8_0).info().bytes);
        EXPECT_EQ(Model::outline(path).with_head(DType::iq4_nl).info().bytes, load(path, DType::iq4_nl).info().bytes);
    }
}

TEST(Head, IsSavedAsItIsHeld) {
    const Model model = load(saved_model(true), DType::q8_0);
    const std::string path = testing::TempDir() + "qlora_head_saved.gguf";
    model.save(path);
    EXPECT_EQ(load(path).logits(ids), model.logits(ids));
    EXPECT_EQ(load(path).info().head, "q8_0");
}

TEST(Head, AdaptersFollowIt) {
    for (const bool tied : {false, true}) {
        const std::string path = saved_model(tied), adapter = testing::TempDir() + "qlora_head_adapter";
        std::filesystem::remove_all(adapter);
        Lora::create(load(path, DType::iq4_nl), {.rank = 2}).save(adapter);
        EXPECT_EQ(Lora::recorded_base(adapter)->head, DType::iq4_nl);
        const Lora followed = Lora::load(load(path), adapter);
        EXPECT_EQ(followed.base().info().head, "iq4_nl");
        EXPECT_EQ(followed.logits(ids), Lora::load(load(path, DType::iq4_nl), adapter).logits(ids));
        EXPECT_NE(Lora::load(load(path), adapter, OnBase::as_held).base().info().head, "iq4_nl");
        EXPECT_THROW((void)Lora::load(load(path, DType::q8_0), adapter), Error);       // another form than recorded

        std::filesystem::remove_all(adapter);
        Lora::create(load(path), {.rank = 2}).save(adapter);
        EXPECT_FALSE(Lora::recorded_base(adapter)->head);
        EXPECT_THROW((void)Lora::load(load(path, DType::q8_0), adapter), Error);
    }
}

}  // namespace head_test
