// settings.h - everything that the command line of finetune can say.
#pragma once
#include "examples/common/load.h"
#include "examples/common/rows.h"

namespace program {

struct Settings {
    ModelFlags model{.quant = "auto"};    // QLoRA: the base is held in NF4, unless it is stored in few bits already
    qlora::LoraOptions lora;
    qlora::TrainOptions train;
    std::vector<std::string> data;                     // one after another
    std::vector<double> shares;    // of the files in a mix, "a.jsonl:0.7" (mix.h); empty: each as large as it is
    std::string valid, out, resume, exclude, layers, ranks, alphas, init = "default", scheduler = "constant",
                                                                    optimizer = "paged_adamw", preset = "none", command,
                                                                    max_time;
    std::string shape, memory_limit, kept_panels;      // to plan for, within, and a size to spend on speed
    std::string adapter_path, config;                  // habits.h; what was given, for run.json
    int64_t last_layers = 0;                           // --num-layers; 0: all, as -1
    RowFlags rows;
    float val_split = 0;                               // -1: as the preset chooses, once the rows are counted
    int64_t eval_every = 0, save_every = 250, keep = 3, log_every = 1;
    int64_t patience = 0, sample_every = 0;
    double save_minutes = 10;
    int64_t page_megabytes = 0;
    bool keep_checkpoints = false;                     // asked for: else a complete run removes its own
    bool light = false;                                // light_recomputation, of all layers
    bool overwrite = false, dry_run = false, json = false;
};

void declare(Flags& flags, Settings& s);
void finish(Settings& s, const Flags& flags);    // after parsing: what follows from several flags; throws UsageError

}  // namespace program
