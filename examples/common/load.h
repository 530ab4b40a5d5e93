// load.h - the flags that say which model, in which type, on which device; the same in every program.
#pragma once
#include "examples/common/flags.h"

#include "qlora.h"

namespace program {

struct ModelFlags {
    std::string model = {}, adapter = {}, quant = "none", device = "auto", compute = "f32";
    bool double_quant = true, force_threads = false;
    int64_t threads = 0;

    // -m, --adapter, --quant, --double-quant, --device, --threads, --compute
    void declare(Flags& flags, bool with_adapter, bool required = true);
    // When an adapter names how its base was quantized and the user did not say otherwise, the base is loaded that way; a note says so.
    void follow_adapter(const Flags& flags);
    qlora::Model load() const;                         // a progress line on stderr where that is a terminal; stops on Ctrl-C
};

void declare_threads(Flags& flags, int64_t& threads, bool& force);    // -t, --force-threads
// How many to use: as asked for, but not more than this process may run at once unless forced; a note on stderr says so. 0 = the library chooses.
int chosen_threads(int64_t asked, bool force);

// A model, with or without an adapter: what Session, perplexity and the others take either of.
struct Loaded {
    qlora::Model model;
    std::optional<qlora::Lora> lora;
    explicit Loaded(const ModelFlags& flags);
    template <class Use>
    auto with(Use use) const { return lora ? use(*lora) : use(model); }
};

std::string base_line(const qlora::Model& model);      // "model.gguf: llama, 134.5 M parameters, nf4, 92.1 MB in memory"

}  // namespace program
