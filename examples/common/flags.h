// flags.h - the command line of every program here: one table of flags, from which come parsing, checks, --help and
// "did you mean".
//
//   Flags flags("chat", "-m MODEL [options]", "Talk to a model.");
//   flags.add("-m --model", model, "MODEL", "a GGUF file or a Hugging Face folder").required();
//   flags.add("--temp --temperature", temperature, 0, 10, "randomness; 0 = always the likeliest token");
//   flags.parse(argc, argv);                          // prints --help or --version and exits; throws UsageError
#pragma once
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace program {

struct UsageError : std::runtime_error { using std::runtime_error::runtime_error; };

class Flag {
public:
    Flag& required() { required_ = true; return *this; }
    Flag& once(std::string why) { why_once_ = std::move(why); return *this; }       // said where it is given twice
    // what --help says instead of the default
    Flag& note(std::string shown) { default_ = std::move(shown); return *this; }
private:
    friend class Flags;
    std::vector<std::string> names_;    // "-m", "--model", ...: the last short and the first long one are shown
    std::string value_, help_, default_, section_, why_once_;     // value_ empty: a switch
    bool required_ = false, seen_ = false, repeats_ = false, hidden_ = false;
    std::vector<std::string> given_;                   // the values, as given
    std::function<std::string()> chosen_;              // what became of them, where that is another value
    std::function<void(const std::string& value, const std::string& name)> set_;
};

class Flags {
public:
    Flags(std::string program, std::string synopsis, std::string about);

    void section(std::string title) { section_ = std::move(title); }
    Flag& add(const std::string& names, std::string& target, const std::string& value, const std::string& help);
    // may be given several times
    Flag& add(const std::string& names, std::vector<std::string>& target, const std::string& value,
              const std::string& help);
    Flag& add(const std::string& names, int64_t& target, int64_t low, int64_t high, const std::string& help);
    Flag& add(const std::string& names, uint64_t& target, const std::string& help);
    Flag& add(const std::string& names, double& target, double low, double high, const std::string& help);
    Flag& add(const std::string& names, float& target, double low, double high, const std::string& help);
    Flag& choice(const std::string& names, std::string& target, const std::vector<std::string>& allowed,
                 const std::string& help);
    // also --no-NAME, and NAME true|false
    Flag& toggle(const std::string& names, bool& target, const std::string& help);
    // A flag that people know from other programs, not listed by --help. value empty: a switch, which sets "true" or
    // "false".
    Flag& habit(const std::string& names, const std::string& value,
                std::function<void(const std::string& value, const std::string& name)> set);
    // The same, taken with these values, which say what happens here anyway ("*": with any); another one is refused
    // with what to do instead.
    void foreign(const std::string& names, const std::string& value, const std::vector<std::string>& taken,
                 const std::string& instead);
    // --config FILE.json: values of flags by their names; those on the command line count more.
    void take_config();
    void positional(const std::string& name, std::string& target, const std::string& help, bool required = true);

    void parse(int argc, char** argv);
    bool given(const std::string& name) const;         // was this flag typed, or in the file of --config?
    std::string config() const;    // what was given, but for these flags' own: a file for --config
    void forget(const std::string& name);              // what it said is not for config()

private:
    struct Positional { std::string name, help; std::string* target; bool required, seen; };
    std::string program_, synopsis_, about_, section_, config_;
    std::vector<Flag*> flags_;                         // owned; pointers, so that add() may hand out references
    std::vector<Positional> positionals_;
    Flag& append(const std::string& names, const std::string& value, const std::string& help);
    Flag* find(const std::string& name) const;
    [[noreturn]] void unknown(const std::string& name) const;
    [[noreturn]] void twice(const Flag& flag, const std::string& name) const;
    void set(Flag& flag, const std::string& value, const std::string& name);
    void read_config();
    [[noreturn]] void leave() const;                   // after --help and --version
    void help() const;
    Flags(const Flags&) = delete;
public:
    ~Flags();
};

// Runs a program's body; every failure becomes one line "name: what went wrong" on stderr, standard output that could
// not be written and model files that were cut meanwhile among them. Exit status: 2 for usage, 1 for the rest.
int run(const std::string& program, const std::function<int()>& body);

std::string one_line(const std::string& text);         // line breaks and control characters made visible

}  // namespace program
