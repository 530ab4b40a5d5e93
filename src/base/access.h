// access.h - the library's own way into the public handles, which show nothing of what they hold.
#pragma once
#include "qlora.h"

namespace qlora { inline namespace QLORA_ABI {

struct Access {
    template <class Handle> static const auto& impl(const Handle& handle) { return handle.impl_; }
    template <class Handle, class Impl> static Handle handle(std::shared_ptr<Impl> impl) {
        return Handle(std::move(impl));
    }
    static const MemoryFiles* memory(const Source& source) { return source.memory_.get(); }
};

// What a handle holds, for as long as the handle lives: null where it was moved from.
template <class Handle>
const auto& impl_of(const Handle& handle) { return Access::impl(handle); }
template <class Handle, class Impl>
Handle handle_of(std::shared_ptr<Impl> impl) { return Access::handle<Handle>(std::move(impl)); }

}}  // namespace qlora
