// pager.h - arrays that are larger than their share of the memory where they are updated: piece by piece they come, are
// updated, and leave. States of an optimizer, which are read and written once a step, in any order.
//
// Every array is cut into as many pieces as the others, the last one shorter; piece i of each comes and leaves with
// piece i of all others. A walk asks for them in turn, forward and then backward, so that a step begins with what the
// last one left there:
//     pager.bring(i, next);  ... start what works on piece(array, i) ...  pager.leave(i);
#pragma once
#include "src/graph/backend.h"

namespace qlora { inline namespace QLORA_ABI {

struct PageRequest {
    struct Array { int64_t bytes = 0, piece = 0; };    // piece: bytes of all pieces but the last
    std::vector<Array> arrays;
    int64_t budget = 0;                                // bytes to hold at a time; 0 = as the backend thinks fit
    std::string folder = {};                           // of a file, for a backend that pages to one
    int64_t bytes() const {
        int64_t sum = 0;
        for (const Array& a : arrays) sum += a.bytes;
        return sum;
    }
    int64_t piece_bytes() const {
        int64_t sum = 0;
        for (const Array& a : arrays) sum += a.piece;
        return sum;
    }
    int64_t pieces() const { return (arrays[0].bytes + arrays[0].piece - 1) / arrays[0].piece; }
};
constexpr int64_t least_window = 3;                    // pieces: one that comes, one at work, one that leaves

struct Pager {
    virtual ~Pager() = default;
    virtual std::string kind() const = 0;              // "file", "managed", "pinned": for people
    virtual int64_t held_bytes() const = 0;            // that count against the budget, at most
    // All of an array, zeros at first. Only between settle() and the next bring().
    virtual const BufferRef& array(size_t) const = 0;
    virtual BufferRef piece(size_t array, int64_t i) const = 0;        // where it is while it is here: always the same
    virtual void bring(int64_t i, int64_t next) = 0;   // next: begin with it already; -1 = none
    virtual void leave(int64_t i) = 0;                 // what was started may finish first
    virtual void settle() = 0;                         // everything is back in its array, and nothing is held
    int64_t moved() const { return moved_; }           // bytes so far, both ways
protected:
    int64_t moved_ = 0;
};

}}  // namespace qlora
