// family.cpp - the bounds of a configuration, and its rotary frequencies.
#include "src/model/family.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace qlora { inline namespace QLORA_ABI {

namespace family_room {

constexpr double least_rope_factor = 1e-3, most_rope_factor = 1e6;

// Far beyond what any model uses (factors up to 64, bases up to 1e8): inside these bounds every frequency is a normal
// float, outside of them the scores are noise.
void check_rope(double theta, const RopeScaling& s, const std::string& where) {
    using Kind = RopeScaling::Kind;
    const bool by_context = s.kind == Kind::yarn || s.kind == Kind::llama3;
    const struct { const char* name; double value, least, most; bool used;
    } bounds[] = {{"rotary base", theta, 1, 1e15, true},
                  {"rotary scaling factor", s.factor, least_rope_factor, most_rope_factor, true},
                  {"original context length of the rotary scaling", s.original_context, 1, 0x1p31, by_context},
                  {"original context length of longrope", s.original_context, 2, 0x1p31, s.kind == Kind::longrope},
                  {"rotary attention factor", s.attention_factor, 1e-3, 1e3, s.attention_factor != 0},
                  {"rotary low frequency factor", s.low, 1e-6, 1e6, s.kind == Kind::llama3},
                  {"rotary high frequency factor", s.high, 1e-6, 1e6, s.kind == Kind::llama3},
                  {"yarn beta_slow", s.beta_slow, 1e-6, 1e6, s.kind == Kind::yarn},
                  {"yarn beta_fast", s.beta_fast, 1e-6, 1e6, s.kind == Kind::yarn}};
    for (const auto& b : bounds)
        if (b.used && !(b.value >= b.least && b.value <= b.most))
            fail(Errc::format, where, ": the ", b.name, " is ", b.value, ", expected ", b.least, " to ", b.most);
    if (theta == 1) fail(Errc::format, where, ": the rotary base is 1, expected a number above 1");
    if (s.kind == Kind::llama3 && s.high <= s.low)
        fail(Errc::format, where, ": the rotary low and high frequency factors are ", s.low, " and ", s.high);
    for (const std::vector<float>* factors : {&s.short_factors, &s.long_factors})
        for (const float f : *factors)
            if (!(f >= float(least_rope_factor) && f <= float(most_rope_factor)))
                fail(Errc::format, where, ": a factor of longrope is ", f, ", expected ", least_rope_factor, " to ",
                     most_rope_factor);
    if (s.kind == Kind::yarn && s.beta_fast <= s.beta_slow)
        fail(Errc::format, where, ": yarn's beta_fast and beta_slow are ", s.beta_fast, " and ", s.beta_slow);
}

}  // namespace family_room

void refuse_window(const Config& c, const HfFields& f) {
    fail(Errc::format, f.at("sliding_window"), " is ", c.window, ", expected a number of keys, or null for all");
}

// Bounds far above every model there is; below them no product of two sizes overflows, and no small file makes a large
// allocation before its tensors have been compared with these numbers.
void check_config(const Config& c, const std::string& where) {
    const struct { const char* name; int64_t value, most;
    } bounds[] = {{"number of layers", c.layers, 4096},       {"hidden size", c.hidden, 1 << 20},
                  {"number of heads", c.heads, 1 << 14},      {"number of key-value heads", c.kv_heads, 1 << 14},
                  {"head size", c.head_dim, 1 << 14},         {"feed-forward size", c.feed_forward, 1 << 22},
                  {"vocabulary size", c.vocabulary, 1 << 24}, {"context length", c.context, int64_t(1) << 31},
                  {"rotary size", c.rotated, c.head_dim}};
    for (const auto& b : bounds)
        if (b.value < 1 || b.value > b.most)
            fail(Errc::format, where, ": the ", b.name, " is ", b.value, ", expected 1 to ", b.most);
    if (c.heads % c.kv_heads)
        fail(Errc::format, where, ": ", c.heads, " heads are not a multiple of ", c.kv_heads, " key-value heads");
    if (c.head_dim % 2 || c.rotated % 2)
        fail(Errc::format, where, ": head size ", c.head_dim, " and rotary size ", c.rotated, " must be even");
    if (!(c.eps > 0) || !(c.eps < 1))
        fail(Errc::format, where, ": the epsilon of the norms is ", c.eps, ", expected a number in (0, 1)");
    if (c.window < 0 || c.window > (int64_t(1) << 31) || c.window_from_layer < 0)
        fail(Errc::format, where, ": the sliding window is ", c.window, " from layer ", c.window_from_layer);
}

void set_kv_heads(Config& c, const std::string& where) {
    if (c.kv_heads_of.empty()) return;
    if (c.kv_heads_of.size() == 1) c.kv_heads_of = std::vector<int64_t>(size_t(c.layers), c.kv_heads_of[0]);
    if (int64_t(c.kv_heads_of.size()) != c.layers)
        fail(Errc::format, where, ": key-value heads for ", c.kv_heads_of.size(), " layers, the model has ", c.layers);
    for (const int64_t n : c.kv_heads_of)
        if (n < 1 || c.heads % n)
            fail(Errc::format, where, ": ", c.heads, " heads are not a multiple of the ", n,
                 " key-value heads of a layer");
    c.kv_heads = *std::max_element(c.kv_heads_of.begin(), c.kv_heads_of.end());
    if (std::count(c.kv_heads_of.begin(), c.kv_heads_of.end(), c.kv_heads) == c.layers) c.kv_heads_of.clear();
}

std::string_view eps_key(const Config& c) {
    return c.norm == Norm::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
}

void check_context(const Config& c, int64_t tokens, std::string_view what) {
    if (tokens <= c.context) return;
    fail(Errc::argument, what, ": a text of ", tokens, " tokens, the model's context is ", c.context,
         c.dynamic_rope ? " (a longer one has other rotary frequencies with every token, \"dynamic\", which keys in a "
                          "cache do not follow)"
                        : "",
         "; shorten the text, or cut it into pieces of ", c.context, " tokens at most");
}

void set_sliding(Config& c, std::vector<uint8_t> by_layer) {
    bool any = false, as_by_rule = true;
    c.sliding.clear();
    for (int64_t i = 0; i < c.layers; ++i) {
        const bool slides = by_layer.empty() ? c.slides(i) : by_layer[size_t(i)] != 0;
        any = any || slides;
        as_by_rule = as_by_rule && c.slides(i) == slides;
    }
    if (!any) c.window = 0;
    else if (!as_by_rule) c.sliding = std::move(by_layer);
}

// Plain rotary embedding turns pair i by position * theta^(-2i / rotated). The schemes that stretch a context change
// that frequency:
//   linear  divides all by the factor;
//   yarn    (arXiv:2309.00071) divides those that turn less than beta_slow times over the original context, keeps those
//           that turn more than beta_fast times, mixes linearly in between, and scales sine and cosine by the attention
//           factor;
//   llama3  does the same by wavelength: longer than context / low divided, shorter than context / high kept;
//   longrope (arXiv:2402.13753) divides each by a number of its own, one list for texts up to the original context and
//           one for longer texts, and scales sine and cosine by sqrt(1 + ln(factor) / ln(original context)).
void set_frequencies(Config& c, double theta, const RopeScaling& s, const std::string& where) {
    family_room::check_rope(theta, s, where);
    constexpr double two_pi = 6.283185307179586;
    const double n = double(c.rotated);
    auto turning = [&](double turns) {
        return n * std::log(s.original_context / (turns * two_pi)) / (2 * std::log(theta));
    };
    double low = 0, high = 0;
    c.rope_magnitude = s.attention_factor > 0 ? float(s.attention_factor) : 1;
    if (s.kind == RopeScaling::Kind::yarn) {
        low = turning(s.beta_fast);
        high = turning(s.beta_slow);
        if (s.truncate) {
            low = std::floor(low);
            high = std::ceil(high);
        }
        low = std::max(low, 0.0);
        high = std::min(high, n - 1);
        if (s.attention_factor <= 0 && s.factor > 1) c.rope_magnitude = float(0.1 * std::log(s.factor) + 1);
    }
    if (s.kind == RopeScaling::Kind::longrope) {
        for (const std::vector<float>* factors : {&s.short_factors, &s.long_factors})
            if (int64_t(factors->size()) != c.rotated / 2)
                fail(Errc::format, where, ": longrope has ", factors->size(), " factors for ", c.rotated / 2,
                     " frequencies");
        if (s.attention_factor <= 0 && s.factor > 1)
            c.rope_magnitude = float(std::sqrt(1 + std::log(s.factor) / std::log(s.original_context)));
    }
    c.rope_theta = float(theta);
    c.rope_scaling = s;
    c.long_frequencies.clear();
    c.inverse_frequencies.resize(size_t(c.rotated / 2));
    for (int64_t i = 0; i < c.rotated / 2; ++i) {
        double f = std::pow(theta, -2.0 * double(i) / n);
        if (s.kind == RopeScaling::Kind::linear) {
            f /= s.factor;
        } else if (s.kind == RopeScaling::Kind::yarn) {
            const double divided = std::clamp((double(i) - low) / std::max(high - low, 0.001), 0.0, 1.0);
            f = f / s.factor * divided + f * (1 - divided);
        } else if (s.kind == RopeScaling::Kind::longrope) {
            c.long_frequencies.push_back(float(f / double(s.long_factors[size_t(i)])));
            f /= double(s.short_factors[size_t(i)]);
        } else if (s.kind == RopeScaling::Kind::llama3) {
            const double kept = std::clamp((s.original_context * f / two_pi - s.low) / (s.high - s.low), 0.0, 1.0);
            f = f / s.factor * (1 - kept) + f * kept;
        }
        c.inverse_frequencies[size_t(i)] = float(f);
    }
}

void set_sliding_frequencies(Config& c, double theta, const std::string& where) {
    Config plain = c;
    set_frequencies(plain, theta, {}, where);
    c.sliding_theta = 0;
    c.sliding_frequencies.clear();
    if (plain.inverse_frequencies == c.inverse_frequencies && c.rope_magnitude == 1) return;
    c.sliding_theta = float(theta);
    c.sliding_frequencies = std::move(plain.inverse_frequencies);
}

void check_frequencies(std::span<const float> frequencies, const std::string& where) {
    for (const float f : frequencies)
        if (!(f >= FLT_MIN && f <= 1 / family_room::least_rope_factor))
            fail(Errc::format, where, ": a rotary frequency of ", f, ", expected ", FLT_MIN, " to ",
                 1 / family_room::least_rope_factor);
}

bool gives_frequencies(const Config& c, const RopeScaling& s) {
    Config again = c;
    set_frequencies(again, double(c.rope_theta), s, "save");
    if (std::fabs(again.rope_magnitude - c.rope_magnitude) > 1e-5f) return false;
    for (size_t i = 0; i < c.inverse_frequencies.size(); ++i)
        if (std::fabs(again.inverse_frequencies[i] - c.inverse_frequencies[i]) > 2e-6f * c.inverse_frequencies[i])
            return false;
    return true;
}

}}  // namespace qlora
