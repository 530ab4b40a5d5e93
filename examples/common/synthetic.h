// synthetic.h - GGUF files of random weights in the shape of real models, for measuring speed without a download.
#pragma once
#include <string>
#include <vector>

namespace program {

std::vector<std::string> synthetic_shapes();           // "tiny", "135m", "1b"
std::string synthetic_model(const std::string& shape, const std::string& folder);    // writes it there once; returns its path

}  // namespace program
