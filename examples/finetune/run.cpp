// run.cpp - the way of a run through its steps.
#include "examples/finetune/run.h"

#include "examples/common/interrupt.h"
#include "examples/finetune/card.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;

Run::Run(Settings& s, qlora::Lora lora, Data data, RunFolder& folder, std::string command)
    : s_(s),
      lora_(lora),
      data_(std::move(data)),
      trainer_(lora, data_.train, s.train),
      folder_(folder),
      report_(s, folder),
      command_(std::move(command)),
      health_(lora.base().info().vocabulary, s.train.max_bad_steps),
      start_(lora.fingerprint()) {}

void Run::announce() {
    const qlora::MemoryPlan plan = trainer_.plan();
    if (!s_.json) print_plan(plan);
    std::fflush(stdout);
    outlook_ = look_ahead(s_, lora_, data_, trainer_, plan);
    micro_batch_seconds_ = outlook_.micro_batch_seconds;
    if (!s_.json) print_outlook(outlook_, s_);
    report_.emit(Json{}
                     .set("event", "start")
                     .set("model", s_.model.model)
                     .set("weights", lora_.base().info().weights)
                     .set("base", s_.model.why)
                     .set("data", as_json(data_.train.info()))
                     .set("memory", as_json(plan))
                     .set("run", as_json(outlook_)));
    std::fflush(stdout);
}

int Run::train() {
    if (left_nothing_to_do()) return 0;
    if (s_.preset == "small" || s_.sample_every > 0) samples_ = pick_samples(data_, lora_.base().tokenizer());
    for (Sample& sample : samples_) sample.before = answer(lora_, sample);
    resume();
    check_space();
    begin();
    try {
        if (data_.held_out && (step_ == 0 || measure_due()) && measured_ != step_) measure();
        while (true) {
            prepare_answer();
            if (interrupted() && step_ < trainer_.last().steps) return stop(interrupted());
            if (!step()) break;
            after_step();
            if (out_of_patience()) return conclude();
        }
        if (step_ < trainer_.last().steps) return stop(interrupted());
        return conclude();
    } catch (const qlora::Error& error) {
        if (error.code == qlora::Errc::numeric) give_up(error);
        report_.finish();
        throw;
    }
}

// A complete run keeps its adapter but not always checkpoints: starting it from the beginning would only cost the
// adapter.
bool Run::left_nothing_to_do() {
    const int64_t complete = folder_.record().complete;
    if (s_.resume != "auto" || complete < 0) return false;
    if (!folder_.record().keep_checkpoints) folder_.drop_checkpoints();                 // it was killed before it could
    if (!folder_.checkpoints().empty()) return false;
    if (trainer_.last().steps > complete && s_.patience == 0)
        throw qlora::Error(qlora::Errc::argument,
                           "the run in " + s_.out + " is complete after " + std::to_string(complete) +
                               " steps and kept no checkpoints; to train its adapter further: --adapter " + s_.out +
                               " and another -o, without --resume");
    report_.say("the run in " + s_.out + " is complete: " + std::to_string(complete) +
                " steps\nnext:    " + chat_command());
    report_.emit(Json{}.set("event", "done").set("steps", complete).set("adapter", s_.out));
    return true;
}

// The checkpoint that was asked for, then every older one.
static std::vector<std::string> candidates_of(const Settings& s, const RunFolder& folder) {
    std::vector<std::string> candidates;
    if (s.resume != "auto") candidates.push_back(s.resume);
    for (const int64_t step : folder.checkpoints()) {
        std::error_code error;
        if (s.resume == "auto" || !fs::equivalent(s.resume, folder.checkpoint(step), error))
            candidates.push_back(folder.checkpoint(step));
    }
    return candidates;
}

static bool has_instructions(const std::string& name) {
    try {
        (void)qlora::Backend::cpu(1, qlora::Compute::f32, name);
        return true;
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
        if (!flags.given("--compute")) s.model.compute = qlora::name_of(machine->compute);
        // as many: what is chosen anyway
        if (!flags.given("--threads") && machine->threads < qlora::usable_threads()) s.model.threads = machine->threads;
        if (!std::getenv("QLORA_ISA") && has_instructions(machine->instructions))
            s.model.instructions = machine->instructions;
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
        step_ = saved_ = trainer_.last().step;
        for (const int64_t step : steps) if (step > step_) folder_.set_aside(step);
        report_.say("going on from " + candidate + ", step " + std::to_string(step_));
        return;
    }
    throw qlora::Error(qlora::Errc::format,
                       "no usable checkpoint: " + first_error + "; choose another -o to start anew");
}

// Better now than after an hour.
void Run::check_space() const {
    std::error_code error;
    const fs::space_info space = fs::space(s_.out, error);
    if (!error && space.available < uintmax_t(outlook_.disk_during))
        throw qlora::Error(qlora::Errc::io, s_.out + " has " + human_bytes(int64_t(space.available)) +
                                                " free, the adapter and its checkpoints need " +
                                                human_bytes(outlook_.disk_during) +
                                                "; free some, choose another -o, or --save-every 0");
}

void Run::begin() {
    folder_.begin(s_.keep_checkpoints);
    write_text((fs::path(folder_.path()) / "run.json").string(), s_.config);
    report_.go_on_counting(folder_.open_metrics(step_));
    for (const std::string& note : notes_) report_.note(step_, note);
    first_ = step_;
    report_.start(step_);
    recall_best();
    saved_at_ = asked_at_ = Clock::now();
}

// The best adapter so far lies in the folder. If a run that was killed has left one of a later step there, it is
// measured again on the way.
void Run::recall_best() {
    const Curve& curve = folder_.held_out();
    if (!curve.empty()) measured_ = int64_t(curve.back().first);
    const int64_t held = folder_.record().adapter_step;
    for (const auto& [step, loss] : curve) {
        if (int64_t(step) != held || held <= 0) continue;
        best_ = held;
        best_loss_ = loss;
    }
}

// A step is left only between micro-batches: once all of them are done the rest of it takes no time.
bool Run::step() {
    asked_at_ = Clock::now();
    bool made = false;
    unless_cancelled([&] {
        made = trainer_.step([&](int64_t done, int64_t of) {
            const Clock::time_point now = Clock::now();
            if (done > 0) micro_batch_seconds_ = std::chrono::duration<double>(now - asked_at_).count();
            asked_at_ = now;
            prepare_answer();
            return done == of || !interrupted();
        });
    });
    return made;
}

void Run::prepare_answer() {
    if (interrupted()) return;
    const int64_t lost = step_ - std::max<int64_t>(saved_, 0);
    std::string line = "stopping after this micro-batch";
    if (micro_batch_seconds_ > 0) line += ", about " + human_time(micro_batch_seconds_);
    line += lost > 0 ? "; again: lose " + std::to_string(lost) + (lost == 1 ? " step" : " steps") : "; again: at once";
    answer_interrupt(line);
}

// While steps are unsound nothing is saved and no checkpoint goes: those that are there are all that is left of the
// run.
void Run::after_step() {
    const qlora::TrainStep& t = trainer_.last();
    step_ = t.step;
    report_.step(t);
    health_.add(t);
    if (health_.dead() && !t.skipped)
        throw qlora::Error(
            qlora::Errc::numeric,
            std::to_string(step_ - health_.first_unsound() + 1) +
                " steps in a row had no gradient and the loss of guessing, ln(vocabulary): the run has diverged");
    if (measure_due()) measure();
    if (s_.sample_every > 0 && step_ % s_.sample_every == 0) show_samples();
    if (!health_.sound()) return;
    if (unproven_) folder_.keep_newest(s_.keep);
    unproven_ = false;
    if (save_due()) save_checkpoint();
}

// After every epoch, at the end, and as --eval-every says.
bool Run::measure_due() const {
    const qlora::TrainStep& t = trainer_.last();
    if (!data_.held_out || t.step == 0) return false;
    const double before = t.epoch * double(t.step - 1) / double(t.step);
    const bool epoch_ends = std::floor(t.epoch + 1e-9) > std::floor(before + 1e-9);
    return epoch_ends || t.step == t.steps || (s_.eval_every > 0 && t.step % s_.eval_every == 0);
}

void Run::measure() {
    report_.measuring();
    double loss = 0;
    const auto whole = [&] { loss = trainer_.evaluate(*data_.held_out, [] { return interrupted() == 0; }); };
    if (!unless_cancelled(whole) || interrupted()) return;             // it is made again when the run goes on
    report_.held_out(step_, loss);
    measured_ = step_;
    if (step_ == 0 || !(best_ < 0 ? std::isfinite(loss) : loss < best_loss_)) return;
    best_ = step_;
    best_loss_ = loss;
    save_adapter();
}

// Counted on the curve, so that a run that goes on has as much patience left as it had.
bool Run::out_of_patience() {
    if (s_.patience == 0 || measured_ != step_ || best_ < 0 || step_ == trainer_.last().steps) return false;
    int64_t worse = 0;
    for (const auto& [step, loss] : folder_.held_out()) worse += int64_t(step) > best_;
    if (worse < s_.patience) return false;
    report_.say("no better held-out loss in " + std::to_string(worse) +
                (worse == 1 ? " measurement" : " measurements") + ": ending at step " + std::to_string(step_) + " of " +
                std::to_string(trainer_.last().steps));
    return true;
}

void Run::show_samples() {
    for (const Sample& sample : samples_) report_.sample(step_, sample.question, answer(lora_, sample));
}

bool Run::save_due() const {
    if (s_.save_every > 0 && step_ % s_.save_every == 0) return true;
    return s_.save_minutes > 0 &&
           std::chrono::duration<double>(Clock::now() - saved_at_).count() >= 60 * s_.save_minutes;
}

// A save that fails leaves the run and the older checkpoints alone; the next interval tries again.
bool Run::save_checkpoint() {
    saved_at_ = Clock::now();
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

void Run::save_adapter() {
    folder_.take_adapter(step_, [&](const std::string& where) { lora_.save(where); });
    if (data_.held_out) write_held_out(s_.out, data_.record);
    write_card();
    folder_.settle();
}

// With it the adapter is whole, without it too: a card that cannot be written ends no run.
void Run::write_card(bool complete) {
    try {
        folder_.write_card(model_card(s_, lora_, data_, folder_, {step_, trainer_.last().steps, best_, complete}),
                           modelfile(s_, lora_.base()));
    } catch (const qlora::Error& error) {
        report_.warn("no model card: " + one_line(error.what()));
    }
}

}  // namespace program
