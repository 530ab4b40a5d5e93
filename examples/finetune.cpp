// finetune.cpp - QLoRA fine-tuning from the command line. The work is the library's (qlora.h: Dataset, Lora, Trainer);
// this program is what a person sees of it: what will be trained on, what memory it takes, how it goes, how to stop and
// go on, and what to type next. Its rooms are in examples/finetune: settings and preset (the flags), data (the rows),
// outlook (what it will take), run (the way through the steps), health (does it still learn), report (what is said on
// the way), ending (stopped, complete or diverged), samples (answers before and after).
#include "examples/finetune/run.h"

#include "examples/common/interrupt.h"
#include "examples/common/streams.h"
#include "examples/finetune/fit.h"
#include "examples/finetune/habits.h"
#include "examples/finetune/preset.h"

#include <algorithm>
#include <cstdio>

using namespace program;
using qlora::Json;

// The command that goes on with this run, as it can be pasted into a shell.
static std::string resume_command(int argc, char** argv) {
    const std::vector<std::string> words = arguments(argc, argv);
    std::string command;
    for (int i = 0; i < argc; ++i) {
        const std::string word = words[size_t(i)];
        std::string name = word.substr(0, word.find('='));
        std::replace(name.begin(), name.end(), '_', '-');
        if (name == "--resume" || name == "--resume-from-checkpoint") {
            i += word.find('=') == std::string::npos;
            continue;
        }
        if (name.rfind("--overwrite", 0) == 0) continue;
        command += (i ? " " : "") + shell_quoted(word);
    }
    return command + " --resume auto";
}

static int dry_run(const Settings& s, const qlora::Lora& lora, const Data& data) {
    qlora::Trainer trainer(lora, data.train, s.train);
    const qlora::MemoryPlan plan = trainer.plan();
    if (!s.json) print_plan(plan);
    std::fflush(stdout);
    const Outlook outlook = look_ahead(s, lora, data, trainer, plan);
    if (s.json)
        std::printf("%s\n", Json{}
                                .set("data", as_json(data.train.info()))
                                .set("backend", lora.base().backend().name())
                                .set("memory", as_json(plan))
                                .set("run", as_json(outlook))
                                .dump()
                                .c_str());
    else print_outlook(outlook, s);
    return 0;
}

static int body(int argc, char** argv) {
    Settings s;
    Flags flags("finetune", "-m MODEL --data FILE|DIR -o OUT [options]",
                "Fine-tunes LoRA adapters on a model held in 4 bits (QLoRA). Defaults are the recipe of the paper.");
    declare(flags, s);
    flags.parse(argc, argv);
    for (const char* once : {"--resume", "--overwrite", "--dry-run", "--json"}) flags.forget(once);
    finish(s, flags);
    catch_interrupts();
    if (s.dry_run) s.model.plan_for_device();
    if (!s.shape.empty()) return plan_shape(s, flags);

    std::optional<RunFolder> folder;
    // before the minutes of loading, not after
    if (!s.dry_run)
        folder.emplace(s.out, s.overwrite        ? RunFolder::Start::overwrite
                              : s.resume.empty() ? RunFolder::Start::fresh
                                                 : RunFolder::Start::resume);
    if (folder && !s.resume.empty()) follow_machine(s, flags, *folder);
    if (parse_budget(s.memory_limit).device > 0) check_budget(s, s.model.backend());
    // until the run begins, which stops in its own way
    std::optional<qlora::StopScope> stoppable(std::in_place, go_on);
    std::optional<qlora::Model> base = s.model.load_base();
    qlora::Model& model = *base;
    s.train.context = model.info().context > 0 ? std::min(s.train.context, model.info().context) : s.train.context;
    Data data = load_data(s, model);
    if (s.preset == "small") apply_small(s, flags, data.train.info().rows);
    apply_last_layers(s, model);
    qlora::Lora lora = s.model.adapter.empty() ? qlora::Lora::create(model, s.lora) : s.model.load_adapter(model);
    if (!s.model.adapter.empty()) s.lora = lora.options();
    const MemoryBudget budget = !s.memory_limit.empty()
                                    ? parse_budget(s.memory_limit)
                                    : MemoryBudget{int64_t(model.backend().memory_free()), 0, true};
    const std::vector<std::string> chosen =
        s.memory_limit.empty() && (s.dry_run || model.backend().name().starts_with("cuda"))
            ? std::vector<std::string>{}
            : fit(s, flags, model, lora, data.train, budget);
    for (const std::string& line : chosen)
        std::fprintf(s.json ? stderr : stdout, "to fit into %s: %s\n",
                     s.memory_limit.empty() ? (human_bytes(budget.host) + " that are free").c_str()
                                            : s.memory_limit.c_str(),
                     line.c_str());
    const std::string kept = s.memory_limit.empty() ? "" : keep_panels(s, flags, model, lora, data.train);
    if (!kept.empty())
        std::fprintf(s.json ? stderr : stdout, "of what is left of %s: %s\n", s.memory_limit.c_str(), kept.c_str());
    if (!s.json) {
        std::printf("%s\nbase: %s\ncompute: %s\n", base_line(model).c_str(), s.model.why.c_str(),
                    compute_line(model).c_str());
        say_planned(s);
        print_data("training data", data.train.info());
        for (const std::string& line : data.mix) std::printf("  %s\n", line.c_str());
        if (data.held_out) print_data("held-out data", data.held_out->info());
        else std::printf("held-out data: none (--val-split 0.05 or --valid FILE)\n");
        if (!s.model.adapter.empty()) std::printf("going on with the adapter %s\n", s.model.adapter.c_str());
        std::printf("adapter: rank %lld on %s, %s parameters\n", static_cast<long long>(s.lora.rank),
                    s.lora.modules.c_str(), human_count(double(lora.parameters())).c_str());
        print_sample(data, model);
    }
    base.reset();                                      // pissa trains on another one, made of it
    if (s.dry_run) return dry_run(s, lora, data);
    stoppable.reset();
    Run run(s, lora, data, *folder, resume_command(argc, argv));
    run.announce();
    try {
        return run.train();
    } catch (const qlora::Error& error) {
        if (!folder->restore()) throw;
        throw qlora::Error(error.code,
                           std::string(error.what()) + "; the earlier run in " + s.out + " is back in place");
    }
}

int main(int argc, char** argv) {
    return run("finetune", [&] { return body(argc, argv); });
}
