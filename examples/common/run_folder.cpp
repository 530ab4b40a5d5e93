// run_folder.cpp - the output folder of a fine-tuning run.
#include "examples/common/run_folder.h"

#include "qlora.h"
#include "src/base/file.h"                             // the library's own atomic writes and JSON: no second copy of either here
#include "src/base/json.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

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

BaseRecord read_base_record(const std::string& adapter_folder) {
    BaseRecord base;
    const std::string path = (fs::path(adapter_folder) / "base.json").string();
    if (!qlora::exists(path)) return base;
    const qlora::Json json = qlora::Json::parse(qlora::read_file(path, 1 << 20), path);
    if (const qlora::Json* v = json.find("model")) base.model = v->as_string(path + ": model");
    if (const qlora::Json* v = json.find("quant")) base.quant = v->as_string(path + ": quant");
    if (const qlora::Json* v = json.find("double_quant")) base.double_quant = v->as_bool(path + ": double_quant");
    if (base.quant != "nf4" && base.quant != "fp4" && base.quant != "none")
        throw qlora::Error(qlora::Errc::format, path + ": quant must be nf4, fp4 or none, is \"" + base.quant + '"');
    return base;
}

RunFolder::RunFolder(const std::string& path, bool reuse) : path_(path) {
    std::error_code error;
    if (fs::exists(path, error) && !fs::is_directory(path, error))
        throw qlora::Error(qlora::Errc::io, path + " is a file; -o needs a folder");
    fs::create_directories(path, error);
    check(error, "creating " + path);
    const std::string lock = (fs::path(path) / ".lock").string();
    bool fresh = true;
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) fresh = fresh && it->path().filename() == ".lock";
    check(error, "reading " + path);
    lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock_ < 0) throw qlora::Error(qlora::Errc::io, "cannot write in " + path + ": " + std::strerror(errno));
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
        ::close(lock_);
        throw qlora::Error(qlora::Errc::io, "another run is writing to " + path + "; wait for it, or choose another -o");
    }
    if (!fresh && !reuse) {
        ::unlink(lock.c_str());
        ::close(lock_);
        throw qlora::Error(qlora::Errc::io, path + " is not empty; go on with --resume auto, start anew with --overwrite, or choose another -o");
    }
}

RunFolder::~RunFolder() {
    if (metrics_) std::fclose(metrics_);
    if (lock_ < 0) return;
    ::unlink((fs::path(path_) / ".lock").c_str());     // still locked, so nobody else can be in between
    ::close(lock_);
    ::rmdir(path_.c_str());                            // only succeeds when the run left nothing, as after an error in the options
}

std::string RunFolder::checkpoint(int64_t step) const { return (fs::path(path_) / "checkpoints" / ("step-" + std::to_string(step))).string(); }

static int64_t step_of(const std::string& name) {      // "step-120" -> 120, anything else -> -1
    if (name.rfind("step-", 0) != 0 || name.size() > 5 + 18 || name.size() == 5) return -1;
    if (name.find_first_not_of("0123456789", 5) != std::string::npos) return -1;
    return std::stoll(name.substr(5));
}

std::vector<int64_t> RunFolder::checkpoints() const {
    std::vector<int64_t> steps;
    std::error_code error;
    for (fs::directory_iterator it(fs::path(path_) / "checkpoints", error), end; !error && it != end; it.increment(error))
        if (const int64_t step = step_of(it->path().filename().string()); step >= 0) steps.push_back(step);
    std::sort(steps.rbegin(), steps.rend());
    return steps;
}

void RunFolder::keep_newest(int64_t count) const {
    std::error_code error;                             // a folder that cannot be removed only costs space
    const std::vector<int64_t> steps = checkpoints();
    for (size_t i = size_t(count); i < steps.size(); ++i) fs::remove_all(checkpoint(steps[i]), error);
    for (fs::directory_iterator it(fs::path(path_) / "checkpoints", error), end; !error && it != end; it.increment(error))
        if (it->path().filename().string().find(".part-") != std::string::npos) fs::remove_all(it->path(), error);
}

void RunFolder::set_aside(int64_t step) const {
    std::error_code error;
    const fs::path aside = fs::path(path_) / "checkpoints" / ("aside-step-" + std::to_string(step));
    fs::remove_all(aside, error);
    fs::rename(checkpoint(step), aside, error);
    check(error, "renaming " + checkpoint(step));
}

void RunFolder::forget_run() const {
    std::error_code error;
    for (const char* name : {"checkpoints", "metrics.jsonl", "loss.svg"}) {
        fs::remove_all(fs::path(path_) / name, error);
        check(error, "removing " + path_ + '/' + name);
    }
}

void RunFolder::take_adapter(const std::function<void(const std::string& folder)>& save) const {
    const fs::path fresh = fs::path(path_) / ".adapter";
    std::error_code error;
    fs::remove_all(fresh, error);                      // of a run that died while saving
    save(fresh.string());
    for (const char* name : {"adapter_model.safetensors", "adapter_config.json"}) {
        fs::rename(fresh / name, fs::path(path_) / name, error);
        check(error, "writing " + path_ + '/' + name);
    }
    fs::remove_all(fresh, error);
}

void RunFolder::write_base_record(const BaseRecord& base) const {
    qlora::Json json;
    json.set("model", base.model).set("quant", base.quant).set("double_quant", base.double_quant);
    write_text((fs::path(path_) / "base.json").string(), json.dump(2) + '\n');
}

void RunFolder::write_curve(const std::string& title) const {
    write_text((fs::path(path_) / "loss.svg").string(), loss_curve(title, train_, held_out_));
}

void RunFolder::open_metrics(int64_t step) {
    const std::string path = (fs::path(path_) / "metrics.jsonl").string();
    std::string kept;
    if (step > 0 && qlora::exists(path)) {
        const std::string all = qlora::read_file(path);
        for (size_t from = 0, to; (to = all.find('\n', from)) != std::string::npos; from = to + 1) {   // a torn last line has no end and falls out
            const std::string line = all.substr(from, to - from);
            try {
                const qlora::Json json = qlora::Json::parse(line, path);
                const qlora::Json* at = json.find("step");
                if (!at || !at->is_int() || at->integer() > step) continue;
                const qlora::Json* loss = json.find("loss");
                const qlora::Json* held_out = json.find("eval_loss");
                if (loss && loss->is_number()) add_train(at->integer(), loss->number());
                if (held_out && held_out->is_number()) add_held_out(at->integer(), held_out->number());
                kept += line + '\n';
            } catch (const qlora::Error&) {            // a damaged line: dropped, the rest of the record is still good
            }
        }
    }
    write_text(path, kept);
    metrics_ = std::fopen(path.c_str(), "ab");
    if (!metrics_) throw qlora::Error(qlora::Errc::io, "cannot write " + path + ": " + std::strerror(errno));
}

bool RunFolder::write_metrics(const std::string& line) {
    const bool written = std::fwrite(line.data(), 1, line.size(), metrics_) == line.size() && std::fputc('\n', metrics_) != EOF && std::fflush(metrics_) == 0;
    if (!written) std::clearerr(metrics_);
    return written;
}

}  // namespace program
