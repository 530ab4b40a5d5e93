// load.cpp - loading models the same way in every program.
#include "examples/common/load.h"

#include "examples/common/find_model.h"
#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"
#include "examples/common/wording.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

namespace program {

void ModelFlags::declare(Flags& flags, bool with_adapter, bool required) {
    flags.section("Model");
    Flag& name = flags.add("-m --model --model-name-or-path", model, "MODEL", "a GGUF file or a Hugging Face folder");
    if (required) name.required();
    if (with_adapter) {
        flags.add("--adapter --lora --adapter-path", adapters, "DIR",
                  "a LoRA adapter: a PEFT folder or a GGUF adapter; of several the sum");
        flags.add("--lora-scaled", scaled, "DIR:SCALE", "the same, SCALE times as strong");
    }
    if (with_adapter) declare_any_base(flags);
    if (quant == "auto")
        flags.choice("--quant --quant-type --bnb-4bit-quant-type", quant, {"auto", "nf4", "fp4", "none"},
                     "4-bit type to hold the linear layers in; none = as stored; auto = nf4 if the model is stored in "
                     "16 or 32 bits");
    else
        flags.choice("--quant --quant-type --bnb-4bit-quant-type", quant, {"nf4", "fp4", "none"},
                     "4-bit type to hold the linear layers in; none = as stored");
    flags.toggle("--double-quant --bnb-4bit-use-double-quant", double_quant,
                 "quantize the 4-bit scales again: 4.127 instead of 4.5 bits a weight");
    flags
        .choice("--head-bits", head_bits, {"16", "8", "4"},
                "bits to hold the head in, the largest matrix (and the embedding, where they are one)")
        .note("as stored");
    flags.section("Machine");
    flags.add("--device", device, "auto|cpu|cuda[:N]",
              "where to compute: auto = an NVIDIA device if the program was built for one and there is one");
    declare_threads(flags, threads, force_threads);
    flags.choice("--compute", compute, {"auto", "f32", "mixed", "bf16"},
                 "what products may round: f32 = nothing; mixed = activations to 16-bit integers in generation (AVX2), "
                 "gradients to bf16 where that is faster (AMX, AVX512-BF16); "
                 "bf16 = all else to bf16 too; auto = mixed");
}

void declare_threads(Flags& flags, int64_t& threads, bool& force) {
    flags.add("-t --threads", threads, 0, qlora::most_threads,
              "threads of the CPU, at most as many as this process may run at once; 0 = all of those");
    flags.toggle("--force-threads", force, "take --threads at its word");
}

int chosen_threads(int64_t asked, bool force) {
    const int usable = qlora::usable_threads();
    if (asked <= usable || force) return int(asked);
    std::fprintf(stderr, "%s\n",
                 styled("using " + std::to_string(usable) +
                            " threads: the processors that this process may use (--force-threads: " +
                            std::to_string(asked) + " all the same)",
                        Style::dim, 2)
                     .c_str());
    return usable;
}

void declare_cache(Flags& flags, std::string& cache) {
    flags.choice(
        "--cache --cache-type", cache, {"auto", "f32", "f16", "bf16", "q8_0"},
        "what keys and values are held in: f32 is exact, q8_0 half of 16 bits; auto = the model's own 16 bits");
}

qlora::SessionOptions session_options(int64_t context, const std::string& cache) {
    qlora::SessionOptions options{.context = context};
    for (const qlora::DType type : {qlora::DType::f32, qlora::DType::f16, qlora::DType::bf16, qlora::DType::q8_0})
        if (qlora::name_of(type) == cache) options.cache = type;
    return options;
}

void ModelFlags::declare_any_base(Flags& flags) {
    flags.toggle("--any-base", any_base, "put the adapter on the model even if it was trained on another one");
}

void ModelFlags::gather_adapters() {
    adapter_scales.assign(adapters.size(), 1.0f);
    for (const std::string& entry : scaled) {
        const size_t colon = entry.rfind(':');
        char* end = nullptr;
        const std::string number = colon == std::string::npos ? std::string() : entry.substr(colon + 1);
        const float scale = std::strtof(number.c_str(), &end);
        if (number.empty() || *end || !(std::abs(scale) <= 100))
            throw UsageError("--lora-scaled " + one_line(entry) + ": expected DIR:SCALE, as in my-adapter:0.5");
        adapters.push_back(entry.substr(0, colon));
        adapter_scales.push_back(scale);
    }
    for (std::string& each : adapters) each = find_adapter(each);
    if (!adapters.empty()) adapter = adapters[0];
    else if (!adapter.empty()) adapter = find_adapter(adapter);
}

qlora::Lora ModelFlags::load_adapter(const qlora::Model& base) const {
    qlora::Lora first = qlora::Lora::load(base, adapter, on_base);
    if (adapters.size() <= 1 && (adapter_scales.empty() || adapter_scales[0] == 1)) return first;
    std::vector<qlora::Lora> all{first};
    for (size_t i = 1; i < adapters.size(); ++i)
        all.push_back(qlora::Lora::load(first.base(), adapters[i], on_base));
    return qlora::Lora::sum(all, adapter_scales);
}

void ModelFlags::follow_adapter(const Flags& flags) {
    gather_adapters();
    if (adapter.empty()) return;
    const bool type = flags.given("--quant") || flags.given("--bits") || flags.given("--load-in-4bit"),
               scales = flags.given("--double-quant"), head = flags.given("--head-bits");
    on_base = any_base ? qlora::OnBase::any : type || scales || head ? qlora::OnBase::as_held : qlora::OnBase::recorded;
    const std::optional<qlora::AdapterBase> base = qlora::Lora::recorded_base(adapter);
    if (base && base->head && !head) head_bits = *base->head == qlora::DType::q8_0 ? "8" : "4";
    if (type || !base) return;
    const std::string recorded = base->quantize ? std::string(qlora::name_of(*base->quantize)) : "none";
    why = (recorded == "none" ? "as stored" : recorded) + ", as " + adapter +
          " was trained on it (--quant says otherwise)";
    if (!scales) double_quant = base->double_quant;
    if (recorded == quant) return;
    quant = recorded;
    if (is_terminal(2)) std::fprintf(stderr, "%s\n", styled("base held in " + why, Style::dim, 2).c_str());
}

qlora::Model ModelFlags::load_base() {
    if (quant != "auto") {
        if (why.empty()) why = (quant == "none" ? "as stored" : quant) + ", as --quant says";
        return load();
    }
    quant = "none";
    const qlora::Model stored = load();
    const std::string weights = stored.info().weights;
    std::string rest = weights;                        // "f16", or several: "bf16 + f32"
    for (const char* dense : {"bf16", "f16", "f32", " + "})
        for (size_t at; (at = rest.find(dense)) != std::string::npos;) rest.erase(at, std::strlen(dense));
    if (!rest.empty()) {
        why = "as stored, because it is " + weights +
              " already and quantizing it again would lose more (--quant nf4 does)";
        return stored;
    }
    quant = "nf4";
    why = "nf4, made of the stored " + weights + " (--quant none: as stored)";
    return load();
}

std::optional<qlora::DType> ModelFlags::head() const {
    if (head_bits == "16") return {};
    return head_bits == "8" ? qlora::DType::q8_0 : qlora::DType::iq4_nl;
}

static bool has_bf16(const qlora::Backend& backend) {
    return backend.name().ends_with("avx512_bf16") || backend.name().ends_with("amx");
}

static bool gradients_in_bf16(const qlora::Backend& backend) { return backend.gradients() == qlora::Compute::bf16; }

// "auto" is the fastest that keeps the losses of a run within 1 % of the reference's.
static qlora::Compute chosen_compute(const std::string& asked, const std::string& instructions) {
    const qlora::Compute wanted = asked == "f32"    ? qlora::Compute::f32
                                  : asked == "bf16" ? qlora::Compute::bf16
                                                    : qlora::Compute::mixed;
    const qlora::Compute got = qlora::Backend::cpu(1, wanted, instructions).compute();
    if (got == wanted || asked == "auto") return got;
    static bool said = false;                          // once, however often a model is loaded
    if (!std::exchange(said, true)) {
        const std::string missing = asked == "bf16" ? "AMX or AVX512-BF16" : "AVX2", instead(qlora::name_of(got));
        std::fprintf(
            stderr, "%s\n",
            styled("this processor has no " + missing + ": --compute " + asked + " is " + instead, Style::dim, 2)
                .c_str());
    }
    return wanted;
}

std::string compute_line(const qlora::Model& model) {
    if (model.backend().name().starts_with("cuda"))
        return model.backend().compute() == qlora::Compute::f32 ? "f32 (--compute bf16: faster)"
                                                                : "bf16 (--compute f32: exact, slower)";
    switch (model.backend().compute()) {
        case qlora::Compute::mixed:
            if (model.backend().name().ends_with("amx"))
                return "f32 to 16 bits, gradients in bf16, activations in 16-bit integers where it generates "
                       "(--compute f32: exact; --compute bf16: faster, losses up to 1.4 % off)";
            if (gradients_in_bf16(model.backend()))
                return "f32, gradients in bf16, activations in 16-bit integers where it generates (--compute f32: "
                       "exact; --compute bf16: faster, losses up to 1.4 % off)";
            if (has_bf16(model.backend()))
                return "f32; activations in 16-bit integers where it generates (--compute f32: exact; --compute bf16 "
                       "trains slower on this processor)";
            return "f32; activations in 16-bit integers where it generates (--compute f32: exact; bf16 needs a "
                   "processor with AMX or AVX512-BF16)";
        case qlora::Compute::bf16:
            return "bf16, activations in 16-bit integers where it generates (--compute mixed: at most gradients in "
                   "bf16; --compute f32: exact)";
        default: break;
    }
    const qlora::Backend best = qlora::Backend::cpu(1, qlora::Compute::mixed);
    if (best.compute() == qlora::Compute::f32)
        return "f32 (--compute mixed and bf16 need a processor with AVX2, AMX or AVX512-BF16)";
    return gradients_in_bf16(best) ? "f32 (--compute mixed: gradients in bf16, faster)"
                                   : "f32 (--compute mixed: faster where it generates)";
}

// The number of "cuda" and "cuda:N".
static int device_number(const std::string& device) {
    const std::string_view number = std::string_view(device).substr(std::min<size_t>(device.size(), 5));
    int value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (device == "cuda") return 0;
    if (!device.starts_with("cuda:") || error != std::errc() || end != number.data() + number.size() || value < 0)
        throw UsageError("--device " + device + ": expected auto, cpu, cuda or cuda:N");
    return value;
}

static qlora::Compute compute_on_cuda(const std::string& asked) {
    return asked == "f32" ? qlora::Compute::f32 : qlora::Compute::bf16;
}

qlora::Backend ModelFlags::backend() const {
    if (planned) return *planned;
    const qlora::Compute on_cuda = compute_on_cuda(compute);
    if (device != "auto" && device != "cpu") return qlora::Backend::cuda(device_number(device), on_cuda);
    if (device == "auto" && threads == 0 && instructions.empty()) {
        const qlora::Backend best = qlora::Backend::best();
        if (best.name().starts_with("cuda"))
            return on_cuda == best.compute() ? best : qlora::Backend::cuda(0, on_cuda);
    }
    const qlora::Compute precision = chosen_compute(compute, instructions);
    return qlora::Backend::cpu(chosen_threads(threads, force_threads), precision, instructions);
}

void ModelFlags::plan_for_device() {
    if (device != "cuda") return;
    try {
        (void)backend();
    } catch (const qlora::Error& error) {
        if (error.code != qlora::Errc::device) throw;
        why_planned = in_program_words(error.what());
        planned = qlora::Backend::planned_cuda(compute_on_cuda(compute));
    }
}

qlora::Model ModelFlags::load() const {
    const qlora::StopScope stoppable(go_on);
    qlora::LoadOptions options;
    options.backend = backend();
    if (quant == "nf4") options.quantize = qlora::DType::nf4;
    if (quant == "fp4") options.quantize = qlora::DType::fp4;
    options.double_quant = double_quant;
    options.head = head();
    const bool show = is_terminal(2);
    options.on_progress = [&](float fraction) {
        if (show) std::fprintf(stderr, "\r\033[Kloading %.0f%%", double(fraction) * 100);
        return interrupted() == 0;
    };
    const auto clear = [&] { if (show) std::fputs("\r\033[K", stderr); };
    try {
        const std::string path = find_model(model);
        qlora::Model loaded = planned ? qlora::Model::outline(path, options) : qlora::Model::load(path, options);
        clear();
        print_notes(loaded.info().notes);
        return loaded;
    } catch (...) {
        clear();
        throw;
    }
}

void note_system_role(const qlora::Tokenizer& tokenizer) {
    static bool said = false;
    if (said || tokenizer.has_system_role()) return;
    said = true;
    std::fprintf(stderr, "%s\n",
                 styled("the chat template has no system role: the system text is put before the first question",
                        Style::dim, 2)
                     .c_str());
}

void print_notes(const std::vector<std::string>& notes) {
    for (const std::string& note : notes) std::fprintf(stderr, "note: %s\n", note.c_str());
}

Loaded::Loaded(const ModelFlags& flags) : model(flags.load()) {
    if (!flags.adapter.empty()) lora = flags.load_adapter(model);
}

std::string base_line(const qlora::Model& model) {
    const qlora::ModelInfo info = model.info();
    return info.path + ": " + info.family + ", " + human_count(double(info.parameters)) + " parameters, " +
           info.weights + (info.head == "q8_0" || info.head == "iq4_nl" ? ", head in " + info.head : "") + ", " +
           human_bytes(info.bytes) + " in memory; " + model.backend().name();
}

int64_t size_on_disk(const std::string& path) {
    namespace fs = std::filesystem;
    if (!fs::is_directory(path)) return int64_t(fs::file_size(path));
    int64_t sum = 0;
    for (const auto& entry : fs::recursive_directory_iterator(path))
        if (entry.is_regular_file()) sum += int64_t(entry.file_size());
    return sum;
}

}  // namespace program
