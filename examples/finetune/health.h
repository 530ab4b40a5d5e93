// health.h - whether a run still learns. A step is unsound when its loss or gradient is not finite (the trainer skips
// it), or when the model is dead: every token equally likely (loss = ln of the vocabulary) and no gradient at all,
// which is what overflowing activations end in. The loss of a step is that of the state before it, so an unsound step
// speaks against the step before.
#pragma once
#include "qlora.h"

#include <cmath>

namespace program {

class Health {
public:
    // patience: unsound steps in a row before dead() is true.
    Health(int64_t vocabulary, int64_t patience) : guessing_(std::log(double(vocabulary))), patience_(patience) {}

    void add(const qlora::TrainStep& t) {
        // 1e-3: the losses of a dead model differ from ln(vocabulary) in the rounding of their sum only.
        const bool unsound = t.skipped || (t.grad_norm == 0 && std::fabs(t.loss - guessing_) < 1e-3);
        if (!unsound) first_ = 0;
        else if (first_ == 0) first_ = t.step;
        last_ = t.step;
    }
    bool sound() const { return first_ == 0; }
    bool dead() const { return !sound() && last_ - first_ + 1 >= patience_; }
    int64_t first_unsound() const { return first_; }   // of the row of unsound steps that the run is in; 0 = in none
    double guessing() const { return guessing_; }      // the loss of a model for which every token is equally likely

private:
    double guessing_;
    int64_t patience_, first_ = 0, last_ = 0;
};

}  // namespace program
