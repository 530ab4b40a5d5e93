// run_record.cpp - what in an output folder belongs to a run.
#include "examples/common/run_record.h"

#include "qlora.h"

#include <algorithm>
#include <filesystem>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;

static const char* const record_name = ".run.json";

static void check(const std::error_code& error, const std::string& doing) {
    if (error) throw qlora::Error(qlora::Errc::io, doing + ": " + error.message());
}

static bool exists(const std::string& path) {
    std::error_code unknown;                           // a name that cannot be looked up is taken as not there
    return fs::exists(path, unknown);
}

// A record is a file that anyone can write: only names that runs do use are followed, so that it never leads out of the
// folder.
static bool is_a_runs_name(const std::string& name) {
    for (const char* file : {"adapter_model.safetensors", "adapter_config.json", "base.json", "held_out.json",
                             "run.json", "metrics.jsonl", "loss.svg", "README.md", "Modelfile"})
        if (name == file) return true;
    std::string rest = name;
    for (const char* start : {"checkpoints/", "aside-", "step-"}) {
        const bool there = rest.rfind(start, 0) == 0;
        if (!there && std::string(start) != "aside-") return false;
        if (there) rest.erase(0, std::string(start).size());
    }
    return !rest.empty() && rest.find_first_not_of("0123456789") == std::string::npos;
}

static std::set<std::string> listed_in(const std::string& path, RunRecord* facts = nullptr) {
    const Json json = Json::parse(qlora::read_file(path, 16 << 20), path);
    const Json *format = json.find("format"), *files = json.find("files");
    if (!format || !format->is_string() || format->string() != "qlora run" || !files)
        throw qlora::Error(qlora::Errc::format, path + " is not the record of a run; choose another -o");
    std::set<std::string> names;
    for (const Json& file : files->as_array(path + ": files"))
        if (const std::string name = file.as_string(path + ": files"); is_a_runs_name(name)) names.insert(name);
    if (!facts) return names;
    if (const Json* v = json.find("adapter_step")) facts->adapter_step = v->as_int(path + ": adapter_step");
    if (const Json* v = json.find("complete")) facts->complete = v->as_int(path + ": complete");
    if (const Json* v = json.find("keep_checkpoints"))
        facts->keep_checkpoints = v->as_bool(path + ": keep_checkpoints");
    return names;
}

std::string RunRecord::inside(const std::string& name) const { return (fs::path(folder_) / name).string(); }
bool RunRecord::pending() const { return exists(inside(".qlora-replaced")); }

void RunRecord::read() {
    files_.clear();
    adapter_step = complete = -1;
    keep_checkpoints = false;
    present_ = exists(inside(record_name));
    if (present_) files_ = listed_in(inside(record_name), this);
}

RunRecord::RunRecord(const std::string& folder) : folder_(folder) {
    qlora::remove_tree(inside(".qlora-discarded"));
    read();
    if (exists(inside(".qlora-restoring"))) restore();
    if (!pending()) return;
    if (!exists(inside(".qlora-replaced/.run.json"))) {    // killed while it was being set aside: back at once
        move_all(".qlora-replaced", "", files_);
        qlora::remove_tree(inside(".qlora-replaced"));
    } else if (std::any_of(files_.begin(), files_.end(),
                           [](const std::string& name) { return name.rfind("checkpoints/step-", 0) == 0; }) ||
               adapter_step >= 0) {
        settle();
    }
}

void RunRecord::write() const {
    Json files = Json::Array{};
    for (const std::string& name : files_) files.push(name);
    Json json;
    json.set("format", "qlora run")
        .set("files", std::move(files))
        .set("adapter_step", adapter_step)
        .set("complete", complete)
        .set("keep_checkpoints", keep_checkpoints);
    qlora::write_file_atomic(inside(record_name), json.dump(1) + '\n');
}

bool RunRecord::is_stranger(const std::string& name) const { return !owns(name) && exists(inside(name)); }

void RunRecord::refuse_stranger(const std::string& name) const {
    if (is_stranger(name))
        throw qlora::Error(qlora::Errc::io, inside(name) + " is there, and no record (.run.json) says that a run of "
                                                "finetune wrote it: move or remove it yourself, or choose another -o");
}

void RunRecord::claim(const std::vector<std::string>& names) {
    std::set<std::string> all = files_;
    for (const std::string& name : names) {
        refuse_stranger(name);
        all.insert(name);
    }
    if (present_ && all == files_) return;
    files_ = std::move(all);
    present_ = true;
    write();
}

void RunRecord::adopt(const std::string& name) { if (is_a_runs_name(name)) files_.insert(name); }

void RunRecord::remove(const std::string& name) {
    if (!owns(name)) return;
    std::error_code error;
    if (qlora::remove_tree(inside(name)) != 0) return;   // stays listed: a later start tries again
    files_.erase(name);
    fs::remove(inside("checkpoints"), error);          // only succeeds when it is empty
}

void RunRecord::remove_checkpoints() {
    const std::set<std::string> names = files_;
    for (const std::string& name : names)
        if (name.rfind("checkpoints/", 0) == 0) remove(name);
    if (files_ != names) write();
}

void RunRecord::remove_owned() {
    for (const std::string& name : std::set<std::string>(files_)) remove(name);
}

void RunRecord::move_all(const std::string& from, const std::string& to, const std::set<std::string>& names) {
    std::error_code error;
    for (const std::string& name : names) {
        const std::string source = inside(from.empty() ? name : from + '/' + name),
                          target = inside(to.empty() ? name : to + '/' + name);
        if (!exists(source)) continue;
        fs::create_directories(fs::path(target).parent_path(), error);
        fs::rename(source, target, error);
        check(error, "renaming " + source);
    }
    fs::remove(inside(from.empty() ? "checkpoints" : from + "/checkpoints"), error);
}

void RunRecord::set_aside() {
    if (!present_) return;
    if (pending()) return remove_owned(), read();
    std::error_code error;
    fs::create_directory(inside(".qlora-replaced"), error);
    check(error, "creating " + inside(".qlora-replaced"));
    move_all("", ".qlora-replaced", files_);
    move_all("", ".qlora-replaced", {record_name});
    read();
}

void RunRecord::settle() {
    std::error_code ignored;    // what cannot be removed only costs space, and the next start tries again
    fs::rename(inside(".qlora-replaced"), inside(".qlora-discarded"), ignored);
    qlora::remove_tree(inside(".qlora-discarded"));
}

bool RunRecord::restore() {
    std::error_code error;
    if (pending()) {
        fs::rename(inside(".qlora-replaced"), inside(".qlora-restoring"), error);
        check(error, "renaming " + inside(".qlora-replaced"));
    }
    if (!exists(inside(".qlora-restoring"))) return false;
    if (exists(inside(".qlora-restoring/.run.json"))) {
        if (exists(inside(record_name))) {
            remove_owned();
            fs::remove(inside(record_name), error);
            check(error, "removing " + inside(record_name));
        }
        move_all(".qlora-restoring", "", listed_in(inside(".qlora-restoring/.run.json")));
        move_all(".qlora-restoring", "", {record_name});
    }
    qlora::remove_tree(inside(".qlora-restoring"));
    read();
    return true;
}

}  // namespace program
