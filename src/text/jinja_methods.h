// jinja_methods.h - the methods of texts, which fill a room of their own.
#pragma once
#include "src/text/jinja_contract.h"

namespace qlora { inline namespace QLORA_ABI {

// a safe text escapes its arguments: those methods are refused
const JinjaTable& jinja_string_methods(const JinjaValue& self);

}}  // namespace qlora
