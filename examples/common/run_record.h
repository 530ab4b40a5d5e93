// run_record.h - what in an output folder belongs to a run: OUT/.run.json lists it, and nothing else there is ever
// replaced or removed.
//
// --overwrite sets the listed files of the earlier run aside; they go when the new run has something of its own to go
// on from, and come back if it ends before that. Each step of this is one rename or can be repeated, so that a run
// killed at any point loses nothing:
//
//   OUT/.qlora-replaced/      the earlier run, complete as soon as its .run.json (moved last) is in there
//   OUT/.qlora-restoring/     the same on its way back: the new run's files are removed first, its .run.json last; then
//                             everything moves back
//   OUT/.qlora-discarded/     the same on its way out
#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace program {

class RunRecord {
public:
    // Reads the record, and ends what a killed run left half done.
    explicit RunRecord(const std::string& folder);

    bool present() const { return present_; }          // did a run write here?
    bool owns(const std::string& name) const { return files_.count(name) > 0; }
    bool is_stranger(const std::string& name) const;   // there, but not a run's
    void refuse_stranger(const std::string& name) const;    // Error{io} where a file that no run wrote has this name
    // Before anything is written under these names; refuses strangers.
    void claim(const std::vector<std::string>& names);
    void adopt(const std::string& name);               // as claim(), of what is known to be a run's
    void remove(const std::string& name);    // the file or folder, and its name in the record; only if it is owned
    void remove_checkpoints();

    void set_aside();    // an earlier run that set_aside() left aside stays, and what is listed now goes
    void settle();                                     // the new run can stand alone: the earlier one goes
    bool restore();    // the new run cannot: the earlier one comes back; false if there is none
    bool pending() const;                              // is an earlier run set aside?

    // Facts that a later start of the same run needs.
    int64_t adapter_step = -1;                         // the step whose adapter lies in the folder; -1 = none yet
    int64_t complete = -1;                             // the steps of the run, once it is complete
    bool keep_checkpoints = false;                     // somebody asked for them: they stay when the run is complete
    void write() const;

private:
    std::string inside(const std::string& name) const;
    void read();
    void remove_owned();
    void move_all(const std::string& from, const std::string& to, const std::set<std::string>& names);
    std::string folder_;
    bool present_ = false;
    std::set<std::string> files_;
};

}  // namespace program
