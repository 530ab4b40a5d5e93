// stop.cpp - the public StopScope.
#include "src/base/stop.h"

#include <utility>

namespace qlora { inline namespace QLORA_ABI {

StopScope::StopScope(std::function<bool()> go_on)
    : go_on_(std::move(go_on)), before_(std::exchange(stop_question, go_on_ ? &go_on_ : nullptr)) {}

StopScope::~StopScope() { stop_question = before_; }

}}  // namespace qlora
