// replay_test.cpp - every fuzz target without a fuzzer: its valid inputs, what fuzzing found (tests/fuzz/seeds), and
// both cut and changed.
#include "tests/fuzz/all.h"
#include "tests/support/support.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

namespace replay_test {

using namespace qlora;

std::vector<std::string> names() {
    std::vector<std::string> out;
    for (const auto& [name, target] : fuzz::targets()) out.push_back(name);
    return out;
}

// 1 where the input was read, 0 where it was refused: anything else ends the test.
int read(const fuzz::Target& target, const std::string& bytes) {
    try {
        target.read(bytes);
        return 1;
    } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()), "");
        return 0;
    }
}

std::vector<std::string> kept(const std::string& name) {
    std::vector<std::string> out;
    const std::string folder = "tests/fuzz/seeds/" + name;
    if (!std::filesystem::is_directory(folder)) return out;
    for (const auto& file : std::filesystem::directory_iterator(folder)) out.push_back(read_file(file.path().string()));
    std::sort(out.begin(), out.end());                 // not in the order of the file system
    return out;
}

class Replay : public testing::TestWithParam<std::string> {};

TEST_P(Replay, EndsInAResultOrAnError) {
    const fuzz::Target& target = fuzz::targets().at(GetParam());
    const fuzz::Seeds seeds = target.seeds();
    ASSERT_FALSE(seeds.empty());
    int good = 0;
    for (const std::string& seed : seeds) good += read(target, seed);
    EXPECT_GT(good, 0) << "none of the valid inputs is read: the target tests nothing";
    for (const std::string& found : kept(GetParam())) read(target, found);
    const auto start = std::chrono::steady_clock::now();
    for (const std::string& seed : seeds)
        for (const std::string& bytes : fuzz::damaged(seed, false))
            if (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(1200)) read(target, bytes);
    Rng rng{17, 0, 0};
    for (int i = 0; i < 300 && std::chrono::steady_clock::now() - start < std::chrono::milliseconds(1800); ++i) {
        std::string bytes = seeds[size_t(i) % seeds.size()];
        for (uint64_t changes = 1 + rng.below(3); changes > 0 && !bytes.empty(); --changes) {
            const size_t at = size_t(rng.below(bytes.size()));
            if (const uint64_t how = rng.below(4); how == 0) bytes.resize(at);
            else if (how == 1) bytes.erase(at, 1 + size_t(rng.below(8)));
            else if (how == 2) bytes.insert(at, bytes.substr(size_t(rng.below(bytes.size())), 8));
            else bytes[at] = char(rng.below(256));
        }
        read(target, bytes);
    }
}
INSTANTIATE_TEST_SUITE_P(Fuzz, Replay, testing::ValuesIn(names()), [](const auto& of) { return of.param; });

}  // namespace replay_test
