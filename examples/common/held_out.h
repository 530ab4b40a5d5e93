// held_out.h - the held-out rows of a run, recorded beside its adapter (held_out.json), so that what is made of the
// adapter later is measured on rows that it was not trained on.
#pragma once
#include "qlora.h"

namespace program {

struct HeldOut {
    std::vector<std::string> paths = {};               // files or folders; none: the run had no held-out rows
    std::string split = {};                            // "valid" of folders
    float fraction = 0;                                // above 0: this share of the rows, drawn by the seed
    uint64_t seed = 0;
    bool each = false;                     // the share was drawn of each file by itself
    qlora::DatasetOptions options = {};    // how rows are read, as in training
};

std::string held_out_path(const std::string& adapter_folder);
void write_held_out(const std::string& adapter_folder, const HeldOut&);
HeldOut read_held_out(const std::string& adapter_folder);          // no paths where nothing is recorded
qlora::Dataset load_held_out(const HeldOut&, const qlora::Tokenizer&);

bool holds_rows(const std::string& path);    // .jsonl, .json, .csv, .tsv or a folder; anything else is running text

}  // namespace program
