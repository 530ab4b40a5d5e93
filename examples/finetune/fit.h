// fit.h - training within so much memory: what is given up for it, and the plan of a model that is not there.
#pragma once
#include "examples/finetune/data.h"

namespace program {

struct MemoryBudget {
    int64_t host = 0, device = 0;                      // bytes; 0 = no limit
    bool free_only = false;    // host is what is free beside the model: what is loaded already is not counted again
};
int64_t bytes_of_size(const char* flag, const std::string& text);      // "5.5GiB"; throws UsageError
// "6G", "900M,40G"; empty = no limit. Throws UsageError
MemoryBudget parse_budget(const std::string& text);

void say_planned(const Settings& s);                   // where the device that is planned for is not there
// Refuses a limit of a device where none computes.
void check_budget(const Settings& s, const qlora::Backend& on);

// Changes s.train until the plan fits, the cheapest change first, and says in a line each what it did and what that
// costs. Error{memory} where nothing fits: how much is missing, and what would help.
// A head of fewer bits makes another model, and another adapter on it.
std::vector<std::string> fit(Settings& s, const Flags& flags, qlora::Model& model, qlora::Lora& lora,
                             const qlora::Dataset& data, const MemoryBudget& budget);
// What is left of --memory-limit once all fits keeps decoded weights; says how much and what that gains, where it does.
std::string keep_panels(Settings& s, const Flags& flags, const qlora::Model& model, const qlora::Lora& lora,
                        const qlora::Dataset& data);
// Beside what is in memory once the model is loaded: what training will ask for.
int64_t still_needed(const qlora::MemoryPlan& plan);

int plan_shape(Settings& s, const Flags& flags);       // --dry-run --shape: the exit status

}  // namespace program
