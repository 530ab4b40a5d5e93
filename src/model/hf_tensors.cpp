// hf_tensors.cpp - where the tensors of a Hugging Face folder lie, and bitsandbytes' 4-bit layout.
#include "src/model/hf_model.h"

#include "src/tensor/nf4.h"

#include <cmath>
#include <cstring>
#include <set>

namespace qlora { inline namespace QLORA_ABI {

namespace hf_tensors_room {

// The index names files; a name that leaves the folder would let a download read anything on this machine.
void check_file_name(const std::string& name, const std::string& where) {
    const bool plain = !name.empty() && name.find_first_of(std::string_view("/\\:\0", 4)) == name.npos &&
                       name[0] != '.';
    if (!plain || name.size() > 255) fail(Errc::format, where, ": \"", name, "\" is not a plain file name");
}

}  // namespace hf_tensors_room

HfTensors::HfTensors(const Source& folder) : folder_(folder) {
    constexpr const char *single = "model.safetensors", *list = "model.safetensors.index.json";
    if (has_file(folder, single) && !has_file(folder, list)) {
        add(single);
        return;
    }
    if (!has_file(folder, list)) {
        const bool torch = has_file(folder, "pytorch_model.bin") || has_file(folder, "pytorch_model.bin.index.json");
        fail(Errc::io, "load ", folder.name(),
             torch ? ": only pytorch_model.bin is there; convert it to safetensors first"
                   : ": there is neither model.safetensors nor model.safetensors.index.json");
    }
    const std::string index = path_in(folder, list);
    const Json json = Json::parse(text_of(folder, list, int64_t(64) << 20), index);
    const Json* map = json.find("weight_map");
    if (!map) fail(Errc::format, index, ": weight_map is missing");
    std::set<std::string> files;
    for (const auto& [name, file] : map->as_object(index + ": weight_map")) {
        hf_tensors_room::check_file_name(file.as_string(index + ": " + name), index);
        files.insert(file.string());
    }
    if (files.size() > 4096) fail(Errc::format, index, " names ", files.size(), " files, at most 4096 are allowed");
    for (const std::string& file : files) add(file);
    for (const auto& [name, file] : map->object()) {
        const Entry* e = find(name);
        if (!e || e->file->path() != path_in(folder, file.string()))
            fail(Errc::format, index, ": tensor ", name, " is not in ", file.string());
    }
}

void HfTensors::add(const std::string& name) {
    const auto file = SafeTensors::open(folder_, name);
    for (const SafeTensor& t : file->tensors())
        if (!entries_.emplace(t.name, Entry{file, &t}).second)
            fail(Errc::format, folder(), ": the tensor ", t.name, " lies in two files");
}

int64_t HfTensors::keep_text() {
    constexpr std::string_view text[][2] = {{"model.language_model.", "model."}, {"language_model.", ""}};
    constexpr std::string_view other[] = {"vision_tower.", "model.vision_tower.", "multi_modal_projector.",
                                          "model.multi_modal_projector."};
    std::unordered_map<std::string, Entry> kept;
    int64_t left_out = 0;
    for (auto& [name, entry] : entries_) {
        std::string own = name;
        bool is_other = false;
        for (const std::string_view prefix : other) is_other = is_other || name.starts_with(prefix);
        for (const auto& [prefix, instead] : text)
            if (name.starts_with(prefix)) {
                own = str(instead, std::string_view(name).substr(prefix.size()));
                break;
            }
        if (is_other) ++left_out;
        else if (!kept.emplace(own, entry).second)
            fail(Errc::format, folder(), ": there are two tensors for ", own, ", one of them ", name);
    }
    entries_ = std::move(kept);
    return left_out;
}

const HfTensors::Entry* HfTensors::find(const std::string& name) const {
    const auto it = entries_.find(name);
    return it == entries_.end() ? nullptr : &it->second;
}

void HfTensors::put_under(const std::string& root) {
    std::unordered_map<std::string, Entry> named;
    for (auto& [name, entry] : entries_) named.emplace(name.starts_with(root) ? name : root + name, entry);
    entries_ = std::move(named);
}

const HfTensors::Entry& HfTensors::get(const std::string& name) const {
    const Entry* e = find(name);
    if (!e) fail(Errc::format, "load ", folder(), ": the tensor ", name, " is missing");
    return *e;
}

namespace hf_tensors_room {

struct Storage {                                       // scales in floats, and the file that holds the codes
    std::vector<float> absmax, codebook, map, absmax2;
    std::shared_ptr<const SafeTensors> file, scales;
};

std::vector<float> floats(const HfTensors& tensors, const std::string& name, int64_t count) {
    const HfTensors::Entry& e = tensors.get(name);
    std::vector<float> values = e.file->floats(*e.tensor);
    if (int64_t(values.size()) != count)
        fail(Errc::format, e.file->path(), ": tensor ", name, " has ", values.size(), " values, expected ", count);
    for (float v : values)
        if (!std::isfinite(v)) fail(Errc::format, e.file->path(), ": tensor ", name, " holds ", v);
    return values;
}

int64_t block_size(const Json& state, std::string_view key, const std::string& where) {
    const Json* v = state.find(key);
    const int64_t b = v ? v->as_int(where) : 0;
    if (b < 16 || b > 65536 || (b & (b - 1)))
        fail(Errc::format, where, ": ", key, " is ", b, ", expected a power of two from 16 to 65536");
    return b;
}

}  // namespace hf_tensors_room

std::string_view torch_name(DType type) {
    return type == DType::f16 ? "float16" : type == DType::bf16 ? "bfloat16" : "float32";
}

std::optional<DType> torch_dtype(std::string_view name) {
    for (DType type : {DType::f32, DType::f16, DType::bf16})
        if (torch_name(type) == name) return type;
    return {};
}

std::optional<Weight> read_bitsandbytes(const HfTensors& tensors, const std::string& name) {
    namespace room = hf_tensors_room;
    const std::string prefix = name + ".quant_state.bitsandbytes__";
    const HfTensors::Entry *nf4 = tensors.find(prefix + "nf4"), *fp4 = tensors.find(prefix + "fp4");
    if (!nf4 && !fp4) return {};
    const HfTensors::Entry &entry = nf4 ? *nf4 : *fp4, &codes = tensors.get(name);
    const std::string where = entry.file->path() + ": " + entry.tensor->name;
    if (entry.tensor->dtype != "U8" || entry.tensor->bytes > 65536)
        fail(Errc::format, where, ": must be a short U8 tensor of JSON text");
    const Json state = Json::parse({reinterpret_cast<const char*>(entry.tensor->data), size_t(entry.tensor->bytes)},
                                   where, {.depth = 8, .bytes = 65536});
    Weight w;
    w.name = name;
    w.dtype = nf4 ? DType::nf4 : DType::fp4;
    const Json* type = state.find("quant_type");
    if (!type || type->as_string(where) != (nf4 ? "nf4" : "fp4"))
        fail(Errc::format, where, ": quant_type does not agree with the name of the tensor");
    const Json* shape = state.find("shape");
    if (!shape || shape->as_array(where).size() != 2) fail(Errc::format, where, ": shape must be two integers");
    for (const Json& d : shape->array()) {
        w.shape.push_back(d.as_int(where));
        if (w.shape.back() < 1 || w.shape.back() > (int64_t(1) << 31))
            fail(Errc::format, where, ": a dimension of ", w.shape.back());
    }
    const Json* source = state.find("dtype");
    const std::string source_name = source ? source->as_string(where) : "float32";
    const std::optional<DType> source_type = torch_dtype(source_name);
    if (!source_type)
        fail(Errc::format, where, ": dtype is \"", source_name, "\", expected float32, float16 or bfloat16");
    const int64_t n = w.elements(), bytes = (n + 1) / 2;
    // A storage type wider than a byte rounds up.
    if (codes.tensor->bytes < bytes || codes.tensor->bytes >= bytes + 4)
        fail(Errc::format, codes.file->path(), ": tensor ", name, " has ", codes.tensor->bytes, " bytes, shape ",
             w.shape, " needs ", bytes);
    w.data = codes.tensor->data;
    auto s = std::make_shared<room::Storage>();
    s->file = codes.file;
    FourBit& q = w.quant;
    q.source = *source_type;
    q.block = room::block_size(state, "blocksize", where);
    const int64_t blocks = (n + q.block - 1) / q.block;
    s->codebook = room::floats(tensors, name + ".quant_map", 16);
    q.codebook = s->codebook.data();
    if (!state.find("nested_offset")) {
        s->absmax = room::floats(tensors, name + ".absmax", blocks);
        q.absmax = s->absmax.data();
    } else {
        q.block2 = room::block_size(state, "nested_blocksize", where);
        q.offset = float(state.find("nested_offset")->as_number(where));
        if (!std::isfinite(q.offset)) fail(Errc::format, where, ": nested_offset is not finite");
        const HfTensors::Entry& scales = tensors.get(name + ".absmax");
        if (scales.tensor->dtype != "U8" || scales.tensor->bytes != blocks)
            fail(Errc::format, scales.file->path(), ": tensor ", name, ".absmax has ", scales.tensor->bytes,
                 " bytes of ", scales.tensor->dtype, ", expected ", blocks, " of U8");
        s->scales = scales.file;
        q.absmax_code = scales.tensor->data;
        s->map = room::floats(tensors, name + ".nested_quant_map", 256);
        s->absmax2 = room::floats(tensors, name + ".nested_absmax", (blocks + q.block2 - 1) / q.block2);
        q.absmax_map = s->map.data();
        q.absmax2 = s->absmax2.data();
    }
    w.owner = s;
    w.file = codes.file->mapped();
    return w;
}

}}  // namespace qlora
