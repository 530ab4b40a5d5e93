// svg.h - a loss curve as one self-contained SVG file that reads well on light and on dark pages.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace program {

using Curve = std::vector<std::pair<double, double>>;  // {step, loss}

// The training curve is drawn thin with its smoothed trend on top; the held-out curve has dots.
std::string loss_curve(const std::string& title, const Curve& train, const Curve& held_out);

}  // namespace program
