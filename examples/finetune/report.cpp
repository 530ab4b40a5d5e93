// report.cpp - what a run says while it goes.
#include "examples/finetune/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;

// Seconds between drawings of the curve while a run goes on.
constexpr double draw_every = 20;

// What a terminal has no room for is left out, the least wanted first.
static std::string fitted(std::vector<std::pair<int, std::string>> parts, int room) {
    std::erase_if(parts, [](const auto& part) { return part.second.empty(); });
    while (true) {
        std::string line;
        for (const auto& part : parts) line += (line.empty() ? "" : "  ") + part.second;
        if (int(line.size()) <= room || parts.size() == 1) return line;
        parts.erase(std::max_element(parts.begin(), parts.end()));
    }
}

void Report::start(int64_t step) {
    started_ = drawn_ = std::chrono::steady_clock::now();
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

void Report::sample(int64_t step, const std::string& question, const std::string& answer) {
    const Json line = Json{}.set("step", step).set("question", question).set("answer", answer);
    record(line);
    emit(Json(line).set("event", "sample"));
    say(styled("step " + std::to_string(step) + ": ", Style::cyan) + question + "\n  answer: " + answer);
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
    const auto now = std::chrono::steady_clock::now();
    if (std::chrono::duration<double>(now - drawn_).count() >= draw_every) {
        draw();
        drawn_ = std::chrono::steady_clock::now();
    }
    if (t.skipped && !s_.json)
        say("step " + std::to_string(t.step) + " skipped: its loss or gradient is not finite (" +
            std::to_string(t.skipped_steps) + " so far)");
    if (s_.json || (!progress_.live() && t.step % s_.log_every != 0 && t.step != t.steps)) return;
    progress_.update(line_of(t, totals_.seconds + elapsed, left));
}

// The numbers say what goes first where there is little room: 0 stays longest.
std::string Report::line_of(const qlora::TrainStep& t, double elapsed, double left) const {
    const auto text = [](const char* format, double value) {
        char piece[64];
        std::snprintf(piece, sizeof piece, format, value);
        return std::string(piece);
    };
    const double speed = t.seconds > 0 ? double(t.tokens) / t.seconds : 0;
    return fitted({{0, "step " + std::to_string(t.step) + '/' + std::to_string(t.steps)},
                   {3, text("epoch %.2f", t.epoch)},
                   {2, text("loss %.4f", t.loss)},
                   {6, text("lr %.2e", t.learning_rate)},
                   {7, text("grad %.3f", t.grad_norm)},
                   {5, human_count(speed) + " tok/s"},
                   {8, "peak " + human_bytes(peak_memory())},
                   {4, "elapsed " + human_time(elapsed)},
                   {1, "left " + human_time(left)}},
                  progress_.live() ? columns(1) - 1 : 1000);
}

void Report::draw() {
    try {
        folder_.write_curve(fs::path(s_.out).filename().string() + ": loss");
    } catch (const qlora::Error& error) {
        warn("loss.svg not written: " + one_line(error.what()));
    }
}

}  // namespace program
