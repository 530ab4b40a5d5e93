// all.h - every fuzz target by its name.
#pragma once
#include "tests/fuzz/folders.h"
#include "tests/fuzz/formats.h"
#include "tests/fuzz/runs.h"
#include "tests/fuzz/texts.h"
#include "tests/fuzz/told.h"

namespace fuzz {

inline const Targets& targets() {
    static const Targets all = [] {
        Targets merged;
        for (Targets part : {formats(), folders(), texts(), runs(), told()}) merged.merge(part);
        return merged;
    }();
    return all;
}

}  // namespace fuzz
