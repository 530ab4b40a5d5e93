// decoder.cpp - the decoder-only transformer, written once for every family: embedding, layers of attention and
// feed-forward with their residual connections, final norm, and either scores or the loss.
//
//   h = norm(x);  q, k, v = h W^T (+ bias) (+ adapter);  [q, k normed per head];  q, k turned by position
//   x = x + attention(q, k, v) Wo^T;  h = norm(x);  x = x + (act(h Wg^T) * (h Wu^T)) Wd^T
// Families have norms before the two branches, behind them, or both; branches one after the other or side by side.
#include "src/model/decoder.h"

#include "src/ops/ops.h"

#include <algorithm>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

namespace decoder_room {

// Of the input of a segment, in whole pages of a file.
int64_t input_bytes(const Config& c, int64_t rows) {
    constexpr int64_t page = 64 << 10;
    return (rows * c.hidden * 4 + page - 1) / page * page;
}

struct Inputs {
    Tensor positions, first, last, window_first, cache_rows, frequencies, sliding_frequencies, noise;
    Tensor short_positions, long_positions, long_frequencies;          // longrope
};

struct Builder {
    GraphImpl& graph;
    const ModelImpl& model;
    const LoraImpl* lora;
    const DecoderSpec& spec;
    BufferRef norms;                                   // of a dora adapter
    BufferRef halves;                                  // the factors in f16, or null
    Inputs in;
    struct Adapted { Tensor param; int64_t offset; };  // into the flat buffer
    std::vector<Adapted> adapted;                      // the params, in the order in which gradients are collected
    bool light = false;    // of this layer, norms and gated products are computed again in the backward pass
    int32_t segments = 0;                              // so many were given out
    int64_t sent = 0;                                  // inputs of segments that lie apart

    const Config& config() const { return model.config; }

    // Parts of a fused layer share A, and its gradient.
    Tensor param(Shape shape, int64_t offset) {
        for (const Adapted& a : adapted)
            if (a.offset == offset) return a.param;
        const int64_t count = elements_of(shape);
        adapted.push_back(
            {halves ? graph.state(std::move(shape), slice(halves, offset * 2, count * 2), DType::f16)
                    : graph.param(std::move(shape), slice(lora->values, offset * 4, count * 4)), offset});
        return adapted.back().param;
    }

    // x {rows, in} -> {rows, out}
    Tensor linear(Tensor x, int64_t layer, Module m) {
        const Tensor weight = graph.weight(model.at(m, layer));
        Tensor y = matmul(x, weight);
        if (const LoraTarget* t = lora ? lora->find(layer, m) : nullptr) {
            const int64_t first = first_row(config(), m, layer), out = shape_of(config(), m, layer)[0];
            const Tensor a = param({t->rank, t->in}, t->a), b = param({out, t->rank}, t->b + first * t->rank);
            // Each adapter drops its own elements: its place in the list is its stream.
            const LoraAttr attr{t->scale, spec.dropout ? lora->options.dropout : 0.0f, spec.seed,
                                uint64_t(t - lora->targets.data())};
            y = t->m < 0 ? qlora::lora(y, x, a, b, attr)
                         : dora(y, x, weight, a, b, magnitude_of(*t, first, out), norm_of(*t, first, out), attr);
        }
        const WeightPtr& added = model.at(bias_of(m), layer);
        return added ? bias(y, graph.weight(added)) : y;
    }

    Tensor magnitude_of(const LoraTarget& t, int64_t first, int64_t rows) {
        if (!halves) return param({rows}, t.m + first);
        return graph.state({rows}, slice(lora->values, (t.m + first) * 4, rows * 4));
    }
    Tensor norm_of(const LoraTarget& t, int64_t first, int64_t rows) {
        return graph.state({rows}, slice(norms, (t.norm + first) * 4, rows * 4));
    }

    // y = W x becomes m / n (W x + s B A x). With dropout PEFT puts y + (m / n - 1) W drop(x) + m / n s B A drop(x),
    // the same mask in both places.
    Tensor dora(Tensor y, Tensor x, Tensor weight, Tensor a, Tensor b, Tensor magnitude, Tensor norm,
                const LoraAttr& attr) {
        if (attr.p == 0) return dora_scale(qlora::lora(y, x, a, b, attr), magnitude, norm);
        const Tensor dropped = matmul(dropout(x, {attr.p, attr.seed, attr.stream}), weight);
        return add(y, add(dora_scale(qlora::lora(dropped, x, a, b, attr), magnitude, norm), scale(dropped, -1)));
    }

    Tensor weight_or_none(const WeightPtr& w) { return w ? graph.weight(w) : Tensor{}; }

    // What f builds as a segment of its own, where the layer is a light one.
    template <class F>
    Tensor again(const F& f) {
        const int32_t around = graph.segment;
        if (light) graph.segment = segments++;
        const Tensor y = f();
        graph.segment = around;
        return y;
    }

    // x {rows, n}
    Tensor normed(Tensor x, Slot norm, int64_t layer = -1) {
        const WeightPtr& w = model.at(norm, layer);
        return again([&] {
            if (config().norm == Norm::rms) return rms_norm(x, graph.weight(w), config().eps);
            return layer_norm(x, weight_or_none(w), weight_or_none(model.at(bias_of(norm), layer)), config().eps);
        });
    }

    // q or k {rows, heads * head_dim}: normed where the family does so, then turned.
    Tensor turned(Tensor x, int64_t heads, Slot norm, int64_t layer, int64_t period = 0) {
        const Config& c = config();
        if (c.q_k_norms == QkNorms::rows) x = normed(x, norm, layer);
        if (c.q_k_norms == QkNorms::heads)
            x = reshape(normed(reshape(x, {spec.rows * heads, c.head_dim}), norm, layer),
                        {spec.rows, heads * c.head_dim});
        if (!c.turns(layer)) return x;
        const bool own = c.slides(layer) && !c.sliding_frequencies.empty();
        RopeAttr attr;
        attr.head_dim = c.head_dim;
        attr.rotated = c.rotated;
        attr.adjacent = c.adjacent_pairs;
        attr.magnitude = own ? 1 : c.rope_magnitude;
        attr.growth = c.query_growth;
        attr.period = period;
        if (own || c.long_frequencies.empty())
            return rope(x, in.positions, own ? in.sliding_frequencies : in.frequencies, attr);
        // Rows of short texts are at position 0 of the second turn, which leaves them as they are, those of long ones
        // at position 0 of the first.
        x = rope(x, in.short_positions, in.frequencies, attr);
        attr.magnitude = 1;
        attr.growth = 0;
        return rope(x, in.long_positions, in.long_frequencies, attr);
    }

    // What a branch of a layer gets and gives.
    Tensor before(Tensor x, Slot norm, int64_t layer) { return config().pre_norms ? normed(x, norm, layer) : x; }
    Tensor behind(Tensor y, Slot norm, int64_t layer) {
        const Config& c = config();
        if (c.post_norms) y = normed(y, norm, layer);
        return c.residual_scale == 1 ? y : scale(y, c.residual_scale);
    }

    // queries, keys or values
    Tensor projected(Tensor h, int64_t layer, Module m) {
        const float clip = config().clip_qkv;
        const Tensor y = linear(h, layer, m);
        return clip > 0 ? clamp(y, -clip, clip) : y;
    }

    Tensor attended(Tensor h, int64_t i) {
        const Config& c = config();
        const int64_t kv_heads = c.kv_heads_at(i);
        const Tensor q = turned(projected(h, i, Module::q_proj), c.heads, Slot::q_norm, i, c.query_growth_every);
        Tensor k = turned(projected(h, i, Module::k_proj), kv_heads, Slot::k_norm, i);
        Tensor v = projected(h, i, Module::v_proj);
        if (spec.cache) {
            const Shape shape{kv_heads, spec.cache->capacity, c.head_dim};
            const DType type = spec.cache->type;
            k = store_rows(graph.state(shape, spec.cache->keys[size_t(i)], type), k, in.cache_rows);
            v = store_rows(graph.state(shape, spec.cache->values[size_t(i)], type), v, in.cache_rows);
        }
        const float scale = c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(float(c.head_dim));
        const AttentionAttr attr{c.heads, kv_heads, c.head_dim, scale, c.attention_cap};
        const Tensor mixed = attention(q, k, v, c.slides(i) ? in.window_first : in.first, in.last, attr);
        return behind(linear(mixed, i, Module::o_proj), Slot::attention_post_norm, i);
    }

    // act(gate) * up, or act(up)
    Tensor activated(Tensor h, int64_t i) {
        const Config& c = config();
        const bool silu_ = c.activation == Activation::silu;
        const Gelu form = c.activation == Activation::gelu ? Gelu::erf : Gelu::tanh;
        if (!c.gated) {
            const Tensor up = linear(h, i, Module::up_proj);
            return again([&] { return silu_ ? silu(up) : gelu(up, form); });
        }
        const Tensor gate = linear(h, i, Module::gate_proj), up = linear(h, i, Module::up_proj);
        return again([&] { return silu_ ? swiglu(gate, up) : geglu(gate, up, form); });
    }

    Tensor fed_forward(Tensor h, int64_t i) {
        return behind(linear(activated(h, i), i, Module::down_proj), Slot::feed_forward_post_norm, i);
    }

    // A segment that begins with x: of a layer that is recomputed. at_once: the backward pass begins with it, so that x
    // may as well stay.
    void begin_segment(Tensor x, bool at_once) {
        graph.segment = segments++;
        if (!spec.apart || !spec.checkpoint || at_once) return;
        const int64_t bytes = input_bytes(config(), spec.rows);
        graph.keep_apart(x, slice(spec.apart, sent++ * bytes, bytes));
    }

    // {rows, hidden}, of all layers
    Tensor layers(Tensor x) {
        const int64_t count = config().layers, recomputed = std::max<int64_t>(0, count - spec.kept_layers);
        for (int64_t i = 0; i < recomputed; ++i) {
            begin_segment(x, i + 1 == count && config().parallel);
            x = layer(x, i, true);
        }
        graph.settle_apart();
        graph.segment = -1;
        graph.light = segments;
        light = spec.light;
        for (int64_t i = recomputed; i < count; ++i) x = layer(x, i, false);
        light = false;
        return x;
    }

    // Where inputs lie apart, one more takes no memory: a half is recomputed without the other.
    Tensor layer(Tensor x, int64_t i, bool recomputed) {
        const Tensor y = add(x, attended(before(x, Slot::attention_norm, i), i));
        if (recomputed && spec.apart && !config().parallel) begin_segment(y, i + 1 == config().layers);
        return add(y, fed_forward(before(config().parallel ? x : y, Slot::feed_forward_norm, i), i));
    }

    // {rows, hidden}
    Tensor embedded(Tensor tokens) {
        const Config& c = config();
        const Placement placement = placement_of(c, row_of(c, Slot::embedding));
        Tensor x = embed(graph.weight(model.at(Slot::embedding), placement), tokens);
        const bool noisy = in.noise.id() >= 0;
        if (noisy && !c.scaled_lookup) x = add(x, in.noise);
        if (c.embedding_scale != 1) x = scale(x, c.embedding_scale);
        if (noisy && c.scaled_lookup) x = add(x, in.noise);
        return c.learned_positions ? add(x, embed(graph.weight(model.at(Slot::positions)), in.positions)) : x;
    }

    // Frequencies of rotary pairs, as a tensor.
    Tensor constant(const std::vector<float>& values) {
        const BufferRef held = model.backend->allocate(int64_t(values.size()) * 4);
        model.backend->upload(*held, 0, values.data(), held->bytes);
        return graph.state({int64_t(values.size())}, held);
    }
};

void check_range(const char* what, const std::vector<int32_t>& values, size_t count, int64_t low, int64_t high) {
    if (values.size() != count)
        fail(Errc::argument, "decoder: ", what, " has ", values.size(), " entries, expected ", count);
    for (size_t i = 0; i < count; ++i)
        if (values[i] < low || values[i] >= high)
            fail(Errc::argument, "decoder: ", what, "[", i, "] is ", values[i], ", expected ", low, " to ", high - 1);
}

}  // namespace decoder_room

void require_memory(const BackendImpl& backend, int64_t bytes, const char* what, const char* remedy) {
    const int64_t available = backend.memory_left();
    if (bytes > available)
        fail(Errc::memory, what, ": ", bytes, " bytes of memory are needed, ", available, " are free; use ", remedy);
}

int64_t inputs_apart(const Config& c, int64_t rows, int64_t kept_layers) {
    const int64_t recomputed = std::max<int64_t>(0, c.layers - kept_layers);
    const int64_t segments = recomputed * (c.parallel ? 1 : 2) - (recomputed == c.layers);
    return segments * decoder_room::input_bytes(c, rows);
}

Decoder::Decoder(std::shared_ptr<const ModelImpl> model, const LoraImpl* lora, const DecoderSpec& spec)
    : spec_(spec), model_(std::move(model)), lora_(lora) {
    const bool loss = spec.output == DecoderSpec::Output::loss;
    if (spec.rows < 1) fail(Errc::argument, "decoder: rows must be at least 1, is ", spec.rows);
    if (spec.logit_rows < 0 || spec.logit_rows > spec.rows)
        fail(Errc::argument, "decoder: ", spec.logit_rows, " logit rows of ", spec.rows);
    if (spec.backward && (!loss || !lora || !spec.gradients))
        fail(Errc::argument, "decoder: a backward pass needs the loss, an adapter and a gradient buffer");
    if (spec.backward && spec.gradients->bytes < lora->parameters * 4)
        fail(Errc::argument, "decoder: the gradient buffer has ", spec.gradients->bytes, " bytes, the adapter needs ",
             lora->parameters * 4);
    build(halves());
}

// To generate with; null: with the factors as they are. So it is while somebody trains: each step would make halves
// anew, in memory that no plan knows.
BufferRef Decoder::halves() const {
    const bool may_be = lora_ && spec_.cache && spec_.rows <= model_->backend->rows_of_half_factors();
    return may_be && lora_->trainers == 0 ? refresh_halves(*lora_) : nullptr;
}

void Decoder::build(BufferRef halves) {
    const Config& c = model_->config;
    const DecoderSpec& spec = spec_;
    const bool loss = spec.output == DecoderSpec::Output::loss;
    halves_ = halves != nullptr;
    graph_ = std::make_unique<GraphImpl>(model_->backend);
    GraphImpl& graph = *graph_;
    const BufferRef norms = lora_ && lora_->norms ? refresh_norms(*lora_) : nullptr;
    decoder_room::Builder build{graph, *model_, lora_, spec_, norms, std::move(halves), {}, {}};
    const Shape rows{spec.rows};
    tokens_ = graph.input(rows, DType::i32);
    build.in.positions = positions_ = graph.input(rows, DType::i32);
    build.in.first = first_ = graph.input(rows, DType::i32);
    build.in.last = last_ = graph.input(rows, DType::i32);
    if (c.window > 0) build.in.window_first = window_first_ = graph.input(rows, DType::i32);
    if (spec.cache) build.in.cache_rows = cache_rows_ = graph.input(rows, DType::i32);
    if (spec.noise) build.in.noise = noise_ = graph.input({spec.rows, c.hidden});
    build.in.frequencies = build.constant(c.inverse_frequencies);
    if (!c.long_frequencies.empty()) {
        build.in.long_frequencies = build.constant(c.long_frequencies);
        build.in.short_positions = short_positions_ = graph.input(rows, DType::i32);
        build.in.long_positions = long_positions_ = graph.input(rows, DType::i32);
    }
    if (!c.sliding_frequencies.empty()) build.in.sliding_frequencies = build.constant(c.sliding_frequencies);
    Tensor x = build.embedded(tokens_);
    x = build.layers(x);
    x = build.normed(x, Slot::final_norm);
    if (spec.output == DecoderSpec::Output::hidden) {
        graph.output(hidden_ = x);
        return;
    }
    if (c.logit_scale != 1) x = scale(x, c.logit_scale);   // the head is linear
    const Tensor head = graph.weight(model_->at(Slot::head));
    if (!loss) {
        if (spec.logit_rows > 0) {
            logit_rows_ = graph.input({spec.logit_rows}, DType::i32);
            x = embed(x, logit_rows_);
        }
        logits_ = matmul(x, head);
        if (c.logit_cap > 0) logits_ = softcap(logits_, c.logit_cap);
        graph.output(logits_);
        if (spec.candidates > 0) graph.output(candidates_ = top_k(logits_, spec.candidates));
        return;
    }
    targets_ = graph.input(rows, DType::i32);
    const Tensor nll = linear_cross_entropy(x, head, targets_, spec.backward, c.logit_cap, spec.loss_rows);
    // the gradient behind it need not stay until somebody reads the losses: they are copied
    graph.output(nll_ = spec.backward ? scale(nll, 1) : nll);
    if (!spec.backward) return;
    if (spec.weighted) weights_ = graph.input(rows);
    graph.backward(sum(spec.weighted ? nll * weights_ : nll), spec.checkpoint);
    for (const auto& [param, offset] : build.adapted) {
        const int32_t gradient = graph.grads[size_t(param.id())];
        if (gradient < 0) continue;
        const int64_t count = graph.node(param.id()).elements();
        accumulate(graph.state(graph.node(param.id()).shape, slice(spec.gradients, offset * 4, count * 4)),
                   graph.handle(gradient));
    }
}

void Decoder::run(const DecoderBatch& batch) {
    const Config& c = model_->config;
    const size_t rows = size_t(spec_.rows);
    const int64_t keys = spec_.cache ? spec_.cache->capacity : spec_.rows;
    if (const BufferRef now = halves(); bool(now) != halves_) {
        const BufferRef arena = graph_->arena;
        build(now);
        graph_->arena = arena;
    }
    decoder_room::check_range("tokens", batch.tokens, rows, 0, c.vocabulary);
    decoder_room::check_range("positions", batch.positions, rows, 0, int64_t(1) << 31);
    check_context(c, int64_t(*std::max_element(batch.positions.begin(), batch.positions.end())) + 1, "decoder");
    decoder_room::check_range("first", batch.first, rows, 0, keys + 1);
    decoder_room::check_range("last", batch.last, rows, 0, keys + 1);
    auto write = [&](Tensor to, const std::vector<int32_t>& values) {
        graph_->write(to, values.data(), int64_t(values.size()) * 4);
    };
    write(tokens_, batch.tokens);
    write(positions_, batch.positions);
    write(first_, batch.first);
    write(last_, batch.last);
    if (long_positions_.id() >= 0) write_long(batch);
    if (window_first_.id() >= 0) {    // the last key of a row is its own: a window of w keys begins w before the end
        std::vector<int32_t> windowed = batch.first;
        for (size_t i = 0; i < rows; ++i)
            windowed[i] = int32_t(std::max<int64_t>(windowed[i], batch.last[i] - c.window));
        write(window_first_, windowed);
    }
    if (spec_.cache) {
        decoder_room::check_range("cache_rows", batch.cache_rows, rows, -1, spec_.cache->capacity);
        write(cache_rows_, batch.cache_rows);
    }
    if (targets_.id() >= 0) {
        decoder_room::check_range("targets", batch.targets, rows, -1, c.vocabulary);
        write(targets_, batch.targets);
    }
    if (weights_.id() >= 0) {
        if (batch.weights.size() != rows)
            fail(Errc::argument, "decoder: ", batch.weights.size(), " weights for ", rows, " rows");
        graph_->write(weights_, batch.weights.data(), int64_t(rows) * 4);
    }
    if (noise_.id() >= 0) {
        if (int64_t(batch.noise.size()) != spec_.rows * c.hidden)
            fail(Errc::argument, "decoder: ", batch.noise.size(), " values of noise for ", rows, " rows of ", c.hidden);
        graph_->write(noise_, batch.noise.data(), int64_t(batch.noise.size()) * 4);
    }
    if (logit_rows_.id() >= 0) {
        decoder_room::check_range("logit_rows", batch.logit_rows, size_t(spec_.logit_rows), 0, spec_.rows);
        write(logit_rows_, batch.logit_rows);
    }
    if (lora_ && lora_->norms) refresh_norms(*lora_);
    if (spec_.dropout) graph_->set_step(batch.dropout_step);
    graph_->run();
}

// A text is long by its tokens: those that it has here or, with a cache, those that its caller says.
void Decoder::write_long(const DecoderBatch& batch) {
    const size_t rows = batch.positions.size();
    std::vector<int32_t> length(rows);                 // of the text that begins at a row
    for (size_t i = 0; i < rows && !spec_.cache; ++i)
        if (batch.last[i] > batch.first[i])
            length[size_t(batch.first[i])] = std::max(length[size_t(batch.first[i])], batch.last[i] - batch.first[i]);
    if (spec_.cache) decoder_room::check_range("lengths", batch.lengths, rows, 0, int64_t(1) << 31);
    std::vector<int32_t> at_short(rows), at_long(rows);
    for (size_t i = 0; i < rows; ++i) {
        const bool padding = batch.last[i] <= batch.first[i];
        const int64_t tokens = spec_.cache ? batch.lengths[i] : padding ? 0 : length[size_t(batch.first[i])];
        (turns_long(model_->config, tokens) ? at_long : at_short)[i] = batch.positions[i];
    }
    graph_->write(short_positions_, at_short.data(), int64_t(rows) * 4);
    graph_->write(long_positions_, at_long.data(), int64_t(rows) * 4);
}

std::vector<float> Decoder::logits() const {
    if (logits_.id() < 0) fail(Errc::argument, "decoder: built for the loss, it has no logits");
    std::vector<float> out(size_t(graph_->node(logits_.id()).elements()));
    graph_->read(logits_, out.data(), int64_t(out.size()) * 4);
    return out;
}

std::vector<float> Decoder::logits_of(int64_t row) const {
    if (logits_.id() < 0) fail(Errc::argument, "decoder: built for the loss, it has no logits");
    std::vector<float> out(size_t(graph_->node(logits_.id()).shape[1]));
    graph_->read_part(logits_, row * int64_t(out.size()), int64_t(out.size()), out.data());
    return out;
}

std::span<const float> Decoder::logits_here(int64_t row) const {
    const Node& n = graph_->node(logits_.id());
    if (!graph_->backend->is_readable_here() || n.storage != DType::f32) return {};
    return {static_cast<const float*>(graph_->address(logits_.id())) + row * n.shape[1], size_t(n.shape[1])};
}

std::vector<float> Decoder::candidates() const {
    if (candidates_.id() < 0) fail(Errc::argument, "decoder: built without candidates");
    std::vector<float> out(size_t(graph_->node(candidates_.id()).elements()));
    graph_->read(candidates_, out.data(), int64_t(out.size()) * 4);
    return out;
}

std::vector<float> Decoder::nll() const {
    if (nll_.id() < 0) fail(Errc::argument, "decoder: built for logits, it has no loss");
    std::vector<float> out(size_t(spec_.rows));
    graph_->read(nll_, out.data(), int64_t(out.size()) * 4);
    return out;
}

std::vector<float> Decoder::hidden() const {
    if (hidden_.id() < 0) fail(Errc::argument, "decoder: built for logits or the loss, it has no hidden states");
    std::vector<float> out(size_t(graph_->node(hidden_.id()).elements()));
    graph_->read(hidden_, out.data(), int64_t(out.size()) * 4);
    return out;
}

int64_t Decoder::arena_bytes() const { return graph_->frozen ? graph_->plan.arena : make_plan(*graph_).arena; }

}}  // namespace qlora
