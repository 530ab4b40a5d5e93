// The examples of qlora.h and of the README, which check.sh copies into examples.inc. Runs in a folder with model.gguf
// and chats.jsonl.
#include "qlora.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "examples.inc"

int main() {
    const auto model = qlora::Model::load("model.gguf");
    const auto lora = qlora::Lora::create(model, {.rank = 4});
    const auto data = qlora::Dataset::load("chats.jsonl", model);
    const qlora::TrainOptions options{.max_steps = 2};
    const std::vector<qlora::Tokens> prompts(2, model.tokenizer().encode("The", true));
    for (const Example example : examples) example(model, lora, data, options, "a goal in the last minute", prompts);
    std::printf("%zu examples\n", examples.size());
    return examples.size() == 6 ? 0 : 1;               // five of the header, one of the README
}
