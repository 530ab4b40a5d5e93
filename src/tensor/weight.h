// weight.h - a frozen tensor in its stored form: dense, GGUF blocks, or codes of 4 or 8 bits with scales beside them.
#pragma once
#include "src/tensor/dtype.h"

namespace qlora { inline namespace QLORA_ABI {

class MappedFile;

// The scales of 4-bit codes. The tensor is flattened row-major and cut into blocks of `block` elements (a block may
// straddle rows):
//   w[e] = codebook[code[e]] * absmax(e / block)
//   absmax(b) = absmax[b]                                                    (single)
//             = absmax_map[absmax_code[b]] * absmax2[b / block2] + offset    (double quantization)
// Pointers are borrowed; the Weight that holds this owns the memory.
struct FourBit {
    int64_t block = 64, block2 = 256;
    const float* codebook = nullptr;                   // [16]
    const float* absmax = nullptr;                     // [blocks], or null with double quantization
    const uint8_t* absmax_code = nullptr;              // [blocks]
    const float* absmax_map = nullptr;                 // [256]
    const float* absmax2 = nullptr;                    // [ceil(blocks / block2)]
    float offset = 0;
    DType source = DType::f32;    // of the matrix that was quantized: bitsandbytes keeps it beside the codes
    float scale(int64_t b) const {
        return absmax ? absmax[b] : absmax_map[absmax_code[b]] * absmax2[b / block2] + offset;
    }
};

// The scales of f8_e4m3, one for each tile of a matrix whose rows have `row` elements; tiles at its ends may be cut:
//   w[r, c] = e4m3(code[r, c]) * scale[r / rows, c / cols]
struct Tiles {
    const float* scale = nullptr;                      // [ceil(rows of the matrix / rows), across()], borrowed too
    int64_t rows = 1, cols = 1, row = 1;
    int64_t across() const { return (row + cols - 1) / cols; }
    int64_t count(int64_t elements) const {            // 0: of a weight that has none
        return scale ? (elements / row + rows - 1) / rows * across() : 0;
    }
};

// What a kernel needs to read a stored matrix: borrowed, trivially copyable. A float matrix of the graph is one too
// (dtype f32).
struct WeightRef {
    DType dtype = DType::f32;
    const void* data = nullptr;                        // packed codes: element e in byte e / 2, high nibble first
    FourBit quant;                                     // nf4 and fp4; of nvfp4 absmax_map, see float8.h
    int64_t rows = 0, cols = 0;                        // {out, in}
    Tiles tiles = {};                                  // f8_e4m3
    int64_t bytes() const;                             // all of it: codes and scales
};

// Decodes `count` elements from flat position `first`, which may start inside a block.
void decode(const WeightRef&, int64_t first, int64_t count, float* out);

struct Weight;
using WeightPtr = std::shared_ptr<const Weight>;

// Of a weight that lies in the memory of a backend and not in the host's: the way back.
struct Held {
    virtual ~Held() = default;
    virtual Weight download() const = 0;
};

struct Weight {
    std::string name;
    DType dtype = DType::f32;
    Shape shape;                                       // {out, in} or {n}
    const uint8_t* data = nullptr;
    FourBit quant;
    Tiles tiles;
    std::shared_ptr<const void> owner;                 // the mapped file or the allocation behind the pointers
    const MappedFile* file = nullptr;                  // the mapped file behind them, if any
    std::shared_ptr<const void> counted;    // of memory of its own: its part of a backend's limit (memory_limit.h)
    std::shared_ptr<const Held> held;    // if set, data and quant point into the memory of a backend: see on_host()

    int64_t elements() const { return elements_of(shape); }
    int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
    int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
    int64_t bytes() const { return flat().bytes(); }
    WeightRef ref() const { return {dtype, data, quant, rows(), cols(), tiles}; }
    WeightRef flat() const { return {dtype, data, quant, 1, elements(), tiles}; }      // right for any dimensions
    std::vector<float> decoded() const;                // the whole tensor as floats
    void check() const;    // Error{io} if its file was cut or written to: what was read from it is not the weight
};

// The same weight in other memory: copy(from, bytes) of each of its arrays gives the copy, which it owns.
template <class F>
Weight moved(const Weight& w, const F& copy) {
    Weight out = w;
    out.file = nullptr;
    out.held = nullptr;
    auto owners = std::make_shared<std::vector<std::shared_ptr<const void>>>();
    const auto move = [&]<class T>(const T*& at, int64_t count) {
        if (!at) return;
        owners->push_back(copy(static_cast<const void*>(at), count * int64_t(sizeof(T))));
        at = static_cast<const T*>(owners->back().get());
    };
    move(out.data, bytes_of(w.dtype, w.elements()));
    FourBit& q = out.quant;
    const int64_t blocks = (w.elements() + q.block - 1) / q.block;
    move(q.codebook, 16);
    move(q.absmax, blocks);
    move(q.absmax_code, blocks);
    move(q.absmax_map, 256);
    move(q.absmax2, (blocks + q.block2 - 1) / q.block2);
    move(out.tiles.scale, w.tiles.count(w.elements()));
    out.owner = owners;
    return out;
}

WeightPtr on_host(WeightPtr);                          // itself, or a copy of what a backend holds
Weight dense_weight(std::string name, Shape shape, std::vector<float> values);
// Some rows of a tensor as one of their own: a single range lies in its memory, several are gathered. 4-bit codes keep
// their values to the bit: where a range does not begin with a block of scales, the part has smaller blocks.
struct RowRange { int64_t first = 0, count = 0; };
Weight rows_of(const Weight&, std::span<const RowRange>);
// The way back: the tensor of which part i holds the rows ranges[i], and which has no others. 4-bit parts must have
// been cut from one tensor: its blocks are found again.
struct Part { Weight weight; std::vector<RowRange> ranges; };
Weight joined(std::string name, std::span<const Part>);
Weight transposed(const Weight&);                      // {m, n} of dense elements -> {n, m}

// A tensor as a file has it, and what of it is meant: nothing is copied before somebody asks.
struct Stored {
    WeightPtr tensor = nullptr;
    std::vector<RowRange> rows = {};                   // of the (transposed) tensor; empty: all
    bool transpose = false;
    Weight now() const;
};
void align(Weight&);    // copies a dense or block tensor that a file put where kernels cannot read its elements

}}  // namespace qlora
