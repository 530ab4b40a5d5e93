// golden.h - reference files of lines "name hex hex ...": bytes as the reference wrote them.
#pragma once
#include "tests/support/support.h"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <vector>

using Bytes = std::vector<uint8_t>;

inline Bytes bytes_from_hex(const std::string& hex) {
    Bytes out(hex.size() / 2);
    for (size_t i = 0; i < out.size(); ++i) out[i] = uint8_t(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
    return out;
}

// name -> the fields that follow it. Empty, with a test failure, where the file is missing.
inline std::map<std::string, std::vector<Bytes>> read_golden(const std::string& relative) {
    std::map<std::string, std::vector<Bytes>> out;
    std::ifstream file(golden_path(relative));
    EXPECT_TRUE(file.good()) << "missing " << golden_path(relative) << ": run the tests from the root of the checkout";
    for (std::string line, name, hex; std::getline(file, line);) {
        std::istringstream words(line);
        words >> name;
        while (words >> hex) out[name].push_back(bytes_from_hex(hex));
    }
    return out;
}

template <class T>
std::vector<T> as(const Bytes& bytes) {
    std::vector<T> out(bytes.size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
}
