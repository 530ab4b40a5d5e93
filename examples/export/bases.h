// bases.h - which weights an adapter is merged into: those it was trained on, or the source's own.
//
// A QLoRA adapter was trained on NF4's values, and on them it fits. Quantizing its sum with them once more moves most
// codes back to where they were: most of the adapter is lost. Merged into the source's own weights the sum is quantized
// once.
#pragma once
#include "examples/common/load.h"
#include "examples/export/measure.h"

namespace program {

struct Base {
    std::string name;                                  // "nf4, double-quantized, which the adapter was trained on"
    Loaded loaded;
    double base = 0, adapted = 0;                      // losses: alone, with the adapter
    std::optional<double> result = {};                 // of the merged model
};

// The one the adapter was trained on, or that the flags name; behind it the source as it is stored, where that is
// another one and nobody chose.
std::vector<Base> bases_of(const ModelFlags& model, bool chosen_by_user);

// Fills in the losses; those of the merged models where `results` asks for them.
void measure(std::vector<Base>& bases, const Measure&, qlora::DType type, bool double_quant, bool results);

void print(const std::vector<Base>& bases, const Measure&, size_t taken);

// How much of the adapter is left in a result of that loss; a warning where less than 95 % of its improvement is, or
// more than 5 % of the perplexity of base + adapter is lost.
// on_codes: merged into 4-bit codes made here
void judge(const Base& trained, double result, const std::string& type, bool on_codes);
// lost: 0.1 = perplexity 10 % above the reference's
void warn_of_loss(double lost, const std::string& reference, const std::string& type, bool on_codes = false);

}  // namespace program
