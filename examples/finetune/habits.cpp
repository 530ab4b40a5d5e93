// habits.cpp - see habits.h.
#include "examples/finetune/habits.h"

#include <algorithm>
#include <cstdlib>

namespace program {

static void declare_mlx(Flags& flags, Settings& s) {
    flags.foreign("--train --do-train", "", {"true"}, "finetune trains; to measure: ./evaluate -m MODEL --data FILE");
    flags.foreign("--test --do-predict", "", {"false"},
                  "finetune trains; to measure: ./evaluate -m MODEL --adapter DIR --data test.jsonl");
    flags.habit("--adapter-path", "DIR", [&s](const std::string& text, const std::string&) { s.adapter_path = text; });
    flags.habit("--num-layers", "N", [&s](const std::string& text, const std::string& name) {
        char* end = nullptr;
        s.last_layers = std::strtoll(text.c_str(), &end, 10);
        if (text.empty() || *end || s.last_layers < -1 || s.last_layers == 0 || s.last_layers > 100000)
            throw UsageError(name + " must be a number of layers, or -1 for all, is \"" + one_line(text) + '"');
    });
    flags.habit("--mask-prompt", "", [&s](const std::string& text, const std::string&) {
        s.rows.loss = text == "true" ? "completion" : "all";
    });
    flags.habit("--fine-tune-type --train-type", "TYPE", [&s](const std::string& text, const std::string& name) {
        if (text != "lora" && text != "dora")
            throw UsageError(name + " " + one_line(text) + ": only adapters are trained here: lora or dora");
        s.lora.dora = text == "dora";
    });
    flags.foreign("--val-batches --test-batches", "N", {"-1"},
                  "all held-out rows are measured; --val-split or --valid say which they are");
}

static void declare_hugging_face(Flags& flags, Settings& s) {
    flags.habit("--bf16", "", [&s](const std::string& text, const std::string&) {
        if (text == "true") s.model.compute = "bf16";
    });
    flags.foreign("--fp16", "", {"false"}, "there is no f16 here; --compute bf16 rounds products, f32 nothing");
    flags.habit("--load-in-4bit", "",
                [&s](const std::string& text, const std::string&) { s.model.quant = text == "true" ? "nf4" : "none"; });
    flags.foreign("--load-in-8bit", "", {"false"},
                  "the base is held in 4 bits (--quant nf4) or as stored (--quant none)");
    flags.habit("--bits", "N", [&s](const std::string& text, const std::string& name) {
        if (text != "4" && text != "16" && text != "32")
            throw UsageError(name + " " + one_line(text) +
                             ": the base is held in 4 bits (--quant nf4) or as stored "
                             "(--quant none)");
        s.model.quant = text == "4" ? "nf4" : "none";
    });
    flags.habit("--bnb-4bit-compute-dtype", "TYPE", [&s](const std::string& text, const std::string& name) {
        if (text == "bfloat16") s.model.compute = "bf16";
        else if (text == "float32") s.model.compute = "f32";
        else throw UsageError(name + " " + one_line(text) + ": expected bfloat16 or float32 (--compute bf16|f32)");
    });
    flags.habit("--train-on-source", "", [&s](const std::string& text, const std::string&) {
        if (text == "true") s.rows.loss = "all";
    });
    flags.foreign("--source-max-len --target-max-len", "N", {},
                  "a row has one limit here, for all of it: --max-seq-len");
    flags.foreign("--report-to", "NAME", {"none", "[]"},
                  "metrics are written into -o: metrics.jsonl, and loss.svg as a picture; --json prints them");
    flags.foreign("--full-finetune", "", {"false"}, "only adapters are trained here");
    for (const char* either : {"--do-eval", "--use-peft", "--use-lora", "--remove-unused-columns",
                               "--trust-remote-code", "--ddp-find-unused-parameters", "--tf32"})
        flags.foreign(either, "", {"*"}, "");    // makes no difference here
    for (const char* rows : {"--modules-to-save", "--trainable-token-indices"})
        flags.foreign(rows, "NAMES", {},
                      "the embedding and the head stay as they are; adapters are trained on the linear layers of the "
                      "blocks (--lora-modules)");
    flags.foreign("--push-to-hub", "", {"false"}, "nothing is uploaded; the folder in -o is the adapter");
    flags.foreign("--eval-strategy --evaluation-strategy", "WHEN", {"no", "epoch", "steps"},
                  "expected no, epoch or steps; --eval-every says how often");
    flags.foreign("--save-strategy", "WHEN", {"steps", "no"}, "checkpoints are written every --save-every steps");
    flags.foreign("--logging-strategy", "WHEN", {"steps"}, "progress is printed every --log-every steps");
    for (const char* any : {"--dataloader-num-workers", "--attn-implementation"})
        flags.foreign(any, "VALUE", {"*"}, "");
    flags.foreign("--torch-dtype --dtype", "TYPE", {"auto"},
                  "the base is held as --quant says, and computed with as --compute says");
}

void declare_habits(Flags& flags, Settings& s) {
    declare_mlx(flags, s);
    declare_hugging_face(flags, s);
    flags.take_config();
}

// mlx-lm's --adapter-path is where --train writes.
void finish_habits(Settings& s, const Flags& flags) {
    if (s.adapter_path.empty() && flags.given("--train") && s.out.empty() && !s.dry_run) s.out = "adapters";
    if (!s.adapter_path.empty()) {
        if (flags.given("--train") && flags.given("-o"))
            throw UsageError(
                "with --train --adapter-path is where the adapter is written, and -o too: choose one; "
                "--resume-adapter-file goes on with an adapter");
        if (!flags.given("--train") && flags.given("--adapter"))
            throw UsageError("--adapter-path is given twice (it is the same as --adapter): leave one of them out");
        (flags.given("--train") ? s.out : s.model.adapter) = s.adapter_path;
    }
    if (s.last_layers != 0 && flags.given("--lora-layers"))
        throw UsageError("--num-layers and --lora-layers both choose layers: leave one of them out");
    for (const char* four : {"--bits", "--load-in-4bit"})
        if (flags.given(four) && flags.given("--quant") && s.model.quant == "none")
            throw UsageError(std::string(four) + " and --quant none: leave one of them out");
}

void apply_last_layers(Settings& s, const qlora::Model& model) {
    const int64_t layers = model.info().layers;
    if (s.last_layers <= 0 || s.last_layers >= layers) return;
    s.lora.layers.clear();
    for (int64_t layer = layers - s.last_layers; layer < layers; ++layer) s.lora.layers.push_back(layer);
}

}    // namespace program
