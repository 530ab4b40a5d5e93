// run.h - one run of finetune: the trainer, its folder, how it starts, goes on, stops and ends.
#pragma once
#include "examples/finetune/data.h"
#include "examples/finetune/health.h"
#include "examples/finetune/outlook.h"
#include "examples/finetune/report.h"
#include "examples/finetune/samples.h"

namespace program {

// Before the model is loaded: a run that goes on computes as it did before, where no flag says otherwise and this
// machine can.
void follow_machine(Settings&, const Flags&, const RunFolder&);

class Run {
public:
    // command: what a person types to go on with this run.
    Run(Settings& s, qlora::Lora lora, Data data, RunFolder& folder, std::string command);

    void announce();                                   // the memory plan, steps, time, disk
    int train();                                       // the exit status

private:
    using Clock = std::chrono::steady_clock;

    // run.cpp: the way through the steps
    void resume();
    void recall_best();
    bool left_nothing_to_do();
    void check_space() const;
    void begin();
    bool step();                                       // false: no step left, or told to stop
    void after_step();
    bool measure_due() const;
    void measure();                                    // and keeps the adapter if it is the best so far
    bool out_of_patience();
    void show_samples();
    bool save_due() const;
    bool save_checkpoint();
    void save_adapter();
    void write_card(bool complete = false);
    void prepare_answer();                             // to Ctrl-C, should it come

    // ending.cpp
    int stop(int signal);
    int conclude();
    [[noreturn]] void give_up(const qlora::Error& error);
    void check_learned();
    void summarize();
    std::string chat_command() const;

    Settings& s_;
    qlora::Lora lora_;
    Data data_;
    qlora::Trainer trainer_;
    RunFolder& folder_;
    Report report_;
    std::string command_;
    Health health_;
    Outlook outlook_;
    std::vector<Sample> samples_;
    uint64_t start_ = 0;                               // the adapter's fingerprint before the first step
    bool unproven_ = false;    // the newest checkpoint was saved, and no sound step has followed yet
    std::vector<std::string> notes_;    // what resuming could not compare, or what is rounded otherwise from now on
    int64_t step_ = 0, first_ = 0, saved_ = -1, measured_ = -1, best_ = -1;
    double best_loss_ = 0, micro_batch_seconds_ = 0;
    Clock::time_point saved_at_, asked_at_;
};

std::string shell_quoted(const std::string& word);     // as it can be pasted into a shell

}  // namespace program
