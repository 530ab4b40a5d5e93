// safetensors.h - read with the checks of the reference reader, and written as it writes.
//
//   u64 header length | JSON header, padded with spaces | data; offsets relative to the data, no holes, no overlaps,
//   all of the file
#pragma once
#include "src/base/source.h"
#include "src/base/json.h"
#include "src/tensor/weight.h"

#include <unordered_map>

namespace qlora { inline namespace QLORA_ABI {

// dtype as in the file: "F32", "BF16", "U8", ...
struct SafeTensor { std::string name, dtype; Shape shape; const uint8_t* data = nullptr; int64_t bytes = 0; };

class SafeTensors {
public:
    // name: of a file in a folder
    static std::shared_ptr<const SafeTensors> open(const Source&, const std::string& name = {});
    const std::vector<SafeTensor>& tensors() const { return tensors_; }
    const SafeTensor* find(std::string_view name) const;
    const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }
    const std::string& path() const { return file_->path(); }
    const MappedFile* mapped() const { return file_.get(); }
    // F32, F16, BF16 as stored; other types are an error that names tensor and type
    Weight weight(const SafeTensor&) const;
    Weight view(const SafeTensor&) const;              // that before align(): always into the map
    std::vector<float> floats(const SafeTensor&) const;
private:
    friend struct SafeTensorsParser;
    std::shared_ptr<const MappedFile> file_;
    std::vector<SafeTensor> tensors_;
    std::unordered_map<std::string, size_t> index_;
    std::vector<std::pair<std::string, std::string>> metadata_;
};

struct SafeTensorsWriter {    // sorted by element size (largest first), then name; header padded to 8
    struct Tensor { std::string name, dtype; Shape shape; int64_t bytes = 0; std::function<void(AtomicFile&)> write; };
    std::vector<Tensor> tensors;
    std::vector<std::pair<std::string, std::string>> metadata{{"format", "pt"}};
    void add(std::string name, Shape shape, std::vector<float> values);         // F32
    void write(const std::string& path) const;         // atomic
    std::string bytes() const;                         // of the file, in memory
private:
    void write(AtomicFile&) const;
};

}}  // namespace qlora
