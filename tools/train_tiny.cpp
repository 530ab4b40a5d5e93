// train_tiny.cpp - how models/tiny.gguf was made: a small Llama trained from nothing on the raw tensor graph, on
// public-domain text.
//
//   build/train_tiny TEXT OUT.gguf [STEPS]      TEXT: a play as "NAME:\nspeech\n\n..." (the tiny Shakespeare corpus)
//
// 1. learn a byte-level BPE vocabulary from the text; 2. turn neighbouring speeches into user / assistant dialogues in
//    ChatML;
// 3. train every weight with AdamW, all through the public Graph; 4. write a GGUF in f16 that the library loads like
//    any other model.
#include "qlora.h"
#include "src/base/half.h"
#include "src/base/rng.h"
#include "src/format/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <numbers>

namespace train_tiny {

using namespace qlora;

constexpr int64_t vocabulary = 1024, hidden = 192, layers = 4, heads = 6, kv_heads = 3, head_dim = 32,
                  feed_forward = 512;
constexpr int64_t sequence = 256, sequences = 8;       // a step sees sequences * sequence tokens
constexpr float eps = 1e-5f, theta = 10000;

// ---- vocabulary: GPT-2's byte alphabet, then merges by frequency, then the ChatML tokens
inline std::string utf8(uint32_t point) {
    if (point < 0x80) return {char(point)};
    return {char(0xc0 | point >> 6), char(0x80 | (point & 63))};
}

inline std::vector<std::string> byte_alphabet() {    // printable bytes stand for themselves, the others for 256 and up
    std::vector<std::string> symbol(256);
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
        const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        symbol[b] = utf8(printable ? b : next++);
    }
    return symbol;
}

struct Words { std::map<std::vector<std::string>, int64_t> count; };   // symbols of a word -> how often

inline Words split_words(const std::string& text, const std::vector<std::string>& symbol) {
    Words words;
    std::vector<std::string> word;
    const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    for (size_t k = 0; k < text.size(); ++k) {         // " word" or a single other character
        const bool joins = !word.empty() && letter(text[k]) &&
                           (letter(text[k - 1]) || (text[k - 1] == ' ' && word.size() == 1));
        if (!joins && !word.empty()) { ++words.count[word]; word.clear(); }
        word.push_back(symbol[uint8_t(text[k])]);
    }
    ++words.count[word];
    return words;
}

inline void learn_merges(Words words, int64_t size, std::vector<std::string>& tokens,
                         std::vector<std::string>& merges) {
    while (int64_t(tokens.size()) < size) {
        std::map<std::pair<std::string, std::string>, int64_t> pairs;
        for (const auto& [word, n] : words.count)
            for (size_t k = 0; k + 1 < word.size(); ++k) pairs[{word[k], word[k + 1]}] += n;
        if (pairs.empty()) break;
        const auto best = std::max_element(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) {
                              return a.second < b.second;
                          })->first;
        Words merged;
        for (const auto& [word, n] : words.count) {
            std::vector<std::string> w;
            for (size_t k = 0; k < word.size(); ++k) {
                if (k + 1 < word.size() && word[k] == best.first && word[k + 1] == best.second) {
                    w.push_back(best.first + best.second);
                    ++k;
                } else w.push_back(word[k]);
            }
            merged.count[w] += n;
        }
        words = std::move(merged);
        merges.push_back(best.first + " " + best.second);
        tokens.push_back(best.first + best.second);
    }
}

// ---- the model: parameters by GGUF name, and the graph of one step
struct Parameters {
    std::vector<std::pair<std::string, Shape>> shapes;
    Parameters() {
        shapes.push_back({"token_embd.weight", {vocabulary, hidden}});
        for (int64_t l = 0; l < layers; ++l) {
            const std::string b = "blk." + std::to_string(l) + ".";
            const std::pair<const char*, Shape> of_layer[] = {{"attn_norm", {hidden}},
                                                              {"attn_q", {heads * head_dim, hidden}},
                                                              {"attn_k", {kv_heads * head_dim, hidden}},
                                                              {"attn_v", {kv_heads * head_dim, hidden}},
                                                              {"attn_output", {hidden, heads * head_dim}},
                                                              {"ffn_norm", {hidden}},
                                                              {"ffn_gate", {feed_forward, hidden}},
                                                              {"ffn_up", {feed_forward, hidden}},
                                                              {"ffn_down", {hidden, feed_forward}}};
            for (const auto& [name, shape] : of_layer) shapes.push_back({b + name + ".weight", shape});
        }
        shapes.push_back({"output_norm.weight", {hidden}});
    }
};

struct Network {
    Graph graph;
    std::vector<Tensor> params;
    Tensor ids, positions, first, targets, loss;

    explicit Network(const Parameters& p) {
        const int64_t rows = sequence * sequences;
        for (const auto& [name, shape] : p.shapes) params.push_back(graph.param(shape));
        ids = graph.input({rows}, DType::i32);
        positions = graph.input({rows}, DType::i32);
        first = graph.input({rows}, DType::i32);
        targets = graph.input({rows}, DType::i32);
        size_t next = 1;
        Tensor x = embed(params[0], ids);
        for (int64_t l = 0; l < layers; ++l) {
            const Tensor* w = &params[next];
            next += 9;
            Tensor h = rms_norm(x, w[0], eps);
            const Tensor q = rope(matmul(h, w[1]), positions, heads, theta),
                         k = rope(matmul(h, w[2]), positions, kv_heads, theta);
            x = x + matmul(attention(q, k, matmul(h, w[3]), heads, kv_heads, first), w[4]);
            h = rms_norm(x, w[5], eps);
            x = x + matmul(silu(matmul(h, w[6])) * matmul(h, w[7]), w[8]);
        }
        loss = cross_entropy(matmul(rms_norm(x, params[next], eps), params[0]), targets);
        graph.backward(loss);
    }
};

inline std::vector<std::vector<float>> initial_values(const Parameters& p) {
    std::vector<std::vector<float>> values;
    Rng rng{42, 7, 0};
    for (const auto& [name, shape] : p.shapes) {
        std::vector<float> v(size_t(shape[0] * (shape.size() > 1 ? shape[1] : 1)), 1.0f);
        const bool into_residual = name.find("attn_output") != name.npos || name.find("ffn_down") != name.npos;
        const float deviation = 0.03f / (into_residual ? std::sqrt(2.0f * layers) : 1.0f);
        if (shape.size() > 1) for (float& f : v) f = deviation * rng.normal();
        values.push_back(std::move(v));
    }
    return values;
}

// ---- the file
// Llama files hold q and k for rotation of neighbours (2i, 2i+1); the graph rotates halves: row 2i + j of a head is its
// row j * d/2 + i.
inline std::vector<float> interleave_heads(const std::vector<float>& w) {
    std::vector<float> out(w.size());
    const int64_t rows = int64_t(w.size()) / hidden;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t head = r / head_dim, i = (r % head_dim) / 2, j = r % 2,
                      from = head * head_dim + j * head_dim / 2 + i;
        std::copy_n(&w[size_t(from * hidden)], hidden, &out[size_t(r * hidden)]);
    }
    return out;
}

inline void write_model(const std::string& path, const Parameters& p, const std::vector<std::vector<float>>& values,
                        const std::vector<std::string>& tokens, const std::vector<std::string>& merges) {
    using T = GgufWriter::Type;
    GgufWriter file;
    file.set("general.architecture", T::string, "llama");
    file.set("general.name", T::string, "qlora tiny");
    const std::pair<const char*, int64_t> sizes[] = {{"vocab_size", vocabulary},
                                                     {"context_length", 1024},
                                                     {"embedding_length", hidden},
                                                     {"block_count", layers},
                                                     {"feed_forward_length", feed_forward},
                                                     {"attention.head_count", heads},
                                                     {"attention.head_count_kv", kv_heads},
                                                     {"rope.dimension_count", head_dim}};
    for (const auto& [key, value] : sizes) file.set(std::string("llama.") + key, T::u32, value);
    file.set("llama.attention.layer_norm_rms_epsilon", T::f32, double(eps));
    file.set("llama.rope.freq_base", T::f32, double(theta));
    file.set("general.file_type", T::u32, 1);
    file.set("tokenizer.ggml.model", T::string, "gpt2");
    file.set("tokenizer.ggml.pre", T::string, "gpt-2");
    Json::Array names, types, pairs;
    for (const std::string& t : tokens) {
        names.push_back(t);
        types.push_back(t.starts_with("<|") && t.size() > 4 ? 3 : 1);
    }
    for (const std::string& m : merges) pairs.push_back(m);
    file.set_array("tokenizer.ggml.tokens", T::string, std::move(names));
    file.set_array("tokenizer.ggml.token_type", T::i32, std::move(types));
    file.set_array("tokenizer.ggml.merges", T::string, std::move(pairs));
    const int64_t end = vocabulary - 1;
    file.set("tokenizer.ggml.bos_token_id", T::u32, end - 1);
    file.set("tokenizer.ggml.eos_token_id", T::u32, end);
    file.set("tokenizer.ggml.add_bos_token", T::boolean, false);
    file.set("tokenizer.chat_template", T::string,
             "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% "
             "generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
             "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt "
             "%}{{ '<|im_start|>assistant\n' }}{% endif %}");
    for (size_t k = 0; k < values.size(); ++k) {
        const auto& [name, shape] = p.shapes[k];
        const bool rotated = name.find("attn_q.") != name.npos || name.find("attn_k.") != name.npos,
                   half = shape.size() > 1;
        const std::vector<float> v = rotated ? interleave_heads(values[k]) : values[k];
        file.add({name, half ? 1 : 0, shape, int64_t(v.size()) * (half ? 2 : 4), [v, half](AtomicFile& out) {
            if (!half) return out.write(v.data(), int64_t(v.size()) * 4);
            std::vector<uint16_t> bits(v.size());
            std::transform(v.begin(), v.end(), bits.begin(), f16_from_f32);
            out.write(bits.data(), int64_t(bits.size()) * 2);
        }});
    }
    file.write(path);
}

// ---- the data: each speech answers the one before
inline Tokens dialogues(const std::string& text, const Tokenizer& tokenizer) {
    std::vector<std::string> speeches;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find("\n\n", at), text.size());
        const size_t colon = text.find(":\n", at);
        if (colon < end) speeches.push_back(text.substr(colon + 2, std::min<size_t>(end - colon - 2, 400)));
        at = end + 2;
    }
    Tokens all;
    for (size_t k = 0; k + 1 < speeches.size(); ++k) {
        const Message chat[] = {{"user", speeches[k]}, {"assistant", speeches[k + 1]}};
        const Rendered r = tokenizer.render(chat);
        all.insert(all.end(), r.tokens.begin(), r.tokens.end());
    }
    return all;
}

inline void train(const std::string& text_path, const std::string& out, int64_t steps) {
    const std::string text = read_file(text_path);
    std::vector<std::string> tokens = byte_alphabet(), merges;
    const std::vector<std::string> alphabet = tokens;
    learn_merges(split_words(text, alphabet), vocabulary - 2, tokens, merges);
    tokens.push_back("<|im_start|>");
    tokens.push_back("<|im_end|>");
    const Parameters p;
    std::vector<std::vector<float>> values = initial_values(p);
    write_model(out, p, values, tokens, merges);       // untrained: to load its tokenizer
    const Tokens data = dialogues(text, Tokenizer::load(out));
    std::printf("%zu tokens\n", data.size());

    Network net(p);
    for (size_t k = 0; k < values.size(); ++k) net.graph.write(net.params[k], values[k]);
    const int64_t rows = sequence * sequences;
    std::vector<int32_t> ids(static_cast<size_t>(rows)), positions(ids), first(ids), targets(ids);
    Rng rng{1, 2, 0};
    double mean = 0;
    for (int64_t step = 0; step < steps; ++step) {
        for (int64_t s = 0; s < sequences; ++s) {
            const int64_t start = int64_t(rng.below(data.size() - sequence - 1));
            for (int64_t t = 0; t < sequence; ++t) {
                const size_t r = size_t(s * sequence + t);
                ids[r] = data[size_t(start + t)];
                targets[r] = data[size_t(start + t + 1)];
                positions[r] = int32_t(t);
                first[r] = int32_t(s * sequence);
            }
        }
        net.graph.write(net.ids, ids);
        net.graph.write(net.positions, positions);
        net.graph.write(net.first, first);
        net.graph.write(net.targets, targets);
        net.graph.run();
        const double done = double(step) / double(steps), warm = std::min(1.0, double(step + 1) / 50);
        const double rate = warm * (3e-4 + 0.5 * (3e-3 - 3e-4) * (1 + std::cos(done * std::numbers::pi)));
        net.graph.step(float(rate), {.beta2 = 0.95f, .weight_decay = 0.1f, .max_grad_norm = 1});
        mean += double(net.graph.read(net.loss)[0]);
        if ((step + 1) % 50 == 0) {
            std::printf("step %lld loss %.4f\n", static_cast<long long>(step + 1), mean / 50);
            std::fflush(stdout);
            mean = 0;
        }
    }
    for (size_t k = 0; k < values.size(); ++k) values[k] = net.graph.read(net.params[k]);
    write_model(out, p, values, tokens, merges);
}

}  // namespace train_tiny

int main(int argc, char** argv) {
    if (argc < 3) { std::fprintf(stderr, "usage: train_tiny TEXT OUT.gguf [STEPS]\n"); return 2; }
    try {
        train_tiny::train(argv[1], argv[2], argc > 3 ? std::atoll(argv[3]) : 1500);
    } catch (const qlora::Error& e) {
        std::fprintf(stderr, "train_tiny: %s\n", e.what());
        return 1;
    }
}
