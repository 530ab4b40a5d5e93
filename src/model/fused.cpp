// fused.cpp - the parts of fused linear layers: together for files and for quantization, apart for everybody else.
#include "src/model/fused.h"

#include "src/tensor/encode.h"

#include <algorithm>

namespace qlora { inline namespace QLORA_ABI {
namespace fused_room {

Slot linear_of(const Row& row) { return row.kind == Kind::bias ? Slot(int(row.slot) - module_count) : row.slot; }

bool linear_side(const Row& row) {
    return row.kind == Kind::linear || (row.kind == Kind::bias && int(row.slot) < 2 * module_count);
}

// The draft of the whole: 4-bit codes at once, whose scales the header tells, everything else when its turn comes.
DraftTensor whole(World world, const Draft& draft, const Row& row, int64_t layer, const std::string& name) {
    const Config& c = draft.model.config;
    const Module m = module_of(c, linear_of(row));
    std::vector<DraftTensor> parts;
    Shape shape = shape_of(c, row, layer);
    bool one_type = true;
    shape[0] = 0;
    for (const Slot part : parts_of(c, m)) {
        if (world == World::hf && row_of(c, part).turned && c.adjacent_pairs)
            fail(Errc::unsupported, "save: ", name, ": its queries and keys lie in GGUF's order of rows, and a folder "
                 "of this family holds them fused; load the original Hugging Face folder");
        parts.push_back(draft.at(row.kind == Kind::bias ? bias_of(part) : part, layer));
        shape[0] += parts.back().shape[0];
        one_type = one_type && parts.back().dtype == parts[0].dtype;
    }
    if (!one_type)
        fail(Errc::unsupported, "save: ", name, " would have parts of the types ", name_of(parts[0].dtype), " and ",
             name_of(parts.back().dtype), "; convert the model to one type");
    auto make = [world, &c, m, layer, parts, name] {
        std::vector<Weight> now;
        for (const DraftTensor& part : parts) now.push_back(*part.now());
        return joined_module(world, c, m, layer, now, name);
    };
    if (is_4bit(parts[0].dtype)) return std::make_shared<const Weight>(make());
    return {parts[0].dtype, shape, make};
}

}  // namespace fused_room

Weight joined_module(World world, const Config& c, Module m, int64_t layer, std::span<const Weight> weights,
                     std::string name) {
    std::vector<Part> parts;
    for (const Slot slot : parts_of(c, m))
        parts.push_back({weights[parts.size()], rows_in_module(world, c, slot, layer)});
    return joined(std::move(name), parts);
}

std::vector<Weight> convert_module(const Config& c, Module m, int64_t layer, std::span<const Weight> parts,
                                   DType type, bool double_quant, ThreadPool* pool) {
    std::vector<Weight> out;
    const bool there = std::all_of(parts.begin(), parts.end(), [&](const Weight& w) { return w.dtype == type; });
    if (there || parts.size() == 1 || !is_4bit(type)) {
        for (const Weight& w : parts) out.push_back(convert_weight(w, type, double_quant, pool));
        return out;
    }
    const Weight together = joined_module(World::hf, c, m, layer, parts, parts[0].name);
    const Weight whole = convert_weight(together, type, double_quant, pool);
    for (const Slot slot : parts_of(c, m)) {
        Weight part = rows_of(whole, rows_in_module(World::hf, c, slot, layer));
        part.name = parts[out.size()].name;
        out.push_back(std::move(part));
    }
    return out;
}

void for_each_in_file(World world, const Draft& draft, const EachInFile& f) {
    namespace room = fused_room;
    const Config& c = draft.model.config;
    for_each_tensor(c, [&](const Row& row, int64_t layer) {
        const bool fused = room::linear_side(row) && is_one(world, c, room::linear_of(row));
        if (!fused) return f(row, layer, tensor_name(world, c, row, layer), draft.at(row.slot, layer));
        if (module_of(c, room::linear_of(row)) != room::linear_of(row)) return;
        const std::string name = fused_name(world, c, layer, row);
        f(row, layer, name, room::whole(world, draft, row, layer, name));
    });
}

}}  // namespace qlora
