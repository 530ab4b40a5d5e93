// api.h - what the public classes share: handles that must not be empty.
#pragma once
#include "src/base/access.h"
#include "src/model/lora.h"

namespace qlora { inline namespace QLORA_ABI {
namespace api_room {

template <class Impl>
const Impl& checked(const std::shared_ptr<Impl>& impl, const char* what) {
    if (!impl) fail(Errc::argument, what, ": an empty handle; use one that load() or create() has returned");
    return *impl;
}

// What the handle holds, which is something.
template <class Handle>
const auto& held(const Handle& handle, const char* what) {
    checked(impl_of(handle), what);
    return impl_of(handle);
}

// Null: no adapter.
inline std::shared_ptr<LoraImpl> adapter_of(const std::optional<Lora>& lora) {
    return lora ? held(*lora, "Lora") : nullptr;
}

template <class Impl>
Impl& live(const std::unique_ptr<Impl>& impl, const char* what) {
    if (!impl) fail(Errc::argument, what, ": this object was moved from; use the one that it was moved to");
    return *impl;
}

inline std::shared_ptr<const TokenizerImpl> tokenizer_of(const ModelImpl& model) {
    if (!model.tokenizer)
        fail(Errc::argument, "tokenizer: ", model.path, " has no vocabulary; load one with Tokenizer::load");
    return model.tokenizer;
}

}  // namespace api_room
}}  // namespace qlora
