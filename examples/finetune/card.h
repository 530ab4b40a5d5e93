// card.h - what a run leaves beside its adapter for people and for other programs: README.md, a model card as Hugging
// Face's hub reads it, and Modelfile, from which Ollama makes a model.
#pragma once
#include "examples/finetune/data.h"
#include "examples/common/run_folder.h"

namespace program {

struct CardFacts {
    int64_t step = 0, steps = 0, best = -1;            // best: the step whose adapter is kept; -1 = the last
    bool complete = false;
};

std::string model_card(const Settings& s, const qlora::Lora& lora, const Data& data, const RunFolder& folder,
                       const CardFacts& facts);
std::string modelfile(const Settings& s, const qlora::Model& model);

}  // namespace program
