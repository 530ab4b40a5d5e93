// factor_halves.cpp - the factors of an adapter in f16, which generation reads once for every token: in a small model
// they are a quarter of all bytes in f32. An element keeps 11 bits, where the weights beside it have four and x 16.
#include "src/base/half.h"
#include "src/model/lora.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace factor_halves_room {

// f16 ends at 65504, and steps below 2^-14 in steps of 2^-24: a factor whose largest element is at least this is off by
// 2^-13 of it at most, whatever its other elements are. Zeros are exact.
constexpr float least = 0x1p-12f, most = 65504;

// False: values that f16 would lose too much of, or that are no numbers.
bool round(const float* values, int64_t count, uint16_t* to) {
    float largest = 0;
    bool finite = true;
    for (int64_t i = 0; i < count; ++i) {
        largest = std::max(largest, std::fabs(values[i]));
        finite = finite && std::isfinite(values[i]);
        to[i] = f16_from_f32(values[i]);
    }
    return finite && (largest == 0 || (largest >= least && largest <= most));
}

}  // namespace factor_halves_room

BufferRef refresh_halves(const LoraImpl& lora) {
    FactorHalves& halves = lora.halves;
    BackendImpl& backend = *lora.base->backend;
    const std::lock_guard<std::mutex> guard(halves.lock);
    if (halves.buffer && halves.version == lora.version) return halves.fit ? halves.buffer : nullptr;
    if (!halves.buffer) halves.buffer = backend.allocate(lora.parameters * 2);
    halves.version = lora.version;
    halves.fit = true;
    std::vector<float> values;
    std::vector<uint16_t> rounded;
    const auto add = [&](int64_t first, int64_t count) {
        if (!halves.fit) return;
        values.resize(size_t(count));
        rounded.resize(size_t(count));
        backend.download(*lora.values, first * 4, values.data(), count * 4);
        halves.fit = factor_halves_room::round(values.data(), count, rounded.data());
        backend.upload(*halves.buffer, first * 2, rounded.data(), count * 2);
    };
    for (const LoraTarget& t : lora.targets) {
        add(t.a, t.rank * t.in);
        add(t.b, t.out * t.rank);
    }
    return halves.fit ? halves.buffer : nullptr;
}

}}  // namespace qlora
