// cpu_pager.cpp - arrays in a file that has no name (src/base/unnamed_file.h), of which the process holds no more than
// its budget. What a run needs to go on is in its checkpoints.
#include "src/base/unnamed_file.h"
#include "src/graph/pager.h"
#include "src/ops/rooms.h"

#include <deque>

namespace qlora { inline namespace QLORA_ABI {
namespace cpu_pager_room {

// Where no budget says otherwise, more of the free memory than this share is left to what is computed.
constexpr int64_t share = 2;

int64_t padded(int64_t bytes) { return (bytes + file_page - 1) / file_page * file_page; }

class FilePager final : public Pager {
public:
    FilePager(const PageRequest& request, int64_t budget)
        : request_(request), window_(std::max<int64_t>(1, budget / request.piece_bytes())) {
        int64_t size = 0;
        for (const auto& a : request_.arrays) size += padded(a.bytes);
        const std::shared_ptr<void> owner = map_unnamed_file(
            request.folder, size, "page states of the optimizer",
            "choose another folder (AdamW::page_folder), 8-bit states, or states that are not paged");
        char* next = static_cast<char*>(owner.get());
        for (const auto& a : request_.arrays) {
            arrays_.push_back(std::make_shared<Buffer>(Buffer{next, a.bytes, owner, true}));
            next += padded(a.bytes);
        }
    }

    std::string kind() const override { return "file"; }
    int64_t held_bytes() const override { return std::min(window_ * request_.piece_bytes(), request_.bytes()); }
    const BufferRef& array(size_t a) const override { return arrays_[a]; }
    BufferRef piece(size_t a, int64_t i) const override {
        const auto [first, bytes] = range(a, i);
        return slice(arrays_[a], first, bytes);
    }
    void bring(int64_t i, int64_t next) override {
        if (std::find(held_.begin(), held_.end(), i) == held_.end()) {
            while (int64_t(held_.size()) >= window_) drop();
            held_.push_back(i);
            count(i);
        }
        if (next >= 0 && std::find(held_.begin(), held_.end(), next) == held_.end()) advise(next, call_back);
    }
    void leave(int64_t) override {}                    // work is done when it returns
    void settle() override { while (!held_.empty()) drop(); }

private:
    struct Range { int64_t first, bytes; };
    Range range(size_t a, int64_t i) const {
        const auto& of = request_.arrays[a];
        return {i * of.piece, std::min(of.piece, of.bytes - i * of.piece)};
    }
    void count(int64_t i) {
        for (size_t a = 0; a < arrays_.size(); ++a) moved_ += range(a, i).bytes;
    }
    void advise(int64_t i, void (*pages)(void*, int64_t)) const {
        for (size_t a = 0; a < arrays_.size(); ++a) {
            const auto [first, bytes] = range(a, i);
            pages(static_cast<char*>(arrays_[a]->data) + first, bytes);
        }
    }
    void drop() {    // the oldest: of a shared map its contents stay, in the system's cache or in the file
        advise(held_.front(), let_go);
        count(held_.front());
        held_.pop_front();
    }

    const PageRequest request_;
    const int64_t window_;                             // pieces
    std::vector<BufferRef> arrays_;
    std::deque<int64_t> held_;                         // oldest first
};

}  // namespace cpu_pager_room

std::shared_ptr<Pager> cpu_pager(const PageRequest& request, int64_t left) {
    namespace room = cpu_pager_room;
    const int64_t budget = request.budget > 0 ? request.budget : left / room::share;
    if (request.bytes() <= budget) return nullptr;
    return std::make_shared<room::FilePager>(request, budget);
}

}}  // namespace qlora
