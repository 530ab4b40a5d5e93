// bases.cpp - the bases an adapter can be merged into, measured side by side.
#include "examples/export/bases.h"

#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"

#include <cmath>
#include <cstdio>

namespace program {

std::vector<Base> bases_of(const ModelFlags& model, bool chosen_by_user) {
    std::vector<Base> bases;
    bases.push_back({"", Loaded(model)});
    const std::string held = bases[0].loaded.model.info().weights;
    bases[0].name = (model.quant == "none" ? "as stored, " : "") + held +
                    (model.why.empty()                                ? ""
                     : model.why.find("trained") != std::string::npos ? ", which the adapter was trained on"
                                                                      : ", as --base-type says");
    if (chosen_by_user || model.quant == "none") return bases;
    ModelFlags stored = model;
    stored.quant = "none";
    // else it would be brought into the recorded form again
    if (stored.on_base == qlora::OnBase::recorded) stored.on_base = qlora::OnBase::as_held;
    Loaded source(stored);
    const std::string weights = source.model.info().weights;
    if (weights != held) bases.push_back({"as stored, " + weights, std::move(source)});
    return bases;
}

void measure(std::vector<Base>& bases, const Measure& on, qlora::DType type, bool double_quant, bool results) {
    Progress progress(2);
    const auto loss = [&](const auto& model, const char* of, const Base& base) {
        if (interrupted()) throw qlora::Error(qlora::Errc::argument, "stopped; nothing was written");
        if (progress.live()) progress.update(std::string("measuring ") + of + ", " + base.name + " ...");
        return on.loss(model);
    };
    for (Base& b : bases) {
        b.base = loss(b.loaded.model, "the base", b);
        b.adapted = loss(*b.loaded.lora, "base + adapter", b);
        if (results) b.result = loss(b.loaded.lora->merge({type, double_quant}), "the result", b);
    }
    if (progress.live()) progress.update("");
}

void print(const std::vector<Base>& bases, const Measure& on, size_t taken) {
    std::printf("loss on %s:\n  %-52s %10s %14s %10s\n", on.name().c_str(), "base", "alone", "with adapter", "result");
    for (size_t i = 0; i < bases.size(); ++i) {
        const Base& b = bases[i];
        char result[32] = "-";
        if (b.result) std::snprintf(result, sizeof result, "%.4f", *b.result);
        std::printf("  %-52s %10.4f %14.4f %10s%s\n", b.name.c_str(), b.base, b.adapted, result,
                    bases.size() > 1 && i == taken ? "  taken" : "");
    }
}

static void warn(const std::string& what, const std::string& type, bool on_codes) {
    std::string remedy = on_codes ? "--base-type none merges into the source's own weights" : "";
    const auto add = [&](const char* more) { remedy += (remedy.empty() ? "" : "; ") + std::string(more); };
    if (type == "q4_0" && !on_codes) add("--type iq4_nl is as small and often closer");
    if (type == "q4_0" || type == "iq4_nl" || type == "nf4") add("--type q8_0 or f16 keep more");
    std::printf("%s\n", styled("warning: " + what + (remedy.empty() ? "" : "; " + remedy), Style::yellow).c_str());
}

void warn_of_loss(double lost, const std::string& reference, const std::string& type, bool on_codes) {
    constexpr double most = 0.05;
    char text[64];
    std::snprintf(text, sizeof text, "the perplexity is %.1f%% above that of ", 100 * lost);
    if (lost > most) warn(text + reference, type, on_codes);
}

void judge(const Base& trained, double result, const std::string& type, bool on_codes) {
    constexpr double enough = 0.95;
    const double improvement = trained.base - trained.adapted, left = 100 * (trained.base - result) / improvement;
    char text[96];
    if (improvement > 0) std::snprintf(text, sizeof text, "%.1f%% of the adapter's improvement is left", left);
    else std::snprintf(text, sizeof text, "the adapter does not improve the loss here");
    std::printf("%s; perplexity %.4g, of base + adapter %.4g\n", text, std::exp(result), std::exp(trained.adapted));
    if (improvement > 0 && left < 100 * enough) warn(std::string("only ") + text, type, on_codes);
    warn_of_loss(std::exp(result - trained.adapted) - 1, "base + adapter", type, on_codes);
}

}  // namespace program
