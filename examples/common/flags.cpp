// flags.cpp - one table of flags: parsing, range checks, help.
#include "examples/common/flags.h"

#include "examples/common/interrupt.h"
#include "examples/common/streams.h"
#include "examples/common/wording.h"

#include "qlora.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <new>
#include <random>
#include <sstream>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace program {

static std::string shortest(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

// --max_seq_len and --max-seq-len are one flag.
static std::string normal(std::string name) {
    std::replace(name.begin(), name.end(), '_', '-');
    return name;
}

// Edits (insert, delete, replace, swap of neighbours) between two names.
static int distance(const std::string& a, const std::string& b) {
    std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
    for (size_t i = 0; i <= a.size(); ++i) {
        for (size_t j = 0; j <= b.size(); ++j) {
            if (i == 0 || j == 0) { d[i][j] = int(i + j); continue; }
            d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[a.size()][b.size()];
}

// "; did you mean X?", X the nearest of the known words in either case; nothing where none is near.
static std::string did_you_mean(std::string word, const std::vector<std::string>& known) {
    for (char& c : word) if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
    std::string best;
    int least = 2 + int(word.size()) / 3;              // this far away it is not a slip of the finger
    for (const std::string& candidate : known)
        if (const int d = distance(word, candidate); d < least) {
            best = candidate;
            least = d;
        }
    return best.empty() ? "" : "; did you mean " + best + "?";
}

static int64_t parse_integer(const std::string& text, const std::string& name, int64_t low, int64_t high) {
    errno = 0;
    char* end = nullptr;
    const bool digits = text.find_first_not_of("+-0123456789") == std::string::npos;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    std::ostringstream range;
    range << name << " must be a whole number from " << low << " to " << high << ", is \"" << one_line(text) << '"';
    if (text.empty() || !digits || *end != 0 || errno == ERANGE || value < low || value > high)
        throw UsageError(range.str());
    return value;
}

static double parse_number(const std::string& text, const std::string& name, double low, double high) {
    errno = 0;
    char* end = nullptr;
    // no hexadecimal, no nan, no inf
    const bool plain = text.find_first_not_of("+-.0123456789eE") == std::string::npos;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || !plain || *end != 0 || !std::isfinite(value) || value < low || value > high)
        throw UsageError(name + " must be a number from " + shortest(low) + " to " + shortest(high) + ", is \"" +
                         one_line(text) + '"');
    return value;
}

std::string one_line(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '\n') out += "; ";
        else if (static_cast<unsigned char>(c) < 32 || c == 127) out += '?';
        else out += c;
    }
    while (!out.empty() && (out.back() == ' ' || out.back() == ';')) out.pop_back();
    return out;
}

Flags::Flags(std::string program, std::string synopsis, std::string about)
    : program_(std::move(program)), synopsis_(std::move(synopsis)), about_(std::move(about)) {}

Flags::~Flags() {
    for (const Flag* flag : flags_) delete flag;
}

Flag& Flags::append(const std::string& names, const std::string& value, const std::string& help) {
    Flag* flag = new Flag;
    std::istringstream words(names);
    flag->names_.assign(std::istream_iterator<std::string>(words), std::istream_iterator<std::string>());
    for (std::string& name : flag->names_) name = normal(name);
    flag->value_ = value;
    flag->help_ = help;
    flag->section_ = section_;
    flags_.push_back(flag);
    return *flag;
}

Flag& Flags::add(const std::string& names, std::string& target, const std::string& value, const std::string& help) {
    Flag& flag = append(names, value, help);
    flag.default_ = target;
    flag.set_ = [&target](const std::string& text, const std::string&) { target = text; };
    return flag;
}

Flag& Flags::add(const std::string& names, std::vector<std::string>& target, const std::string& value,
                 const std::string& help) {
    Flag& flag = append(names, value, help);
    flag.repeats_ = true;
    flag.set_ = [&target](const std::string& text, const std::string&) { target.push_back(text); };
    return flag;
}

Flag& Flags::add(const std::string& names, int64_t& target, int64_t low, int64_t high, const std::string& help) {
    Flag& flag = append(names, "N", help);
    flag.default_ = std::to_string(target);
    flag.set_ = [&target, low, high](const std::string& text, const std::string& name) {
        target = parse_integer(text, name, low, high);
    };
    return flag;
}

Flag& Flags::add(const std::string& names, uint64_t& target, const std::string& help) {
    Flag& flag = append(names, "N", help);
    flag.default_ = std::to_string(target);
    flag.set_ = [&target](const std::string& text, const std::string& name) {
        target = text == "-1" ? std::random_device{}() : uint64_t(parse_integer(text, name, 0, INT64_MAX));
    };
    flag.chosen_ = [&target] { return std::to_string(target); };       // of -1: the number that was drawn
    return flag;
}

Flag& Flags::add(const std::string& names, double& target, double low, double high, const std::string& help) {
    Flag& flag = append(names, "X", help);
    flag.default_ = shortest(target);
    flag.set_ = [&target, low, high](const std::string& text, const std::string& name) {
        target = parse_number(text, name, low, high);
    };
    return flag;
}

Flag& Flags::add(const std::string& names, float& target, double low, double high, const std::string& help) {
    Flag& flag = append(names, "X", help);
    flag.default_ = shortest(double(target));
    flag.set_ = [&target, low, high](const std::string& text, const std::string& name) {
        target = float(parse_number(text, name, low, high));
    };
    return flag;
}

Flag& Flags::choice(const std::string& names, std::string& target, const std::vector<std::string>& allowed,
                    const std::string& help) {
    std::string list;
    for (const std::string& word : allowed) list += (list.empty() ? "" : "|") + word;
    Flag& flag = append(names, list, help);
    flag.default_ = target;
    flag.set_ = [&target, allowed, list](const std::string& text, const std::string& name) {
        if (std::find(allowed.begin(), allowed.end(), text) == allowed.end())
            throw UsageError(name + " must be " + list + ", is \"" + one_line(text) + '"' +
                             did_you_mean(text, allowed));
        target = text;
    };
    return flag;
}

Flag& Flags::toggle(const std::string& names, bool& target, const std::string& help) {
    Flag& flag = append(names, "", help);
    flag.default_ = target ? "on" : "";
    flag.set_ = [&target](const std::string& text, const std::string&) { target = text != "false"; };
    return flag;
}

void Flags::positional(const std::string& name, std::string& target, const std::string& help, bool required) {
    positionals_.push_back({name, help, &target, required, false});
}

Flag* Flags::find(const std::string& name) const {
    for (Flag* flag : flags_)
        if (std::find(flag->names_.begin(), flag->names_.end(), name) != flag->names_.end()) return flag;
    return nullptr;
}

bool Flags::given(const std::string& name) const {
    const Flag* flag = find(normal(name));
    return flag && flag->seen_;
}

void Flags::unknown(const std::string& name) const {
    std::vector<std::string> known;
    for (const Flag* flag : flags_) known.insert(known.end(), flag->names_.begin(), flag->names_.end());
    known.insert(known.end(), {"--help", "--version"});
    throw UsageError("unknown flag " + one_line(name) + did_you_mean(name, known));
}

void Flags::twice(const Flag& flag, const std::string& name) const {
    const std::string same = name == flag.names_[0] ? "" : " (it is the same as " + flag.names_[0] + ')';
    throw UsageError(name + " is given twice" + same + ": " +
                     (flag.why_once_.empty() ? "leave one of them out" : flag.why_once_));
}

void Flags::parse(int argc, char** argv) {
    const std::vector<std::string> words = arguments(argc, argv);
    bool only_values = false;                          // after "--"
    for (int i = 1; i < argc; ++i) {
        std::string word = words[size_t(i)], value;
        if (!only_values && word == "--") { only_values = true; continue; }
        if (only_values || word.size() < 2 || word[0] != '-') {
            auto free = std::find_if(positionals_.begin(), positionals_.end(),
                                     [](const Positional& p) { return !p.seen; });
            if (free == positionals_.end()) {
                const Flag* model = find("--model");    // what is meant, most often
                throw UsageError("unexpected argument \"" + one_line(word) + '"' +
                                 (model && !model->seen_ ? "; a model is named by -m" : ""));
            }
            *free->target = word;
            free->seen = true;
            continue;
        }
        const size_t equals = word.find('=');
        const bool attached = equals != std::string::npos;
        if (attached) { value = word.substr(equals + 1); word.resize(equals); }
        const std::string name = normal(word);
        if (name == "--help" || name == "-h") { help(); leave(); }
        if (name == "--version") { std::printf("%s (qlora) %s\n", program_.c_str(), QLORA_VERSION_STRING); leave(); }

        Flag* flag = find(name);
        bool off = false;
        if (!flag && name.rfind("--no-", 0) == 0) {
            flag = find("--" + name.substr(5));
            off = flag && flag->value_.empty();
            if (!off) flag = nullptr;
        }
        if (!flag) unknown(name);
        if (flag->seen_ && !flag->repeats_) twice(*flag, name);
        if (flag->value_.empty()) {    // a switch, perhaps followed by true or false as in "--double_quant True"
            std::string follows = attached ? value : i + 1 < argc ? words[size_t(i) + 1] : "";
            std::transform(follows.begin(), follows.end(), follows.begin(),
                           [](unsigned char c) { return char(std::tolower(c)); });
            if (follows == "on") follows = "true";
            if (follows == "off") follows = "false";
            const bool worded = follows == "true" || follows == "false";
            if (attached && (!worded || off))
                throw UsageError(name + " is a switch: on or off (or true, false), is \"" + one_line(value) + '"');
            if (worded && !attached && !off) ++i;
            set(*flag, off || (worded && follows == "false") ? "false" : "true", name);
            continue;
        }
        if (!attached) {
            if (i + 1 >= argc) throw UsageError(name + " needs a value: " + flag->value_);
            value = words[size_t(++i)];
        }
        set(*flag, value, name);
    }
    if (!config_.empty()) read_config();
    for (const Positional& p : positionals_)
        if (p.required && !p.seen) throw UsageError("missing " + p.name + ": " + p.help);
    for (const Flag* flag : flags_)
        if (flag->required_ && !flag->seen_)
            throw UsageError("missing " + flag->names_[0] + ' ' + flag->value_ + ": " + flag->help_);
}

void Flags::set(Flag& flag, const std::string& value, const std::string& name) {
    flag.seen_ = true;
    flag.given_.push_back(value);
    flag.set_(value, name);
}

void Flags::leave() const {
    const std::string error = output_error();
    if (!error.empty()) std::fprintf(stderr, "%s: %s\n", program_.c_str(), error.c_str());
    std::exit(error.empty() ? 0 : 1);
}

void Flags::help() const {
    std::printf("usage: %s %s\n%s\n", program_.c_str(), synopsis_.c_str(), about_.c_str());
    for (const Positional& p : positionals_) std::printf("  %-34s %s\n", p.name.c_str(), p.help.c_str());
    std::string section;
    for (const Flag* flag : flags_) {
        if (flag->hidden_) continue;
        if (flag->section_ != section) std::printf("\n%s:\n", (section = flag->section_).c_str());
        std::string left;
        for (const std::string& name : flag->names_) left += (left.empty() ? "" : ", ") + name;
        if (!flag->value_.empty()) left += ' ' + flag->value_;
        const std::string shown = flag->required_          ? " (required)"
                                  : flag->default_.empty() ? ""
                                  : flag->value_.empty()   ? " [on; --no-" + flag->names_[0].substr(2) + ": off]"
                                                           : " [" + flag->default_ + ']';
        if (left.size() > 34) std::printf("  %s\n  %-34s %s%s\n", left.c_str(), "", flag->help_.c_str(), shown.c_str());
        else std::printf("  %-34s %s%s\n", left.c_str(), flag->help_.c_str(), shown.c_str());
    }
    std::printf("\n  %-34s %s\n  %-34s %s\n", "-h, --help", "this text", "--version", "the version");
}

// Also where there is no memory left to say it with.
static int complain(const std::string& program, const char* what, int status) noexcept {
    std::fflush(stdout);
    if (interrupted()) what = "stopped", status = 128 + interrupted();
    try {
        std::fprintf(stderr, "%s: %s\n", program.c_str(), one_line(in_program_words(what)).c_str());
    } catch (const std::bad_alloc&) {
        std::fprintf(stderr, "%s: out of memory\n", program.c_str());
    }
    return status;
}

// What is freed goes back to the system at once: glibc would keep what was large as long as it has seen larger, and the
// peak of a run would depend on what was loaded before it.
static void return_memory() {
#if defined(__GLIBC__)
    ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
    ::mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

int run(const std::string& program, const std::function<int()>& body) {
    hold_standard_streams();
    return_memory();
    try {
        qlora::guard_mapped_files();
        const int status = body();
        const std::string unwritten = output_error();
        return unwritten.empty() ? status : complain(program, unwritten.c_str(), status ? status : 1);
    } catch (const UsageError& error) {
        return complain(program, (std::string(error.what()) + " (" + program + " --help lists all flags)").c_str(), 2);
    } catch (const std::bad_alloc&) {
        return complain(program, "out of memory", 1);
    } catch (const std::exception& error) {
        return complain(program, error.what(), 1);
    }
}

}  // namespace program
