// gguf_file.h - a GGUF file (version 3) put together tensor by tensor: bench's models of random weights, of which there
// is no Model that the library could save, in stored types that it reads but does not make.
#pragma once
#include "qlora.h"

#include <ostream>

namespace program {

class GgufFile {
public:
    // Text, uint32_t, int32_t or float; or an array of one of these, a std::vector.
    template <class T>
    void set(const std::string& key, const T& value) {
        put(pairs_, key);
        put(pairs_, kind_of(value));
        put(pairs_, value);
        ++pair_count_;
    }
    // type: its number in GGUF. `write` writes exactly so many bytes, when its turn comes.
    void add(const std::string& name, int32_t type, const qlora::Shape& shape, int64_t bytes,
             std::function<void(std::ostream&)> write);
    size_t tensors() const { return tensors_.size(); }
    void write(const std::string& path) const;         // beside it, then renamed: a file of this name is whole
    void write_outline(const std::string& path) const;    // zeros that take no disk in the place of the tensors

private:
    struct Tensor { int64_t bytes; std::function<void(std::ostream&)> write; };
    std::string head() const;
    static uint32_t kind_of(uint32_t) { return 4; }
    static uint32_t kind_of(int32_t) { return 5; }
    static uint32_t kind_of(float) { return 6; }
    static uint32_t kind_of(const std::string&) { return 8; }
    template <class T>
    static uint32_t kind_of(const std::vector<T>&) { return 9; }

    template <class T>
    static void put(std::string& out, const T& number) {
        out.append(reinterpret_cast<const char*>(&number), sizeof number);
    }
    static void put(std::string& out, const std::string& text) {
        put(out, uint64_t(text.size()));
        out += text;
    }
    template <class T>
    static void put(std::string& out, const std::vector<T>& values) {
        put(out, kind_of(T()));
        put(out, uint64_t(values.size()));
        for (const T& value : values) put(out, value);
    }

    std::string pairs_, infos_;                        // the two tables of a file, as they lie in it
    uint64_t pair_count_ = 0;
    int64_t offset_ = 0;                               // of the next tensor
    std::vector<Tensor> tensors_;
};

}  // namespace program
