// run_folder.h - the output folder of a fine-tuning run:
//
//   OUT/adapter_config.json, adapter_model.safetensors      the adapter (written by the library), and
//   OUT/base.json                                           which model it was trained on, and in which form
//   OUT/held_out.json                                       which rows were held out (held_out.h)
//   OUT/run.json                                            the flags of the run, as finetune --config reads them
//   OUT/metrics.jsonl, loss.svg                             one line per step; the curve
//   OUT/README.md, Modelfile                                a model card; what Ollama makes a model from
//   OUT/checkpoints/step-N/                                 what a run needs to go on
//   OUT/.run.json                                           which of these files are a run's, and how far it came
//   OUT/.lock                                               held while a run is alive; the system releases it when the
//                                                           process dies
#pragma once
#include "examples/common/run_record.h"
#include "examples/common/svg.h"

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace program {

class RunFolder {
public:
    enum class Start { fresh, resume, overwrite };
    // Creates the folder and takes the lock. A folder that holds anything is refused with `fresh`, and with `overwrite`
    // one in which a file that no run wrote has a name that this run needs.
    RunFolder(const std::string& path, Start);
    ~RunFolder();
    RunFolder(const RunFolder&) = delete;

    // The run starts: with `overwrite` the earlier one is set aside until settle(). Before, nothing in the folder is
    // changed.
    void begin(bool keep_checkpoints);
    void settle();                                     // there is a checkpoint or an adapter of this run
    bool restore();    // the run failed before: the earlier one is back in place; false if there was none
    RunRecord& record() { return record_; }

    const std::string& path() const { return path_; }
    std::string checkpoint(int64_t step) const;        // the folder's name
    std::vector<int64_t> checkpoints() const;          // steps that have one, newest first
    void new_checkpoint(int64_t step);                 // before it is saved
    void keep_newest(int64_t count);                   // removes older checkpoints of this run
    void drop_checkpoints();                           // all of them, those set aside too
    void complete(int64_t step);                       // the run is: a later start knows
    // renames a checkpoint that this run does not go on from, out of the way of new ones
    void set_aside(int64_t step);
    // Lets `save` write a whole PEFT folder beside everything else, then moves its files into place: the weights first,
    // so that a first adapter is complete as soon as it has its config.
    void take_adapter(int64_t step, const std::function<void(const std::string& folder)>& save);
    void write_curve(const std::string& title) const;
    void write_card(const std::string& card, const std::string& modelfile) const;

    // metrics.jsonl: lines beyond `step` are cut, so that a resumed run leaves a curve without repeats; flushed line by
    // line. What the kept lines had counted so far comes back.
    struct Totals { int64_t tokens = 0, trained = 0; double seconds = 0; };
    Totals open_metrics(int64_t step);
    bool write_metrics(const std::string& line);       // false: the disk did not take it (the run goes on)
    void add_train(int64_t step, double loss) { train_.push_back({double(step), loss}); }
    void add_held_out(int64_t step, double loss) { held_out_.push_back({double(step), loss}); }
    const Curve& train() const { return train_; }
    const Curve& held_out() const { return held_out_; }

private:
    struct Lock {                                      // OUT/.lock, and the folder itself if it is empty at the end
        std::string folder, path;
        int fd = -1;
        explicit Lock(const std::string& where);
        ~Lock();
    };
    void adopt_checkpoints();
    void clean_leftovers() const;
    std::string path_;
    Start start_;
    Lock lock_;
    FILE* metrics_ = nullptr;
    Curve train_, held_out_;
    RunRecord record_;
};

void write_text(const std::string& path, const std::string& text);   // beside the target, then renamed over it

}  // namespace program
