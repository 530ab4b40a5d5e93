// table.cpp - the operation table: one row for each line of ops.def. An operation that is listed and has no room fails
// to link.
#include "src/graph/graph.h"

namespace qlora { inline namespace QLORA_ABI {

const OpDef& op_def(Op op) {
    static const OpDef* const table[] = {
#define QLORA_OP(name, room) &name##_def,
#include "src/graph/ops.def"
#undef QLORA_OP
    };
    return *table[size_t(op)];
}

}}  // namespace qlora
