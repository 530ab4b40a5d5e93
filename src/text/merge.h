// merge.h - the greedy merging of BPE, n log n: symbols in a linked list, candidate pairs in a heap, best rank first,
// leftmost first.
//
// A pair in the heap is stale once one of its symbols has changed. It remembers the length of both together: symbols
// only grow, by taking in their right neighbour, so the left symbol and its neighbour of now are as long as that only
// if they are still the two.
#pragma once
#include "src/base/stop.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {

struct Symbol {
    int32_t begin = 0, length = 0;                     // bytes of the text; length 0: merged into its left neighbour
    int32_t previous = -1, next = -1;                  // indices; -1 at the ends
    int32_t id = -1;
};

struct MergeRule { int32_t rank = -1, id = -1; };      // rank < 0: no such merge

// (left, right) -> rule, in a flat open-addressing table: vocabularies have up to half a million merges.
class MergeTable {
public:
    explicit MergeTable(size_t count = 0) {
        size_t size = 16;
        while (size < count * 2) size *= 2;
        slots_.resize(size);
    }
    void add(int32_t left, int32_t right, MergeRule rule) {            // the first, better, rule of a pair stays
        Slot& slot = slots_[find(left, right)];
        if (slot.rule.rank < 0) slot = {left, right, rule};
    }
    MergeRule operator()(int32_t left, int32_t right) const { return slots_[find(left, right)].rule; }
private:
    struct Slot { int32_t left = 0, right = 0; MergeRule rule; };
    size_t find(int32_t left, int32_t right) const {
        uint64_t h = (uint64_t(uint32_t(left)) << 32 | uint32_t(right)) * 0x9E3779B97F4A7C15u;
        for (size_t i = (h ^ h >> 29) & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1))
            if (slots_[i].rule.rank < 0 || (slots_[i].left == left && slots_[i].right == right)) return i;
    }
    std::vector<Slot> slots_;
};

struct MergeScratch {                                  // kept between words
    struct Pair { int32_t rank, left, id, length; };             // length: of both together
    std::vector<Symbol> symbols;
    std::vector<Pair> heap;
    void start() { symbols.clear(); }
    void add(int32_t begin, int32_t length, int32_t id) {
        const int32_t at = int32_t(symbols.size());
        if (at) symbols.back().next = at;
        symbols.push_back({begin, length, at - 1, -1, id});
    }
};

// rule: MergeRule(const Symbol& left, const Symbol& right). Afterwards the symbols with length > 0, in order, are the
// result.
template <class Rule>
void merge_all(MergeScratch& scratch, Rule rule) {
    using Pair = MergeScratch::Pair;
    std::vector<Symbol>& symbols = scratch.symbols;
    std::vector<Pair>& heap = scratch.heap;
    const auto worse = [](const Pair& a, const Pair& b) {
        return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
    };
    const auto candidate = [&](int32_t left, int32_t right) {
        if (left < 0 || right < 0) return false;
        const Symbol &a = symbols[size_t(left)], &b = symbols[size_t(right)];
        const MergeRule found = rule(a, b);
        if (found.rank >= 0) heap.push_back({found.rank, left, found.id, a.length + b.length});
        return found.rank >= 0;
    };
    heap.clear();
    for (int32_t i = 0; i + 1 < int32_t(symbols.size()); ++i) {
        check_stop();                                  // one word may be a whole file
        candidate(i, i + 1);
    }
    std::make_heap(heap.begin(), heap.end(), worse);
    while (!heap.empty()) {
        check_stop();
        std::pop_heap(heap.begin(), heap.end(), worse);
        const Pair best = heap.back();
        heap.pop_back();
        Symbol& left = symbols[size_t(best.left)];
        if (left.length == 0 || left.next < 0) continue;
        Symbol& right = symbols[size_t(left.next)];
        if (left.length + right.length != best.length) continue;
        left.length = best.length;
        left.id = best.id;
        left.next = right.next;
        right.length = 0;
        if (left.next >= 0) symbols[size_t(left.next)].previous = best.left;
        if (candidate(left.previous, best.left)) std::push_heap(heap.begin(), heap.end(), worse);
        if (candidate(best.left, left.next)) std::push_heap(heap.begin(), heap.end(), worse);
    }
}

}}  // namespace qlora
