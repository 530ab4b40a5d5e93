// ending.cpp - how a run ends: stopped, complete, or diverged; and what it has to say about itself.
#include "examples/finetune/run.h"

#include "examples/common/interrupt.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;

std::string shell_quoted(const std::string& word) {
    if (!word.empty() &&
        word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%") ==
            std::string::npos)
        return word;
    std::string out = "'";
    for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return out + '\'';
}

template <class... Values>
static std::string text(const char* format, Values... values) {
    char line[400];
    std::snprintf(line, sizeof line, format, values...);
    return line;
}

// chat lies beside this program and is called alike: ./finetune and ./chat, qlora-finetune and qlora-chat.
std::string Run::chat_command() const {
    const std::string own = command_.substr(0, command_.find(' '));
    const size_t name = own.rfind("finetune");
    const bool plain = name != own.npos && own[0] != '\'' && own.find('/', name) == own.npos;
    return (plain ? std::string(own).replace(name, 8, "chat") : "./chat") + " -m " +
           shell_quoted(s_.model.model) + " --adapter " + shell_quoted(s_.out);
}

// The folder keeps the best adapter where there was one, and takes the one of now where not. A run stopped in its last
// measurement has made all steps.
int Run::stop(int signal) {
    answer_interrupt("");
    report_.finish();
    if (step_ == 0) {
        report_.say(folder_.restore() ? "stopped before the first step; the earlier run is back in place"
                                      : "stopped before the first step");
        report_.emit(Json{}.set("event", "stopped").set("step", step_).set("resume", command_));
        return signal ? 128 + signal : 0;
    }
    const bool saved = saved_ == step_ || (health_.sound() && save_checkpoint());
    if (best_ < 0 && health_.sound()) save_adapter();
    report_.draw();
    if (folder_.record().adapter_step >= 0) write_card();
    const bool adapter = folder_.record().adapter_step >= 0;
    Json event;
    event.set("event", "stopped").set("step", step_).set("resume", command_);
    if (adapter) event.set("adapter", s_.out);
    report_.emit(event);
    const std::string at = step_ == trainer_.last().steps
                               ? "all " + std::to_string(step_) + " steps are made, the last measurement is not"
                               : std::string(signal ? "" : "the time of --max-time is over: ") +
                                     "stopped after step " + std::to_string(step_) + " of " +
                                     std::to_string(trainer_.last().steps);
    if (!health_.sound())
        report_.say(at + ", not saved: since step " + std::to_string(health_.first_unsound()) +
                    " no step had a sound loss");
    else if (saved) report_.say(at + "; saved. To go on:\n  " + command_);
    if (adapter)
        report_.say("The adapter of step " + std::to_string(folder_.record().adapter_step) + ", to talk to:\n  " +
                    chat_command());
    return signal ? 128 + signal : 0;                  // 0: as --max-time asked for
}

// The state that the first unsound step began with is no good either: its checkpoint goes aside, so that the newest one
// left is one to go on from. What the steps met goes to the log; the error is one line with one remedy.
void Run::give_up(const qlora::Error& error) {
    report_.finish();
    report_.draw();
    if (best_ > 0)
        report_.say(text("The best adapter, of step %lld with a held-out loss of %.4f, is in ",
                         static_cast<long long>(best_), best_loss_) +
                    s_.out);
    // losses that are numbers, only no good ones: the checkpoints are what they are
    if (health_.sound()) throw error;
    report_.warn(one_line(error.what()));
    for (const int64_t step : folder_.checkpoints()) if (step >= health_.first_unsound() - 1) folder_.set_aside(step);
    const auto steps = folder_.checkpoints();
    const std::string good = steps.empty() ? "there is no checkpoint from before: start again"
                                           : "the last good checkpoint is " + folder_.checkpoint(steps[0]) +
                                                 ": start from it (--adapter)";
    throw qlora::Error(error.code,
                       text("the run has diverged: no sound step since step %lld (--lr %g); ",
                            static_cast<long long>(health_.first_unsound()), double(s_.train.learning_rate)) +
                           good + " with a lower --lr in another -o");
}

// The losses at the end against those at the start: a model that has forgotten everything guesses, and then the loss is
// ln(vocabulary).
void Run::check_learned() {
    if (!health_.sound())
        throw qlora::Error(qlora::Errc::numeric, "the steps from " + std::to_string(health_.first_unsound()) +
                                                     " on had no sound loss: the run has diverged");
    if (data_.held_out && best_ < 0)
        throw qlora::Error(qlora::Errc::numeric,
                           "the held-out loss is not a number: the run has diverged; start again with a lower --lr");
    if (lora_.fingerprint() == start_)
        report_.warn("the adapter is what it was at the start: no step changed it" +
                     std::string(s_.train.learning_rate == 0 ? " (--lr 0)" : ""));
    const Curve& curve = folder_.train();
    if (curve.size() < 2) return;
    const size_t part = std::clamp<size_t>(curve.size() / 5, 1, 20);
    const auto mean = [](auto from, auto to) {
        double sum = 0;
        for (auto it = from; it != to; ++it) sum += it->second;
        return sum / double(to - from);
    };
    const double first = mean(curve.begin(), curve.begin() + int64_t(part)),
                 last = mean(curve.end() - int64_t(part), curve.end());
    if (last > first + 1 && last > 0.9 * health_.guessing())
        throw qlora::Error(qlora::Errc::numeric, text("the loss went from %.2f to %.2f, and guessing has %.2f: the run "
                                                      "has diverged; start again with a lower --lr (now %g)",
                                                      first, last, health_.guessing(), double(s_.train.learning_rate)));
    if (last > first + 1)
        report_.warn(text("the loss rose from %.2f to %.2f: a lower --lr (now %g) may be better", first, last,
                          double(s_.train.learning_rate)));
}

int Run::conclude() {
    if (data_.held_out && measured_ != step_) measure();
    if (data_.held_out && measured_ != step_) return stop(interrupted());
    answer_interrupt("");
    report_.finish();
    check_learned();
    if (!data_.held_out) save_adapter();
    const bool keep = folder_.record().keep_checkpoints;
    if (keep && s_.save_every > 0 && saved_ != step_ && step_ > first_) save_checkpoint();
    folder_.complete(step_);
    if (keep) folder_.keep_newest(s_.keep);
    else folder_.drop_checkpoints();
    report_.draw();
    write_card(true);
    summarize();
    return 0;
}

void Run::summarize() {
    const bool best_is_last = best_ < 0 || best_ == step_;
    const qlora::Lora kept = samples_.empty() || best_is_last ? lora_ : qlora::Lora::load(lora_.base(), s_.out);
    for (Sample& sample : samples_) {
        sample.after = answer(kept, sample);
        report_.say("\nquestion: " + sample.question + "\n  before:   " + sample.before +
                    "\n  after:    " + sample.after + "\n  expected: " + sample.expected);
        report_.emit(Json{}
                         .set("event", "sample")
                         .set("question", sample.question)
                         .set("before", sample.before)
                         .set("after", sample.after)
                         .set("expected", sample.expected));
    }
    if (!samples_.empty()) report_.say("");
    Json done;
    done.set("event", "done").set("steps", step_).set("adapter", s_.out).set("peak_mem_bytes", peak_memory());
    if (const Curve& curve = folder_.held_out(); !curve.empty()) {
        const double before = curve.front().second, last = curve.back().second;
        std::string line = text("held-out loss %.4f before, %.4f after", before, best_loss_);
        if (!best_is_last)
            line += text(" step %lld, whose adapter is kept; %.4f at the end (step %lld)",
                         static_cast<long long>(best_), last, static_cast<long long>(step_));
        report_.say(styled(line, Style::bold));
        if (best_loss_ > before)
            report_.warn(
                "the held-out loss rose: on rows it has not seen the adapter is worse than none; try a lower --lr, "
                "fewer --epochs, or more data");
        done.set("eval_loss_before", before)
            .set("eval_loss_after", best_loss_)
            .set("eval_loss_last", last)
            .set("best_step", best_);
    }
    report_.emit(done);
    report_.say("adapter: " + s_.out + " (" + human_count(double(lora_.parameters())) +
                " parameters); curve: " + (fs::path(s_.out) / "loss.svg").string());
    report_.say("next:    " + chat_command());
}

}  // namespace program
