// export.cpp - writes a model for other programs: an adapter merged into its base, or the model alone, in another type, as GGUF (llama.cpp) or as
// a Hugging Face folder (transformers); or the adapter by itself. It says which base it used and measures what the result costs.
#include "examples/common/interrupt.h"
#include "examples/common/load.h"
#include "examples/common/run_folder.h"
#include "examples/common/terminal.h"
#include "src/base/file.h"                             // the library's own file reader

#include <cmath>
#include <cstdio>
#include <filesystem>

using namespace program;
namespace fs = std::filesystem;

struct Settings {
    ModelFlags model;
    std::string out, type = "auto", probe;
    bool check = true, overwrite = false;
    bool gguf() const { return fs::path(out).extension() == ".gguf"; }
};

// Prose, a list, code and numbers, so that no single habit of a model decides the result.
constexpr const char* probe_text =
    "The harbour was quiet when the first boats came in. Anna counted the crates twice, wrote 48 on the slate, and asked the old man what the storm "
    "had cost him. \"Two nets and a night's sleep,\" he said, \"but the engine held.\"\n\n"
    "Water boils at 100 degrees Celsius at sea level; every 300 metres higher it boils about one degree sooner. To make tea on a mountain:\n"
    "1. Warm the pot.\n2. Use one more spoon of leaves.\n3. Wait five minutes instead of three.\n\n"
    "for (int i = 0; i < n; ++i) {\n    if (values[i] > best) best = values[i];\n}\n\n"
    "Question: What is the capital of France?\nAnswer: The capital of France is Paris.\n";

static int64_t size_on_disk(const std::string& path) {
    if (!fs::is_directory(path)) return int64_t(fs::file_size(path));
    int64_t sum = 0;
    for (const auto& entry : fs::recursive_directory_iterator(path)) if (entry.is_regular_file()) sum += int64_t(entry.file_size());
    return sum;
}

static qlora::DType type_of(const Settings& s) {
    if (s.type == "auto") return s.gguf() ? qlora::DType::f16 : qlora::DType::bf16;
    for (const qlora::DType t : {qlora::DType::f32, qlora::DType::f16, qlora::DType::bf16, qlora::DType::q8_0, qlora::DType::q4_0, qlora::DType::iq4_nl, qlora::DType::nf4})
        if (qlora::name_of(t) == s.type) return t;
    throw UsageError("--type " + s.type + " is no type of a model");
}

static void check_output(const Settings& s) {
    std::error_code error;
    if (s.type == "lora" && s.model.adapter.empty()) throw UsageError("--type lora writes an adapter: name it with --adapter DIR");
    if ((s.type == "q8_0" || s.type == "q4_0" || s.type == "iq4_nl") && !s.gguf()) throw UsageError("a Hugging Face folder cannot hold " + s.type + ": end -o in .gguf, or choose bf16, f16, f32 or nf4");
    if (!fs::exists(s.out, error)) return;
    for (const std::string& source : {s.model.model, s.model.adapter})
        if (!source.empty() && fs::equivalent(source, s.out, error)) throw UsageError("-o is the model or the adapter itself; choose another name");
    if (fs::is_directory(s.out, error)) throw qlora::Error(qlora::Errc::io, s.out + " exists; folders are not replaced: remove it, or choose another name");
    if (!s.overwrite) throw qlora::Error(qlora::Errc::io, s.out + " exists; replace it with --overwrite");
}

// What the adapter's matrices were added to, and who says so.
static std::string base_used(const Settings& s, const qlora::Model& base, const Flags& flags) {
    const std::string weights = base.info().weights, record = s.model.adapter + "/base.json";
    const std::string held = s.model.quant == "none" ? "as stored (" + weights + ")" : "the values of its " + weights + " codes";
    if (flags.given("--quant")) return held + ", as --base-type says";
    if (qlora::exists(record)) return held + ", which the adapter was trained on (" + record + ")";
    return held + "; the adapter does not say what it was trained on: if that was an NF4 base, use --base-type nf4";
}

static qlora::Tokens probe_tokens(const Settings& s, const qlora::Model& model) {
    const std::string text = s.probe.empty() ? probe_text : qlora::read_file(s.probe, 1 << 24);
    qlora::Tokens tokens = model.tokenizer().encode(text, true);
    constexpr size_t most = 1024;                      // enough for two digits of every measure, and seconds on a small machine
    if (tokens.size() > most) tokens.resize(most);
    if (tokens.size() < 2) throw qlora::Error(qlora::Errc::argument, s.probe + " holds " + std::to_string(tokens.size()) + " tokens; the probe needs at least 2");
    return tokens;
}

static void print_error(const qlora::Difference& d, const std::string& expected) {
    std::printf("error against %s on %lld tokens:\n", expected.c_str(), static_cast<long long>(d.tokens));
    std::printf("  logits  mean |difference| %.3g, largest %.3g\n", d.mean_logit, d.max_logit);
    std::printf("  KL divergence %.3g nats, same likeliest token at %.1f%% of the positions\n", std::max(d.kl, 0.0), 100 * d.same_best);
    std::printf("  loss %.4f -> %.4f\n", d.nll_expected, d.nll_actual);
}

static void export_adapter(const Settings& s, const Loaded& loaded) {
    loaded.lora->save(s.out);
    std::printf("%s: the adapter alone, %s, %s parameters\n", s.out.c_str(), human_bytes(size_on_disk(s.out)).c_str(), human_count(double(loaded.lora->parameters())).c_str());
    if (s.check) {
        qlora::Tokens tokens = probe_tokens(s, loaded.model);
        tokens.resize(std::min<size_t>(tokens.size(), 32));
        const std::vector<float> before = loaded.lora->logits(tokens), after = qlora::Lora::load(loaded.model, s.out).logits(tokens);
        double most = 0;
        for (size_t i = 0; i < before.size(); ++i) most = std::max(most, double(std::fabs(before[i] - after[i])));
        std::printf("read back: logits differ by %.3g at most\n", most);
    }
    if (!s.gguf()) return;
    std::printf("\nWith llama.cpp: llama-cli -m BASE.gguf --lora %s\n", s.out.c_str());
    if (s.model.quant != "none")
        std::printf("where BASE.gguf holds what the adapter was trained on: ./export -m %s --base-type %s%s -o BASE.gguf\n", s.model.model.c_str(), s.model.quant.c_str(), s.model.double_quant ? "" : " --no-double-quant");
}

static void export_model(const Settings& s, const Loaded& loaded, const Flags& flags) {
    const qlora::Tokens tokens = s.check ? probe_tokens(s, loaded.model) : qlora::Tokens();    // a probe that cannot be read is told before the work
    const qlora::DType type = type_of(s);
    const bool show = is_terminal(2);
    const auto on_progress = [show](float fraction) {
        if (show) std::fprintf(stderr, fraction < 1 ? "\r\033[Kwriting %.0f%%" : "\r\033[K", double(fraction) * 100);
        return interrupted() == 0;
    };
    if (loaded.lora) loaded.lora->save_merged(s.out, type, s.model.double_quant, on_progress);
    else loaded.model.save_as(s.out, type, s.model.double_quant, on_progress);
    const qlora::Model written = qlora::Model::load(s.out, {.backend = loaded.model.backend()});   // the file itself is described and measured
    const qlora::ModelInfo info = written.info();
    const int64_t bytes = size_on_disk(s.out);
    if (loaded.lora) std::printf("base: %s, %s\nmerged with %s\n", s.model.model.c_str(), base_used(s, loaded.model, flags).c_str(), s.model.adapter.c_str());
    std::printf("%s: %s, %s, %.2f bits a parameter\n", s.out.c_str(), info.weights.c_str(), human_bytes(bytes).c_str(), double(bytes) * 8 / double(info.parameters));
    if (s.check && !interrupted()) {
        if (loaded.lora) print_error(qlora::difference(*loaded.lora, written, tokens), "base + adapter");
        else print_error(qlora::difference(loaded.model, written, tokens), s.model.model);
    }
    if (type == qlora::DType::nf4 && s.gguf()) std::printf("\nOnly qlora reads NF4 in GGUF: llama.cpp refuses the file. For it choose f16, bf16, q8_0, iq4_nl or q4_0.\n");
}

static int body(int argc, char** argv) {
    Settings s;
    Flags flags("export", "-m MODEL [--adapter DIR] -o OUT [--type TYPE]", "Writes a model for other programs: OUT.gguf for llama.cpp, or a Hugging Face folder for transformers.");
    flags.add("-m --model --model-name-or-path", s.model.model, "MODEL", "a GGUF file or a Hugging Face folder").required();
    flags.add("--adapter --lora --adapter-path", s.model.adapter, "DIR", "a LoRA adapter to merge: a PEFT folder or a GGUF adapter");
    flags.add("-o --output --out", s.out, "OUT", "a name ending in .gguf, or a folder").required();
    flags.choice("--type --outtype", s.type, {"auto", "f16", "bf16", "f32", "q8_0", "q4_0", "iq4_nl", "nf4", "lora"}, "type of the weights; lora = only the adapter; auto = f16 as GGUF, bf16 as a folder");
    flags.choice("--base-type --quant --quant-type", s.model.quant, {"nf4", "fp4", "none"}, "hold the base in this type before merging; none = as stored").note("as the adapter was trained");
    flags.toggle("--double-quant", s.model.double_quant, "quantize 4-bit scales again, of the base and of the result");
    flags.add("--probe", s.probe, "FILE", "text to measure the error on").note("a short built-in one");
    flags.toggle("--check", s.check, "read the result back and measure its error");
    flags.toggle("--overwrite --force", s.overwrite, "replace OUT if it is a file that exists");
    declare_threads(flags, s.model.threads, s.model.force_threads);
    flags.parse(argc, argv);
    check_output(s);
    s.model.device = "cpu";
    s.model.follow_adapter(flags);
    catch_interrupts();
    const Loaded loaded(s.model);
    if (s.type == "lora") export_adapter(s, loaded);
    else export_model(s, loaded, flags);
    return interrupted() ? 128 + interrupted() : 0;
}

int main(int argc, char** argv) {
    return run("export", [&] { return body(argc, argv); });
}
