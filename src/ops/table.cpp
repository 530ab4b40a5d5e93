// table.cpp - the operation table, and that of the kernels of the CPU: one row for each line of ops.def. An operation
// that is listed and has no room, or no kernel in it, fails to link.
#include "src/ops/rooms.h"

namespace qlora { inline namespace QLORA_ABI {

const OpDef& op_def(Op op) {
    static const OpDef* const table[] = {
#define QLORA_OP(name, room) &name##_def,
#include "src/graph/ops.def"
    };
    return *table[size_t(op)];
}

const Kernel* cpu_kernel(Op op) {
    static const Kernel* const table[] = {
#define QLORA_LEAF(name, room) nullptr,
#define QLORA_OP(name, room) &name##_cpu,
#include "src/graph/ops.def"
    };
    return table[size_t(op)];
}

}}  // namespace qlora
