// card.cpp - the model card and the Modelfile.
#include "examples/finetune/card.h"

#include "examples/common/terminal.h"

#include <cstdio>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;
using qlora::Message;

template <class... Values>
static std::string text(const char* format, Values... values) {
    char line[400];
    std::snprintf(line, sizeof line, format, values...);
    return line;
}

// A name without the folders around it, which are nobody else's business.
static std::string name_of(const std::string& path) {
    const fs::path p = fs::path(path).lexically_normal();
    return (p.filename().empty() ? p.parent_path() : p).filename().string();
}

// "Org/Name" is a name of the hub already; a path is not.
static std::string base_name(const std::string& model) {
    std::error_code unknown;
    return fs::exists(model, unknown) ? name_of(model) : model;
}

static std::string settings_table(const Settings& s, const qlora::Lora& lora) {
    const qlora::LoraOptions o = lora.options();
    const qlora::TrainOptions& t = s.train;
    std::string rows = "| setting | value |\n|---|---|\n";
    const auto row = [&](const char* name, const std::string& value) {
        rows += std::string("| ") + name + " | " + value + " |\n";
    };
    row("base held in", lora.base().info().weights);
    row("rank, alpha, dropout",
        text("%lld, %g, %g", static_cast<long long>(o.rank), double(o.alpha), double(o.dropout)));
    row("adapted layers", o.modules + (o.dora ? ", DoRA" : "") + (o.rank_stabilized ? ", rsLoRA" : ""));
    row("learning rate", text("%g, %s, ", double(t.learning_rate), s.scheduler.c_str()) +
                             (t.warmup_steps > 0 ? text("%lld warm-up steps", static_cast<long long>(t.warmup_steps))
                                                 : text("warm-up %g of the steps", double(t.warmup_ratio))));
    row("rows a step", text("%lld (%lld x %lld)", static_cast<long long>(t.batch * t.accumulate),
                            static_cast<long long>(t.batch), static_cast<long long>(t.accumulate)));
    row("tokens a row at most", std::to_string(t.context));
    row("optimizer", text("AdamW, %d bits, beta2 %g, weight decay %g, clipped to %g", t.optimizer.bits,
                          double(t.optimizer.beta2), double(t.optimizer.weight_decay),
                          double(t.optimizer.max_grad_norm)));
    if (t.neftune_alpha > 0) row("NEFTune alpha", text("%g", double(t.neftune_alpha)));
    if (t.lora_plus_ratio != 1) row("LoRA+ ratio", text("%g", double(t.lora_plus_ratio)));
    row("seed", std::to_string(t.seed));
    return rows;
}

static std::string losses(const RunFolder& folder, const CardFacts& facts) {
    std::string out = text("%lld of %lld steps%s.", static_cast<long long>(facts.step),
                           static_cast<long long>(facts.steps), facts.complete ? "" : "; the run is not complete");
    if (const Curve& curve = folder.train(); !curve.empty())
        out += text(" Training loss: %.4f at the first step, %.4f at the last.", curve.front().second,
                    curve.back().second);
    if (const Curve& curve = folder.held_out(); !curve.empty()) {
        out += text(" Held-out loss: %.4f before", curve.front().second);
        for (const auto& [step, loss] : curve)
            if (facts.best > 0 && int64_t(step) == facts.best)
                out += text(", %.4f at step %lld, whose adapter this is", loss, static_cast<long long>(facts.best));
        out += '.';
    }
    return out;
}

std::string model_card(const Settings& s, const qlora::Lora& lora, const Data& data, const RunFolder& folder,
                       const CardFacts& facts) {
    const std::string base = base_name(s.model.model), own = name_of(folder.path());
    const qlora::DatasetInfo info = data.train.info();
    std::string files;
    for (const std::string& path : s.data) files += (files.empty() ? "" : ", ") + name_of(path);
    std::string out = "---\nbase_model: " + Json(base).dump() +
                      "\nlibrary_name: peft\npipeline_tag: text-generation\ntags:\n- lora\n- qlora\n- " +
                      Json("base_model:adapter:" + base).dump() + "\n---\n\n";
    out += "# " + own + "\n\nA LoRA adapter of " + base + " (" + lora.base().info().family +
           "), trained with [qlora](https://arxiv.org/abs/2305.14314) " QLORA_VERSION_STRING ".\n\n";
    out += "## Data\n\n" + files + ": " + rows_line(info) + ".";
    if (data.held_out) out += " Held out: " + std::to_string(data.held_out->info().rows) + " rows.";
    out += "\n\n## Settings\n\n" + settings_table(s, lora) + "\n## Losses\n\n" + losses(folder, facts) +
           "\n\nThe curve is in `loss.svg`, every step in `metrics.jsonl`, the base's fingerprint in `base.json`.\n";
    out += "\n## Use\n\n```\n./chat -m " + base + " --adapter " + own + "\n```\n\n```python\nfrom peft import " +
           "AutoPeftModelForCausalLM\nmodel = AutoPeftModelForCausalLM.from_pretrained(" + Json(own).dump() +
           ")\n```\n";
    return out;
}

static std::string chatml(const char* role, const std::string& content) {
    return std::string("<|im_start|>") + role + '\n' + content + "<|im_end|>\n";
}

// ChatML in Ollama's language, where two dialogues show that the model's template prints just that; the system text
// that the template puts where none is given becomes the Modelfile's. Other templates Ollama finds by itself, or not.
static std::string template_lines(const qlora::Tokenizer& tokenizer) {
    const std::string rest = chatml("user", "one") + chatml("assistant", "two") + chatml("user", "three") +
                             "<|im_start|>assistant\n";
    std::vector<Message> dialogue{{"user", "one"}, {"assistant", "two"}, {"user", "three"}};
    std::string without, with;
    try {
        without = tokenizer.render(dialogue, true).text;
        dialogue.insert(dialogue.begin(), {"system", "zero"});
        with = tokenizer.render(dialogue, true).text;
    } catch (const qlora::Error&) {                    // it has no such dialogue
        return "";
    }
    if (with != chatml("system", "zero") + rest || !without.ends_with(rest)) return "";
    without.resize(without.size() - rest.size());
    const std::string opening = "<|im_start|>system\n", end = "<|im_end|>\n";
    std::string system;
    if (!without.empty()) {
        if (!without.starts_with(opening) || !without.ends_with(end)) return "";
        system = without.substr(opening.size(), without.size() - opening.size() - end.size());
        if (system.find("\"\"\"") != std::string::npos) return "";
    }
    return "TEMPLATE \"\"\"{{- if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
           "{{- range .Messages }}{{- if ne .Role \"system\" }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n"
           "{{ end }}{{- end }}"
           "<|im_start|>assistant\n\"\"\"\n" +
           (system.empty() ? "" : "SYSTEM \"\"\"" + system + "\"\"\"\n") + "PARAMETER stop \"<|im_end|>\"\n";
}

std::string modelfile(const Settings& s, const qlora::Model& model) {
    std::error_code unknown;
    const bool local = fs::exists(s.model.model, unknown);
    const std::string from = local ? fs::absolute(s.model.model, unknown).lexically_normal().string() : s.model.model;
    const qlora::Sampling sampling = model.sampling();
    std::string out = "# ollama create NAME -f Modelfile\n"
                      "# Ollama reads adapters of some families only; for others: ./export -m MODEL --adapter THIS -o "
                      "merged.gguf, and FROM merged.gguf without ADAPTER.\n";
    out += "FROM " + from + "\nADAPTER .\n";
    const std::string lines = model.tokenizer().has_chat_template() ? template_lines(model.tokenizer()) : "";
    out += lines.empty() ? "# No TEMPLATE: Ollama takes that of the model.\n" : lines;
    out += text("PARAMETER temperature %g\nPARAMETER top_k %lld\nPARAMETER top_p %g\nPARAMETER min_p %g\n",
                double(sampling.temperature), static_cast<long long>(sampling.top_k), double(sampling.top_p),
                double(sampling.min_p));
    return out + text("PARAMETER repeat_penalty %g\nPARAMETER repeat_last_n %lld\n", double(sampling.repeat_penalty),
                      static_cast<long long>(sampling.repeat_last));
}

}  // namespace program
