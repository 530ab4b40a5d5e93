// panels.cpp - which panels are kept: those first of which a byte saves most, and of such, in the order of the list.
//
// Decoding an element takes about the same time in either pass, so a byte is worth elements * times / bytes. With
// Compute::mixed and recomputation that is the same forward (two products, 4 bytes) and back (one, 2 bytes). Then back
// comes first: 250 MB of it made a step of SmolLM2-135M (Q4_1, 64 rows, two Zen 4 cores) 7 % faster, forward 4 %; of
// the 1B shape 2 GB of either 6 %.
#include "src/cpu/panels.h"

#include "src/base/large_pages.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

PanelStore::PanelStore(const Cpu& cpu, std::span<const PanelUse> uses, int64_t budget, const Allocate& allocate) {
    struct Wish { WeightPtr weight; Key key; int64_t bytes, times; };
    std::vector<Wish> wishes;
    // in the list: products with one weight count together. In an outline weights have no data to tell them apart.
    std::map<std::pair<const Weight*, Pass>, size_t> places;
    for (const PanelUse& use : uses) {
        const WeightRef w = use.weight->ref();
        if (w.dtype == DType::f32) continue;           // nothing is decoded
        const auto [at, added] = places.try_emplace({use.weight.get(), use.pass}, wishes.size());
        if (added)
            wishes.push_back({use.weight, {w.data, w.rows, w.cols, use.pass}, panel_bytes(cpu, w, use.pass), 0});
        wishes[at->second].times += use.times;
    }
    const auto worth = [](const Wish& wish) {
        return double(wish.key.rows) * double(wish.key.cols) * double(wish.times) / double(wish.bytes);
    };
    std::stable_sort(wishes.begin(), wishes.end(), [&](const Wish& a, const Wish& b) {
        return worth(a) != worth(b) ? worth(a) > worth(b) : a.key.pass > b.key.pass;
    });
    std::vector<const Wish*> chosen;
    for (const Wish& wish : wishes) {
        if (wish.bytes > budget - bytes_) continue;
        chosen.push_back(&wish);
        bytes_ += wish.bytes;
    }
    if (bytes_ == 0) return;
    memory_ = allocate(bytes_);
    wish_large_pages(memory_.get(), size_t(bytes_));
    char* next = memory_.get();
    for (const Wish* wish : chosen) {
        weights_.push_back(wish->weight);
        kept_.emplace(wish->key, KeptPanels{next});
        next += wish->bytes;
    }
}

KeptPanels* PanelStore::find(const WeightRef& w, Pass pass) {
    const auto at = kept_.find({w.data, w.rows, w.cols, pass});
    return at == kept_.end() ? nullptr : &at->second;
}

}}  // namespace qlora
