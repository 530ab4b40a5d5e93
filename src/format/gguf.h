// gguf.h - GGUF version 2 and 3, little endian: read with every length, count, offset, type, shape and alignment
// checked, and written.
//
//   "GGUF" | u32 version | u64 tensors | u64 pairs
//   pairs x   { string key | u32 type | value }
//               string = u64 length + bytes; array = u32 type | u64 count | elements
//   tensors x { string name | u32 dims <= 4 | u64 ne[dims] | u32 type | u64 offset }
//               ne[0] is the contiguous dimension
//   padding to general.alignment | tensor data
#pragma once
#include "src/base/source.h"
#include "src/base/json.h"
#include "src/tensor/weight.h"

#include <optional>
#include <unordered_map>

namespace qlora { inline namespace QLORA_ABI {

struct GgufTensor {
    std::string name;
    int ggml_type = 0;    // may be one that type_of_ggml() does not know: only using it is an error
    Shape shape;                                       // row-major: {out, in}
    int64_t offset = 0, bytes = 0;                     // from the start of the file; bytes 0 for an unknown type
    int32_t part = 0;                                  // which file of several (Gguf::open_parts)
};

// One metadata pair as it lies in the file. Values are converted when asked for: a vocabulary costs no memory here.
struct GgufPair {
    std::string key;
    uint32_t type = 0, element = 0;                    // GgufWriter::Type; element: of an array
    int64_t count = 0;                                 // elements of an array
    int64_t offset = 0, bytes = 0;                     // the value (of an array: its elements)
};

// The keys and values of a file: in its map, or in memory of their own, when the file is not needed any more.
class GgufPairs {
public:
    GgufPairs copy() const;
    const std::string& path() const { return path_; }  // of the file, for messages
    const std::vector<GgufPair>& pairs() const { return pairs_; }
    const GgufPair* pair(std::string_view key) const;
    std::string_view bytes_of_pair(const GgufPair& p) const { return bytes_of(p.offset, p.bytes); }
    // Checked access; the error names file and key. Without a fallback a missing key is an error.
    int64_t integer(std::string_view key) const;
    int64_t integer(std::string_view key, int64_t fallback) const;
    double number(std::string_view key, double fallback) const;
    bool boolean(std::string_view key, bool fallback) const;
    std::string string(std::string_view key, std::string_view fallback) const;
    std::vector<std::string> strings(std::string_view key) const;      // array of strings; empty when absent
    std::vector<float> floats(std::string_view key) const;    // array of numbers, or one number; empty when absent
    std::vector<int64_t> integers(std::string_view key) const;
protected:
    std::string_view bytes_of(int64_t offset, int64_t bytes) const;
    void check() const { if (file_) file_->check(); }
    std::string path_;
    std::shared_ptr<const MappedFile> file_;           // null: bytes_ has the values
    std::string bytes_;
    std::vector<GgufPair> pairs_;
    std::unordered_map<std::string, size_t> pair_index_;
private:
    std::optional<Json> scalar(std::string_view key) const;    // nothing when absent or an array
    template <class T, class Read>                     // the values of an array, or the one of a scalar
    std::vector<T> array_of(std::string_view key, const char* what, const Read& read) const;
    const uint8_t* at(const GgufPair& p) const { return reinterpret_cast<const uint8_t*>(bytes_of_pair(p).data()); }
};

class Gguf : public GgufPairs {
public:
    static std::shared_ptr<const Gguf> open(const Source&);
    // A model that is cut into files (name-00001-of-00003.gguf): the first one, with the tensors of all of them.
    static std::shared_ptr<const Gguf> open_parts(const Source&);
    int version() const { return version_; }
    const std::vector<GgufTensor>& tensors() const { return tensors_; }
    const GgufTensor* tensor(std::string_view name) const;
    Weight weight(const GgufTensor&) const;            // points into the map; an unknown type is an error that names it
    Weight view(const GgufTensor&) const;              // that before align(): always into the map
    const uint8_t* data(const GgufTensor& t) const { return file_of(t)->data() + t.offset; }
    std::shared_ptr<const MappedFile> file_of(const GgufTensor& t) const {
        return t.part == 0 ? file_ : parts_[size_t(t.part) - 1]->file_;
    }
private:
    friend struct GgufParser;
    std::vector<std::shared_ptr<const Gguf>> parts_;   // behind the first
    int version_ = 0;
    std::vector<GgufTensor> tensors_;
    std::unordered_map<std::string, size_t> tensor_index_;
};

struct GgufWriter {                                    // metadata in order, then tensors in order
    struct Tensor {
        std::string name;
        int ggml_type = 0;
        Shape shape;
        int64_t bytes = 0;
        std::function<void(AtomicFile&)> write;
    };
    enum class Type : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
    void set(std::string key, Type type, Json value);
    void set_array(std::string key, Type element, Json::Array values);
    void copy(const GgufPairs&, const GgufPair&);      // bytes as they are
    void add(Tensor tensor) { tensors.push_back(std::move(tensor)); }
    void write(const std::string& path) const;         // atomic
    // raw: the value's bytes, instead of value
    struct Pair { std::string key; Type type; Type element; Json value; int64_t count = 0; std::string raw = {}; };
    std::vector<Pair> pairs;
    std::vector<Tensor> tensors;
};

}}  // namespace qlora
