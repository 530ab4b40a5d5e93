// gguf_parts.cpp - models that were cut into several GGUF files: split.count of them, split.no from 0 on, each with
// some of the tensors; all metadata is in the first.
#include "src/format/gguf.h"

#include <algorithm>

namespace qlora {
inline namespace QLORA_ABI {
namespace gguf_parts_room {

constexpr int64_t most_parts = 1000;

std::string five(int64_t number) {
    std::string digits = std::to_string(number);
    return std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits;
}

// "dir/name" of "dir/name-00001-of-00003.gguf"
std::string stem(const std::string& path, int64_t number, int64_t count) {
    const std::string end = str("-", five(number), "-of-", five(count), ".gguf");
    if (!path.ends_with(end))
        fail(Errc::format, "gguf: ", path, ": is part ", number, " of ", count, ", so its name must end in ", end,
             ": the other parts are found by their names");
    return path.substr(0, path.size() - end.size());
}

}    // namespace gguf_parts_room

std::shared_ptr<const Gguf> Gguf::open_parts(const Source& source) {
    using namespace gguf_parts_room;
    const std::shared_ptr<const Gguf> first = open(source);
    const int64_t count = first->integer("split.count", 1), number = first->integer("split.no", 0);
    const std::string& path = source.name();
    if (count <= 1) return first;
    if (count > most_parts || number < 0 || number >= count)
        fail(Errc::format, "gguf: ", path, ": part ", number, " of ", count, " (split.no, split.count)");
    const std::string name = stem(path, number + 1, count);
    if (number != 0)
        fail(Errc::argument, "gguf: ", path, ": is part ", number + 1, " of ", count, "; give the first: ", name, "-",
             five(1), "-of-", five(count), ".gguf");
    if (is_in_memory(source))
        fail(Errc::unsupported, "gguf: ", path, ": is the first of ", count,
             " parts, and a model in memory is one: give the path of the first file, or join them "
             "(llama-gguf-split --merge)");
    auto all = std::make_shared<Gguf>(*first);
    for (int64_t i = 1; i < count; ++i) {
        const std::string file = str(name, "-", five(i + 1), "-of-", five(count), ".gguf");
        const std::shared_ptr<const Gguf> part = open(file);
        if (part->integer("split.no", -1) != i || part->integer("split.count", -1) != count)
            fail(Errc::format, "gguf: ", file, ": does not say that it is part ", i + 1, " of ", count,
                 "; it belongs to another model");
        all->parts_.push_back(part);
        for (GgufTensor t : part->tensors()) {
            t.part = int32_t(i);
            if (!all->tensor_index_.emplace(t.name, all->tensors_.size()).second)
                fail(Errc::format, "gguf: ", file, ": the tensor ", t.name, " is in another part too");
            all->tensors_.push_back(std::move(t));
        }
    }
    const int64_t expected = first->integer("split.tensors.count", int64_t(all->tensors_.size()));
    if (int64_t(all->tensors_.size()) != expected)
        fail(Errc::format, "gguf: ", path, ": its parts hold ", all->tensors_.size(), " tensors, it says ", expected);
    // what is saved of the model is one file
    std::erase_if(all->pairs_, [](const GgufPair& p) { return p.key.starts_with("split."); });
    all->pair_index_.clear();
    for (size_t i = 0; i < all->pairs_.size(); ++i) all->pair_index_.emplace(all->pairs_[i].key, i);
    return all;
}

}
}    // namespace qlora
