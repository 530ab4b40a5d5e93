// merge.cpp - a model in another type, with or without an adapter inside: made as a model, or written a tensor at a
// time. Beside source and result only one tensor exists in floats.
#include "src/run/merge.h"

#include "src/cpu/gemm.h"
#include "src/model/fused.h"
#include "src/model/lora_impl.h"
#include "src/tensor/encode.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace merge_room {

// Of one step: nothing of the adapter that training changes is read after this.
std::vector<float> copy_of_factors(const LoraImpl* lora) {
    if (!lora) return {};
    const auto held = lora->lock.read();
    std::vector<float> factors = lora_values(*lora);
    check_finite(factors, "merge", "the adapter");
    return factors;
}

DType type_for(const Weight& w, DType wanted, bool linear) {
    if (is_4bit(wanted)) return linear ? wanted : w.dtype;
    if ((wanted == DType::q4_0 || wanted == DType::iq4_nl) && !linear) wanted = DType::q8_0;
    return w.cols() % type_info(wanted).block ? DType::f16 : wanted;
}

// W {out, in} + scale B {out, rank} A {rank, in} in f32, of a dora adapter every row brought to its magnitude. W are
// the rows of the adapted layer from `first` on.
Weight merged(Cpu& cpu, const Weight& w, const LoraTarget& t, const float* factors, int64_t first) {
    std::vector<float> values = w.decoded();
    gemm_nn(cpu, w.rows(), factors + t.b + first * t.rank, t.rank, dense_ref(factors + t.a, t.rank, t.in),
            values.data(), t.in, t.scale, 1);
    for (int64_t row = 0; t.m >= 0 && row < w.rows(); ++row) {
        float* v = values.data() + row * t.in;
        double squares = 0;
        for (int64_t i = 0; i < t.in; ++i) squares += double(v[i]) * v[i];
        const float factor = squares > 0 ? float(factors[t.m + first + row] / std::sqrt(squares)) : 0;
        for (int64_t i = 0; i < t.in; ++i) v[i] *= factor;
    }
    return dense_weight(w.name, w.shape, std::move(values));
}

// What is needed to make any tensor of the result, for as long as one may be asked for.
struct Maker {
    const ModelImpl& source;
    const LoraImpl* lora;
    DType type;
    bool double_quant;
    std::function<bool(float)> on_progress;
    Cpu cpu;                     // of its own: the sums are in f32 even where the backend computes in bf16
    std::vector<float> factors;
    int64_t made = 0, tensors = 0;

    Maker(const ModelImpl&, const LoraImpl*, DType, bool double_quant, std::function<bool(float)> on_progress = {});

    const LoraTarget* target(const Row& row, int64_t layer) const {
        return lora && row.kind == Kind::linear ? lora->find(layer, row.slot) : nullptr;
    }
    DType type_of(const Row& row, int64_t layer) const {
        const Weight& w = *source.at(row.slot, layer);
        const bool matrix = row.kind == Kind::linear || row.kind == Kind::embedding;
        return matrix ? type_for(w, type, row.kind == Kind::linear) : w.dtype;
    }
    bool changes(const Row& row, int64_t layer) const {
        return target(row, layer) || type_of(row, layer) != source.at(row.slot, layer)->dtype;
    }
    Weight make(const Row& row, int64_t layer) {
        Weight out = convert_weight(values(row, layer), type_of(row, layer), double_quant, &cpu.pool);
        report();
        return out;
    }
    // as it is held, or in floats with the adapter inside
    Weight values(const Row& row, int64_t layer) {
        const Weight& w = *source.at(row.slot, layer);
        const LoraTarget* t = target(row, layer);
        return t ? merged(cpu, w, *t, factors.data(), first_row(source.config, row.slot, layer)) : w;
    }
    void report() {
        if (on_progress && !on_progress(float(++made) / float(tensors)))
            fail(Errc::cancelled, "save: stopped; nothing was written");
    }
};

Maker::Maker(const ModelImpl& m, const LoraImpl* l, DType t, bool twice, std::function<bool(float)> f)
    : source(m), lora(l), type(t), double_quant(twice), on_progress(std::move(f)),
      cpu(m.backend->host().pool.size()), factors(copy_of_factors(l)) {
    if (!can_encode(type))
        fail(Errc::unsupported, "convert ", source.path, ": models are not written as ", name_of(type), "; choose ",
             written_types);
    for_each_tensor(m.config, [&](const Row& row, int64_t layer) { tensors += changes(row, layer); });
}

// All parts of a module: they are quantized as one.
void rebuild_linear(Maker& maker, ModelImpl& out, Module m, int64_t layer) {
    const ModelImpl& source = maker.source;
    const std::span<const Slot> slots = parts_of(source.config, m);
    const auto changes = [&](Slot s) { return maker.changes(row_of(source.config, s), layer); };
    if (std::none_of(slots.begin(), slots.end(), changes)) return;
    std::vector<Weight> parts;
    for (const Slot s : slots) parts.push_back(maker.values(row_of(source.config, s), layer));
    parts = convert_module(source.config, m, layer, parts, maker.type_of(row_of(source.config, m), layer),
                           maker.double_quant, &maker.cpu.pool);
    for (size_t i = 0; i < slots.size(); ++i) {
        if (!changes(slots[i]) && !is_4bit(parts[i].dtype)) continue;
        WeightPtr w = source.backend->hold(std::make_shared<const Weight>(std::move(parts[i])), Placement::device);
        const bool quantized = is_4bit(w->dtype) && !maker.target(row_of(source.config, m), layer);
        out.replace(slots[i], layer, std::move(w), quantized ? source.stored(slots[i], layer) : Stored{});
        maker.report();
    }
}

std::shared_ptr<ModelImpl> rebuild(Maker& maker) {
    const ModelImpl& source = maker.source;
    auto out = std::make_shared<ModelImpl>(source);
    for_each_tensor(source.config, [&](const Row& row, int64_t layer) {
        if (row.kind == Kind::linear) {
            if (is_module(source.config, row.slot)) rebuild_linear(maker, *out, row.slot, layer);
        } else if (maker.changes(row, layer)) {
            out->at(row.slot, layer) = source.backend->hold(std::make_shared<const Weight>(maker.make(row, layer)),
                                                            placement_of(source.config, row));
        }
    });
    if (source.config.tied) out->at(Slot::head) = out->at(Slot::embedding);
    if (out->head && out->at(Slot::head)->dtype != *out->head) out->head.reset();
    return out;
}

void save(const Draft& draft, const std::string& path, int64_t shard_bytes) {
    if (path.ends_with(".gguf")) save_gguf_model(draft, path);
    else save_hf_model(draft, path, shard_bytes);
}

// How far apart the two are at one position.
struct Position { double mean = 0, most = 0, kl = 0; bool same_best = false; };
Position position(const float* expected, const float* actual, int64_t n) {
    Position p;
    int64_t best_e = 0, best_a = 0;
    for (int64_t i = 0; i < n; ++i) {
        const double d = std::fabs(double(expected[i]) - double(actual[i]));
        p.mean += d / double(n);
        p.most = d > p.most || std::isnan(d) ? d : p.most;
        if (expected[i] > expected[best_e]) best_e = i;
        if (actual[i] > actual[best_a]) best_a = i;
    }
    double sum_e = 0, sum_a = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum_e += std::exp(double(expected[i]) - double(expected[best_e]));
        sum_a += std::exp(double(actual[i]) - double(actual[best_a]));
    }
    const double lse_e = double(expected[best_e]) + std::log(sum_e), lse_a = double(actual[best_a]) + std::log(sum_a);
    for (int64_t i = 0; i < n; ++i) {
        const double log_p = double(expected[i]) - lse_e, log_q = double(actual[i]) - lse_a;
        p.kl += std::exp(log_p) * (log_p - log_q);
    }
    p.same_best = best_e == best_a;
    return p;
}

double loss_at(const float* logits, int64_t n, Token target) {
    double most = logits[0], sum = 0;
    for (int64_t i = 1; i < n; ++i) most = std::max(most, double(logits[i]));
    for (int64_t i = 0; i < n; ++i) sum += std::exp(double(logits[i]) - most);
    return most + std::log(sum) - double(logits[target]);
}

}  // namespace merge_room

std::shared_ptr<ModelImpl> convert_model(const ModelImpl& model, DType type, bool double_quant) {
    merge_room::Maker maker(model, nullptr, type, double_quant);
    return merge_room::rebuild(maker);
}
std::shared_ptr<ModelImpl> merge_lora(const LoraImpl& lora, DType type, bool double_quant) {
    merge_room::Maker maker(*lora.base, &lora, type, double_quant);
    return merge_room::rebuild(maker);
}

void save_model_as(const ModelImpl& model, const LoraImpl* lora, const std::string& path, DType type, bool double_quant,
                   const std::function<bool(float)>& on_progress, int64_t shard_bytes) {
    namespace room = merge_room;
    room::Maker maker(model, lora, type, double_quant, on_progress);
    // codes come first: the header of a folder has to say numbers that only quantizing them gives
    if (is_4bit(type)) return room::save(*room::rebuild(maker), path, shard_bytes);
    const Draft draft{model, [&](Slot slot, int64_t layer) -> DraftTensor {
        const Row* row = &row_of(model.config, slot);
        if (!maker.changes(*row, layer)) return model.at(slot, layer);
        return {maker.type_of(*row, layer), model.at(slot, layer)->shape,
                [&maker, row, layer] { return maker.make(*row, layer); }};
    }};
    room::save(draft, path, shard_bytes);
}

Difference measure_difference(std::shared_ptr<const ModelImpl> expected, const LoraImpl* expected_lora,
                              std::shared_ptr<const ModelImpl> actual, const LoraImpl* actual_lora,
                              std::span<const Token> tokens) {
    const int64_t n = expected->config.vocabulary, count = int64_t(tokens.size());
    if (actual->config.vocabulary != n)
        fail(Errc::argument, "difference: ", expected->path, " has a vocabulary of ", n, ", ", actual->path, " one of ",
             actual->config.vocabulary);
    if (count < 2) fail(Errc::argument, "difference: ", count, " tokens; at least 2 are needed");
    for (const Token t : tokens)
        if (t < 0 || t >= n) fail(Errc::argument, "difference: token ", t, " is outside the vocabulary of ", n);
    // Few enough that two sets of logits stay small beside the models.
    const int64_t most_rows = std::min<int64_t>(128, std::min(expected->config.context, actual->config.context));
    DecoderPool expected_pool(expected, expected_lora, {}), actual_pool(actual, actual_lora, {});
    Difference sum;
    double nll_e = 0, nll_a = 0;
    int64_t predicted = 0;
    for (int64_t first = 0; first < count; first += most_rows) {
        const Document document{tokens.subspan(size_t(first), size_t(std::min(most_rows, count - first))), {}};
        const int64_t rows = int64_t(document.tokens.size());
        const auto run = [&](DecoderPool& pool) {
            Decoder& decoder = pool.at(rows);
            decoder.run(lay_out(std::span(&document, 1), decoder.spec().rows));
            return decoder.logits();
        };
        const std::vector<float> e = run(expected_pool), a = run(actual_pool);
        for (int64_t r = 0; r < rows; ++r) {
            const float *er = e.data() + r * n, *ar = a.data() + r * n;
            const merge_room::Position p = merge_room::position(er, ar, n);
            sum.mean_logit += p.mean / double(count);
            sum.max_logit = p.most > sum.max_logit || std::isnan(p.most) ? p.most : sum.max_logit;
            sum.kl += p.kl / double(count);
            sum.same_best += double(p.same_best) / double(count);
            if (r + 1 == rows) continue;
            nll_e += merge_room::loss_at(er, n, document.tokens[size_t(r) + 1]);
            nll_a += merge_room::loss_at(ar, n, document.tokens[size_t(r) + 1]);
            ++predicted;
        }
    }
    sum.tokens = count;
    sum.nll_expected = predicted ? nll_e / double(predicted) : 0;
    sum.nll_actual = predicted ? nll_a / double(predicted) : 0;
    return sum;
}

}}  // namespace qlora
