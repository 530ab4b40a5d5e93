// gguf_file.cpp - see gguf_file.h. The library's reader, which checks everything, is what reads it.
#include "examples/common/gguf_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <unistd.h>

namespace program {

namespace fs = std::filesystem;

static constexpr int64_t alignment = 32;               // what a file that names none has

static int64_t padded(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

void GgufFile::add(const std::string& name, int32_t type, const qlora::Shape& shape, int64_t bytes,
                   std::function<void(std::ostream&)> write) {
    put(infos_, name);
    put(infos_, uint32_t(shape.size()));
    for (size_t d = shape.size(); d-- > 0;) put(infos_, uint64_t(shape[d]));   // the contiguous dimension first
    put(infos_, type);
    put(infos_, uint64_t(offset_));
    offset_ += padded(bytes);
    tensors_.push_back({bytes, std::move(write)});
}

std::string GgufFile::head() const {
    std::string head = "GGUF";
    put(head, uint32_t(3));
    put(head, uint64_t(tensors_.size()));
    put(head, pair_count_);
    head += pairs_ + infos_;
    head.resize(size_t(padded(int64_t(head.size()))));
    return head;
}

void GgufFile::write_outline(const std::string& path) const {
    const std::string start = head();
    std::ofstream(path, std::ios::binary) << start;
    std::error_code error;
    fs::resize_file(path, start.size() + uint64_t(offset_), error);
    if (error) throw qlora::Error(qlora::Errc::io, "write " + path + ": " + error.message());
}

void GgufFile::write(const std::string& path) const {
    const std::string start = head();
    const std::string part = path + ".part-" + std::to_string(::getpid());
    try {
        const char zeros[alignment] = {};
        std::ofstream out(part, std::ios::binary);
        out.write(start.data(), std::streamsize(start.size()));
        for (const Tensor& t : tensors_) {
            if (out) t.write(out);
            out.write(zeros, padded(t.bytes) - t.bytes);
        }
        out.close();
        if (!out) throw qlora::Error(qlora::Errc::io, "write " + path + ": " + std::strerror(errno));
        fs::rename(part, path);
    } catch (...) {
        std::error_code ignored;
        fs::remove(part, ignored);
        throw;
    }
}

}  // namespace program
