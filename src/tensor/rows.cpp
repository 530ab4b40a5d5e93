// rows.cpp - rows of a stored tensor as a tensor of their own, and the way back. Families keep queries, keys and values
// in one matrix, which is stored and quantized as one; what computes has them apart.
//
// Element e of 4-bit codes has the scale of block e / block, and that has the group block / block2. A range of rows
// that begins inside of a block or a group is made of smaller ones, each with what it had as a part of the larger: the
// values stay as they were, and joined() finds the larger ones again.
#include "src/tensor/weight.h"

#include "src/base/mapped_file.h"

#include <algorithm>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace rows_room {

constexpr int64_t least_block = 16, block_of_codes = 64, group_of_blocks = 256;    // the latter: the reference's

struct Copied {                                        // what a weight owns that lies in no file
    std::vector<uint32_t> data;                        // aligned for every element
    std::vector<uint8_t> absmax_code;
    std::vector<float> codebook, map, absmax, absmax2;
    std::shared_ptr<const void> rest;                  // the memory of what was not copied

    uint8_t* bytes(int64_t count) {
        data.resize(size_t(count + 3) / 4);
        return reinterpret_cast<uint8_t*>(data.data());
    }
};

int64_t row_of(const Weight& w) { return w.shape.empty() || !w.shape[0] ? 0 : w.elements() / w.shape[0]; }

// Neighbours in one.
std::vector<RowRange> merged(const Weight& whole, std::span<const RowRange> ranges) {
    const int64_t all = whole.shape.empty() ? 0 : whole.shape[0];
    std::vector<RowRange> out;
    for (const RowRange& r : ranges) {
        if (r.first < 0 || r.count < 0 || r.first > all - r.count)
            fail(Errc::argument, whole.name, ": rows ", r.first, " to ", r.first + r.count, " of ", all);
        if (!out.empty() && out.back().first + out.back().count == r.first) out.back().count += r.count;
        else out.push_back(r);
    }
    return out;
}

// The largest power-of-two part of `unit` elements at whose multiples all ranges begin, and end but for the last.
int64_t common(int64_t unit, std::span<const RowRange> ranges, int64_t row) {
    for (size_t i = 0; i < ranges.size(); ++i)
        while (ranges[i].first * row % unit || (i + 1 < ranges.size() && ranges[i].count * row % unit)) unit /= 2;
    return unit;
}

// Bytes of the ranges, one after another; `whole` has rows of `bytes` bytes.
const uint8_t* gathered(Copied& to, const uint8_t* from, std::span<const RowRange> ranges, int64_t row, DType type) {
    int64_t elements = 0;
    for (const RowRange& r : ranges) elements += r.count * row;
    uint8_t* out = to.bytes(bytes_of(type, elements));
    const TypeInfo& info = type_info(type);
    for (uint8_t* at = out; const RowRange& r : ranges) {
        const int64_t bytes = bytes_of(type, r.count * row);
        std::memcpy(at, from + r.first * row / info.block * info.bytes, size_t(bytes));
        at += bytes;
    }
    return out;
}

// The scales of the ranges, in blocks of `block` elements and groups of `group`.
void cut_scales(Copied& to, const FourBit& from, FourBit& q, std::span<const RowRange> ranges, int64_t row,
                int64_t block, int64_t group) {
    for (const RowRange& r : ranges) {
        const int64_t begin = r.first * row, end = begin + r.count * row;
        for (int64_t e = begin; e < end; e += block) {
            if (from.absmax) to.absmax.push_back(from.absmax[e / from.block]);
            else to.absmax_code.push_back(from.absmax_code[e / from.block]);
        }
        for (int64_t e = begin; e < end && !from.absmax; e += group)
            to.absmax2.push_back(from.absmax2[e / from.block / from.block2]);
    }
    q.block = block;
    q.block2 = group / block;
    if (from.absmax) q.absmax = to.absmax.data();
    else q.absmax_code = to.absmax_code.data(), q.absmax2 = to.absmax2.data();
}

// Scales of tiles stay where they are, which one range of whole tiles allows.
void cut_tiles(const Weight& whole, Tiles& t, std::span<const RowRange> ranges) {
    if (!t.scale || t.rows >= whole.shape[0]) return;
    const RowRange& r = ranges[0];
    if (ranges.size() > 1 || r.first % t.rows || (r.count % t.rows && r.first + r.count < whole.shape[0]))
        fail(Errc::unsupported, whole.name, ": rows ", r.first, " to ", ranges.back().first + ranges.back().count,
             " are not whole tiles of ", t.rows, " rows (", name_of(whole.dtype),
             "), so that they cannot be cut out; load the original model in f32, f16 or bf16");
    t.scale += r.first / t.rows * t.across();
}

Weight four_bit_rows(const Weight& whole, std::span<const RowRange> ranges, int64_t row) {
    const FourBit& from = whole.quant;
    const int64_t group = from.absmax ? from.block : from.block * from.block2, first = ranges[0].first * row;
    const int64_t block = common(from.block, ranges, row), groups = std::max(common(group, ranges, row), block);
    if (block < least_block)
        fail(Errc::unsupported, whole.name, ": rows ", ranges[0].first, " to ",
             ranges.back().first + ranges.back().count, " of ", row, " elements begin inside of ", least_block,
             " codes, so that they cannot be cut out; load the original model in f32, f16 or bf16, and do not "
             "quantize it");
    Weight part = whole;
    FourBit& q = part.quant;
    auto copy = std::make_shared<Copied>();
    if (ranges.size() == 1) part.data += first / 2;
    else part.data = gathered(*copy, whole.data, ranges, row, whole.dtype);
    if (ranges.size() == 1 && block == from.block && groups == group) {
        if (q.absmax) q.absmax += first / block;
        else q.absmax_code += first / block, q.absmax2 += first / group;
        return part;
    }
    cut_scales(*copy, from, q, ranges, row, block, groups);
    if (ranges.size() > 1) {
        copy->codebook.assign(from.codebook, from.codebook + 16);
        q.codebook = copy->codebook.data();
        if (from.absmax_map) copy->map.assign(from.absmax_map, from.absmax_map + 256);
        if (from.absmax_map) q.absmax_map = copy->map.data();
        part.file = nullptr;
        whole.check();
    } else {
        copy->rest = whole.owner;
    }
    part.owner = std::move(copy);
    return part;
}

// ---- The way back.

bool same_scales(const FourBit& a, const FourBit& b) {
    return !a.absmax == !b.absmax && a.offset == b.offset && std::memcmp(a.codebook, b.codebook, 64) == 0 &&
           (a.absmax || a.absmax_map == b.absmax_map || std::memcmp(a.absmax_map, b.absmax_map, 1024) == 0);
}

// Whether the parts lie one behind the other in memory as the whole would: then it is a view.
bool in_place(std::span<const Part> parts, int64_t row) {
    const Weight& first = parts[0].weight;
    const FourBit& f = first.quant;
    const TypeInfo& info = type_info(first.dtype);
    int64_t rows = 0;
    for (const Part& part : parts) {
        const Weight& w = part.weight;
        const FourBit& q = w.quant;
        const int64_t begin = rows * row, group = q.block * q.block2;
        if (part.ranges.size() != 1 || part.ranges[0].first != rows || begin % info.block || w.held ||
            w.data != first.data + begin / info.block * info.bytes || w.file != first.file)
            return false;
        if (is_4bit(w.dtype)) {
            if (q.block != f.block || q.block2 != f.block2 || begin % q.block) return false;
            if (q.absmax && q.absmax != f.absmax + begin / q.block) return false;
            if (!q.absmax && (q.absmax_code != f.absmax_code + begin / q.block || begin % group ||
                              q.absmax2 != f.absmax2 + begin / group))
                return false;
        }
        rows += w.shape[0];
    }
    return true;
}

// What each run of `unit` elements of the whole is multiplied with.
struct Scale {
    float absmax = 0;                                  // of double quantization: of the group
    uint8_t code = 0;
};
std::vector<Scale> scales_of(const std::string& name, std::span<const Part> parts, int64_t row, int64_t elements,
                             int64_t unit) {
    std::vector<Scale> out(size_t((elements + unit - 1) / unit));
    for (const Part& part : parts) {
        const FourBit& q = part.weight.quant;
        int64_t at = 0;                                // in the part
        for (const RowRange& r : part.ranges) {
            const int64_t begin = r.first * row, end = begin + r.count * row;
            if (begin % unit || at % unit)
                fail(Errc::unsupported, name, ": its parts are quantized in blocks that do not fit together; load the "
                     "original model, with quantize = ", name_of(part.weight.dtype));
            for (int64_t e = begin; e < end; e += unit, at += unit) {
                const int64_t block = at / q.block;
                out[size_t(e / unit)] = q.absmax ? Scale{q.absmax[block], 0}
                                                 : Scale{q.absmax2[block / q.block2], q.absmax_code[block]};
            }
            at += end - begin - (end - begin + unit - 1) / unit * unit;
        }
    }
    return out;
}

// Whether every `many` neighbours are equal, ...
template <class Same>
bool uniform(const std::vector<Scale>& scales, int64_t many, const Same& same) {
    for (size_t i = 0; i < scales.size(); ++i)
        if (!same(scales[i], scales[i / size_t(many) * size_t(many)])) return false;
    return true;
}
// ... and the largest such number.
template <class Same>
int64_t most(const std::vector<Scale>& scales, int64_t start, const Same& same) {
    while (start > 1 && !uniform(scales, start, same)) start /= 2;
    return start;
}

void join_scales(Copied& to, FourBit& q, const std::string& name, std::span<const Part> parts, int64_t row,
                 int64_t elements) {
    int64_t unit = parts[0].weight.quant.block, block = block_of_codes, group = block_of_codes * group_of_blocks;
    for (const Part& part : parts) {
        if (!same_scales(q, part.weight.quant))
            fail(Errc::unsupported, name, ": its parts are quantized apart, and a file of this family holds them as "
                 "one; convert the original model again");
        unit = std::min(unit, part.weight.quant.block);
        block = std::max(block, part.weight.quant.block);
        group = std::max(group, part.weight.quant.block * part.weight.quant.block2);
    }
    const std::vector<Scale> scales = scales_of(name, parts, row, elements, unit);
    const auto same_group = [](const Scale& a, const Scale& b) { return a.absmax == b.absmax; };
    const auto same_block = [](const Scale& a, const Scale& b) { return a.absmax == b.absmax && a.code == b.code; };
    block = most(scales, block / unit, same_block);    // in units
    group = q.absmax ? block * q.block2 : std::max(most(scales, group / unit, same_group), block);
    for (size_t i = 0; i < scales.size(); i += size_t(block))
        if (q.absmax) to.absmax.push_back(scales[i].absmax);
        else to.absmax_code.push_back(scales[i].code);
    for (size_t i = 0; i < scales.size() && !q.absmax; i += size_t(group)) to.absmax2.push_back(scales[i].absmax);
    q.block = block * unit;
    q.block2 = group / block;
    to.codebook.assign(q.codebook, q.codebook + 16);
    q.codebook = to.codebook.data();
    if (q.absmax) {
        q.absmax = to.absmax.data();
        return;
    }
    to.map.assign(q.absmax_map, q.absmax_map + 256);
    q.absmax_map = to.map.data();
    q.absmax_code = to.absmax_code.data();
    q.absmax2 = to.absmax2.data();
}

Part on_host(const Part& part) { return part.weight.held ? Part{part.weight.held->download(), part.ranges} : part; }

// As floats, where the parts are of different types.
Weight joined_floats(std::string name, Shape shape, std::span<const Part> parts, int64_t row) {
    std::vector<float> values(size_t(elements_of(shape)));
    for (const Part& part : parts) {
        const std::vector<float> from = part.weight.decoded();
        auto at = from.begin();
        for (const RowRange& r : part.ranges) {
            std::copy_n(at, r.count * row, values.begin() + r.first * row);
            at += r.count * row;
        }
    }
    return dense_weight(std::move(name), std::move(shape), std::move(values));
}

}  // namespace rows_room

Weight rows_of(const Weight& whole, std::span<const RowRange> wanted) {
    namespace room = rows_room;
    const int64_t row = room::row_of(whole);
    const std::vector<RowRange> ranges = room::merged(whole, wanted);
    Weight part = whole;
    if (ranges.empty()) fail(Errc::argument, whole.name, ": no rows of it are asked for");
    if (is_4bit(whole.dtype)) part = room::four_bit_rows(whole, ranges, row);
    const TypeInfo& info = type_info(whole.dtype);
    if (!is_4bit(whole.dtype) && room::common(info.block, ranges, row) < info.block)
        fail(Errc::unsupported, whole.name, ": rows ", ranges[0].first, " to ",
             ranges.back().first + ranges.back().count, " of ", row, " elements are not whole blocks of ", info.block,
             " (", info.name, "), so that they cannot be cut out; load the original model in f32, f16 or bf16");
    room::cut_tiles(whole, part.tiles, ranges);
    part.shape[0] = 0;
    for (const RowRange& r : ranges) part.shape[0] += r.count;
    if (is_4bit(whole.dtype)) return part;
    if (ranges.size() == 1) {
        part.data += ranges[0].first * row / info.block * info.bytes;
        return part;
    }
    auto copy = std::make_shared<room::Copied>();
    part.data = room::gathered(*copy, whole.data, ranges, row, whole.dtype);
    whole.check();
    part.owner = std::move(copy);
    part.file = nullptr;
    return part;
}

Weight joined(std::string name, std::span<const Part> given) {
    namespace room = rows_room;
    std::vector<Part> parts;
    for (const Part& part : given) parts.push_back(room::on_host(part));
    const int64_t row = room::row_of(parts[0].weight);
    Shape shape = parts[0].weight.shape;
    bool one_type = true;
    shape[0] = 0;
    for (const Part& part : parts) {
        shape[0] += part.weight.shape[0];
        one_type = one_type && part.weight.dtype == parts[0].weight.dtype;
    }
    const TypeInfo& info = type_info(parts[0].weight.dtype);
    const bool codes = is_4bit(parts[0].weight.dtype);
    // of nvfp4 a table for all of a tensor, which parts of several tensors do not share
    const float* of_all = codes ? nullptr : parts[0].weight.quant.absmax_map;
    const bool apart = of_all && std::any_of(parts.begin(), parts.end(), [&](const Part& part) {
        return std::memcmp(part.weight.quant.absmax_map, of_all, 256 * sizeof(float)) != 0;
    });
    if (!one_type || apart || parts[0].weight.tiles.scale || (!codes && row % info.block))
        return room::joined_floats(std::move(name), shape, parts, row);
    Weight whole = parts[0].weight;
    whole.name = std::move(name);
    whole.shape = shape;
    if (room::in_place(parts, row)) return whole;
    auto copy = std::make_shared<room::Copied>();
    if (codes) room::join_scales(*copy, whole.quant, whole.name, parts, row, whole.elements());
    uint8_t* out = copy->bytes(bytes_of(whole.dtype, whole.elements()));
    for (const Part& part : parts) {
        const uint8_t* from = part.weight.data;
        for (const RowRange& r : part.ranges) {
            const int64_t bytes = bytes_of(whole.dtype, r.count * row);
            std::memcpy(out + r.first * row / info.block * info.bytes, from, size_t(bytes));
            from += bytes;
        }
        part.weight.check();
    }
    whole.data = out;
    whole.owner = std::move(copy);
    whole.file = nullptr;
    return whole;
}

Weight transposed(const Weight& w) {
    const RowRange all{0, w.shape.size() == 2 ? w.shape[1] : 0};
    return Stored{std::make_shared<const Weight>(w), {all}, true}.now();
}

// Rows of a transposed tensor are columns of the stored one.
Weight Stored::now() const {
    namespace room = rows_room;
    const Weight& w = *tensor;
    if (!transpose) return rows.empty() ? w : rows_of(w, rows);
    const int64_t size = type_info(w.dtype).bytes, columns = w.shape.size() == 2 ? w.shape[1] : 0;
    if (w.shape.size() != 2 || type_info(w.dtype).block != 1 || is_4bit(w.dtype))
        fail(Errc::unsupported, w.name, ": a tensor of type ", name_of(w.dtype), " and shape ", w.shape,
             " cannot be transposed");
    const std::vector<RowRange> all{{0, columns}};
    Weight out = w;
    std::swap(out.shape[0], out.shape[1]);
    const std::vector<RowRange> ranges = room::merged(out, rows.empty() ? all : rows);
    auto copy = std::make_shared<room::Copied>();
    out.shape[0] = 0;
    for (const RowRange& r : ranges) out.shape[0] += r.count;
    uint8_t* to = copy->bytes(out.elements() * size);
    constexpr int64_t tile = 16;                       // rows that are read together: a line of the cache each
    for (const RowRange& r : ranges) {
        for (int64_t first = 0; first < out.shape[1]; first += tile)
            for (int64_t column = 0; column < r.count; ++column)
                for (int64_t i = first; i < std::min(first + tile, out.shape[1]); ++i)
                    std::memcpy(to + (column * out.shape[1] + i) * size,
                                w.data + (i * columns + r.first + column) * size, size_t(size));
        to += r.count * out.shape[1] * size;
    }
    w.check();
    out.data = reinterpret_cast<const uint8_t*>(copy->data.data());
    out.owner = std::move(copy);
    out.file = nullptr;
    return out;
}

}}  // namespace qlora
