// report.h - what a run says while it goes: text or JSON on standard output, one line a step in metrics.jsonl, the
// curve.
#pragma once
#include "examples/common/run_folder.h"
#include "examples/common/terminal.h"
#include "examples/finetune/settings.h"

#include <chrono>

namespace program {

class Report {
public:
    Report(const Settings& s, RunFolder& folder) : s_(s), folder_(folder) {}
    void start(int64_t step);                          // the clock: `step` steps were made before
    // of the same run, before it was stopped
    void go_on_counting(const RunFolder::Totals& before) { totals_ = before; }
    void say(const std::string& text);                 // nothing with --json
    void emit(const qlora::Json& event);               // nothing without
    void warn(const std::string& text);
    void note(int64_t step, const std::string& text);  // also in metrics.jsonl
    void measuring();                                  // a measurement takes a while
    void held_out(int64_t step, double loss);
    void sample(int64_t step, const std::string& question, const std::string& answer);
    void step(const qlora::TrainStep& t);
    void draw();                                       // loss.svg; steps draw it too, now and then
    void finish() { progress_.finish(); }              // the live line stays where it is

private:
    void record(const qlora::Json& line);
    std::string line_of(const qlora::TrainStep& t, double elapsed, double left) const;
    const Settings& s_;
    RunFolder& folder_;
    Progress progress_{1};
    RunFolder::Totals totals_;
    int64_t first_ = 0;
    bool metrics_failed_ = false;
    std::chrono::steady_clock::time_point started_, drawn_;
};

}  // namespace program
