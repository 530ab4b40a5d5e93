// trainer.h - fine-tuning: micro-batches through a decoder that adds its gradients to one flat buffer, then one AdamW
// step.
//
// The loss of a step is the sum of the losses of all its trained tokens divided by their number, over all
// micro-batches: how the rows are spread over micro-batches does not change what is minimised. Everything about a step
// follows from its number, the seed and the data, so the state of a run is: the factors, the optimizer's states, and a
// few counters.
#pragma once
#include "src/base/exclusive.h"
#include "src/run/batches.h"
#include "src/run/decoders.h"
#include "src/run/lora_plus.h"
#include "src/run/optimizer.h"

#include <chrono>

namespace qlora { inline namespace QLORA_ABI {

struct TrainProgress {                                 // what a checkpoint keeps beside the buffers
    int64_t step = 0;                                  // steps taken, skipped ones included: the position in the data
    int64_t updates = 0;                               // steps that changed the adapter: AdamW's t
    int64_t skipped = 0, bad_in_a_row = 0;
    double rate = -1;                                  // instead of options.learning_rate; -1 = as that says
    TrainStep last;
};

// Bytes that this process has beside the weights, the adapter and the data: before a trainer takes any. 0 = unknown.
int64_t memory_before(const LoraImpl&, const DatasetImpl&);

struct TrainerImpl {
    std::shared_ptr<LoraImpl> lora;
    struct AtWork {                                    // counted in LoraImpl::trainers
        explicit AtWork(LoraImpl& on) : trainers(on.trainers) { ++trainers; }
        ~AtWork() { --trainers; }
        AtWork(const AtWork&) = delete;
        AtWork& operator=(const AtWork&) = delete;
        std::atomic<int>& trainers;
    } at_work_{*lora};
    std::shared_ptr<const DatasetImpl> data;
    int64_t before_ = 0;                               // memory_before(), for the plan
    TrainOptions options;
    int64_t context = 0;                               // options.context, or the model's own if that is less
    BatchPlan batches;
    BufferRef gradients;                               // flat, as LoraImpl::values
    FlatAdamW optimizer;
    LoraPlus lora_plus;
    DecoderPool decoders;
    std::shared_ptr<PanelStore> panels;                // within options.panel_budget
    TrainProgress progress;
    Busy busy;                                         // taken by the public calls

    TrainerImpl(std::shared_ptr<LoraImpl>, std::shared_ptr<const DatasetImpl>, const TrainOptions&);
    using OnMicroBatch = std::function<bool(int64_t done, int64_t of)>;
    bool step(const OnMicroBatch& = {});
    void set_learning_rate(float);
    MemoryPlan plan();                                 // memory_plan.cpp
    double evaluate(const DatasetImpl&, const std::function<bool()>& go_on = {});
private:
    struct Sum { double loss = 0, weight = 0; int64_t tokens = 0, trained = 0; };
    // nothing: the time is over
    std::optional<Sum> run_micro_batches(const std::vector<std::vector<int64_t>>&, const OnMicroBatch&);
    bool out_of_time() const;
    [[noreturn]] void give_up(const TrainStep&, const std::vector<std::vector<int64_t>>&);
    std::string first_bad_gradient() const;
    std::optional<std::chrono::steady_clock::time_point> began_;       // the first step
};

}}  // namespace qlora
