// lora_init.cpp - adapters that start from the singular values of the weights, W ~ U S V^T.
//
//   LoftQ (arXiv:2310.08659, one round): the base stays the 4-bit Q of W, and s B A = the best of this rank of W - Q,
//   so that the adapted model starts nearer to the original than the 4-bit base alone. PEFT leaves out the division by
//   s and so reaches this for s = 1 only.
//
//   PiSSA (arXiv:2404.02948): s B A = the best of this rank of W itself, s B0 A0, and the base becomes W - s B0 A0,
//   encoded in the type it had: training then turns the largest directions. On W itself the adapter is s (B A - B0 A0),
//   a plain one of twice the rank. That is what is saved, so that any program loads it onto the original model; a note
//   beside it lets us find the changed base again, bit for bit. A folder that PEFT saved with init_lora_weights =
//   "pissa" holds B A only: W is split once more, as PEFT does when it loads it.
//
// W is what the base was quantized from when it was loaded: ModelImpl::original().
#include "src/base/mapped_file.h"
#include "src/base/stop.h"
#include "src/cpu/gemm.h"
#include "src/model/fused.h"
#include "src/model/lora_impl.h"
#include "src/model/svd.h"
#include "src/tensor/encode.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace lora_init_room {

const WeightPtr& linear_of(const ModelImpl& model, const LoraTarget& t) {
    return model.at(t.module, t.layer);
}

// All rows of an adapted layer in floats, of f(part); its parts below each other, as B has them.
template <class F>
std::vector<float> rows(const LoraImpl& lora, const LoraTarget& t, const F& f) {
    std::vector<float> out;
    for (const Slot part : parts_of(lora.base->config, t.module)) {
        const WeightPtr w = f(part);
        const std::vector<float> values = w->decoded();
        out.insert(out.end(), values.begin(), values.end());
        // read once: the pages of an original would stay beside the weights that are held
        if (w->file && w != lora.base->at(part, t.layer)) w->file->forget(w->data, bytes_of(w->dtype, w->elements()));
    }
    return out;
}

// s B A = the best of this rank of w.
void split(Cpu& cpu, const LoraTarget& t, const std::vector<float>& w, float* a, float* b) {
    check_stop();
    const LowRank d = truncated_svd(cpu, w.data(), t.out, t.in, t.rank);
    for (int64_t r = 0; r < t.rank; ++r) {
        const double root = std::sqrt(d.s[size_t(r)] / double(t.scale));
        for (int64_t i = 0; i < t.in; ++i) a[r * t.in + i] = float(root * d.v[size_t(r * t.in + i)]);
        for (int64_t o = 0; o < t.out; ++o) b[o * t.rank + r] = float(root * d.u[size_t(r * t.out + o)]);
    }
}

void check(const LoraImpl& lora, const LoraTarget& t, const char* name) {
    if (t.rank > std::min(t.in, t.out))
        fail(Errc::argument, "adapter: ", name, " splits ", module_name(lora.base->config, t.module),
             " of shape {", t.out, ", ", t.in, "} into at most ", std::min(t.in, t.out),
             " directions, the rank is ", t.rank);
    if (!(t.scale > 0)) fail(Errc::argument, "adapter: ", name, " needs a positive alpha, is ", lora.options.alpha);
}

void loftq(LoraImpl& lora, std::vector<float>& values, Cpu& cpu) {
    int64_t improved = 0;
    for (const LoraTarget& t : lora.targets) {
        check(lora, t, "loftq");
        const Stored from = lora.base->stored(t.module, t.layer);
        // nothing was lost here: the usual start
        if (from.tensor->dtype == linear_of(*lora.base, t)->dtype) continue;
        std::vector<float> lost = rows(lora, t, [&](Slot s) { return lora.base->original(s, t.layer); });
        const std::vector<float> kept = rows(lora, t, [&](Slot s) { return lora.base->at(s, t.layer); });
        for (size_t e = 0; e < lost.size(); ++e) lost[e] -= kept[e];
        if (std::all_of(lost.begin(), lost.end(), [](float v) { return v == 0; })) continue;
        split(cpu, t, lost, values.data() + t.a, values.data() + t.b);
        ++improved;
    }
    if (improved == 0)
        fail(Errc::argument, "adapter: loftq makes up for what quantization lost, and ", lora.base->path,
             " is held as it is stored; load the original model with quantize = nf4");
}

bool splits(const Weight& original, const Weight& held) { return !is_4bit(original.dtype) && can_encode(held.dtype); }

// The model with the principal directions of its adapted layers taken out. Everything else is shared with the base.
std::shared_ptr<const ModelImpl> residual(LoraImpl& lora, Cpu& cpu) {
    auto model = std::make_shared<ModelImpl>(*lora.base);
    const bool known = !lora.start.empty();
    lora.start.resize(size_t(lora.parameters));
    for (const LoraTarget& t : lora.targets) {
        check(lora, t, "pissa");
        const Config& c = lora.base->config;
        const Stored from = lora.base->stored(t.module, t.layer);
        const WeightPtr& held = linear_of(*lora.base, t);
        if (!splits(*from.tensor, *held))
            fail(Errc::argument, "adapter: pissa splits the original weights, and ", module_name(c, t.module),
                 " of layer ", t.layer, " is stored as ", name_of(from.tensor->dtype),
                 "; load a model in f32, f16, bf16 or q8_0, with quantize = nf4 if it is to be in 4 bits");
        std::vector<float> w = rows(lora, t, [&](Slot s) { return lora.base->original(s, t.layer); });
        float *a = lora.start.data() + t.a, *b = lora.start.data() + t.b;
        if (!known) split(cpu, t, w, a, b);
        gemm_nn(cpu, t.out, b, t.rank, dense_ref(a, t.rank, t.in), w.data(), t.in, -t.scale, 1);
        const bool double_quant = is_4bit(held->dtype) && !held->quant.absmax;
        const Weight whole = dense_weight(held->name, {t.out, t.in}, std::move(w));
        const std::span<const Slot> slots = parts_of(c, t.module);
        std::vector<Weight> rest;
        for (const Slot s : slots)
            rest.push_back(rows_of(whole, std::vector{RowRange{first_row(c, s, t.layer), shape_of(c, s, t.layer)[0]}}));
        rest = convert_module(c, t.module, t.layer, rest, held->dtype, double_quant, &cpu.pool);
        // what was taken out is in no weight of this model: its layers are their own originals
        for (size_t i = 0; i < slots.size(); ++i)
            model->replace(slots[i], t.layer,
                           model->backend->hold(std::make_shared<const Weight>(std::move(rest[i])), Placement::device),
                           {});
    }
    return model;
}

}  // namespace lora_init_room

void start_lora(LoraImpl& lora, std::vector<float>* values) {
    namespace room = lora_init_room;
    if (lora.options.init == LoraInit::standard) return;
    // of its own: the sums are in f32 even where the backend computes in bf16
    Cpu cpu(lora.base->backend->host().pool.size());
    if (lora.options.init == LoraInit::loftq) {
        if (values) room::loftq(lora, *values, cpu);
        return;
    }
    base_of(lora);                                     // of the model as it was given, not of what is left of it
    lora.base = room::residual(lora, cpu);
    if (values) *values = lora.start;
}

bool can_split(const LoraImpl& lora) {
    namespace room = lora_init_room;
    return std::all_of(lora.targets.begin(), lora.targets.end(), [&](const LoraTarget& t) {
        return room::splits(*lora.base->stored(t.module, t.layer).tensor, *room::linear_of(*lora.base, t));
    });
}

std::shared_ptr<LoraImpl> without_start(const LoraImpl& lora) {
    auto out = std::make_shared<LoraImpl>();
    out->base = lora.base;
    out->record = lora.record;
    LoraOptions& o = out->options = lora.options;
    // of the rank: alpha follows, so that the scale stays
    const float twice = o.rank_stabilized ? std::sqrt(2.0f) : 2.0f;
    o.init = LoraInit::standard;
    o.rank *= 2;
    o.alpha *= twice;
    for (auto& [key, rank] : o.rank_pattern) rank *= 2;
    for (auto& [key, alpha] : o.alpha_pattern) alpha *= twice;
    for (const LoraTarget& t : lora.targets) add_lora_target(*out, t.layer, t.module, 2 * t.rank, t.scale);
    BackendImpl& backend = *lora.base->backend;
    out->values = backend.allocate(out->parameters * 4);
    // A target at a time: saving must not need memory that training did not plan.
    for (size_t i = 0; i < lora.targets.size(); ++i) {
        const LoraTarget &t = lora.targets[i], &to = out->targets[i];
        const auto put = [&](int64_t at, const std::vector<float>& values) {
            backend.upload(*out->values, at * 4, values.data(), int64_t(values.size()) * 4);
        };
        put(to.a, lora_values(lora, t.a, t.rank * t.in));
        put(to.a + t.rank * t.in, {lora.start.begin() + t.a, lora.start.begin() + t.a + t.rank * t.in});
        const std::vector<float> b = lora_values(lora, t.b, t.out * t.rank);
        std::vector<float> both;
        both.reserve(2 * b.size());
        for (int64_t row = 0; row < t.out; ++row) {
            both.insert(both.end(), b.begin() + row * t.rank, b.begin() + (row + 1) * t.rank);
            for (int64_t r = 0; r < t.rank; ++r) both.push_back(-lora.start[size_t(t.b + row * t.rank + r)]);
        }
        put(to.b, both);
        if (t.m >= 0) put(to.m, lora_values(lora, t.m, t.out));
    }
    ++out->version;
    if (out->options.dora) out->norms = make_norms(*out);
    return out;
}

std::shared_ptr<LoraImpl> with_start(const LoraImpl& plain, const LoraOptions& options) {
    auto out = empty_lora(plain.base, options);
    const std::vector<float> from = lora_values(plain);
    std::vector<float> values;
    for (const LoraTarget& p : plain.targets) {
        const LoraOptions local = options_at(plain.base->config, options, p.layer, p.module);
        if (p.rank != 2 * local.rank)
            fail(Errc::format, "adapter: ", module_name(plain.base->config, p.module), " of layer ", p.layer,
                 " has rank ", p.rank, ", twice the rank of its pissa start would be ", 2 * local.rank);
        add_lora_target(*out, p.layer, p.module, local.rank, lora_scale(local));
        const LoraTarget& t = out->targets.back();
        values.resize(size_t(out->parameters));
        out->start.resize(size_t(out->parameters));
        std::copy_n(from.begin() + p.a, t.rank * t.in, values.begin() + t.a);
        if (t.m >= 0) std::copy_n(from.begin() + p.m, t.out, values.begin() + t.m);
        std::copy_n(from.begin() + p.a + t.rank * t.in, t.rank * t.in, out->start.begin() + t.a);
        for (int64_t row = 0; row < t.out; ++row)
            for (int64_t r = 0; r < t.rank; ++r) {
                values[size_t(t.b + row * t.rank + r)] = from[size_t(p.b + row * p.rank + r)];
                out->start[size_t(t.b + row * t.rank + r)] = -from[size_t(p.b + row * p.rank + t.rank + r)];
            }
    }
    start_lora(*out, nullptr);
    set_lora_values(*out, values);
    return out;
}

}}  // namespace qlora
