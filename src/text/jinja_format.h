// jinja_format.h - 'text' % values, and 'text'.format(values).
#pragma once
#include "src/text/jinja_value.h"

namespace qlora { inline namespace QLORA_ABI {

// a tuple, a dict, or one value
JinjaText jinja_percent_format(JinjaContext&, const JinjaText& format, const JinjaValue& arguments);
JinjaText jinja_brace_format(JinjaContext&, const JinjaText& format, const std::vector<JinjaValue>& positional,
                             const std::vector<std::pair<std::string, JinjaValue>>& named);

}}  // namespace qlora
