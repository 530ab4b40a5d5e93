// samples.h - two answers of the model, before and after: what a loss cannot show.
#pragma once
#include "examples/finetune/data.h"

namespace program {

struct Sample {
    qlora::Tokens prompt;                              // a row up to its first trained token
    std::string question, expected, before, after;     // one line each
};

// Of the held-out rows where there are some, else of the rows that are trained on. Text, which has no questions, gives
// none.
std::vector<Sample> pick_samples(const Data& data, const qlora::Tokenizer& tokenizer, size_t count = 2);
std::string answer(const qlora::Lora& lora, const Sample& sample);     // greedy

}  // namespace program
