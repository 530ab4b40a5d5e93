// lora_plus.h - LoRA+ (arXiv:2402.12354): B, and DoRA's magnitudes, learn at `ratio` times the rate of A.
//
// AdamW's moments know no rate, so a step at another rate is the same step times their ratio: it is taken as all others
// are, and what it changed of B is scaled afterwards. There is no state beside the factors: a run goes on exactly.
#pragma once
#include "src/model/lora.h"

#include <memory>

namespace qlora { inline namespace QLORA_ABI {

class LoraPlus {
public:
    LoraPlus(const LoraImpl&, float ratio);            // ratio 1: nothing is done or allocated
    void before();                                     // AdamW's step
    void after();
    int64_t bytes() const { return old_ ? old_->bytes : 0; }
private:
    struct Part { int64_t at, count; };                // in floats, of LoraImpl::values
    std::vector<Part> parts_;
    BufferRef values_, old_;                           // old_: the parts one after another, as they were
    std::shared_ptr<BackendImpl> backend_;
    std::unique_ptr<GraphImpl> graph_;
};

}}  // namespace qlora
