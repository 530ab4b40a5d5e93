// panels.h - decoded panels of frozen weights that stay in memory, as far as a budget goes.
//
// A product decodes and packs a weight each time (gemm.cpp), which costs as much as 10 to 20 rows of x do. What is
// packed is the same bytes every time, 4 or 2 for an element of which half a byte is stored: of a model not all of it
// may fit. Which panels are kept is decided once, from a list of the products of a run, and their memory is taken then.
#pragma once
#include "src/cpu/gemm.h"

#include <functional>
#include <map>
#include <span>

namespace qlora { inline namespace QLORA_ABI {

struct PanelUse {                                      // how often a run has products with this weight, in this pass
    WeightPtr weight;
    Pass pass;
    int64_t times;
};

// For products that never run at once. The weights stay as long as it does, so that panels are always theirs.
class PanelStore {
public:
    using Allocate = std::function<std::shared_ptr<char>(int64_t bytes)>;      // aligned to a cache line
    PanelStore(const Cpu&, std::span<const PanelUse>, int64_t budget, const Allocate&);
    int64_t bytes() const { return bytes_; }           // of the panels that are kept
    KeptPanels* find(const WeightRef&, Pass);          // null: not kept
private:
    struct Key {
        const void* data;
        int64_t rows, cols;                            // a part of a matrix begins where the matrix does
        Pass pass;
        auto operator<=>(const Key&) const = default;
    };
    std::vector<WeightPtr> weights_;
    std::map<Key, KeptPanels> kept_;
    std::shared_ptr<char> memory_;
    int64_t bytes_ = 0;
};

}}  // namespace qlora
