// base64.h - bytes as printable text (RFC 4648), and back.
#pragma once
#include "src/base/error.h"

namespace qlora { inline namespace QLORA_ABI {

std::string base64(std::string_view bytes);
// false: not base64 with its padding
bool base64_bytes(std::string_view text, std::string& out);

}}  // namespace qlora
