// gguf.cpp - the GGUF reader. The file is untrusted: every count is compared with the bytes that are left before
// anything is allocated or skipped, so that the time and memory of a parse are bounded by the size of the file.
#include "src/format/gguf.h"

#include "src/base/stop.h"

#include <algorithm>
#include <cmath>
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

template <class T>
T load(const uint8_t* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// Bytes of one element; 0 for strings and arrays, whose length lies in the file.
int64_t size_of(uint32_t type) {
    switch (Type(type)) {
        case Type::u8: case Type::i8: case Type::boolean: return 1;
        case Type::u16: case Type::i16: return 2;
        case Type::u32: case Type::i32: case Type::f32: return 4;
        case Type::u64: case Type::i64: case Type::f64: return 8;
        default: return 0;
    }
}

bool is_float(uint32_t type) { return Type(type) == Type::f32 || Type(type) == Type::f64; }

int64_t integer_at(const uint8_t* p, uint32_t type, std::string_view where) {
    switch (Type(type)) {
        case Type::u8: case Type::boolean: return *p;
        case Type::i8: return load<int8_t>(p);
        case Type::u16: return load<uint16_t>(p);
        case Type::i16: return load<int16_t>(p);
        case Type::u32: return load<uint32_t>(p);
        case Type::i32: return load<int32_t>(p);
        case Type::i64: return load<int64_t>(p);
        case Type::u64: {
            const uint64_t value = load<uint64_t>(p);
            if (value > uint64_t(std::numeric_limits<int64_t>::max()))
                fail(Errc::format, where, ": the value ", value, " is out of range");
            return int64_t(value);
        }
        default: fail(Errc::format, where, ": expected an integer, found value type ", type);
    }
}

double number_at(const uint8_t* p, uint32_t type, std::string_view where) {
    if (Type(type) == Type::f32) return load<float>(p);
    if (Type(type) == Type::f64) return load<double>(p);
    if (Type(type) == Type::u64) return double(load<uint64_t>(p));
    return double(integer_at(p, type, where));
}

// Ids and hashes may be any u64. Such a value is kept as the nearest number: who asks for an integer, a size for
// instance, gets an error.
Json scalar_at(const uint8_t* p, uint32_t type, std::string_view where) {
    if (Type(type) == Type::boolean) return Json(*p != 0);
    if (is_float(type) || (Type(type) == Type::u64 && p[7] > 0x7F)) return Json(number_at(p, type, where));
    return Json(integer_at(p, type, where));
}

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
        const T value = gguf_room::load<T>(data + at);
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
            alignment = p->value.integer();
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
        const std::string where = str("gguf: ", out.path_, ": ", p.key);
        p.offset = at;
        if (GgufWriter::Type(p.type) == GgufWriter::Type::array) {
            parse_array(p);
        } else if (GgufWriter::Type(p.type) == GgufWriter::Type::string) {
            p.value = Json(take_text(p.key, gguf_room::max_text));
        } else {
            const int64_t bytes = gguf_room::size_of(p.type);
            if (bytes == 0) bad(p.key, " has the unknown value type ", p.type);
            need(bytes, p.key);
            p.value = gguf_room::scalar_at(data + at, p.type, where);
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
        const int64_t bytes = gguf_room::size_of(p.element);
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

std::shared_ptr<const Gguf> Gguf::open(const std::string& path) {
    auto gguf = std::make_shared<Gguf>();
    gguf->path_ = path;
    gguf->file_ = MappedFile::open(path);
    try {
        GgufParser(*gguf).parse();
    } catch (const Error&) {                           // a file that was cut meanwhile is not to be called malformed
        gguf->file_->check();
        throw;
    }
    gguf->file_->check();
    return gguf;
}

const GgufPair* Gguf::pair(std::string_view key) const {
    const auto it = pair_index_.find(std::string(key));
    return it == pair_index_.end() ? nullptr : &pairs_[it->second];
}

const GgufTensor* Gguf::tensor(std::string_view name) const {
    const auto it = tensor_index_.find(std::string(name));
    return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

const Json* Gguf::find(std::string_view key) const {
    const GgufPair* p = pair(key);
    return p && GgufWriter::Type(p->type) != GgufWriter::Type::array ? &p->value : nullptr;
}

int64_t Gguf::integer(std::string_view key) const {
    const GgufPair* p = pair(key);
    if (!p) fail(Errc::format, "gguf: ", path_, ": the key ", key, " is missing");
    if (GgufWriter::Type(p->type) == GgufWriter::Type::array)
        fail(Errc::unsupported, "gguf: ", path_, ": ", key, " is an array; only one value for all layers is supported");
    const std::string where = str("gguf: ", path_, ": ", key);
    if (GgufWriter::Type(p->type) == GgufWriter::Type::u64)
        return gguf_room::integer_at(file_->data() + p->offset, p->type, where);
    return p->value.as_int(where);
}
int64_t Gguf::integer(std::string_view key, int64_t fallback) const { return pair(key) ? integer(key) : fallback; }

double Gguf::number(std::string_view key, double fallback) const {
    const Json* v = find(key);
    if (!v && pair(key)) fail(Errc::format, "gguf: ", path_, ": ", key, " must be a number, is an array");
    if (!v) return fallback;
    const double value = v->as_number(str("gguf: ", path_, ": ", key));
    if (!std::isfinite(value)) fail(Errc::format, "gguf: ", path_, ": ", key, " is not finite");
    return value;
}

bool Gguf::boolean(std::string_view key, bool fallback) const {
    const Json* v = find(key);
    return v ? v->as_bool(str("gguf: ", path_, ": ", key)) : fallback;
}

std::string Gguf::string(std::string_view key, std::string_view fallback) const {
    const Json* v = find(key);
    return v ? v->as_string(str("gguf: ", path_, ": ", key)) : std::string(fallback);
}

std::vector<std::string> Gguf::strings(std::string_view key) const {
    const GgufPair* p = pair(key);
    if (!p) return {};
    if (GgufWriter::Type(p->type) != GgufWriter::Type::array ||
        GgufWriter::Type(p->element) != GgufWriter::Type::string)
        fail(Errc::format, "gguf: ", path_, ": ", key, " must be an array of strings");
    std::vector<std::string> out;
    out.reserve(size_t(p->count));
    const uint8_t *at = file_->data() + p->offset, *const end = file_->data() + file_->size();
    // lengths were checked when the file was opened, but it may have been written to since
    for (int64_t i = 0; i < p->count; ++i) {
        const int64_t length = end - at < 8 ? -1 : int64_t(gguf_room::load<uint64_t>(at));
        if (length < 0 || length > end - at - 8) {
            file_->check();
            fail(Errc::format, "gguf: ", path_, ": ", key, " holds a string of ", length,
                 " bytes, which the file has not");
        }
        out.emplace_back(reinterpret_cast<const char*>(at) + 8, size_t(length));
        at += 8 + length;
    }
    file_->check();
    return out;
}

std::vector<float> Gguf::floats(std::string_view key) const {
    const GgufPair* p = pair(key);
    if (!p) return {};
    const std::string where = str("gguf: ", path_, ": ", key);
    const bool array = GgufWriter::Type(p->type) == GgufWriter::Type::array;
    const uint32_t type = array ? p->element : p->type;
    const int64_t step = gguf_room::size_of(type), count = array ? p->count : 1;
    if (step == 0) fail(Errc::format, where, " must be an array of numbers");
    std::vector<float> out(size_t(count), 0.0f);
    for (int64_t i = 0; i < count; ++i)
        out[size_t(i)] = float(gguf_room::number_at(file_->data() + p->offset + i * step, type, where));
    file_->check();
    return out;
}

std::vector<int64_t> Gguf::integers(std::string_view key) const {
    const GgufPair* p = pair(key);
    if (!p) return {};
    const std::string where = str("gguf: ", path_, ": ", key);
    const bool array = GgufWriter::Type(p->type) == GgufWriter::Type::array;
    const uint32_t type = array ? p->element : p->type;
    const int64_t step = gguf_room::size_of(type), count = array ? p->count : 1;
    if (step == 0) fail(Errc::format, where, " must be an array of integers");
    std::vector<int64_t> out(size_t(count), 0);
    for (int64_t i = 0; i < count; ++i)
        out[size_t(i)] = gguf_room::integer_at(file_->data() + p->offset + i * step, type, where);
    return out;
}

Weight Gguf::weight(const GgufTensor& t) const {
    const TypeInfo* type = type_of_ggml(t.ggml_type);
    if (!type) fail(Errc::unsupported, "gguf: ", path_, ": tensor ", t.name, " has type ", t.ggml_type,
                    ", which this library does not read; requantize the file, for example to Q4_K, Q8_0 or F16");
    Weight w;
    w.name = t.name;
    w.dtype = type->dtype;
    w.shape = t.shape;
    w.data = file_->data() + t.offset;
    w.owner = file_;
    w.file = file_.get();
    align(w);
    return w;
}

}}  // namespace qlora
