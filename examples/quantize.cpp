// quantize.cpp - writes a model with its linear layers in NF4 or FP4: OUT.gguf, or a Hugging Face folder in the
// bitsandbytes layout.
#include "examples/common/find_model.h"
#include "examples/common/interrupt.h"
#include "examples/common/load.h"
#include "examples/common/terminal.h"

#include <cstdio>
#include <filesystem>

using namespace program;
namespace fs = std::filesystem;

static int body(int argc, char** argv) {
    ModelFlags load{.quant = "nf4"};
    std::string out;
    bool overwrite = false;
    Flags flags("quantize", "MODEL OUT [--type nf4|fp4] [--no-double-quant]",
                "Writes a model with its linear layers in 4 bits: OUT.gguf, or a Hugging Face folder.");
    flags.positional("MODEL", load.model, "a GGUF file or a Hugging Face folder");
    flags.positional("OUT", out, "a name ending in .gguf, or a folder");
    flags.choice("--type --quant --quant-type", load.quant, {"nf4", "fp4"}, "4-bit type");
    flags.toggle("--double-quant", load.double_quant, "quantize the scales again: 4.127 instead of 4.5 bits a weight");
    flags.toggle("--overwrite --force", overwrite, "replace OUT if it exists");
    declare_threads(flags, load.threads, load.force_threads);
    flags.take_config();
    flags.parse(argc, argv);
    catch_interrupts();
    const qlora::StopScope stoppable(go_on);
    std::error_code error;
    if (fs::exists(out, error) && fs::equivalent(load.model, out, error))
        throw UsageError("OUT is the model itself; choose another name");
    if (fs::exists(out, error) && !overwrite)
        throw qlora::Error(qlora::Errc::io, out + " exists; replace it with --overwrite");
    if (!fs::exists(out, error)) check_new_model(out);

    load.device = "cpu";
    const qlora::Model model = load.load();
    model.save(out);
    const qlora::ModelInfo info = model.info();
    const int64_t before = size_on_disk(load.model), after = size_on_disk(out);
    const auto bits = [&](int64_t bytes) { return double(bytes) * 8 / double(info.parameters); };
    std::printf("%-40s %12s  %5.2f bits a parameter\n", load.model.c_str(), human_bytes(before).c_str(), bits(before));
    std::printf("%-40s %12s  %5.2f bits a parameter (%s; %s parameters)\n", out.c_str(), human_bytes(after).c_str(),
                bits(after), info.weights.c_str(), human_count(double(info.parameters)).c_str());
    return 0;
}

int main(int argc, char** argv) {
    return run("quantize", [&] { return body(argc, argv); });
}
