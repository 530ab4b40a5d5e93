// run.h - one run of finetune: the trainer, its folder, how it starts, goes on, stops and ends.
#pragma once
#include "examples/finetune/data.h"
#include "examples/finetune/health.h"
#include "examples/finetune/report.h"

namespace program {

// Before the model is loaded: a run that goes on computes as it did before, where no flag says otherwise and this machine can.
void follow_machine(Settings&, const Flags&, const RunFolder&);

class Run {
public:
    // command: what a person types to go on with this run.
    Run(Settings& s, qlora::Lora lora, Data data, RunFolder& folder, std::string command)
        : s_(s), lora_(lora), data_(std::move(data)), trainer_(lora, data_.train, s.train), folder_(folder), report_(s, folder), command_(std::move(command)),
          health_(lora.base().info().vocabulary, s.train.max_bad_steps) {}

    qlora::Trainer& trainer() { return trainer_; }
    int train();                                       // the exit status

private:
    void resume();
    void after_step();
    [[noreturn]] void give_up(const qlora::Error& error);
    void check_space() const;
    void measure();
    bool save_checkpoint();
    int stop(int signal);
    int conclude();

    Settings& s_;
    qlora::Lora lora_;
    Data data_;
    qlora::Trainer trainer_;
    RunFolder& folder_;
    Report report_;
    std::string command_;
    Health health_;
    bool unproven_ = false;                            // the newest checkpoint was saved, and no sound step has followed yet
    std::vector<std::string> notes_;                   // what resuming could not compare, or what is rounded otherwise from now on
    int64_t step_ = 0, first_ = 0, saved_ = -1, measured_ = -1;
};

}  // namespace program
