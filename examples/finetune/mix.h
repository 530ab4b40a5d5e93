// mix.h - several data sets in given shares: --data a.jsonl:0.7 --data b.jsonl:0.3. An epoch has as many rows as all of
// them together; of those, each set has its share: some of its rows, or all of them several times.
#pragma once
#include "qlora.h"

namespace program {

// Takes the shares off the paths. Empty: no path has one. All must have one, or none.
std::vector<double> take_shares(std::vector<std::string>& paths);

struct Mix {
    qlora::Dataset rows;
    std::vector<std::string> said;
};    // a line for each set
Mix mixed(const std::vector<qlora::Dataset>& parts, const std::vector<std::string>& paths,
          const std::vector<double>& shares, uint64_t seed);

}    // namespace program
