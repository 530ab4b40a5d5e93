// cpu_pager.cpp - arrays in a file that has no name any more, mapped: the system writes pages out and reads them when
// they are asked for, and the process holds no more of them than its budget. The file ends with its last user, however
// that ends; what a run needs to go on is in its checkpoints.
#include "src/base/descriptor.h"
#include "src/base/limits.h"
#include "src/graph/pager.h"
#include "src/ops/rooms.h"

#include <cstdlib>
#include <deque>

namespace qlora { inline namespace QLORA_ABI {
namespace cpu_pager_room {

// Where no budget says otherwise, more of the free memory than this share is left to what is computed.
constexpr int64_t share = 2;
constexpr int64_t page = 64 << 10;                     // a multiple of every system's

int64_t padded(int64_t bytes) { return (bytes + page - 1) / page * page; }

class FilePager final : public Pager {
public:
    FilePager(const PageRequest& request, int64_t budget)
        : request_(request), window_(std::max<int64_t>(1, budget / request.piece_bytes())) {
        const std::string folder = !request.folder.empty() ? request.folder : temporary_folder();
        const std::string name = temporary_name(folder + "/optimizer-states");
        const auto file = std::make_shared<Descriptor>(sys::open_nameless(name));
        if (file->fd < 0)
            fail(Errc::io, "page states of the optimizer: create ", name, ": ", reason(errno),
                 "; choose another folder (AdamW::page_folder), or states that are not paged");
        int64_t size = 0;
        for (const auto& a : request_.arrays) size += padded(a.bytes);
        make_room(file->fd, size, folder);
        void* const at = sys::map(file->fd, size, true);
        if (!at) fail(Errc::memory, "page states of the optimizer: map ", size, " bytes: ", reason(errno));
        const std::shared_ptr<void> owner(at, [size, file](void* p) { sys::unmap(p, size); });
        char* next = static_cast<char*>(at);
        for (const auto& a : request_.arrays) {
            arrays_.push_back(std::make_shared<Buffer>(Buffer{next, a.bytes, owner}));
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
        if (next >= 0 && std::find(held_.begin(), held_.end(), next) == held_.end()) advise(next, sys::will_need);
    }
    void leave(int64_t) override {}                    // work is done when it returns
    void settle() override { while (!held_.empty()) drop(); }

private:
    static std::string temporary_folder() {
        const char* const named = std::getenv(sys::temporary_folder_variable);
        return named && *named ? named : "/tmp";
    }
    // A file with holes would end the process when the disk is full, at a write that nobody can refuse.
    static void make_room(int fd, int64_t size, const std::string& folder) {
        if (const int code = sys::make_room(fd, size))
            fail(Errc::io, "page states of the optimizer: ", size, " bytes in ", folder, ": ", reason(code),
                 "; choose another folder (AdamW::page_folder), 8-bit states or a lower rank");
    }
    struct Range { int64_t first, bytes; };
    Range range(size_t a, int64_t i) const {
        const auto& of = request_.arrays[a];
        return {i * of.piece, std::min(of.piece, of.bytes - i * of.piece)};
    }
    void count(int64_t i) {
        for (size_t a = 0; a < arrays_.size(); ++a) moved_ += range(a, i).bytes;
    }
    void advise(int64_t i, void (*wish)(void*, size_t)) const {
        for (size_t a = 0; a < arrays_.size(); ++a) {
            const auto [first, bytes] = range(a, i);
            char* const at = static_cast<char*>(arrays_[a]->data) + first;
            // whole pages: those that two pieces share stay
            const uintptr_t from = (reinterpret_cast<uintptr_t>(at) + page - 1) / page * page,
                            to = reinterpret_cast<uintptr_t>(at + bytes) / page * page;
            if (from < to) wish(reinterpret_cast<void*>(from), to - from);
        }
    }
    void drop() {    // the oldest: of a shared map its contents stay, in the system's cache or in the file
        advise(held_.front(), sys::forget);
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
