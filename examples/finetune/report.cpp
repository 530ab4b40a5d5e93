// report.cpp - what a run says while it goes.
#include "examples/finetune/report.h"

#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;

void Report::start(int64_t step) {
    started_ = std::chrono::steady_clock::now();
    first_ = step;
}

void Report::say(const std::string& text) { if (!s_.json) progress_.print(text); }

void Report::emit(const Json& event) {
    if (s_.json) std::printf("%s\n", event.dump().c_str()), std::fflush(stdout);
}

void Report::warn(const std::string& text) {
    if (s_.json) emit(Json{}.set("event", "warning").set("text", text));
    else progress_.print(styled("warning: " + text, Style::yellow));
}

void Report::record(const Json& line) {
    if (!folder_.write_metrics(line.dump()) && !metrics_failed_) {
        metrics_failed_ = true;
        warn("metrics.jsonl cannot be written; the run goes on without it");
    }
}

void Report::note(int64_t step, const std::string& text) {
    say("note: " + text);
    emit(Json{}.set("event", "note").set("step", step).set("text", text));
    record(Json{}.set("step", step).set("note", text).set("time", int64_t(std::time(nullptr))));
}

void Report::measuring() {
    if (progress_.live() && !s_.json) progress_.update("measuring the held-out loss ...");
}

void Report::held_out(int64_t step, double loss) {
    folder_.add_held_out(step, loss);
    record(Json{}.set("step", step).set("eval_loss", loss).set("time", int64_t(std::time(nullptr))));
    emit(Json{}.set("event", "eval").set("step", step).set("eval_loss", loss));
    char text[96];
    std::snprintf(text, sizeof text, "step %lld: held-out loss %.4f", static_cast<long long>(step), loss);
    say(styled(text, Style::cyan));
}

void Report::step(const qlora::TrainStep& t) {
    totals_.tokens += t.tokens;
    totals_.trained += t.trained_tokens;
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
    const double left = elapsed / double(t.step - first_) * double(t.steps - t.step),
                 speed = t.seconds > 0 ? double(t.tokens) / t.seconds : 0;
    Json line;
    line.set("step", t.step)
        .set("total_steps", t.steps)
        .set("epoch", t.epoch)
        .set("loss", std::isfinite(t.loss) ? Json(t.loss) : Json());
    line.set("lr", t.learning_rate)
        .set("grad_norm", std::isfinite(t.grad_norm) ? Json(t.grad_norm) : Json())
        .set("tokens_per_sec", speed);
    line.set("total_tokens", totals_.tokens)
        .set("supervised_tokens", totals_.trained)
        .set("elapsed_s", totals_.seconds + elapsed)
        .set("remaining_s", left);
    if (t.paged_bytes > 0) line.set("paged_bytes", t.paged_bytes);
    line.set("peak_mem_bytes", peak_memory())
        .set("skipped_steps", t.skipped_steps)
        .set("time", int64_t(std::time(nullptr)));
    record(line);
    if (s_.json) emit(Json(line).set("event", "step"));
    if (!t.skipped) folder_.add_train(t.step, t.loss);
    if (t.skipped && !s_.json)
        say("step " + std::to_string(t.step) + " skipped: its loss or gradient is not finite (" +
            std::to_string(t.skipped_steps) + " so far)");
    if (s_.json || (!progress_.live() && t.step % s_.log_every != 0 && t.step != t.steps)) return;
    char text[256];
    std::snprintf(text, sizeof text, "step %lld/%lld  loss %.4f  lr %.2e  grad %.3f  %s tok/s  peak %s  left %s",
                  static_cast<long long>(t.step), static_cast<long long>(t.steps), t.loss, t.learning_rate, t.grad_norm,
                  human_count(speed).c_str(), human_bytes(peak_memory()).c_str(), human_time(left).c_str());
    progress_.update(text + (t.paged_bytes > 0 ? "  paged " + human_bytes(t.paged_bytes) : ""));
}

void Report::draw() {
    try {
        folder_.write_curve(fs::path(s_.out).filename().string() + ": loss");
    } catch (const qlora::Error& error) {
        warn("loss.svg not written: " + one_line(error.what()));
    }
}

}  // namespace program
