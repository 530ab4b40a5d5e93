// data.h - the rows that finetune trains on and measures with, and what it says about them before a run.
#pragma once
#include "examples/common/held_out.h"
#include "examples/finetune/settings.h"

namespace program {

struct Data {
    qlora::Dataset train;
    std::optional<qlora::Dataset> held_out = {};
    std::vector<std::string> mix = {};                 // of several files: what each of them gives, a line each
    HeldOut record = {};                               // what the held-out rows are, for the adapter's folder
};

Data load_data(const Settings& s, const qlora::Model& model);

qlora::Json as_json(const qlora::DatasetInfo& info);
qlora::Json as_json(const qlora::MemoryPlan& plan);
void print_data(const std::string& label, const qlora::DatasetInfo& info);
void print_sample(const Data& data, const qlora::Model& model);
void print_plan(const qlora::MemoryPlan& plan);

}  // namespace program
