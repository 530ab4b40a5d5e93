// safetensors.cpp - reads and writes safetensors. The reader makes the checks of the reference reader in its order:
// lengths, UTF-8 and JSON, offsets without holes or overlaps that end with the file, then shape times type against each
// range. Beyond those it refuses what no writer writes: a name or field twice, unknown fields, more than 8 dimensions,
// a header of more than 16 MB.
#include "src/format/safetensors.h"

#include "src/base/half.h"

#include <algorithm>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {

namespace safetensors_room {

// the reference allows 100 MB; real headers stay below 1 MB, and JSON values cost memory
constexpr int64_t max_header = int64_t(16) << 20;
constexpr int64_t max_tensors = 1 << 20;

// Bits an element, 0 = no such type.
int64_t bits_of(std::string_view dtype) {
    struct Row { std::string_view name; int64_t bits; };
    static constexpr Row rows[] = {
        {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
        {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
        {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
        {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
    for (const Row& r : rows)
        if (r.name == dtype) return r.bits;
    return 0;
}

bool is_utf8(std::string_view text) {
    const auto* s = reinterpret_cast<const uint8_t*>(text.data());
    for (size_t i = 0; i < text.size();) {
        const uint8_t c = s[i];
        const size_t more = c < 0x80                ? 0
                            : c >= 0xc2 && c < 0xe0 ? 1
                            : (c & 0xf0) == 0xe0    ? 2
                            : c >= 0xf0 && c < 0xf5 ? 3
                                                    : 9;
        if (more == 9 || i + more >= text.size()) return false;
        for (size_t k = 1; k <= more; ++k)
            if ((s[i + k] & 0xc0) != 0x80) return false;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f) || (c == 0xf0 && s[i + 1] < 0x90) ||
            (c == 0xf4 && s[i + 1] > 0x8f))
            return false;
        i += more + 1;
    }
    return true;
}

}  // namespace safetensors_room

struct SafeTensorsParser {
    SafeTensors& out;
    const uint8_t* data;
    int64_t size;

    template <class... Part>
    [[noreturn]] void bad(const Part&... parts) const {
        fail(Errc::format, "safetensors: ", out.path(), ": ", parts...);
    }

    void parse() {
        if (size < 8) bad("the file has ", size, " bytes, a header needs 8: it is truncated");
        uint64_t length = 0;
        std::memcpy(&length, data, 8);
        if (length > uint64_t(safetensors_room::max_header))
            bad("the header claims ", length, " bytes, more than the limit of ", safetensors_room::max_header);
        if (int64_t(length) > size - 8)
            bad("the header claims ", length, " bytes, the file has ", size - 8, " left: it is truncated");
        const std::string_view header(reinterpret_cast<const char*>(data) + 8, length);
        const size_t first = header.find_first_not_of(" \t\r\n");    // the reference parses the header as any JSON text
        if (first == header.npos || header[first] != '{')
            bad("the header does not start with '{': this is not a safetensors file");
        if (header.back() == '\0')
            bad("the header is padded with NUL bytes instead of spaces; save the file again with a current writer");
        if (!safetensors_room::is_utf8(header)) bad("the header is not UTF-8");
        const Json json = Json::parse(header, out.path(), {.depth = 8, .bytes = safetensors_room::max_header});
        if (int64_t(json.object().size()) > safetensors_room::max_tensors)
            bad("the header lists more than ", safetensors_room::max_tensors, " tensors");
        const uint8_t* blob = data + 8 + length;
        for (const auto& [name, entry] : json.object()) {
            if (name == "__metadata__") parse_metadata(entry);
            else parse_tensor(name, entry, blob);
        }
        check_layout(blob, size - 8 - int64_t(length));
        index();
    }

    void parse_metadata(const Json& entry) {
        if (entry.is_null()) return;                   // as mlx writes it
        for (const auto& [key, value] : entry.as_object(str(out.path(), ": __metadata__")))
            out.metadata_.emplace_back(key, value.as_string(str(out.path(), ": __metadata__.", key)));
    }

    int64_t count(const Json& value, std::string_view name, const char* field) const {
        if (!value.is_int() || value.integer() < 0) bad("tensor ", name, ": ", field, " must hold integers >= 0");
        return value.integer();
    }

    void parse_tensor(const std::string& name, const Json& entry, const uint8_t* blob) {
        const std::string where = str(out.path(), ": ", name);
        SafeTensor t;
        t.name = name;
        for (const auto& [key, value] : entry.as_object(where))
            if (key != "dtype" && key != "shape" && key != "data_offsets")
                bad("tensor ", name, " has the unknown field ", key);
        const Json *dtype = entry.find("dtype"), *shape = entry.find("shape"), *offsets = entry.find("data_offsets");
        if (!dtype || !shape || !offsets) bad("tensor ", name, " lacks dtype, shape or data_offsets");
        t.dtype = dtype->as_string(where);
        const int64_t bits = safetensors_room::bits_of(t.dtype);
        if (bits == 0) bad("tensor ", name, " has the unknown type ", t.dtype);
        int64_t elements = 1;
        if (shape->as_array(where).size() > 8)
            bad("tensor ", name, " has ", shape->array().size(), " dimensions, at most 8 are supported");
        for (const Json& d : shape->array()) {
            t.shape.push_back(count(d, name, "shape"));
            elements = checked_mul(elements, t.shape.back(), str("safetensors: ", where));
        }
        const int64_t total_bits = checked_mul(elements, bits, str("safetensors: ", where));
        if (total_bits % 8) bad("tensor ", name, ": ", elements, " elements of ", bits, " bits are not whole bytes");
        t.bytes = total_bits / 8;
        if (offsets->as_array(where).size() != 2) bad("tensor ", name, ": data_offsets must be two integers");
        const int64_t begin = count(offsets->array()[0], name, "data_offsets"),
                      end = count(offsets->array()[1], name, "data_offsets");
        if (end < begin || end - begin != t.bytes)
            bad("tensor ", name, " of shape ", t.shape, " and type ", t.dtype, " needs ", t.bytes,
                " bytes, data_offsets are ", begin, " and ", end);
        const int64_t room = size - (blob - data);
        if (end > room)
            bad("tensor ", name, " ends at byte ", end, " of the data, which has ", room, ": the file is truncated");
        t.data = blob + begin;
        out.tensors_.push_back(std::move(t));
    }

    // No holes, no overlaps, nothing behind the last tensor.
    void check_layout(const uint8_t* blob, int64_t room) {
        std::vector<const SafeTensor*> order;
        for (const SafeTensor& t : out.tensors_) order.push_back(&t);
        std::sort(order.begin(), order.end(), [](const SafeTensor* a, const SafeTensor* b) {
            return a->data != b->data ? a->data < b->data : a->bytes < b->bytes;
        });
        const uint8_t* expected = blob;
        for (const SafeTensor* t : order) {
            if (t->data != expected)
                bad("tensor ", t->name, " starts at byte ", t->data - blob, " of the data, expected ", expected - blob,
                    ": a hole or an overlap");
            expected += t->bytes;
        }
        if (expected - blob != room)
            bad("the tensors end at byte ", expected - blob, " of the data, the file at ", room);
    }

    void index() {
        for (size_t i = 0; i < out.tensors_.size(); ++i)
            if (!out.index_.emplace(out.tensors_[i].name, i).second)
                bad("the tensor ", out.tensors_[i].name, " occurs twice");
    }
};

std::shared_ptr<const SafeTensors> SafeTensors::open(const Source& source, const std::string& name) {
    auto tensors = std::make_shared<SafeTensors>();
    tensors->file_ = open_file(source, name);
    try {
        SafeTensorsParser{*tensors, tensors->file_->data(), tensors->file_->size()}.parse();
    } catch (const Error&) {                           // a file that was cut meanwhile is not to be called malformed
        tensors->file_->check();
        throw;
    }
    tensors->file_->check();
    return tensors;
}

const SafeTensor* SafeTensors::find(std::string_view name) const {
    const auto it = index_.find(std::string(name));
    return it == index_.end() ? nullptr : &tensors_[it->second];
}

Weight SafeTensors::view(const SafeTensor& t) const {
    Weight w;
    if (t.dtype == "F32") w.dtype = DType::f32;
    else if (t.dtype == "F16") w.dtype = DType::f16;
    else if (t.dtype == "BF16") w.dtype = DType::bf16;
    else
        fail(Errc::unsupported, "safetensors: ", path(), ": tensor ", t.name, " has type ", t.dtype,
             "; F32, F16 and BF16 are supported");
    w.name = t.name;
    w.shape = t.shape;
    w.data = t.data;
    w.owner = file_;
    w.file = file_.get();
    return w;
}

Weight SafeTensors::weight(const SafeTensor& t) const {
    Weight w = view(t);
    align(w);                                          // the format only promises that tensors follow each other
    return w;
}

std::vector<float> SafeTensors::floats(const SafeTensor& t) const {
    const int64_t n = elements_of(t.shape);
    std::vector<float> out(size_t(n), 0.0f);
    for (int64_t i = 0; i < n; ++i) {
        uint16_t half = 0;
        if (t.dtype == "F32") { std::memcpy(&out[size_t(i)], t.data + 4 * i, 4); continue; }
        if (t.dtype == "F64") { double v = 0; std::memcpy(&v, t.data + 8 * i, 8); out[size_t(i)] = float(v); continue; }
        if (t.dtype != "F16" && t.dtype != "BF16")
            fail(Errc::unsupported, "safetensors: ", path(), ": tensor ", t.name, " has type ", t.dtype,
                 ", expected floats");
        std::memcpy(&half, t.data + 2 * i, 2);
        out[size_t(i)] = t.dtype == "F16" ? f32_from_f16(half) : f32_from_bf16(half);
    }
    file_->check();
    return out;
}

void SafeTensorsWriter::add(std::string name, Shape shape, std::vector<float> values) {
    if (elements_of(shape) != int64_t(values.size()))
        fail(Errc::shape, "safetensors: tensor ", name, " of shape ", shape, " was given ", values.size(), " values");
    const int64_t bytes = int64_t(values.size()) * 4;
    tensors.push_back({std::move(name), "F32", std::move(shape), bytes,
                       [v = std::move(values)](AtomicFile& file) { file.write(v.data(), int64_t(v.size()) * 4); }});
}

void SafeTensorsWriter::write(AtomicFile& file) const {
    std::vector<const Tensor*> order;
    for (const Tensor& t : tensors) {
        if (safetensors_room::bits_of(t.dtype) == 0)
            fail(Errc::argument, "safetensors: tensor ", t.name, " has the unknown type ", t.dtype);
        order.push_back(&t);
    }
    std::sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
        const int64_t x = safetensors_room::bits_of(a->dtype), y = safetensors_room::bits_of(b->dtype);
        return x != y ? x > y : a->dtype != b->dtype ? a->dtype < b->dtype : a->name < b->name;
    });
    std::string header = "{";                          // written directly: the reference writer puts no spaces
    if (!metadata.empty()) {
        header += "\"__metadata__\":{";
        for (size_t i = 0; i < metadata.size(); ++i)
            header += str(i ? "," : "", json_quote(metadata[i].first), ":", json_quote(metadata[i].second));
        header += "}";
    }
    int64_t offset = 0;
    for (const Tensor* t : order) {
        header += str(header.size() > 1 ? "," : "", json_quote(t->name), ":{\"dtype\":\"", t->dtype, "\",\"shape\":[");
        for (size_t d = 0; d < t->shape.size(); ++d) header += str(d ? "," : "", t->shape[d]);
        header += str("],\"data_offsets\":[", offset, ",", offset + t->bytes, "]}");
        offset += t->bytes;
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const uint64_t length = header.size();
    file.write(&length, 8);
    file.write(header.data(), int64_t(header.size()));
    for (const Tensor* t : order) {
        const int64_t before = file.written();
        t->write(file);
        if (file.written() - before != t->bytes)
            fail(Errc::argument, "safetensors: tensor ", t->name, " wrote ", file.written() - before,
                 " bytes, announced ", t->bytes);
    }
    file.commit();
}

void SafeTensorsWriter::write(const std::string& path) const {
    AtomicFile file(path);
    write(file);
}

std::string SafeTensorsWriter::bytes() const {
    std::string bytes;
    AtomicFile file = AtomicFile::in_memory(bytes);
    write(file);
    return bytes;
}

}}  // namespace qlora
