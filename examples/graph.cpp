// graph.cpp - the floor below the models: a character-level language model built on the raw tensor graph and trained
// from nothing.
//
//   ./graph --text FILE                        trains on FILE and writes a sample of its own
//
// A Llama in sixty lines: what it reads are bytes, and its parameters are dense and all trained. (tools/train_tiny.cpp
// makes models/tiny.gguf the same way.)
#include "examples/common/flags.h"
#include "examples/common/interrupt.h"
#include "examples/common/load.h"
#include "examples/common/terminal.h"

#include <cmath>
#include <cstdio>
#include <random>

using namespace program;
using qlora::Graph;
using qlora::Tensor;

struct LlamaShape {
    int64_t layers = 3, hidden = 96, heads = 6, kv_heads = 3, feed_forward = 256, vocabulary = 256;
};

struct Settings {
    std::string text;
    LlamaShape shape;
    int64_t steps = 200, batch = 8, length = 128, sample = 240, threads = 0;
    bool force_threads = false;
    float learning_rate = 2e-3f;
    uint64_t seed = 1;
};

struct Weight { std::string name; Tensor tensor; };

// One network: its inputs, its parameters in a fixed order, its logits. Built for training (with targets) or for
// sampling (without).
struct Network {
    Graph graph;
    Tensor tokens, positions, first_key, targets, logits, loss;
    std::vector<Weight> weights;

    Network(const Settings& s, int64_t rows, bool training) : graph(qlora::Backend::cpu(int(s.threads))) {
        const LlamaShape& m = s.shape;
        const int64_t kv = m.hidden / m.heads * m.kv_heads;
        const auto param = [&](const std::string& name, qlora::Shape shape) {
            weights.push_back({name, graph.param(std::move(shape))});
            return weights.back().tensor;
        };
        tokens = graph.input({rows}, qlora::DType::i32);
        positions = graph.input({rows}, qlora::DType::i32);
        first_key = graph.input({rows}, qlora::DType::i32);
        const Tensor table = param("token_embd.weight", {m.vocabulary, m.hidden});
        Tensor x = embed(table, tokens);               // {rows, hidden}
        for (int64_t layer = 0; layer < m.layers; ++layer) {
            const std::string block = "blk." + std::to_string(layer) + '.';
            Tensor h = rms_norm(x, param(block + "attn_norm.weight", {m.hidden}));
            const Tensor q = rope(matmul(h, param(block + "attn_q.weight", {m.hidden, m.hidden})), positions, m.heads);
            const Tensor k = rope(matmul(h, param(block + "attn_k.weight", {kv, m.hidden})), positions, m.kv_heads);
            const Tensor v = matmul(h, param(block + "attn_v.weight", {kv, m.hidden}));
            x = x + matmul(attention(q, k, v, m.heads, m.kv_heads, first_key),
                           param(block + "attn_output.weight", {m.hidden, m.hidden}));
            h = rms_norm(x, param(block + "ffn_norm.weight", {m.hidden}));
            const Tensor gate = silu(matmul(h, param(block + "ffn_gate.weight", {m.feed_forward, m.hidden})));
            const Tensor up = matmul(h, param(block + "ffn_up.weight", {m.feed_forward, m.hidden}));
            x = x + matmul(gate * up, param(block + "ffn_down.weight", {m.hidden, m.feed_forward}));
        }
        logits = matmul(rms_norm(x, param("output_norm.weight", {m.hidden})), table);      // the head is the embedding
        if (!training) return;
        targets = graph.input({rows}, qlora::DType::i32);
        loss = cross_entropy(logits, targets);
        graph.backward(loss);
    }
};

// Norms start at one; matrices are normal, small enough that the sum over a row is of order one; the two that write to
// the residual stream smaller still.
static void initialise(Network& net, const Settings& s) {
    std::mt19937_64 random(s.seed);
    std::normal_distribution<float> normal;
    for (const Weight& w : net.weights) {
        const qlora::Shape shape = w.tensor.shape();
        int64_t count = 1;
        for (const int64_t n : shape) count *= n;
        std::vector<float> values(size_t(count), 1.0f);
        if (shape.size() == 2) {
            const bool residual = w.name.find("attn_output") != std::string::npos ||
                                  w.name.find("ffn_down") != std::string::npos;
            float deviation = w.name == "token_embd.weight" ? 0.05f : 1 / std::sqrt(float(shape[1]));
            if (residual) deviation /= std::sqrt(2.0f * float(s.shape.layers));
            for (float& v : values) v = deviation * normal(random);
        }
        net.graph.write(w.tensor, values);
    }
}

static void train(Network& net, const Settings& s, const std::vector<int32_t>& ids) {
    std::mt19937_64 random(s.seed + 1);
    const int64_t rows = s.batch * s.length;
    std::vector<int32_t> tokens(static_cast<size_t>(rows)), targets(tokens), positions(tokens), first_key(tokens);
    for (int64_t r = 0; r < rows; ++r)
        positions[size_t(r)] = int32_t(r % s.length), first_key[size_t(r)] = int32_t(r - r % s.length);
    net.graph.write(net.positions, positions);
    net.graph.write(net.first_key, first_key);
    const qlora::AdamW options{.beta2 = 0.98f, .weight_decay = 0.02f, .max_grad_norm = 1};
    Progress progress(1);
    double trend = 0;
    for (int64_t step = 1; step <= s.steps && !interrupted(); ++step) {
        for (int64_t b = 0; b < s.batch; ++b) {
            const size_t from = std::uniform_int_distribution<size_t>(0, ids.size() - size_t(s.length) - 1)(random);
            for (int64_t t = 0; t < s.length; ++t) {
                tokens[size_t(b * s.length + t)] = ids[from + size_t(t)];
                targets[size_t(b * s.length + t)] = ids[from + size_t(t) + 1];
            }
        }
        net.graph.write(net.tokens, tokens);
        net.graph.write(net.targets, targets);
        net.graph.run();
        const double loss = double(net.graph.read(net.loss)[0]);
        const double warm = std::min(1.0, double(step) / 40),
                     cool = 0.5 + 0.5 * std::cos(3.14159265 * double(step) / double(s.steps));
        net.graph.step(s.learning_rate * float(warm * (0.05 + 0.95 * cool)), options);
        trend = step == 1 ? loss : 0.95 * trend + 0.05 * loss;
        char line[96];
        std::snprintf(line, sizeof line, "step %lld/%lld  loss %.3f  trend %.3f nats a character",
                      static_cast<long long>(step), static_cast<long long>(s.steps), loss, trend);
        if (progress.live() || step % 20 == 0 || step == 1 || step == s.steps) progress.update(line);
    }
    progress.finish();
}

// Draws characters one by one. The graph has a fixed number of rows, so each step reads the last `length` characters
// anew; the rest is padding behind them, which causal attention does not look at.
static void sample(Network& trained, const Settings& s, const std::vector<int32_t>& text) {
    Network net(s, s.length, false);
    for (size_t i = 0; i < net.weights.size(); ++i)
        net.graph.write(net.weights[i].tensor, trained.graph.read(trained.weights[i].tensor));
    // 8: it goes on from the text's own beginning
    std::vector<int32_t> positions(size_t(s.length)), first_key(size_t(s.length), 0),
        ids(text.begin(), text.begin() + 8);
    for (size_t i = 0; i < positions.size(); ++i) positions[i] = int32_t(i);
    net.graph.write(net.positions, positions);
    net.graph.write(net.first_key, first_key);
    std::mt19937_64 random(s.seed + 2);
    for (int64_t n = 0; n < s.sample && !interrupted(); ++n) {
        const size_t seen = std::min(ids.size(), size_t(s.length));
        std::vector<int32_t> window(ids.end() - int64_t(seen), ids.end());
        window.resize(size_t(s.length), 0);
        net.graph.write(net.tokens, window);
        net.graph.run();
        const std::vector<float> logits = net.graph.read(net.logits);
        const float* row = logits.data() + (seen - 1) * size_t(s.shape.vocabulary);
        std::vector<double> weight;
        for (int64_t i = 0; i < s.shape.vocabulary; ++i) weight.push_back(std::exp(double(row[i]) / 0.7));
        ids.push_back(std::discrete_distribution<int32_t>(weight.begin(), weight.end())(random));
        std::fputc(ids.back(), stdout);
        std::fflush(stdout);
    }
    std::printf("\n");
}

static int body(int argc, char** argv) {
    Settings s;
    Flags flags("graph", "--text FILE [options]",
                "Trains a small character-level language model from nothing, on the raw tensor graph.");
    flags.add("-f --text --data --file", s.text, "FILE", "text to learn").required();
    flags.add("--steps --iters", s.steps, 0, 1 << 30, "optimizer steps");
    flags.add("--batch-size", s.batch, 1, 4096, "pieces of text a step");
    flags.add("--length", s.length, 8, 8192, "characters a piece");
    flags.add("--layers", s.shape.layers, 1, 128, "layers");
    flags.add("--hidden", s.shape.hidden, 16, 8192, "width; a multiple of 2 * --heads");
    flags.add("--heads", s.shape.heads, 1, 128, "attention heads");
    flags.add("--kv-heads", s.shape.kv_heads, 1, 128, "key and value heads; divides --heads");
    flags.add("--feed-forward", s.shape.feed_forward, 16, 32768, "width of the feed-forward part");
    flags.add("--learning-rate --lr", s.learning_rate, 0, 10, "peak learning rate");
    flags.add("--sample", s.sample, 0, 1 << 20, "characters to write at the end");
    flags.add("--seed", s.seed, "seed of the start and of the order");
    declare_threads(flags, s.threads, s.force_threads);
    flags.parse(argc, argv);
    if (s.shape.hidden % (2 * s.shape.heads) != 0) throw UsageError("--hidden must be a multiple of 2 * --heads");
    if (s.shape.heads % s.shape.kv_heads != 0) throw UsageError("--kv-heads must divide --heads");
    catch_interrupts();
    s.threads = chosen_threads(s.threads, s.force_threads);
    std::vector<int32_t> ids;
    for (const char c : qlora::read_file(s.text)) ids.push_back(static_cast<unsigned char>(c));
    if (int64_t(ids.size()) < s.length + 2)
        throw qlora::Error(qlora::Errc::format, s.text + " has " + std::to_string(ids.size()) +
                                                    " characters; --length " + std::to_string(s.length) +
                                                    " needs more");

    Network net(s, s.batch * s.length, true);
    initialise(net, s);
    int64_t parameters = 0;
    for (const Weight& w : net.weights) {
        int64_t count = 1;
        for (const int64_t n : w.tensor.shape()) count *= n;
        parameters += count;
    }
    std::printf("%s characters, %s parameters, %s a step\n", human_count(double(ids.size())).c_str(),
                human_count(double(parameters)).c_str(), human_bytes(net.graph.planned_bytes()).c_str());
    train(net, s, ids);
    if (s.sample > 0) sample(net, s, ids);
    return interrupted() ? 128 + interrupted() : 0;
}

int main(int argc, char** argv) {
    return run("graph", [&] { return body(argc, argv); });
}
