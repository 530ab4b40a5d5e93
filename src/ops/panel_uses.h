// panel_uses.h - the products with stored weights in a run of a graph, for PanelStore.
#pragma once
#include "src/cpu/panels.h"
#include "src/graph/graph.h"

namespace qlora { inline namespace QLORA_ABI {

std::vector<PanelUse> panel_uses(const GraphImpl&);    // in the order in which they run; the graph is planned

}}  // namespace qlora
