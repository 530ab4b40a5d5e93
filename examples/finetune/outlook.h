// outlook.h - what a run will take, said before it starts: steps, time, disk.
#pragma once
#include "examples/finetune/data.h"

#include <optional>

namespace program {

struct Outlook {
    int64_t rows = 0, steps = 0;
    double epochs = 0;
    double operations = 0, operations_per_second = 0;  // of a step, of a shape
    double micro_batch_seconds = 0, seconds = 0;       // measured on the first micro-batches; 0 = not measured
    int64_t adapter_bytes = 0, checkpoint_bytes = 0;
    int64_t disk_during = 0, disk_after = 0;           // bytes in the output folder, at most and at the end
    std::string warning;                               // of a plan that does not fit
};

// Runs a micro-batch or a few (a second and a half), none of which changes anything.
Outlook look_ahead(const Settings& s, const qlora::Lora& lora, const Data& data, qlora::Trainer& trainer,
                   const qlora::MemoryPlan& plan);
void print_outlook(const Outlook& o, const Settings& s);
qlora::Json as_json(const Outlook& o);
// Of a model that is not there and full rows: what a step computes, what that takes on this machine by the speed of a
// product of its width, measured now (not where the device is not there), and the disk; of the whole run where --iters
// says how many steps.
Outlook look_ahead_of_shape(const Settings& s, const qlora::Model& outline, const std::optional<qlora::Backend>& real,
                            const qlora::MemoryPlan& plan);

}  // namespace program
