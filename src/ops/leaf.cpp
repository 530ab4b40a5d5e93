// leaf.cpp - what a graph starts from: inputs, params, states and stored weights. They hold memory and compute nothing.
// An input is fed before each run; a param has a gradient; a state is updated by operations; a weight is frozen, in its
// stored form.
#include "src/graph/graph.h"

namespace qlora { inline namespace QLORA_ABI {
namespace leaf_room {

void shape(const GraphImpl&, Node& n) {
    fail(Errc::argument, op_def(n.op).name, ": a leaf is made with GraphImpl::", op_def(n.op).name,
         "(), not with add()");
}

}  // namespace leaf_room

const OpDef input_def{.name = "input", .shape = leaf_room::shape, .computes = false};
const OpDef param_def{.name = "param", .shape = leaf_room::shape, .computes = false};
const OpDef weight_def{.name = "weight", .shape = leaf_room::shape, .computes = false};
const OpDef state_def{.name = "state", .shape = leaf_room::shape, .computes = false};

}}  // namespace qlora
