// reference.h - the goldens of tools/make_family_golden.py: models whose weights follow a formula, and comparisons of
// scores.
#pragma once
#include "src/format/safetensors.h"
#include "tests/model/tiny.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

namespace reference {

using namespace qlora;

inline Json golden(const std::string& name) {
    const std::string path = golden_path("model/" + name);
    return Json::parse(read_file(path), path);
}

// The weights of the references follow this formula.
inline std::vector<float> values(const std::string& name, int64_t count, double size) {
    int64_t seed = 0;
    for (size_t i = 0; i < name.size(); ++i) seed += int64_t(i + 1) * name[i];
    std::vector<float> v;
    for (int64_t i = 0; i < count; ++i)
        v.push_back(float(size * std::sin(double(seed % 1000) + 1.7 * double(i) + 0.01 * double(i) * double(i))));
    return v;
}

inline std::string folder_of(const std::string& name, const Json& reference) {
    const std::string folder = testing::TempDir() + "qlora_family_" + name;
    std::filesystem::remove_all(folder);
    std::filesystem::create_directory(folder);
    std::ofstream(folder + "/config.json") << reference.find("config")->dump();
    SafeTensorsWriter w;
    for (const auto& [tensor, dims] : reference.find("tensors")->object()) {
        Shape shape;
        for (const Json& d : dims.array()) shape.push_back(d.integer());
        const auto has = [&of = tensor](const char* word) { return of.find(word) != of.npos; };
        const bool norm = has("norm") || has("ln_"), embedding = has("embed") || has("wte") || has("wpe");
        std::vector<float> v = values(tensor, elements_of(shape), norm ? 0.1 : embedding ? 1.0 : 0.3);
        if (norm) for (float& x : v) x += 1;
        w.add(tensor, shape, v);
    }
    w.write(folder + "/model.safetensors");
    return folder;
}

// The largest difference, relative to the largest score. Rows that the reference left out are null.
inline double difference(const std::vector<float>& logits, const Json& rows) {
    const size_t width = logits.size() / rows.array().size();
    double most = 0, largest = 0;
    for (size_t r = 0; r < rows.array().size(); ++r) {
        const Json::Array& row = rows.array()[r].array();
        if (row.empty()) continue;
        EXPECT_EQ(row.size(), width);
        for (size_t i = 0; i < std::min(width, row.size()); ++i) {
            most = std::max(most, std::fabs(logits[r * width + i] - row[i].number()));
            largest = std::max(largest, std::fabs(row[i].number()));
        }
    }
    EXPECT_GT(largest, 0);
    return std::isfinite(most) ? most / largest : INFINITY;
}

// Measured: below 1e-6 for every family, 5e-6 where singular vectors are involved.
inline void expect_rows(const std::vector<float>& logits, const Json& rows) {
    EXPECT_LE(difference(logits, rows), 1e-5);
}

inline Tokens reference_ids() {
    Tokens ids;
    const Json families = golden("families.json");
    for (const Json& v : families.find("ids")->array()) ids.push_back(Token(v.integer()));
    return ids;
}

}  // namespace reference
