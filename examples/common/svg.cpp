// svg.cpp - the loss curve. Colours are middle tones and the page behind stays transparent, so light and dark pages
// both work.
#include "examples/common/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace program {

namespace svg {

constexpr double width = 720, height = 400, left = 64, right = 20, top = 52, bottom = 48;
constexpr const char* train_colour = "#3b82f6";
constexpr const char* held_out_colour = "#f97316";

struct Axis {
    double low = 0, high = 1, tick = 0.2;
};

// Steps of 1, 2 or 5 times a power of ten, about `wanted` of them.
Axis nice_axis(double low, double high, int wanted, bool whole) {
    if (!(high > low)) { const double pad = std::max(0.5, std::fabs(low) * 0.1); low -= pad; high += pad; }
    const double rough = (high - low) / wanted, power = std::pow(10.0, std::floor(std::log10(rough)));
    double tick = power * 10;
    for (const double factor : {1.0, 2.0, 5.0}) if (factor * power >= rough) { tick = factor * power; break; }
    if (whole) tick = std::max(1.0, tick);
    return {std::floor(low / tick) * tick, std::ceil(high / tick) * tick, tick};
}

std::string number(double value, double tick) {
    char text[32];
    const int digits = tick >= 1 ? 0 : std::min(6, int(std::ceil(-std::log10(tick) - 1e-9)));
    std::snprintf(text, sizeof text, "%.*f", digits, value + 0.0);
    return text;
}

std::string escape(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '<') out += "&lt;";
        else if (c == '>') out += "&gt;";
        else if (c == '&') out += "&amp;";
        else if (c == '"') out += "&quot;";
        else out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
    }
    return out;
}

template <class... Part>
void put(std::string& out, const char* format, Part... parts) {
    char text[512];
    std::snprintf(text, sizeof text, format, parts...);
    out += text;
}

struct Plot {
    Axis x, y;
    double across(double step) const { return left + (step - x.low) / (x.high - x.low) * (width - left - right); }
    double down(double loss) const { return top + (y.high - loss) / (y.high - y.low) * (height - top - bottom); }
};

void draw_line(std::string& out, const Plot& plot, const Curve& curve, const char* style) {
    if (curve.empty()) return;
    out += "<polyline fill=\"none\" stroke-linejoin=\"round\" stroke-linecap=\"round\" ";
    out += style;
    out += " points=\"";
    for (const auto& [step, loss] : curve) put(out, "%.1f,%.1f ", plot.across(step), plot.down(loss));
    out += "\"/>\n";
}

// Exponential average, started at the first value; its memory grows with the run so that short runs keep their shape.
Curve smoothed(const Curve& curve) {
    const double keep = std::min(0.95, 1 - 1 / std::max(1.0, double(curve.size()) / 12));
    Curve out = curve;
    for (size_t i = 1; i < out.size(); ++i) out[i].second = keep * out[i - 1].second + (1 - keep) * curve[i].second;
    return out;
}

void draw_axes(std::string& out, const Plot& plot) {
    out += "<g stroke=\"#8b949e\" stroke-opacity=\".3\">\n";
    for (double v = plot.y.low; v <= plot.y.high + plot.y.tick / 2; v += plot.y.tick)
        put(out, "<line x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", left, width - right, plot.down(v),
            plot.down(v));
    out += "</g>\n<g fill=\"#8b949e\">\n";
    for (double v = plot.y.low; v <= plot.y.high + plot.y.tick / 2; v += plot.y.tick)
        put(out, "<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left - 8, plot.down(v) + 4,
            number(v, plot.y.tick).c_str());
    for (double v = plot.x.low; v <= plot.x.high + plot.x.tick * 1e-6; v += plot.x.tick)
        put(out, "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>\n", plot.across(v), height - bottom + 18,
            number(v, plot.x.tick).c_str());
    put(out, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">step</text>\n", (left + width - right) / 2,
        height - 8);
    put(out,
        "<text transform=\"translate(16 %.0f) rotate(-90)\" text-anchor=\"middle\">loss per trained "
        "token</text>\n</g>\n",
        (top + height - bottom) / 2);
}

void draw_legend(std::string& out, double& x, const char* colour, const std::string& label) {
    put(out, "<rect x=\"%.0f\" y=\"32\" width=\"14\" height=\"4\" rx=\"2\" fill=\"%s\"/>\n", x, colour);
    put(out, "<text x=\"%.0f\" y=\"38\" fill=\"#8b949e\">%s</text>\n", x + 20, label.c_str());
    x += 40 + 6.6 * double(label.size());
}

Curve finite(Curve curve) {
    std::erase_if(curve, [](const auto& p) { return !std::isfinite(p.first) || !std::isfinite(p.second); });
    return curve;
}

}  // namespace svg

std::string loss_curve(const std::string& title, const Curve& all_train, const Curve& all_held_out) {
    const Curve train = svg::finite(all_train), held_out = svg::finite(all_held_out);
    double last_step = 1, low = INFINITY, high = -INFINITY;
    for (const Curve* curve : {&train, &held_out}) {
        for (const auto& [step, loss] : *curve) {
            last_step = std::max(last_step, step);
            low = std::min(low, loss);
            high = std::max(high, loss);
        }
    }
    if (low > high) low = 0, high = 1;
    svg::Plot plot{svg::nice_axis(0, last_step, 8, true), svg::nice_axis(low, high, 6, false)};
    plot.x.high = std::max(last_step, plot.x.tick);    // the curve reaches the right edge; ticks stop where they stop

    std::string out;
    svg::put(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" ",
             svg::width, svg::height, svg::width, svg::height);
    out +=
        "font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"12\" "
        "role=\"img\">\n";
    out += "<title>" + svg::escape(title) + "</title>\n";
    out += "<text x=\"64\" y=\"22\" font-size=\"15\" font-weight=\"600\" fill=\"#8b949e\">" + svg::escape(title) +
           "</text>\n";
    svg::draw_axes(out, plot);
    char style[160];
    std::snprintf(style, sizeof style, "stroke=\"%s\" stroke-width=\"1\" stroke-opacity=\".4\"", svg::train_colour);
    svg::draw_line(out, plot, train, style);
    std::snprintf(style, sizeof style, "stroke=\"%s\" stroke-width=\"2.2\"", svg::train_colour);
    svg::draw_line(out, plot, svg::smoothed(train), style);
    std::snprintf(style, sizeof style, "stroke=\"%s\" stroke-width=\"2.2\"", svg::held_out_colour);
    svg::draw_line(out, plot, held_out, style);
    for (const auto& [step, loss] : held_out)
        svg::put(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", plot.across(step), plot.down(loss),
                 svg::held_out_colour);
    double x = svg::left;
    const auto label = [](const char* name, const Curve& curve) {
        char text[64];
        std::snprintf(text, sizeof text, "%s, last %.3f", name, curve.back().second);
        return std::string(text);
    };
    if (!train.empty()) svg::draw_legend(out, x, svg::train_colour, label("training", train));
    if (!held_out.empty()) svg::draw_legend(out, x, svg::held_out_colour, label("held out", held_out));
    return out + "</svg>\n";
}

}  // namespace program
