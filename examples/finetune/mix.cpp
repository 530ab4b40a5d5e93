// mix.cpp - see mix.h.
#include "examples/finetune/mix.h"

#include "examples/common/flags.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <random>

namespace program {

// The number behind the last colon, unless that is part of a name; 0 = none.
static double share_in(const std::string& path, size_t& colon) {
    colon = path.rfind(':');
    std::error_code unknown;
    if (colon == std::string::npos || colon == 0 || std::filesystem::exists(path, unknown)) return 0;
    const std::string number = path.substr(colon + 1);
    char* end = nullptr;
    const double share = std::strtod(number.c_str(), &end);
    const bool plain = !number.empty() && number.find_first_not_of("0123456789.") == std::string::npos && !*end;
    if (plain && !(share > 0))
        throw UsageError("--data " + one_line(path) + ": the share of a file must be above 0; leave the file out");
    return plain ? share : 0;
}

std::vector<double> take_shares(std::vector<std::string>& paths) {
    std::vector<double> shares;
    for (std::string& path : paths) {
        size_t colon = 0;
        if (const double share = share_in(path, colon); share > 0) {
            shares.push_back(share);
            path.resize(colon);
        }
    }
    if (!shares.empty() && shares.size() != paths.size())
        throw UsageError("--data: give every file a share (FILE:0.7), or none of them");
    return shares.size() > 1 ? shares : std::vector<double>{};
}

// `count` rows of `size`: all of them as often as they fit in, and a random choice for the rest.
static std::vector<int64_t> chosen(int64_t size, int64_t count, std::mt19937_64& random) {
    std::vector<int64_t> all(static_cast<size_t>(size)), out;
    std::iota(all.begin(), all.end(), int64_t(0));
    for (int64_t pass = 0; pass < count / size; ++pass) out.insert(out.end(), all.begin(), all.end());
    for (size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random() % i]);
    std::sort(all.begin(), all.begin() + count % size);
    out.insert(out.end(), all.begin(), all.begin() + count % size);
    return out;
}

Mix mixed(const std::vector<qlora::Dataset>& parts, const std::vector<std::string>& paths,
          const std::vector<double>& shares, uint64_t seed) {
    const double whole = std::accumulate(shares.begin(), shares.end(), 0.0);
    int64_t total = 0;
    for (const qlora::Dataset& part : parts) total += part.info().rows;
    std::mt19937_64 random(seed);
    std::vector<qlora::Dataset> picked;
    std::vector<std::string> said;
    for (size_t i = 0; i < parts.size(); ++i) {
        const int64_t size = parts[i].info().rows;
        const int64_t count = std::max<int64_t>(1, std::llround(shares[i] / whole * double(total)));
        picked.push_back(parts[i].pick(chosen(size, count, random)));
        char line[120];
        std::snprintf(line, sizeof line, ": %.3g %% of the rows, %lld an epoch, of the %lld that it has",
                      shares[i] / whole * 100, static_cast<long long>(count), static_cast<long long>(size));
        said.push_back(paths[i] + line);
    }
    return {qlora::Dataset::join(picked), said};
}

}    // namespace program
