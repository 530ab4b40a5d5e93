// run.cpp - one run of finetune.
#include "examples/finetune/run.h"

#include "examples/common/interrupt.h"
#include "src/base/limits.h"                           // the library's own view of what this process may use

#include <cstdlib>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;

int Run::train() {
    resume();
    check_space();
    folder_.begin();
    folder_.open_metrics(step_);
    for (const std::string& note : notes_) report_.note(step_, note);
    if (data_.held_out && folder_.held_out().empty()) measure();
    first_ = step_;
    report_.start(step_);
    try {
        while (true) {
            if (const int signal = interrupted()) return stop(signal);
            if (!trainer_.step()) break;
            after_step();
        }
        return conclude();
    } catch (const qlora::Error& error) {
        if (error.code == qlora::Errc::numeric) give_up(error);
        report_.finish();
        throw;
    }
}

// While steps are unsound nothing is saved and no checkpoint goes: those that are there are all that is left of the run.
void Run::after_step() {
    const qlora::TrainStep& t = trainer_.last();
    step_ = t.step;
    report_.step(t);
    health_.add(t);
    if (health_.dead() && !t.skipped)
        throw qlora::Error(qlora::Errc::numeric, std::to_string(step_ - health_.first_unsound() + 1) +
                           " steps in a row had no gradient and the loss of guessing, ln(vocabulary): the run has diverged");
    if (s_.eval_every > 0 && step_ % s_.eval_every == 0 && data_.held_out) measure();
    if (!health_.sound()) return;
    if (unproven_) folder_.keep_newest(s_.keep);
    unproven_ = false;
    if (s_.save_every > 0 && step_ % s_.save_every == 0) save_checkpoint();
}

// The state that the first unsound step began with is no good either: its checkpoint goes aside, so that the newest one left is one to go on from.
void Run::give_up(const qlora::Error& error) {
    report_.finish();
    report_.draw();
    const int64_t bad = health_.first_unsound() - 1;
    for (const int64_t step : folder_.checkpoints()) if (step >= bad) folder_.set_aside(step);
    const auto steps = folder_.checkpoints();
    if (steps.empty()) throw qlora::Error(error.code, std::string(error.what()) + "; there is no checkpoint from before: start again with a lower --lr in another -o");
    const std::string good = folder_.checkpoint(steps[0]);
    throw qlora::Error(error.code, std::string(error.what()) + "; the last good checkpoint is " + good + ": --resume auto goes on from it, --adapter " + good +
                                       " with a lower --lr and another -o starts from its adapter");
}

// The checkpoint that was asked for, then every older one.
static std::vector<std::string> candidates_of(const Settings& s, const RunFolder& folder) {
    std::vector<std::string> candidates;
    if (s.resume != "auto") candidates.push_back(s.resume);
    for (const int64_t step : folder.checkpoints()) {
        std::error_code error;
        if (s.resume == "auto" || !fs::equivalent(s.resume, folder.checkpoint(step), error)) candidates.push_back(folder.checkpoint(step));
    }
    return candidates;
}

static bool has_instructions(const std::string& name) {
    try {
        return bool(qlora::Backend::cpu(1, qlora::Compute::f32, name).impl());
    } catch (const qlora::Error&) {
        return false;
    }
}

void follow_machine(Settings& s, const Flags& flags, const RunFolder& folder) {
    for (const std::string& candidate : candidates_of(s, folder)) {
        std::optional<qlora::RunMachine> machine;
        try {
            machine = qlora::Trainer::machine_of(candidate);
        } catch (const qlora::Error&) {
            continue;                                  // damaged: resume() will say so, and go on from an older one
        }
        if (!machine || machine->device != "cpu") return;
        if (!flags.given("--device")) s.model.device = "cpu";
        if (!flags.given("--compute")) s.model.compute = machine->compute == qlora::Compute::bf16 ? "bf16" : "f32";
        if (!flags.given("--threads") && machine->threads < qlora::usable_threads()) s.model.threads = machine->threads;        // as many: what is chosen anyway
        if (!std::getenv("QLORA_ISA") && has_instructions(machine->instructions)) s.model.instructions = machine->instructions;
        return;
    }
}

// Each that does not load is named, and put aside so that it stays out of the way.
void Run::resume() {
    if (s_.resume.empty()) return;
    const std::vector<std::string> candidates = candidates_of(s_, folder_);
    const auto steps = folder_.checkpoints();
    if (candidates.empty()) return report_.say("no checkpoint in " + s_.out + " yet: starting from the beginning");
    std::string first_error;
    for (const std::string& candidate : candidates) {
        try {
            notes_ = trainer_.resume(candidate);
        } catch (const qlora::Error& error) {
            if (error.code == qlora::Errc::argument) throw;   // of another run, as the ones before it are
            if (first_error.empty()) first_error = error.what();
            report_.warn(one_line(error.what()) + "; falling back to the checkpoint before");
            continue;
        }
        step_ = trainer_.last().step;
        for (const int64_t step : steps) if (step > step_) folder_.set_aside(step);
        report_.say("going on from " + candidate + ", step " + std::to_string(step_));
        return;
    }
    throw qlora::Error(qlora::Errc::format, "no usable checkpoint: " + first_error + "; choose another -o to start anew");
}

// Better now than after an hour: two checkpoints (the new one is complete before the old one goes) and the adapter must fit.
void Run::check_space() const {
    std::error_code error;
    const fs::space_info space = fs::space(s_.out, error);
    const int64_t adapter = lora_.parameters() * 4, needed = adapter + (s_.save_every > 0 ? 2 * 3 * adapter : 0);
    if (!error && space.available < uintmax_t(needed))
        throw qlora::Error(qlora::Errc::io, s_.out + " has " + human_bytes(int64_t(space.available)) + " free, the adapter and its checkpoints need " +
                                                human_bytes(needed) + "; free some, choose another -o, or --save-every 0");
}

void Run::measure() {
    report_.measuring();
    report_.held_out(step_, trainer_.evaluate(*data_.held_out));
    measured_ = step_;
}

// A save that fails leaves the run and the older checkpoints alone; the next interval tries again.
bool Run::save_checkpoint() {
    const std::string where = folder_.checkpoint(step_);
    try {
        folder_.new_checkpoint(step_);
        trainer_.save(where);
    } catch (const std::exception& error) {
        report_.warn("checkpoint not saved: " + one_line(error.what()));
        return false;
    }
    folder_.settle();
    saved_ = step_;
    unproven_ = true;
    report_.emit(Json{}.set("event", "checkpoint").set("step", step_).set("path", where));
    return true;
}

int Run::stop(int signal) {
    report_.finish();
    const bool saved = saved_ == step_ || step_ == 0 || (health_.sound() && save_checkpoint());
    report_.draw();
    report_.emit(Json{}.set("event", "stopped").set("step", step_).set("resume", command_));
    if (step_ == 0) report_.say(folder_.restore() ? "stopped before the first step; the earlier run is back in place" : "stopped before the first step");
    else if (!health_.sound()) report_.say("stopped after step " + std::to_string(step_) + ", not saved: since step " + std::to_string(health_.first_unsound()) + " no step had a sound loss");
    else if (saved) report_.say("stopped after step " + std::to_string(step_) + "; saved. To go on:\n  " + command_);
    return 128 + signal;
}

int Run::conclude() {
    if (data_.held_out && measured_ != step_) measure();
    report_.finish();
    if (!health_.sound()) throw qlora::Error(qlora::Errc::numeric, "the last steps, from " + std::to_string(health_.first_unsound()) + " on, had no sound loss: the run has diverged");
    if (s_.save_every > 0 && saved_ != step_ && step_ > first_) save_checkpoint();
    folder_.keep_newest(s_.keep);
    folder_.take_adapter(step_, [&](const std::string& where) { lora_.save(where); });
    folder_.settle();
    if (data_.held_out) write_held_out(s_.out, data_.record);
    report_.draw();
    Json done;
    done.set("event", "done").set("steps", step_).set("adapter", s_.out).set("peak_mem_bytes", peak_memory());
    if (const Curve& curve = folder_.held_out(); !curve.empty()) {
        char text[160];
        std::snprintf(text, sizeof text, "held-out loss %.4f before, %.4f after", curve.front().second, curve.back().second);
        report_.say(styled(text, Style::bold));
        done.set("eval_loss_before", curve.front().second).set("eval_loss_after", curve.back().second);
    }
    report_.emit(done);
    report_.say("adapter: " + s_.out + " (" + human_count(double(lora_.parameters())) + " parameters); curve: " + (fs::path(s_.out) / "loss.svg").string());
    report_.say("next:    ./chat -m " + s_.model.model + " --adapter " + s_.out);
    return 0;
}

}  // namespace program
