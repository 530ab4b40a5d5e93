// export.cpp - writes a model for other programs: an adapter merged into its base, or the model alone, in another type,
// as GGUF (llama.cpp) or as a Hugging Face folder (transformers); or the adapter by itself. It says which base it used
// and measures what the result costs; how, and which base is the better one, is in examples/export.
#include "examples/common/find_model.h"
#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"
#include "examples/export/bases.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

using namespace program;
namespace fs = std::filesystem;

struct Settings {
    ModelFlags model;
    std::string out, type = "auto", measure;
    bool check = true, overwrite = false;
    bool gguf() const { return fs::path(out).extension() == ".gguf"; }
    bool adapter_alone() const { return type == "lora" || type == "mlx-lora"; }
};

static qlora::DType type_of(const Settings& s) {
    if (s.type == "auto") return s.gguf() ? qlora::DType::f16 : qlora::DType::bf16;
    for (const qlora::DType t : {qlora::DType::f32, qlora::DType::f16, qlora::DType::bf16, qlora::DType::q8_0,
                                 qlora::DType::q4_0, qlora::DType::iq4_nl, qlora::DType::nf4})
        if (qlora::name_of(t) == s.type) return t;
    throw UsageError("--type " + s.type + " is no type of a model");
}

static void check_output(const Settings& s) {
    std::error_code error;
    if (s.type == "stored" && !s.model.adapter.empty())
        throw UsageError("--type stored writes a model as it is; merged with an adapter its weights are others: choose "
                         "their type");
    if (s.adapter_alone() && s.model.adapter.empty())
        throw UsageError("--type " + s.type + " writes an adapter: name it with --adapter DIR");
    if (s.type == "mlx-lora" && s.gguf()) throw UsageError("--type mlx-lora writes a folder: -o must not end in .gguf");
    if ((s.type == "q8_0" || s.type == "q4_0" || s.type == "iq4_nl") && !s.gguf())
        throw UsageError("a Hugging Face folder cannot hold " + s.type +
                         ": end -o in .gguf, or choose bf16, f16, f32 or nf4");
    if (!fs::exists(s.out, error)) return check_new_model(s.out);
    for (const std::string& source : {s.model.model, s.model.adapter})
        if (!source.empty() && fs::equivalent(source, s.out, error))
            throw UsageError("-o is the model or the adapter itself; choose another name");
    if (fs::is_directory(s.out, error))
        throw qlora::Error(qlora::Errc::io,
                           s.out + " exists; folders are not replaced: remove it, or choose another name");
    if (!s.overwrite) throw qlora::Error(qlora::Errc::io, s.out + " exists; replace it with --overwrite");
}

// What the adapter's matrices were added to, and who says so.
static std::string base_used(const Settings& s, const Base& taken, const Base& trained, const Flags& flags,
                             bool measured) {
    const std::string weights = taken.loaded.model.info().weights;
    if (&taken != &trained) {
        const std::string than = trained.loaded.model.info().weights;
        return "the source's own weights (" + weights + "), which keep more of the adapter in 4 bits than the " + than +
               " codes it was trained on" + (measured ? "" : " as a rule; nothing was measured");
    }
    const std::string held = s.model.quant == "none" ? "as stored (" + weights + ")"
                                                     : "the values of its " + weights + " codes";
    if (flags.given("--quant")) return held + ", as --base-type says";
    if (qlora::Lora::recorded_base(s.model.adapter)) return held + ", which the adapter was trained on, as it says";
    return held + "; the adapter does not say what it was trained on: if that was an NF4 base, use --base-type nf4";
}

static void export_adapter(const Settings& s, const Loaded& loaded) {
    loaded.lora->save(s.out, {.mlx = s.type == "mlx-lora"});
    std::printf("%s: the adapter alone, %s, %s parameters\n", s.out.c_str(), human_bytes(size_on_disk(s.out)).c_str(),
                human_count(double(loaded.lora->parameters())).c_str());
    if (s.check) {
        std::string reason;
        qlora::Tokens tokens = Measure::choose("", "", loaded.model.tokenizer(), reason)->tokens();
        tokens.resize(std::min<size_t>(tokens.size(), 32));
        const std::vector<float> before = loaded.lora->logits(tokens),
                                 after = qlora::Lora::load(loaded.model, s.out, s.model.on_base).logits(tokens);
        double most = 0;
        for (size_t i = 0; i < before.size(); ++i) most = std::max(most, double(std::fabs(before[i] - after[i])));
        std::printf("read back: logits differ by %.3g at most\n", most);
    }
    if (!s.gguf()) return;
    std::printf("\nWith llama.cpp: llama-cli -m BASE.gguf --lora %s\n", s.out.c_str());
    if (s.model.quant != "none")
        std::printf(
            "where BASE.gguf holds what the adapter was trained on: ./export -m %s --base-type %s%s -o BASE.gguf\n",
            s.model.model.c_str(), s.model.quant.c_str(), s.model.double_quant ? "" : " --no-double-quant");
}

static bool on_progress(float fraction) {
    static const bool show = is_terminal(2);
    if (show) std::fprintf(stderr, fraction < 1 ? "\r\033[Kwriting %.0f%%" : "\r\033[K", double(fraction) * 100);
    return interrupted() == 0;
}

// What was written, read back.
static qlora::Model describe_result(const Settings& s, const qlora::Model& source) {
    const qlora::Model written = qlora::Model::load(s.out, {.backend = source.backend()});
    const qlora::ModelInfo info = written.info();
    const int64_t bytes = size_on_disk(s.out);
    std::printf("%s: %s, %s, %.2f bits a parameter\n", s.out.c_str(), info.weights.c_str(), human_bytes(bytes).c_str(),
                double(bytes) * 8 / double(info.parameters));
    const std::vector<std::string> known = source.info().notes;
    std::vector<std::string> news;
    for (const std::string& note : info.notes)
        if (std::find(known.begin(), known.end(), note) == known.end()) news.push_back(note);
    print_notes(news);
    return written;
}

static void export_merged(const Settings& s, const Flags& flags) {
    const qlora::DType type = type_of(s);
    const bool four_bits = type == qlora::DType::nf4 || type == qlora::DType::q4_0 || type == qlora::DType::iq4_nl;
    std::vector<Base> bases = bases_of(s.model, flags.given("--quant"));
    std::string reason = "--no-check";
    std::optional<Measure> on;
    // what cannot be read is told before the work
    if (s.check) on = Measure::choose(s.measure, s.model.adapter, bases[0].loaded.model.tokenizer(), reason);
    if (on) measure(bases, *on, type, s.model.double_quant, four_bits && bases.size() > 1);
    const bool other = four_bits && bases.size() > 1 && (!on || *bases[1].result < *bases[0].result);
    Base& taken = bases[other ? 1 : 0];
    taken.loaded.lora->save(
        s.out, {.as = qlora::Format(type, s.model.double_quant), .merged = true, .on_progress = on_progress});
    std::printf("base: %s, %s\nmerged with %s\n", s.model.model.c_str(),
                base_used(s, taken, bases[0], flags, on.has_value()).c_str(), s.model.adapter.c_str());
    const qlora::Model written = describe_result(s, taken.loaded.model);
    if (!on && s.check) std::printf("not measured: %s; name rows or a text with --measure FILE\n", reason.c_str());
    if (!on || interrupted()) return;
    taken.result = on->loss(written);                  // of the file itself
    print(bases, *on, other ? 1 : 0);
    judge(bases[0], *taken.result, s.type, !other && s.model.quant != "none");
}

static void export_converted(const Settings& s) {
    const qlora::Model model = s.model.load();
    std::string reason;
    std::optional<Measure> on;
    if (s.check) on = Measure::choose(s.measure, "", model.tokenizer(), reason);
    std::optional<qlora::Format> as;
    if (s.type != "stored") as = qlora::Format(type_of(s), s.model.double_quant);
    model.save(s.out, {.as = as, .on_progress = on_progress});
    const qlora::Model written = describe_result(s, model);
    if (!on || interrupted()) return;
    double before, after;
    if (on->tokens().empty()) {
        before = on->loss(model);
        after = on->loss(written);
    } else {
        const qlora::Difference d = qlora::difference(model, written, on->tokens());
        std::printf("  logits  mean |difference| %.3g, largest %.3g\n", d.mean_logit, d.max_logit);
        std::printf("  KL divergence %.3g nats, same likeliest token at %.1f%% of the positions\n", std::max(d.kl, 0.0),
                    100 * d.same_best);
        before = d.nll_expected;
        after = d.nll_actual;
    }
    std::printf("loss %.4f -> %.4f, perplexity %.4g -> %.4g on %s\n", before, after, std::exp(before), std::exp(after),
                on->name().c_str());
    warn_of_loss(std::exp(after - before) - 1, s.model.model, s.type);
}

static int body(int argc, char** argv) {
    Settings s;
    Flags flags(
        "export", "-m MODEL [--adapter DIR] -o OUT [--type TYPE]",
        "Writes a model for other programs: OUT.gguf for llama.cpp, or a Hugging Face folder for transformers.");
    flags.add("-m --model --model-name-or-path", s.model.model, "MODEL", "a GGUF file or a Hugging Face folder")
        .required();
    flags.add("--adapter --lora --adapter-path", s.model.adapter, "DIR",
              "a LoRA adapter to merge: a PEFT folder or a GGUF adapter");
    flags.add("-o --output --out", s.out, "OUT", "a name ending in .gguf, or a folder").required();
    flags.choice("--type --outtype", s.type,
                 {"auto", "f16", "bf16", "f32", "q8_0", "q4_0", "iq4_nl", "nf4", "stored", "lora", "mlx-lora"},
                 "type of the weights; stored = the bits of MODEL, where OUT can hold its types; lora = only the "
                 "adapter, mlx-lora = as mlx-lm has it; auto = f16 as GGUF, bf16 as a folder");
    flags
        .choice("--base-type --quant --quant-type", s.model.quant, {"nf4", "fp4", "none"},
                "merge into the base held in this type; none = as stored")
        .note("as the adapter was trained; for a result in 4 bits, the better of that and none");
    s.model.declare_any_base(flags);
    flags.toggle("--double-quant", s.model.double_quant, "quantize 4-bit scales again, of the base and of the result");
    flags.add("--measure --probe", s.measure, "FILE", "rows or text to measure the result on")
        .note("the held-out rows of the adapter's run; without an adapter a short text");
    flags.toggle("--check", s.check, "read the result back and measure it");
    flags.toggle("--overwrite --force", s.overwrite, "replace OUT if it is a file that exists");
    declare_threads(flags, s.model.threads, s.model.force_threads);
    flags.take_config();
    flags.parse(argc, argv);
    check_output(s);
    s.model.device = "cpu";
    s.model.follow_adapter(flags);
    catch_interrupts();
    const qlora::StopScope stoppable(go_on);
    if (s.adapter_alone()) export_adapter(s, Loaded(s.model));
    else if (!s.model.adapter.empty()) export_merged(s, flags);
    else export_converted(s);
    if (s.type == "nf4" && s.gguf())
        std::printf(
            "\nOnly qlora reads NF4 in GGUF: llama.cpp refuses the file. For it choose iq4_nl, q8_0, q4_0, f16 or "
            "bf16.\n");
    return interrupted() ? 128 + interrupted() : 0;
}

int main(int argc, char** argv) {
    return run("export", [&] { return body(argc, argv); });
}
