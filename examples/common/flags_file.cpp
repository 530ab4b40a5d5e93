// flags_file.cpp - flags in a file, and flags that people know from other programs.
#include "examples/common/flags.h"

#include "qlora.h"

#include <algorithm>
#include <cctype>

namespace program {

using qlora::Json;

Flag& Flags::habit(const std::string& names, const std::string& value,
                   std::function<void(const std::string& value, const std::string& name)> set) {
    Flag& flag = append(names, value, "");
    flag.hidden_ = true;
    flag.set_ = std::move(set);
    return flag;
}

void Flags::foreign(const std::string& names, const std::string& value, const std::vector<std::string>& taken,
                    const std::string& instead) {
    habit(names, value, [taken, instead](const std::string& text, const std::string& name) {
        std::string lower = text;
        for (char& c : lower) c = char(std::tolower(static_cast<unsigned char>(c)));
        for (const std::string& known : taken)
            if (known == "*" || known == lower) return;
        throw UsageError(name + (text == "true" ? "" : " " + one_line(text)) + ": " + instead);
    });
}

void Flags::take_config() {
    add("--config", config_, "FILE.json",
        "flags by their names, as the run.json that every run writes; those on the command line count more");
}

// A value of JSON as it would be typed.
static std::string typed(const Json& value, const std::string& where) {
    if (value.is_string()) return value.string();
    if (value.is_bool() || value.is_number()) return value.dump();
    throw UsageError(where +
                     " must be a text, a number, true or false, or a list of them for a flag that may be "
                     "given several times; is " +
                     one_line(value.dump()));
}

void Flags::read_config() {
    if (config_.ends_with(".yaml") || config_.ends_with(".yml"))
        throw UsageError("--config " + config_ +
                         ": YAML is not read; write it as JSON, {\"learning-rate\": 1e-4, ...}");
    const Json config = Json::parse(qlora::read_file(config_, 1 << 20), config_);
    std::vector<Flag*> typed_already;
    for (Flag* flag : flags_)
        if (flag->seen_) typed_already.push_back(flag);
    for (const auto& [key, value] : config.as_object(config_)) {
        std::string name = "--" + key;
        std::replace(name.begin(), name.end(), '_', '-');
        Flag* flag = find(name);
        if (!flag) unknown(name);
        if (value.is_null() || std::find(typed_already.begin(), typed_already.end(), flag) != typed_already.end())
            continue;
        if (flag->seen_ && !flag->repeats_) twice(*flag, name);
        const std::string where = config_ + ": " + key;
        if (flag->value_.empty() && !value.is_bool()) throw UsageError(where + " must be true or false");
        if (value.is_array() && !flag->repeats_) throw UsageError(where + " takes one value, is a list");
        if (value.is_array())
            for (const Json& each : value.array()) set(*flag, typed(each, where), name);
        else set(*flag, typed(value, where), name);
    }
}

void Flags::forget(const std::string& name) {
    if (Flag* flag = find(name)) flag->given_.clear();
}

std::string Flags::config() const {
    Json out{Json::Object()};
    for (const Flag* flag : flags_) {
        if (flag->given_.empty() || flag->names_[0] == "--config") continue;
        std::string name = flag->names_[0];
        for (auto it = flag->names_.rbegin(); it != flag->names_.rend(); ++it)
            if (it->starts_with("--")) name = *it;
        name = name.substr(name.find_first_not_of('-'));
        const std::string value = flag->chosen_ ? flag->chosen_() : flag->given_.back();
        if (flag->value_.empty()) out.set(name, value == "true");
        else if (flag->repeats_) {
            Json list{Json::Array()};
            for (const std::string& each : flag->given_) list.push(each);
            out.set(name, list);
        } else out.set(name, value);
    }
    return out.dump(2) + '\n';
}

}    // namespace program
