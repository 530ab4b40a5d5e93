// every_set.h - the instruction sets that a test runs on, one after the other: those of this machine, from the one that
// QLORA_ISA names (or the best) down. tests/cpu/kernels_test.cpp says which are missing.
#pragma once
#include "src/cpu/kernels.h"

#include <algorithm>
#include <functional>
#include <vector>

namespace every_set_support {

inline std::vector<std::reference_wrapper<const qlora::Kernels>> every_set() {
    const auto all = qlora::all_kernels();
    std::vector<std::reference_wrapper<const qlora::Kernels>> sets;
    for (auto at = std::find(all.begin(), all.end(), &qlora::best_kernels()); at != all.end(); ++at)
        if ((*at)->supported()) sets.push_back(**at);
    std::reverse(sets.begin(), sets.end());            // the portable one first, against which others are compared
    return sets;
}

}  // namespace every_set_support
