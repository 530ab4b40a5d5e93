// load.h - the flags that say which model, in which type, on which device; the same in every program.
#pragma once
#include "examples/common/flags.h"

#include "qlora.h"

namespace program {

struct ModelFlags {
    std::string model = {}, adapter = {}, quant = "none", device = "auto", compute = "auto",
                head_bits = "16";
    std::string instructions = {};    // of the CPU; empty = its best. No flag: a run that goes on sets it
    std::vector<std::string> adapters = {}, scaled = {};               // --adapter and --lora-scaled as given
    std::vector<float> adapter_scales = {};            // of all adapters; `adapter` is the first of them
    bool double_quant = true, any_base = false, force_threads = false;
    int64_t threads = 0;
    std::optional<qlora::Backend> planned = {};        // plan_for_device() sets them
    std::string why_planned = {};
    std::string why = {};    // how the base is held and who says so, for a program's first lines
    qlora::OnBase on_base = qlora::OnBase::recorded;   // follow_adapter() sets it

    std::optional<qlora::DType> head() const;          // --head-bits
    // -m, --adapter, --quant, --double-quant, --head-bits, --device, --threads, --compute. Where the default of --quant
    // is "auto", auto can be said too.
    void declare(Flags& flags, bool with_adapter, bool required = true);
    void declare_any_base(Flags& flags);               // --any-base: part of declare() with an adapter
    // When an adapter names how its base was quantized and the user did not say otherwise, the base is loaded that way;
    // a note says so. --quant puts the adapter on another form of its base, --any-base on whatever the model is.
    void follow_adapter(const Flags& flags);
    qlora::Lora load_adapter(const qlora::Model& base) const;          // the sum of several
    qlora::Backend backend() const;                    // --device, --threads, --compute
    // For plans, which need no device: where --device cuda finds none, why_planned says why, backend() is one that is
    // not there, and load() makes outlines for it.
    void plan_for_device();
    qlora::Model load() const;    // a progress line on stderr where that is a terminal; stops on Ctrl-C
    // load(), where quant is "auto": a source that is quantized stays as it is stored, because quantizing it once more
    // would lose again what the first time lost; one of 16 or 32 bits is held in NF4. quant becomes what was chosen, in
    // either case `why` says it.
    qlora::Model load_base();
private:
    void gather_adapters();
};

void declare_threads(Flags& flags, int64_t& threads, bool& force);    // -t, --force-threads
// How many to use: as asked for, but not more than this process may run at once unless forced; a note on stderr says
// so. 0 = the library chooses.
int chosen_threads(int64_t asked, bool force);

// --cache: what keys and values are held in; "auto" = the session's default
void declare_cache(Flags& flags, std::string& cache);
qlora::SessionOptions session_options(int64_t context, const std::string& cache);

// A model, with or without an adapter: what Session, perplexity and the others take either of.
struct Loaded {
    qlora::Model model;
    std::optional<qlora::Lora> lora;
    explicit Loaded(const ModelFlags& flags);
    template <class Use>
    auto with(Use use) const { return lora ? use(*lora) : use(model); }
};

// Where the chat template has no system role: says once, on stderr, what becomes of a system text.
void note_system_role(const qlora::Tokenizer& tokenizer);

void print_notes(const std::vector<std::string>& notes);               // of a model or tokenizer, to standard error

std::string base_line(const qlora::Model& model);    // "model.gguf: llama, 134.5 M parameters, nf4, 92.1 MB in memory"

std::string compute_line(const qlora::Model& model);   // in which precision, and what else there is

int64_t size_on_disk(const std::string& path);         // bytes of a file, or of all files in a folder

}  // namespace program
