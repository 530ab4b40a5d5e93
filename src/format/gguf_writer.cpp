// gguf_writer.cpp - writes GGUF version 3 under the rules that llama.cpp's reader enforces: unique keys and names,
// names below 64 bytes, offsets that are the running sum of the padded sizes, in order.
#include "src/format/gguf.h"

#include <limits>

namespace qlora { inline namespace QLORA_ABI {

namespace gguf_writer_room {

using Type = GgufWriter::Type;
constexpr int64_t alignment = 32;                      // the default: needs no general.alignment key

int64_t padded(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

template <class T>
void put(std::string& out, T value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }

void put_text(std::string& out, std::string_view text) {
    put(out, uint64_t(text.size()));
    out += text;
}

template <class T>
void put_integer(std::string& out, const Json& value, std::string_view key) {
    const int64_t v = value.as_int(key);
    if constexpr (std::is_unsigned_v<T>) {
        if (v < 0 || uint64_t(v) > std::numeric_limits<T>::max())
            fail(Errc::argument, "gguf: ", key, ": ", v, " is out of range");
    } else if (v < std::numeric_limits<T>::min() || v > std::numeric_limits<T>::max()) {
        fail(Errc::argument, "gguf: ", key, ": ", v, " is out of range");
    }
    put(out, T(v));
}

void put_value(std::string& out, Type type, const Json& value, std::string_view key) {
    switch (type) {
        case Type::u8: put_integer<uint8_t>(out, value, key); break;
        case Type::i8: put_integer<int8_t>(out, value, key); break;
        case Type::u16: put_integer<uint16_t>(out, value, key); break;
        case Type::i16: put_integer<int16_t>(out, value, key); break;
        case Type::u32: put_integer<uint32_t>(out, value, key); break;
        case Type::i32: put_integer<int32_t>(out, value, key); break;
        case Type::u64: put_integer<uint64_t>(out, value, key); break;
        case Type::i64: put_integer<int64_t>(out, value, key); break;
        case Type::f32: put(out, float(value.as_number(key))); break;
        case Type::f64: put(out, value.as_number(key)); break;
        case Type::boolean: put(out, uint8_t(value.as_bool(key))); break;
        case Type::string: put_text(out, value.as_string(key)); break;
        case Type::array: fail(Errc::argument, "gguf: ", key, ": arrays cannot be nested");
    }
}

void put_pair(std::string& out, const GgufWriter::Pair& p) {
    put_text(out, p.key);
    put(out, uint32_t(p.type));
    if (p.type == Type::array) {
        put(out, uint32_t(p.element));
        put(out, uint64_t(p.count));
    }
    if (!p.raw.empty()) out += p.raw;
    else if (p.type == Type::array) for (const Json& v : p.value.array()) put_value(out, p.element, v, p.key);
    else put_value(out, p.type, p.value, p.key);
}

}  // namespace gguf_writer_room

void GgufWriter::set(std::string key, Type type, Json value) {
    Pair pair{std::move(key), type, type, std::move(value)};
    for (Pair& p : pairs)
        if (p.key == pair.key) { p = std::move(pair); return; }
    pairs.push_back(std::move(pair));
}

void GgufWriter::set_array(std::string key, Type element, Json::Array values) {
    const int64_t count = int64_t(values.size());
    set(key, Type::array, Json(std::move(values)));
    for (Pair& p : pairs)
        if (p.key == key) { p.element = element; p.count = count; }
}

void GgufWriter::copy(const GgufPairs& from, const GgufPair& source) {
    Pair pair{source.key, Type(source.type), Type(source.element),
              Json(),     source.count,      std::string(from.bytes_of_pair(source))};
    for (Pair& p : pairs)
        if (p.key == pair.key) { p = std::move(pair); return; }
    pairs.push_back(std::move(pair));
}

void GgufWriter::write(const std::string& path) const {
    namespace room = gguf_writer_room;
    std::string header = "GGUF";
    room::put(header, uint32_t(3));
    room::put(header, uint64_t(tensors.size()));
    room::put(header, uint64_t(pairs.size()));
    for (const Pair& p : pairs) room::put_pair(header, p);
    std::unordered_map<std::string_view, int> names;
    int64_t offset = 0;
    for (const Tensor& t : tensors) {
        if (t.name.empty() || t.name.size() > 63)
            fail(Errc::argument, "gguf: tensor name \"", t.name, "\" must have 1 to 63 bytes");
        if (t.shape.empty() || t.shape.size() > 4)
            fail(Errc::argument, "gguf: tensor ", t.name, " of shape ", t.shape, " must have 1 to 4 dimensions");
        if (!names.emplace(t.name, 0).second) fail(Errc::argument, "gguf: the tensor ", t.name, " occurs twice");
        room::put_text(header, t.name);
        room::put(header, uint32_t(t.shape.size()));
        for (size_t d = t.shape.size(); d-- > 0;) room::put(header, uint64_t(t.shape[d]));
        room::put(header, int32_t(t.ggml_type));
        room::put(header, uint64_t(offset));
        offset += room::padded(t.bytes);
    }
    header.resize(size_t(room::padded(int64_t(header.size()))), '\0');
    AtomicFile file(path);
    file.write(header.data(), int64_t(header.size()));
    const char zeros[room::alignment] = {};
    for (const Tensor& t : tensors) {
        const int64_t before = file.written();
        t.write(file);
        if (file.written() - before != t.bytes)
            fail(Errc::argument, "gguf: tensor ", t.name, " wrote ", file.written() - before, " bytes, announced ",
                 t.bytes);
        file.write(zeros, room::padded(t.bytes) - t.bytes);
    }
    file.commit();
}

}}  // namespace qlora
