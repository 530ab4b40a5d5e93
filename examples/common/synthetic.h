// synthetic.h - GGUF files of random weights in the shape of real models, for measuring speed without a download.
#pragma once
#include <string>
#include <vector>

namespace program {

std::vector<std::string> synthetic_shapes();           // "tiny", "135m", ... "70b"
// "nf4", "q4_k", ...: what the linear layers and the embedding are held in
std::vector<std::string> synthetic_types();
// Writes it there once; returns its path. Of nf4 and fp4, which are made when a model is loaded, the file that they are
// made from.
// the same without its weights: as large, but nothing of it is written and none of the disk is taken
std::string outline_of_model(const std::string& shape, const std::string& type, const std::string& folder);
std::string synthetic_model(const std::string& shape, const std::string& type, const std::string& folder);

}  // namespace program
