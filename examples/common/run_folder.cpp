// run_folder.cpp - the output folder of a fine-tuning run.
#include "examples/common/run_folder.h"

#include "examples/common/lock_file.h"

#include "qlora.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;

static void check(const std::error_code& error, const std::string& doing) {
    if (error) throw qlora::Error(qlora::Errc::io, doing + ": " + error.message());
}

void write_text(const std::string& path, const std::string& text) { qlora::write_file_atomic(path, text); }

// What every run writes, beside its checkpoints.
static const std::vector<std::string>& fixed_names() {
    static const std::vector<std::string> names = {"adapter_model.safetensors", "adapter_config.json", "base.json",
                                                   "held_out.json", "run.json", "metrics.jsonl", "loss.svg",
                                                   "README.md", "Modelfile"};
    return names;
}

// A run from before there were these may have neighbours of that name: they stay, and nothing is written.
static bool is_text_for_people(const std::string& name) { return name == "README.md" || name == "Modelfile"; }

// Where an adapter is saved whole before its files take their places.
constexpr const char* fresh_adapter = ".qlora-adapter";

static std::string checkpoint_name(int64_t step) { return "checkpoints/step-" + std::to_string(step); }

static bool holds_anything(const std::string& path) {
    const std::vector<std::string> names = qlora::names_in(path);
    return std::any_of(names.begin(), names.end(), [](const std::string& name) { return name != ".lock"; });
}

static std::string made(const std::string& path) {
    std::error_code error;
    if (fs::exists(path, error) && !fs::is_directory(path, error))
        throw qlora::Error(qlora::Errc::io, path + " is a file; -o needs a folder");
    fs::create_directories(path, error);
    check(error, "creating " + path);
    return path;
}

RunFolder::Lock::Lock(const std::string& where) : folder(made(where)), path(folder + "/.lock") {
    fd = lock_file(path);
    if (fd >= 0) return;
    if (errno != EWOULDBLOCK)
        throw qlora::Error(qlora::Errc::io, "cannot write in " + folder + ": " + std::strerror(errno));
    throw qlora::Error(qlora::Errc::io, "another run is writing to " + folder + "; wait for it, or choose another -o");
}

RunFolder::Lock::~Lock() {
    unlock_file(fd, path);
    remove_if_empty(folder);                           // the run left nothing, as after an error in the options
}

RunFolder::RunFolder(const std::string& path, Start start) : path_(path), start_(start), lock_(path), record_(path) {
    if (start == Start::fresh && holds_anything(path)) {
        const char* what = ", and holds no run; choose another -o";
        if (!checkpoints().empty()) what = ": it holds checkpoints; go on with --resume auto, or choose another -o";
        if (record_.present())
            what = ": it holds an earlier run; go on with --resume auto, choose another -o, or replace that run with "
                   "--overwrite";
        throw qlora::Error(qlora::Errc::io, path + " is not empty" + what);
    }
    if (start == Start::overwrite) {
        for (const std::string& name : fixed_names()) record_.refuse_stranger(name);
        for (const int64_t step : checkpoints()) record_.refuse_stranger(checkpoint_name(step));
    }
    if (start == Start::resume) adopt_checkpoints();
    clean_leftovers();
}

// Checkpoints say themselves that they are a run's. Runs from before there were records have no other proof, and left
// the other files too.
void RunFolder::adopt_checkpoints() {
    bool any = false;
    std::error_code unknown;
    for (const int64_t step : checkpoints()) {
        if (!fs::exists(checkpoint(step) + "/manifest.json", unknown)) continue;
        record_.adopt(checkpoint_name(step));
        any = true;
    }
    if (any && !record_.present())
        for (const std::string& name : fixed_names()) record_.adopt(name);
}

RunFolder::~RunFolder() {
    if (metrics_) std::fclose(metrics_);
    try {
        restore();
    } catch (const std::exception&) {                  // nobody to tell; the next start tries again
    }
}

void RunFolder::begin(bool keep_checkpoints) {
    if (start_ == Start::overwrite) record_.set_aside();
    record_.complete = -1;
    record_.keep_checkpoints = record_.keep_checkpoints || keep_checkpoints;
    if (start_ != Start::resume) record_.adapter_step = -1;
    std::vector<std::string> names;
    for (const std::string& name : fixed_names())
        if (start_ != Start::resume || !is_text_for_people(name) || !record_.is_stranger(name)) names.push_back(name);
    record_.claim(names);
    record_.write();
}

void RunFolder::settle() { if (record_.pending()) record_.settle(); }
bool RunFolder::restore() { return start_ == Start::overwrite && record_.pending() && record_.restore(); }

// What atomic writes of a killed process left: names of this run with ".part-PROCESS-NUMBER" behind them.
void RunFolder::clean_leftovers() const {
    std::error_code unknown;
    for (const std::string& folder : {path_, path_ + "/checkpoints"}) {
        if (!fs::is_directory(folder, unknown)) continue;
        for (const std::string& name : qlora::names_in(folder)) {
            const size_t part = name.find(".part-");
            if (part == std::string::npos || name.find_first_not_of("0123456789-", part + 6) != std::string::npos)
                continue;
            const std::string whole = (folder == path_ ? "" : "checkpoints/") + name.substr(0, part);
            if (whole == ".run.json" || whole == fresh_adapter || record_.owns(whole))
                qlora::remove_tree(folder + '/' + name);
        }
    }
}

std::string RunFolder::checkpoint(int64_t step) const { return (fs::path(path_) / checkpoint_name(step)).string(); }

static int64_t step_of(const std::string& name) {      // "step-120" -> 120, anything else -> -1
    if (name.rfind("step-", 0) != 0 || name.size() > 5 + 18 || name.size() == 5) return -1;
    if (name.find_first_not_of("0123456789", 5) != std::string::npos) return -1;
    return std::stoll(name.substr(5));
}

std::vector<int64_t> RunFolder::checkpoints() const {
    std::vector<int64_t> steps;
    if (std::error_code unknown; !fs::is_directory(path_ + "/checkpoints", unknown)) return steps;
    for (const std::string& name : qlora::names_in(path_ + "/checkpoints"))
        if (const int64_t step = step_of(name); step >= 0) steps.push_back(step);
    std::sort(steps.rbegin(), steps.rend());
    return steps;
}

void RunFolder::new_checkpoint(int64_t step) {
    record_.claim({checkpoint_name(step)});
    std::error_code error;
    fs::create_directories(fs::path(path_) / "checkpoints", error);
    check(error, "creating " + path_ + "/checkpoints");
}

void RunFolder::keep_newest(int64_t count) {
    const std::vector<int64_t> steps = checkpoints();
    for (size_t i = size_t(count); i < steps.size(); ++i) record_.remove(checkpoint_name(steps[i]));
}

void RunFolder::drop_checkpoints() { record_.remove_checkpoints(); }

void RunFolder::complete(int64_t step) {
    record_.complete = step;
    record_.write();
}

void RunFolder::set_aside(int64_t step) {
    const std::string aside = "checkpoints/aside-step-" + std::to_string(step);
    std::error_code error;
    record_.remove(aside);
    record_.claim({aside});
    fs::rename(checkpoint(step), fs::path(path_) / aside, error);
    check(error, "renaming " + checkpoint(step));
}

void RunFolder::take_adapter(int64_t step, const std::function<void(const std::string& folder)>& save) {
    const fs::path fresh = fs::path(path_) / fresh_adapter;
    std::error_code error;
    qlora::remove_tree(fresh.string());                // of a run that died while saving
    save(fresh.string());
    for (const char* name : {"adapter_model.safetensors", "base.json", "adapter_config.json"}) {
        fs::rename(fresh / name, fs::path(path_) / name, error);
        check(error, "writing " + path_ + '/' + name);
    }
    qlora::remove_tree(fresh.string());
    record_.adapter_step = step;
    record_.write();
}

void RunFolder::write_card(const std::string& card, const std::string& modelfile) const {
    if (record_.owns("README.md")) write_text((fs::path(path_) / "README.md").string(), card);
    if (record_.owns("Modelfile")) write_text((fs::path(path_) / "Modelfile").string(), modelfile);
}

void RunFolder::write_curve(const std::string& title) const {
    write_text((fs::path(path_) / "loss.svg").string(), loss_curve(title, train_, held_out_));
}

RunFolder::Totals RunFolder::open_metrics(int64_t step) {
    const std::string path = (fs::path(path_) / "metrics.jsonl").string();
    std::string kept;
    Totals totals;
    if (std::error_code unknown; step > 0 && fs::exists(path, unknown)) {
        const std::string all = qlora::read_file(path);
        for (size_t from = 0, to; (to = all.find('\n', from)) != std::string::npos;
             from = to + 1) {    // a torn last line has no end and falls out
            const std::string line = all.substr(from, to - from);
            try {
                const qlora::Json json = qlora::Json::parse(line, path);
                const qlora::Json* at = json.find("step");
                if (!at || !at->is_int() || at->integer() > step) continue;
                const qlora::Json* loss = json.find("loss");
                const qlora::Json* held_out = json.find("eval_loss");
                if (loss && loss->is_number()) add_train(at->integer(), loss->number());
                if (held_out && held_out->is_number()) add_held_out(at->integer(), held_out->number());
                if (const qlora::Json* v = json.find("total_tokens"); v && v->is_int()) totals.tokens = v->integer();
                if (const qlora::Json* v = json.find("supervised_tokens"); v && v->is_int())
                    totals.trained = v->integer();
                if (const qlora::Json* v = json.find("elapsed_s"); v && v->is_number()) totals.seconds = v->number();
                kept += line + '\n';
            } catch (const qlora::Error&) {            // a damaged line: dropped, the rest of the record is still good
            }
        }
    }
    write_text(path, kept);
    metrics_ = appending(path);
    if (!metrics_) throw qlora::Error(qlora::Errc::io, "cannot write " + path + ": " + std::strerror(errno));
    return totals;
}

bool RunFolder::write_metrics(const std::string& line) {
    const bool written = std::fwrite(line.data(), 1, line.size(), metrics_) == line.size() &&
                         std::fputc('\n', metrics_) != EOF && std::fflush(metrics_) == 0;
    if (!written) std::clearerr(metrics_);
    return written;
}

}  // namespace program
