// gguf_pairs.cpp - the metadata of a GGUF file, converted when it is asked for: out of the file, or of a copy.
#include "src/format/gguf_values.h"

#include <cmath>
#include <limits>

namespace qlora { inline namespace QLORA_ABI {
namespace gguf_pairs_room {

using Type = GgufWriter::Type;

bool is_float(uint32_t type) { return Type(type) == Type::f32 || Type(type) == Type::f64; }

int64_t integer_at(const uint8_t* p, uint32_t type, std::string_view where) {
    switch (Type(type)) {
        case Type::u8: case Type::boolean: return *p;
        case Type::i8: return gguf_value<int8_t>(p);
        case Type::u16: return gguf_value<uint16_t>(p);
        case Type::i16: return gguf_value<int16_t>(p);
        case Type::u32: return gguf_value<uint32_t>(p);
        case Type::i32: return gguf_value<int32_t>(p);
        case Type::i64: return gguf_value<int64_t>(p);
        case Type::u64: {
            const uint64_t value = gguf_value<uint64_t>(p);
            if (value > uint64_t(std::numeric_limits<int64_t>::max()))
                fail(Errc::format, where, ": the value ", value, " is out of range");
            return int64_t(value);
        }
        default: fail(Errc::format, where, ": expected an integer, found value type ", type);
    }
}

double number_at(const uint8_t* p, uint32_t type, std::string_view where) {
    if (Type(type) == Type::f32) return gguf_value<float>(p);
    if (Type(type) == Type::f64) return gguf_value<double>(p);
    if (Type(type) == Type::u64) return double(gguf_value<uint64_t>(p));
    return double(integer_at(p, type, where));
}

// Ids and hashes may be any u64. Such a value is kept as the nearest number: who asks for an integer, a size for
// instance, gets an error.
Json scalar_at(const uint8_t* p, uint32_t type, std::string_view where) {
    if (Type(type) == Type::boolean) return Json(*p != 0);
    if (is_float(type) || (Type(type) == Type::u64 && p[7] > 0x7F)) return Json(number_at(p, type, where));
    return Json(integer_at(p, type, where));
}

}  // namespace gguf_pairs_room

int64_t gguf_value_bytes(uint32_t type) {
    using gguf_pairs_room::Type;
    switch (Type(type)) {
        case Type::u8: case Type::i8: case Type::boolean: return 1;
        case Type::u16: case Type::i16: return 2;
        case Type::u32: case Type::i32: case Type::f32: return 4;
        case Type::u64: case Type::i64: case Type::f64: return 8;
        default: return 0;
    }
}

const GgufPair* GgufPairs::pair(std::string_view key) const {
    const auto it = pair_index_.find(std::string(key));
    return it == pair_index_.end() ? nullptr : &pairs_[it->second];
}

std::string_view GgufPairs::bytes_of(int64_t offset, int64_t bytes) const {
    const char* const begin = file_ ? reinterpret_cast<const char*>(file_->data()) : bytes_.data();
    return {begin + offset, size_t(bytes)};
}

GgufPairs GgufPairs::copy() const {
    GgufPairs out;
    out.path_ = path_;
    out.pairs_ = pairs_;
    out.pair_index_ = pair_index_;
    if (pairs_.empty()) return out;
    const int64_t first = pairs_.front().offset, bytes = pairs_.back().offset + pairs_.back().bytes - first;
    out.bytes_ = bytes_of(first, bytes);
    check();                                           // the copy is whole, or an error
    for (GgufPair& p : out.pairs_) p.offset -= first;
    if (file_) file_->forget(file_->data() + first, bytes);    // else the metadata would be in memory twice
    return out;
}

std::optional<Json> GgufPairs::scalar(std::string_view key) const {
    const GgufPair* p = pair(key);
    if (!p || GgufWriter::Type(p->type) == GgufWriter::Type::array) return {};
    Json value = GgufWriter::Type(p->type) == GgufWriter::Type::string
                     ? Json(bytes_of_pair(*p).substr(8))   // behind the length, as it was when the file was opened
                     : gguf_pairs_room::scalar_at(at(*p), p->type, str("gguf: ", path_, ": ", key));
    check();
    return value;
}

int64_t GgufPairs::integer(std::string_view key) const {
    const GgufPair* p = pair(key);
    if (!p) fail(Errc::format, "gguf: ", path_, ": the key ", key, " is missing");
    if (GgufWriter::Type(p->type) == GgufWriter::Type::array)
        fail(Errc::unsupported, "gguf: ", path_, ": ", key, " is an array; only one value for all layers is supported");
    const std::string where = str("gguf: ", path_, ": ", key);
    if (GgufWriter::Type(p->type) == GgufWriter::Type::u64) return gguf_pairs_room::integer_at(at(*p), p->type, where);
    return scalar(key)->as_int(where);
}
int64_t GgufPairs::integer(std::string_view key, int64_t fallback) const { return pair(key) ? integer(key) : fallback; }

double GgufPairs::number(std::string_view key, double fallback) const {
    const std::optional<Json> v = scalar(key);
    if (!v && pair(key)) fail(Errc::format, "gguf: ", path_, ": ", key, " must be a number, is an array");
    if (!v) return fallback;
    const double value = v->as_number(str("gguf: ", path_, ": ", key));
    if (!std::isfinite(value)) fail(Errc::format, "gguf: ", path_, ": ", key, " is not finite");
    return value;
}

bool GgufPairs::boolean(std::string_view key, bool fallback) const {
    const std::optional<Json> v = scalar(key);
    return v ? v->as_bool(str("gguf: ", path_, ": ", key)) : fallback;
}

std::string GgufPairs::string(std::string_view key, std::string_view fallback) const {
    const std::optional<Json> v = scalar(key);
    return v ? v->as_string(str("gguf: ", path_, ": ", key)) : std::string(fallback);
}

std::vector<std::string> GgufPairs::strings(std::string_view key) const {
    const GgufPair* p = pair(key);
    if (!p) return {};
    if (GgufWriter::Type(p->type) != GgufWriter::Type::array ||
        GgufWriter::Type(p->element) != GgufWriter::Type::string)
        fail(Errc::format, "gguf: ", path_, ": ", key, " must be an array of strings");
    std::vector<std::string> out;
    out.reserve(size_t(p->count));
    const uint8_t *from = at(*p), *const end = from + p->bytes;
    // lengths were checked when the file was opened, but it may have been written to since
    for (int64_t i = 0; i < p->count; ++i) {
        const int64_t length = end - from < 8 ? -1 : int64_t(gguf_value<uint64_t>(from));
        if (length < 0 || length > end - from - 8) {
            check();
            fail(Errc::format, "gguf: ", path_, ": ", key, " holds a string of ", length,
                 " bytes, which the file has not");
        }
        out.emplace_back(reinterpret_cast<const char*>(from) + 8, size_t(length));
        from += 8 + length;
    }
    check();
    return out;
}

template <class T, class Read>
std::vector<T> GgufPairs::array_of(std::string_view key, const char* what, const Read& read) const {
    const GgufPair* p = pair(key);
    if (!p) return {};
    const std::string where = str("gguf: ", path_, ": ", key);
    const bool array = GgufWriter::Type(p->type) == GgufWriter::Type::array;
    const uint32_t type = array ? p->element : p->type;
    const int64_t step = gguf_value_bytes(type), count = array ? p->count : 1;
    if (step == 0) fail(Errc::format, where, " must be an array of ", what);
    std::vector<T> out(size_t(count), T(0));
    for (int64_t i = 0; i < count; ++i) out[size_t(i)] = T(read(at(*p) + i * step, type, where));
    check();
    return out;
}

std::vector<float> GgufPairs::floats(std::string_view key) const {
    return array_of<float>(key, "numbers", gguf_pairs_room::number_at);
}

std::vector<int64_t> GgufPairs::integers(std::string_view key) const {
    return array_of<int64_t>(key, "integers", gguf_pairs_room::integer_at);
}

}}  // namespace qlora
