// json.h - beside the public Json (qlora.h): texts as JSON writes them, for what is written piece by piece.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

std::string json_quote(std::string_view utf8);         // with the quotes; non-ASCII stays as it is

}}  // namespace qlora
