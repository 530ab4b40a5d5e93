// gguf.cpp - the GGUF reader. The file is untrusted: every count is compared with the bytes that are left before
// anything is allocated or skipped, so that the time and memory of a parse are bounded by the size of the file.
#include "src/format/gguf_values.h"

#include "src/base/stop.h"
#include "src/tensor/float8.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {

namespace gguf_room {

using Type = GgufWriter::Type;

constexpr int64_t max_pairs = 1 << 16;                 // real files have about 40
constexpr int64_t max_tensors = 1 << 20;
constexpr int64_t max_key = 65535;
constexpr int64_t max_name = 63;                       // llama.cpp keeps names in 64 bytes and refuses longer ones
constexpr int64_t max_text = int64_t(1) << 30;         // bytes of a string, elements of an array

}  // namespace gguf_room

struct GgufParser {
    Gguf& out;
    const uint8_t* data;
    int64_t size, at = 0, alignment = 32;

    explicit GgufParser(Gguf& gguf) : out(gguf), data(gguf.file_->data()), size(gguf.file_->size()) {}

    template <class... Part>
    [[noreturn]] void bad(const Part&... parts) const { fail(Errc::format, "gguf: ", out.path_, ": ", parts...); }

    void need(int64_t bytes, std::string_view what) const {
        if (bytes < 0 || bytes > size - at)
            bad(what, " at byte ", at, " needs ", bytes, " bytes, the file has ", size - at,
                " left: it is truncated or corrupt");
    }
    template <class T>
    T take(std::string_view what) {
        need(sizeof(T), what);
        const T value = gguf_value<T>(data + at);
        at += int64_t(sizeof(T));
        return value;
    }
    int64_t take_count(std::string_view what, int64_t limit) {
        const uint64_t value = take<uint64_t>(what);
        if (value > uint64_t(limit)) bad(what, " is ", value, ", more than the limit of ", limit);
        return int64_t(value);
    }
    std::string_view take_text(std::string_view what, int64_t limit) {
        const int64_t length = take_count(str("length of ", what), limit);
        need(length, what);
        const std::string_view text(reinterpret_cast<const char*>(data) + at, size_t(length));
        at += length;
        return text;
    }

    void parse() {
        if (size < 4 || std::memcmp(data, "GGUF", 4) != 0) bad("not a GGUF file: it does not start with \"GGUF\"");
        at = 4;
        const uint32_t version = take<uint32_t>("version");
        if (version == 0x02000000u || version == 0x03000000u)
            fail(Errc::unsupported, "gguf: ", out.path_, ": the file is big-endian; convert it to little-endian");
        if (version < 2 || version > 3)
            fail(Errc::unsupported, "gguf: ", out.path_, ": version ", version, " is not supported, only 2 and 3");
        out.version_ = int(version);
        const int64_t tensors = take_count("number of tensors", gguf_room::max_tensors);
        const int64_t pairs = take_count("number of metadata pairs", gguf_room::max_pairs);
        // A pair takes 13 bytes at least (length, one letter, type, ...), a tensor 25: no reservation beyond what the
        // file can hold.
        if (pairs > (size - at) / 13) bad(pairs, " metadata pairs do not fit into ", size - at, " bytes");
        if (tensors > (size - at) / 25) bad(tensors, " tensors do not fit into ", size - at, " bytes");
        for (int64_t i = 0; i < pairs; ++i) parse_pair();
        if (const GgufPair* p = out.pair("general.alignment")) {
            if (GgufWriter::Type(p->type) != GgufWriter::Type::u32) bad("general.alignment must be a u32");
            alignment = gguf_value<uint32_t>(data + p->offset);
            if (alignment < 1 || alignment > (1 << 20) || (alignment & (alignment - 1)))
                bad("general.alignment is ", alignment, ", expected a power of two up to 2^20");
        }
        out.tensors_.reserve(size_t(tensors));
        for (int64_t i = 0; i < tensors; ++i) parse_tensor();
        place_tensors();
    }

    void parse_pair() {
        GgufPair p;
        p.key = take_text("metadata key", gguf_room::max_key);
        if (p.key.empty()) bad("a metadata key is empty");
        p.type = take<uint32_t>(p.key);
        p.offset = at;
        if (GgufWriter::Type(p.type) == GgufWriter::Type::array) {
            parse_array(p);
        } else if (GgufWriter::Type(p.type) == GgufWriter::Type::string) {
            take_text(p.key, gguf_room::max_text);
        } else {
            const int64_t bytes = gguf_value_bytes(p.type);
            if (bytes == 0) bad(p.key, " has the unknown value type ", p.type);
            need(bytes, p.key);
            at += bytes;
        }
        p.bytes = at - p.offset;
        if (!out.pair_index_.emplace(p.key, out.pairs_.size()).second) bad("the metadata key ", p.key, " occurs twice");
        out.pairs_.push_back(std::move(p));
    }

    void parse_array(GgufPair& p) {
        p.element = take<uint32_t>(p.key);
        p.count = take_count(str("number of elements of ", p.key), gguf_room::max_text);
        p.offset = at;
        const int64_t bytes = gguf_value_bytes(p.element);
        if (bytes) {
            need(p.count * bytes, p.key);              // count <= 2^30: no overflow
            at += p.count * bytes;
        } else if (GgufWriter::Type(p.element) == GgufWriter::Type::string) {
            need(p.count * 8, p.key);
            for (int64_t i = 0; i < p.count; ++i) take_text(p.key, gguf_room::max_text), check_stop();
        } else {
            bad(p.key, " is an array of value type ", p.element, "; only numbers, booleans and strings are supported");
        }
    }

    void parse_tensor() {
        GgufTensor t;
        t.name = take_text("tensor name", gguf_room::max_name);
        if (t.name.empty()) bad("a tensor name is empty");
        const uint32_t dims = take<uint32_t>(t.name);
        if (dims > 4) bad("tensor ", t.name, " has ", dims, " dimensions, at most 4 are allowed");
        int64_t elements = 1;
        for (uint32_t d = 0; d < dims; ++d) {
            const uint64_t ne = take<uint64_t>(t.name);
            if (ne > uint64_t(std::numeric_limits<int64_t>::max()))
                bad("tensor ", t.name, ": dimension ", d, " is ", ne);
            t.shape.insert(t.shape.begin(), int64_t(ne));
            elements = checked_mul(elements, int64_t(ne), str("gguf: ", out.path_, ": tensor ", t.name));
        }
        if (t.shape.empty()) t.shape = {1};
        t.ggml_type = take<int32_t>(t.name);
        if (t.ggml_type < 0) bad("tensor ", t.name, " has the negative type ", t.ggml_type);
        const uint64_t offset = take<uint64_t>(t.name);
        if (offset > uint64_t(size))
            bad("tensor ", t.name, ": offset ", offset, " is beyond the end of the file (", size, " bytes)");
        t.offset = int64_t(offset);
        if (const TypeInfo* type = type_of_ggml(t.ggml_type)) {
            if (t.shape.back() % type->block)
                bad("tensor ", t.name, ": rows of ", t.shape.back(), " elements are not whole blocks of ", type->block,
                    " (", type->name, ")");
            t.bytes = checked_mul(elements / type->block, type->bytes, str("gguf: ", out.path_, ": tensor ", t.name));
        } else if (t.ggml_type == 24) {                // I8: raw bytes, such as the codes of our own nf4 files
            t.bytes = elements;
        }
        if (!out.tensor_index_.emplace(t.name, out.tensors_.size()).second) bad("the tensor ", t.name, " occurs twice");
        out.tensors_.push_back(std::move(t));
    }

    // Offsets are relative to the aligned end of the header until here.
    void place_tensors() {
        if (out.tensors_.empty()) return;
        const int64_t start = at + (alignment - at % alignment) % alignment;
        if (start > size) bad("the data would start at byte ", start, ", the file has ", size, ": it is truncated");
        std::vector<const GgufTensor*> order;
        for (GgufTensor& t : out.tensors_) {
            if (t.offset % alignment)
                bad("tensor ", t.name, ": offset ", t.offset, " is not a multiple of the alignment ", alignment);
            if (t.bytes > size - start || t.offset > size - start - t.bytes)
                bad("tensor ", t.name, " needs ", t.bytes, " bytes at offset ", t.offset, ", the data has ",
                    size - start, ": the file is truncated or corrupt");
            t.offset += start;
            order.push_back(&t);
        }
        std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
            return a->offset != b->offset ? a->offset < b->offset : a->bytes < b->bytes;
        });
        for (size_t i = 1; i < order.size(); ++i)
            if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset)
                bad("the tensors ", order[i - 1]->name, " and ", order[i]->name, " overlap");
    }
};

std::shared_ptr<const Gguf> Gguf::open(const Source& source) {
    auto gguf = std::make_shared<Gguf>();
    gguf->path_ = source.name();
    gguf->file_ = open_file(source);
    try {
        GgufParser(*gguf).parse();
    } catch (const Error&) {                           // a file that was cut meanwhile is not to be called malformed
        gguf->file_->check();
        throw;
    }
    gguf->file_->check();
    return gguf;
}

const GgufTensor* Gguf::tensor(std::string_view name) const {
    const auto it = tensor_index_.find(std::string(name));
    return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

Weight Gguf::view(const GgufTensor& t) const {
    const TypeInfo* type = type_of_ggml(t.ggml_type);
    if (!type) fail(Errc::unsupported, "gguf: ", path_, ": tensor ", t.name, " has type ", t.ggml_type,
                    ", which this library does not read; requantize the file, for example to Q4_K, Q8_0 or F16");
    Weight w;
    w.name = t.name;
    w.dtype = type->dtype;
    w.shape = t.shape;
    const std::shared_ptr<const MappedFile> file = file_of(t);
    w.data = file->data() + t.offset;
    if (w.dtype == DType::nvfp4) w.quant.absmax_map = nvfp4_scales();
    w.owner = file;
    w.file = file.get();
    return w;
}

Weight Gguf::weight(const GgufTensor& t) const {
    Weight w = view(t);
    align(w);
    return w;
}

}}  // namespace qlora
