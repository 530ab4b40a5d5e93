// qlora.h - run 4-bit language models and fine-tune them, anywhere a C++20 compiler runs.
//
//   auto model   = qlora::Model::load("model.gguf", {.quantize = qlora::DType::nf4});
//   auto lora    = qlora::Lora::create(model, {.rank = 16});
//   auto trainer = qlora::Trainer(lora, qlora::Dataset::load("chats.jsonl", model), {.epochs = 3});
//   while (trainer.step()) std::cout << trainer.last().loss << '\n';
//   qlora::Session(lora).chat("Hello!", {}, [](std::string_view s) { std::cout << s; return true; });
//
// Three ways in:
//   1. a checkout: include "qlora.h" and add qlora.cpp to your sources (plus qlora-cuda.cu and -DQLORA_CUDA for NVIDIA
//      GPUs);
//   2. one file: `make dist` writes build/dist/qlora.h; in exactly one source file write
//          #define QLORA_IMPLEMENTATION
//          #include "qlora.h"
//   3. CMake: add_subdirectory or find_package(qlora), then link qlora::qlora.
// Nothing else is needed at run time; on Linux link with -pthread. For Windows: mingw-w64 with POSIX threads (g++ 12),
// -D_FILE_OFFSET_BITS=64 -static -Wa,-muse-unaligned-vector-move, CPU only; paths are UTF-8.
//
// Rules that hold everywhere in this file:
//   * Every failure throws Error; its text names the operation, the values and the remedy. The library never prints,
//     aborts or exits.
//   * Cancelling: a callback returns false. A reply keeps its text and ends with Finish::cancelled; everything else
//     throws Error{cancelled} and leaves things as they were before the call.
//   * Handles (Backend, Tokenizer, Model, Lora, Dataset) are cheap to copy, compare as the same one, and keep alive
//     what they depend on. What was moved from may be assigned to and destroyed; all else is an Error{argument}.
//   * Threads: handles may be used by any of them, at the same time. What works (Trainer, Session, Batch, Graph) serves
//     one call at a time; a second one, from another thread or from a callback of the first, is an Error{argument}. A
//     callback runs on the thread of the call that it was given to, and may destroy the object that runs it.
//   * Sizes are 64-bit. Same seed, same bytes, on any number of threads.
//   * Nothing lossy happens unasked: a model keeps its stored precision until you say otherwise.
//
// In this order: errors, files, where work runs, text, models, adapters, training data, training, replies (Session,
// Batch), measuring, tensors and graphs, and what programs need beside models (files, stopping, JSON).
#ifndef QLORA_H
#define QLORA_H

#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error "qlora.h needs C++20: compile with -std=c++20 (g++ 12, clang++ 14 or newer)"
#endif

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#define QLORA_VERSION 100                              // major * 10000 + minor * 100 + patch
#define QLORA_VERSION_STRING "0.1.0"
// In the name of every symbol: parts of two versions in one program fail to link instead of misbehaving.
#define QLORA_ABI v0_2
// Seen from outside of a shared library that is compiled with -fvisibility=hidden, or not: -DQLORA_PUBLIC= keeps it in.
#if !defined(QLORA_PUBLIC) && defined(__GNUC__) && !defined(_WIN32)
#define QLORA_PUBLIC [[gnu::visibility("default")]]
#elif !defined(QLORA_PUBLIC)
#define QLORA_PUBLIC
#endif

namespace qlora { inline namespace QLORA_PUBLIC QLORA_ABI {

// ---- Errors: one type. `code` is for programs; what() is for people.
enum class Errc { io, format, unsupported, shape, argument, memory, device, numeric, cancelled };
struct Error : std::runtime_error {
    Errc code;
    Error(Errc c, const std::string& what) : std::runtime_error(what), code(c) {}
};

// ---- Types of stored numbers. The first four are dense; the others are blocks (see src/tensor/dtype.h for their
// layouts). nf4 and fp4 are the 4-bit types of QLoRA (arXiv:2305.14314) as bitsandbytes defines them (src/tensor/nf4.h:
// how exactly); the rest are GGUF's, but for f8_e4m3, which is read from folders (src/tensor/float8.h, as nvfp4).
enum class DType : uint8_t {
    f32, f16, bf16, i32, nf4, fp4,
    q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4,
    u8,    // codes of an 8-bit optimizer: no type of weights
    nvfp4, f8_e4m3
};
[[nodiscard]] std::string_view name_of(DType);         // "nf4", "q4_k", ...
using Shape  = std::vector<int64_t>;                   // row-major, last dimension contiguous; a weight is {out, in}
using Token  = int32_t;
using Tokens = std::vector<Token>;

// ---- Model files are mapped: their weights are read while they are used. Overwriting such a file in place is an
// Error{io} of the call that meets it (load, step, chat, save, ...), and nothing that was computed meanwhile is kept. A
// file that was cut raises SIGBUS before that, which ends a process - unless this was called once, at the start: then
// it is an Error{io} as well. The handler passes on every SIGBUS that is not about a file of ours to the one that was
// there before; a program that installs its own one later must do the same.
void guard_mapped_files();

// ---- What is loaded: a path, or bytes that are in memory already, for programs that carry their model in themselves.
using Files = std::map<std::string, std::string>;      // a folder in memory: names, and what is in each file
class Source {
public:
    // a path: std::string, const char* or std::filesystem::path
    template <class Path> requires std::convertible_to<const Path&, std::string>
    Source(const Path& path) : name_(path) {}
    // One file: a GGUF file, a tokenizer.json or a tokenizer.model. Weights are read where they are (copied only where
    // the file does not begin at a multiple of 64 bytes), so the bytes must stay until all that was loaded from them is
    // gone; owner, if given, keeps them.
    // name: what messages and records call it.
    [[nodiscard]] static Source memory(std::span<const std::byte> file, std::string name = "memory",
                                       std::shared_ptr<const void> owner = {});
    [[nodiscard]] static Source folder(Files files, std::string name = "memory");
    [[nodiscard]] const std::string& name() const { return name_; }
private:
    friend struct Access;                              // the library's own way in, here and below
    std::string name_;
    std::shared_ptr<const struct MemoryFiles> memory_;    // null: a path
};

// ---- Where work runs: processors, and how much of their memory.

// What products may round for speed; all sums are f32.
//   f32    nothing.
//   mixed  the input of products with at most 4 rows, which generation is made of, to 16-bit integers with a scale for
//          32 to 256 of them, where the weights are in few bits (with AVX2; a tenth of what bf16 rounds), an adapter's
//          factors to f16 there (unless f16 loses too much of one, or somebody trains it), and both factors of
//          gradients to bf16 where that is faster (with AMX, or with AVX512-BF16 but not Intel's; moves the loss of a
//          step by 0.2 %). With AMX those of all other products to 16 bits, two numbers of bf16.
//   bf16   both factors of gradients and all other products to bf16 as well (with AMX or AVX512-BF16; up to 1.4 %).
// What the CPU has no instructions for stays f32.
enum class Compute { f32, bf16, mixed };
[[nodiscard]] std::string_view name_of(Compute);
struct Work {    // done by a backend so far; what lies between two readings is their difference
    int64_t operations = 0;    // of products and attention, in floating point; a multiply-add is two
    int64_t bytes = 0;                                 // of weights, keys and values read for them, once a product
};
class Backend {
public:
    [[nodiscard]] static Backend best();               // cuda(0) if built in and present, else cpu()
    // threads 0 = every core that this process (its container) may use, 256 at most. instructions: "scalar", "avx2",
    // "avx512", "avx512_bf16" or "amx", which this machine must have; empty = its best. The best may be AMX, for which
    // Linux asks more of stacks for signals from then on (sigaltstack: some 12 KB instead of 4).
    [[nodiscard]] static Backend cpu(int threads = 0, Compute = Compute::f32, std::string_view instructions = {});
    // An NVIDIA device: bf16 for activations and products (mixed is the same), or f32 for everything, which is slower.
    // Throws Error{device} if there is none or the program was built without -DQLORA_CUDA.
    [[nodiscard]] static Backend cuda(int device = 0, Compute = Compute::bf16);
    // One that is not there, in any build: Model::outline on it has the plans of a device of compute capability 8.0 or
    // later (9.0 has its own, 2 % smaller at most). Whatever else is asked of this one is Error{device}.
    [[nodiscard]] static Backend planned_cuda(Compute = Compute::bf16);
    [[nodiscard]] std::string name() const;            // "cpu, 2 threads, avx512"
    // what it can do of what was asked for: mixed or f32 where there is no bf16
    [[nodiscard]] Compute compute() const;
    [[nodiscard]] Compute gradients() const;           // what it makes gradients of: f32 or bf16
    [[nodiscard]] size_t memory_free() const;          // bytes that may still be asked for, within the limit if any
    // Bytes of everything on this backend, whoever uses it: activations, keys and values, adapters, gradients, states
    // of optimizers, and weights that are in no file (quantized ones; those of a mapped file do not count).
    [[nodiscard]] size_t memory_used() const;
    // No more of them than so many: what would need more is an Error{memory} and changes nothing. 0 = no limit.
    // Backend::best() and cpu() without arguments are one shared backend: what limits that limits all of its users.
    void limit_memory(int64_t bytes);
    // Counted as it is done: recomputation counts, work that was saved does not.
    [[nodiscard]] Work work() const;
    bool operator==(const Backend&) const = default;   // the same one, not one with equal contents
private:
    friend struct Access;
    explicit Backend(std::shared_ptr<struct BackendImpl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<struct BackendImpl> impl_;
};

// ---- Text. A tokenizer is part of every model; it can be loaded alone, also from a file that holds only a vocabulary.
// It never changes: any thread.
struct Message {
    std::string role, content;                         // role: "system", "user", "assistant" or "tool"
    // Further keys of the message for the chat template, a JSON object: {"name": "weather", "tool_call_id": "1"},
    // {"tool_calls": [...]}, {"reasoning_content": "..."}.
    std::string more = {};
};
struct RenderOptions {
    bool reply_next = false;                           // the assistant's turn is opened, and nothing is marked
    // How that turn begins: text that is put behind the opening, for the model to go on from.
    std::string prefill = {};
    std::string tools = {};                            // a JSON array of tool descriptions, as OpenAI has them
    std::string variables = {};    // a JSON object of what else the template reads: {"enable_thinking": false}
    std::string chat_template = {};                    // Jinja text, instead of the model's own
};
struct Rendered {                                      // a dialogue as the model's own chat template prints it
    std::string text;
    Tokens tokens;
    std::vector<uint8_t> trained;    // per token: 1 where the assistant speaks (the loss mask of fine-tuning)
};
class Tokenizer {
public:
    // a GGUF file, a Hugging Face folder, a tokenizer.json, or a tokenizer.model of SentencePiece or tiktoken
    [[nodiscard]] static Tokenizer load(const Source&);
    // control = false: text only, never yields a control token, whoever wrote the text. control = true: "<|im_end|>"
    // written in the text is that token, as in files that were made for the model. add_bos puts the start of text in
    // front, unless the text brings it.
    [[nodiscard]] Tokens encode(std::string_view text, bool add_bos = false, bool control = false) const;
    // control tokens print nothing, or with control their text
    [[nodiscard]] std::string decode(std::span<const Token> tokens, bool control = false) const;
    // The bytes of one token inside of a text, not always whole characters. decode() of a token alone may lack a space.
    [[nodiscard]] std::string piece(Token, bool control = false) const;
    [[nodiscard]] bool is_control(Token) const;
    // The whole dialogue with its loss mask, or the prompt of its next reply.
    [[nodiscard]] Rendered render(std::span<const Message> chat, const RenderOptions&) const;
    [[nodiscard]] Rendered render(std::span<const Message> chat, bool reply_next = false) const;
    [[nodiscard]] bool has_chat_template() const;
    // Does the template print system messages? Where it does not, each is put before the user message that follows it.
    [[nodiscard]] bool has_system_role() const;
    [[nodiscard]] bool ends_reply(Token) const;        // end of text, end of turn
    [[nodiscard]] int64_t size() const;                // number of ids
    [[nodiscard]] Token bos() const, eos() const;      // -1 = none
    // what the file leaves out and what was taken instead: a line each, for people
    [[nodiscard]] std::vector<std::string> notes() const;
    bool operator==(const Tokenizer&) const = default; // the same one, not one with equal contents
private:
    friend struct Access;
    explicit Tokenizer(std::shared_ptr<const struct TokenizerImpl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<const struct TokenizerImpl> impl_;
};

// ---- Models. Immutable once loaded: copies share the weights, and any thread may read them.
struct LoadOptions {
    Backend backend = Backend::best();
    std::optional<DType> quantize = {};                // nothing = as stored; nf4 or fp4 = QLoRA, one tensor at a time
    bool double_quant = true;                          // of the nf4/fp4 scales: 4.127 instead of 4.5 bits a weight
    // The head in fewer bits too (Model::with_head); nothing = as stored, as QLoRA has it.
    std::optional<DType> head = {};
    std::function<bool(float fraction)> on_progress = {};    // return false to cancel
};
struct ModelInfo {
    std::string path, family;                          // family: "llama", "qwen2", ...
    int64_t parameters = 0, bytes = 0;                 // bytes: of the weights as they are held
    int64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, feed_forward = 0, vocabulary = 0, context = 0;
    std::string weights;    // "nf4, double-quantized" or "q4_1": the type of the linear layers
    std::string head;                                  // the type of the head
    std::vector<std::string> notes;                    // the tokenizer's, and what else loading had to assume
};
struct Format {                                        // a type for the weights of a model; a DType alone will do
    DType type;                                        // f32, f16, bf16, q8_0, q4_0, iq4_nl, nf4 or fp4
    bool double_quant;                                 // nf4 and fp4: of the scales
    Format(DType t, bool twice = true) : type(t), double_quant(twice) {}
};
struct SaveOptions {
    // Nothing: as the model is held. Otherwise it is converted while it is written, a tensor at a time: for models that
    // are too large to be in memory twice.
    std::optional<Format> as = {};
    bool merged = false;    // of an adapter: a model with the adapter inside (`as` f32, if it says nothing)
    bool mlx = false;                                  // of an adapter alone: the folder that mlx-lm reads
    std::function<bool(float fraction)> on_progress = {};    // of converting; return false to cancel
    int64_t shard_bytes = 5'000'000'000;               // of a Hugging Face folder: the most that one file holds
};
class Model {
public:
    [[nodiscard]] static Model load(const Source&, const LoadOptions& = {});    // a GGUF file or a Hugging Face folder
    // For plans of memory: no weight is read or held, and what would compute or save is refused.
    [[nodiscard]] static Model outline(const Source&, const LoadOptions& = {});
    // PATH.gguf, or a Hugging Face folder (4-bit in the bitsandbytes layout)
    void save(const std::string& path, const SaveOptions& = {}) const;
    [[nodiscard]] Model convert(Format) const;         // another model, this one stays
    // Another model, with the head in q8_0, q4_0 or iq4_nl unless it has no more bits already: it is the largest
    // matrix. Where the embedding is the head, both are the one matrix that is held so.
    [[nodiscard]] Model with_head(DType) const;
    [[nodiscard]] ModelInfo info() const;
    [[nodiscard]] Tokenizer tokenizer() const;
    [[nodiscard]] Backend backend() const;
    // What the model's makers recommend (generation_config.json; general.sampling.* of a GGUF file); what they do not
    // say is as Sampling has it.
    [[nodiscard]] struct Sampling sampling() const;
    // Scores of the next token at every position: [tokens, vocabulary], row-major. For tests and small inputs. More
    // tokens than info().context, here and wherever a text is read (training, measuring, sessions), are
    // Error{argument}: scores there would be wrong.
    [[nodiscard]] std::vector<float> logits(std::span<const Token> tokens) const;
    bool operator==(const Model&) const = default;     // the same one, not one with equal contents
private:
    friend struct Access;
    explicit Model(std::shared_ptr<const struct ModelImpl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<const struct ModelImpl> impl_;
};

// ---- Adapters (arXiv:2106.09685): y = W x + scale * B A x. A Lora keeps its Model alive; copies share the factors.
// Any thread, while it is trained too: who saves, merges, measures or replies has them as they are between two steps.

// What the factors start from. standard: A uniform (as PEFT), B = 0, so that the adapter starts as the base model.
// loftq: B A makes up for what quantizing the base lost. pissa: B A takes over the largest directions of the weights,
// and base() becomes a model without them. Both read the weights as the model's file held them. A pissa adapter is
// saved as a plain one of twice the rank for the original model, which every program loads; loaded here, onto the model
// it was created on, it finds its base and its rank again.
enum class LoraInit { standard, loftq, pissa };
struct LoraOptions {
    int64_t rank = 64;
    float alpha = 16, dropout = 0;                     // scale = alpha / rank (alpha / sqrt(rank) with rank_stabilized)
    std::string modules = "all";    // "all" (every linear layer but the head), "attention", or a list: "q_proj,v_proj"
    bool rank_stabilized = false;
    // DoRA, arXiv:2402.09353: y = m (W x + scale * B A x) / |W + scale * B A|, row by row, m trained too
    bool dora = false;
    uint64_t seed = 0;
    LoraInit init = LoraInit::standard;
    // Finer choices, as PEFT has them. A name is a layer's or its end: "down_proj", "layers.3.mlp.down_proj".
    std::vector<int64_t> layers = {};                  // only these layers of the model get adapters; empty = all
    std::vector<std::string> exclude = {};             // names that get none
    std::string exclude_pattern = {};                  // a regular expression (Python's): whole names that fit get none
    // Names with a rank of their own, which may be regular expressions for the end of a name behind a dot; the first
    // that fits counts.
    std::vector<std::pair<std::string, int64_t>> rank_pattern = {};
    std::vector<std::pair<std::string, float>> alpha_pattern = {};     // the same for alpha
};
// What an adapter was trained on. Every save writes it down, with a fingerprint of all weights: base.json in a folder,
// a key of a GGUF file.
struct AdapterBase {
    std::string model, weights;                        // its path, and ModelInfo::weights
    std::optional<DType> quantize = {};                // what LoadOptions need to hold that model in the same form
    bool double_quant = true;
    std::optional<DType> head = {};
};
// recorded: the base is brought into the 4-bit form that the record names (base() is then a model of its own), and must
// be the recorded one; as_held: another form of the recorded model will do; any: nothing is compared. An adapter
// without a record is not compared.
enum class OnBase { recorded, as_held, any };
class Lora {
public:
    [[nodiscard]] static Lora create(Model base, const LoraOptions& = {});
    // A folder of PEFT's or mlx-lm's, or a GGUF adapter. Every tensor must bind, none may be missing; another base than
    // the recorded one is an Error{argument}.
    [[nodiscard]] static Lora load(Model base, const Source&, OnBase = OnBase::recorded);
    // nothing: the adapter has no record
    [[nodiscard]] static std::optional<AdapterBase> recorded_base(const Source&);
    // The adapter: a PEFT folder, PATH.gguf for llama.cpp, or as SaveOptions says; NaN or infinity in it is an
    // Error{numeric}. With SaveOptions::merged the model that merge() would give.
    void save(const std::string& path, const SaveOptions& = {}) const;
    [[nodiscard]] Files files() const;                 // of the PEFT folder, in memory: for Source::folder
    // A model of its own: W + scale * B A in every adapted layer, added to the base as it is held (so of an nf4 base:
    // to what the adapter was trained on), in f32, then held in that format (as Model::convert does).
    [[nodiscard]] Model merge(Format = DType::f32) const;
    [[nodiscard]] Model base() const;
    [[nodiscard]] int64_t parameters() const;
    [[nodiscard]] uint64_t fingerprint() const;        // of the factors' bytes: tells whether training changed anything
    [[nodiscard]] LoraOptions options() const;
    // of the factors as they are now, on the same base: to keep the best of a run
    [[nodiscard]] Lora copy() const;
    // One adapter that adds scales[i] times what each of them adds, of the sum of their ranks. All must be on one base;
    // none may be dora or pissa.
    [[nodiscard]] static Lora sum(std::span<const Lora> loras, std::span<const float> scales);
    // as Model::logits, with the adapter
    [[nodiscard]] std::vector<float> logits(std::span<const Token> tokens) const;
    bool operator==(const Lora&) const = default;      // the same one, not one with equal contents
private:
    friend struct Access;
    explicit Lora(std::shared_ptr<struct LoraImpl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<struct LoraImpl> impl_;
};

// A model, or a model with an adapter, whichever is passed: what sessions and measures run.
class Adapted {
public:
    Adapted(Model model) : model_(std::move(model)) {}
    Adapted(Lora lora) : model_(lora.base()), lora_(std::move(lora)) {}
    [[nodiscard]] const Model& model() const { return model_; }
    [[nodiscard]] const std::optional<Lora>& lora() const { return lora_; }
private:
    Model model_;
    std::optional<Lora> lora_;
};

// ---- Training data: dialogues, instructions or text, detected; each row tokenized through the model's own chat
// template. A Dataset never changes: any thread.
enum class Loss { assistant, completion, all };    // train on the assistant's turns | on its last turn | on every token
// Control tokens that rows spell as characters. automatic: they are control tokens in text that was written for the
// model ({text}, .txt, and prompt/completion where the prompt holds the marks that the chat template opens turns with:
// it is then not wrapped again), and text inside messages. tokens: control tokens in messages too; whoever wrote a
// message can then end its turn and speak as another. text: never.
enum class Special { automatic, tokens, text };
// Rows with a system message where the chat template has no such role: put before the user message that follows, left
// out, or an error.
enum class SystemRule { merge, drop, error };
// Rows longer than the context: cut (the answer is then not taught to end), left out, or split into pieces of that
// length. Text is always split.
enum class LongRows { cut, drop, split };
struct DatasetOptions {
    int64_t context = 1024;                            // tokens of a row at most
    Loss loss = Loss::assistant;
    std::string split = {};                            // of a folder: "train", "valid" or "test"
    Special special = Special::automatic;
    SystemRule system = SystemRule::merge;
    LongRows long_rows = LongRows::cut;
    bool skip_bad_rows = false;    // rows that cannot be read are counted and left out instead of being an error
    // Columns of the file by another name, {theirs, ours}: {"q", "prompt"}, {"a", "completion"}. An empty name of ours
    // leaves the column out. Nothing else of a record is read then but tools, documents and a system text.
    std::vector<std::pair<std::string, std::string>> columns = {};
};
struct DatasetInfo {
    std::string format;                                // "messages", "prompt/completion", "alpaca", "sharegpt", "text"
    // truncated: cut at the context; dropped: nothing left to train on
    int64_t rows = 0, tokens = 0, trained_tokens = 0, longest = 0, truncated = 0, dropped = 0;
    int64_t long_dropped = 0, long_split = 0;          // by LongRows
    int64_t bad = 0;                                   // by skip_bad_rows
    int64_t merged_systems = 0;                        // by SystemRule
    // Where the first of them are, "chats.jsonl:12"; of the bad ones, what is wrong.
    std::vector<std::string> truncated_at, dropped_at, long_at, bad_at;
    // Of dialogues: what the assistant says, and how many of its turns are trained. The others are silent (the template
    // prints nothing for them), excluded (the row says that they are not trained on) or cut (they lie behind the
    // context).
    int64_t turns = 0, trained_turns = 0, silent_turns = 0, excluded_turns = 0, cut_turns = 0;
    // rows of text or prompt/completion that hold the chat template's marks (their turns count too)
    int64_t templated = 0;
    // control tokens written in the rows' texts: read as such, and left as text
    int64_t control_tokens = 0, spelled = 0;
    std::vector<std::pair<std::string, int64_t>> unused;    // what rows hold and nothing reads: {"id", 500 times}
};
class Dataset {
public:
    [[nodiscard]] static Dataset load(const std::string& path, const Tokenizer&, const DatasetOptions& = {});
    // context: at most the model's own
    [[nodiscard]] static Dataset load(const std::string& path, const Model& model, const DatasetOptions& options = {});
    // Out of memory, as the same rows of a file would be read: dialogues ({"messages": ...}), texts ({"text": ...}).
    [[nodiscard]] static Dataset from_dialogues(std::span<const std::vector<Message>>, const Model&,
                                                const DatasetOptions& = {});
    [[nodiscard]] static Dataset from_texts(std::span<const std::string>, const Model&, const DatasetOptions& = {});
    // Tokens and which of them are trained, as they are; the text is not read. context of the options counts.
    [[nodiscard]] static Dataset from_rows(std::span<const Rendered>, const Model&, const DatasetOptions& = {});
    // The rows of each, one after another; of one tokenizer.
    [[nodiscard]] static Dataset join(std::span<const Dataset>);
    // The same rows, each with a weight above 0 (1 before): how much its tokens count in a step of training, beside
    // those of the others. Measuring does not look at it.
    [[nodiscard]] Dataset weighted(std::span<const float> weights) const;
    [[nodiscard]] DatasetInfo info() const;
    [[nodiscard]] Dataset pick(std::span<const int64_t> rows) const;   // these rows, in this order, as often as named
    [[nodiscard]] Rendered row(int64_t index) const;   // as the trainer sees it
    // {the rest, a random `fraction` of the rows}
    [[nodiscard]] std::pair<Dataset, Dataset> split(float fraction, uint64_t seed = 0) const;
    bool operator==(const Dataset&) const = default;   // the same one, not one with equal contents
private:
    friend struct Access;
    explicit Dataset(std::shared_ptr<const struct DatasetImpl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<const struct DatasetImpl> impl_;
};

// ---- Training: one optimizer step at a time, so that an app can pause, save, or stop between any two.
struct AdamW {                                         // arXiv:1711.05101
    float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, weight_decay = 0;
    float max_grad_norm = 0.3f;    // gradients that are longer, all taken together, are scaled to this; 0 = never
    int bits = 32;                                     // of each of the two moments a parameter has: 32 or 8
    // Moments of more than page_budget bytes (0: than fit) leave the memory where they are updated, piece by piece: on
    // a GPU for the host's, on the CPU for a file without a name in page_folder (empty: where temporary files go). The
    // same bytes either way.
    bool paged = true;
    int64_t page_budget = 0;
    std::string page_folder = {};
};
enum class Schedule { constant, linear, cosine };
struct TrainOptions {                                  // the defaults are the recipe of the QLoRA paper
    double  epochs = 1;
    int64_t max_steps = 0;                             // 0 = as the epochs say
    // Of wall time from the first step() of a Trainer on; then step() returns false. A step that is under way is left
    // as if it had not begun, and a checkpoint that is saved then goes on later, under another limit. 0 = no limit.
    double  max_seconds = 0;
    // rows a micro-batch, micro-batches a step, tokens a row at most
    int64_t batch = 1, accumulate = 16, context = 1024;
    bool packing = false;                              // several short rows in one sequence; they do not see each other
    // Rows of like length share a micro-batch: of a random order, runs of up to 50 steps' rows are sorted by length.
    bool group_by_length = false;
    float learning_rate = 2e-4f, min_learning_rate = 0, warmup_ratio = 0.03f;
    int64_t warmup_steps = 0;                          // overrides warmup_ratio unless 0
    float warmup_start = -1;    // share of the rate in the first of n of them; -1 = 1 / (n + 1), 0 = Hugging Face's
    Schedule schedule = Schedule::constant;
    AdamW optimizer = {};
    float lora_plus_ratio = 1;    // LoRA+, arXiv:2402.12354: the rate of B (and of DoRA's magnitudes) over that of A
    // NEFTune, arXiv:2310.05914: each row's embeddings get uniform noise up to alpha / sqrt(tokens * hidden); 0 = none.
    // Measuring has none.
    float neftune_alpha = 0;
    // recompute each layer in the backward pass instead of keeping its activations
    bool checkpoint_activations = true;
    int64_t kept_layers = 0;                           // ... but for so many of the last ones,
    bool light_recomputation = false;    // of which only norms and gated products are recomputed: hardly any time
    // What layers are recomputed from leaves the memory where it is computed until it is needed: for the host's on a
    // GPU, for a file without a name in optimizer.page_folder on the CPU. The same bytes.
    bool inputs_apart = false;
    // Rows of logits that exist at a time; 0 = as is fastest, which is the most. Sums may round otherwise.
    int64_t loss_rows = 0;
    // Bytes of decoded weights that stay in memory for the next product, of those that gain most: the same bytes of
    // every result in less time, most of all where micro-batches are short. 0 = none. On the CPU only.
    int64_t panel_budget = 0;
    int64_t max_bad_steps = 10;    // steps in a row with a non-finite loss or gradient: skipped, then Error{numeric}
    uint64_t seed = 0;
};
struct TrainStep {
    int64_t step = 0, steps = 0;                       // 1-based, of the whole run
    double epochs = 0;                                 // of the whole run
    // loss: mean over the step's trained tokens, by the weights of their rows
    double epoch = 0, loss = 0, learning_rate = 0, grad_norm = 0, seconds = 0;
    int64_t tokens = 0, trained_tokens = 0;            // of this step
    int64_t skipped_steps = 0;                         // so far
    bool skipped = false;                              // this one
    int64_t paged_bytes = 0;                           // moments that this step moved, both ways
};
struct MemoryPlan {
    struct Item { std::string name; int64_t bytes = 0; bool device = false; };         // of a GPU, else of the host
    std::vector<Item> items;
    int64_t peak = 0, device_peak = 0;                 // bytes: of what the process has of the host, and of the GPU
};
struct RunMachine {                                    // what decides how the numbers of a run are rounded
    std::string device, instructions;                  // "cpu"; "avx2", ...
    Compute compute = Compute::f32;
    int threads = 0;
};
// One call at a time; last() may be asked in a callback. Trainers on one adapter, on several threads, take turns. A run
// that goes on after a restart:
//   qlora::Trainer trainer(lora, data, options);
//   if (std::filesystem::exists("run")) trainer.resume("run");
//   while (trainer.step()) if (trainer.last().step % 100 == 0) trainer.save("run");
class Trainer {
public:
    Trainer(Lora, Dataset, const TrainOptions& = {});
    [[nodiscard]] MemoryPlan plan() const;             // the planner's own result: what a run will use
    // One optimizer step; false when training is complete (last().step == last().steps) or max_seconds are over.
    // on_micro_batch is told how many of the step's micro-batches are done, before each of them and, with done == of,
    // before the adapter changes: when it returns false the step is left as if it had not begun (Error{cancelled}). It
    // may not train, measure or plan on this adapter (Error{argument}).
    bool step(const std::function<bool(int64_t done, int64_t of)>& on_micro_batch = {});
    [[nodiscard]] TrainStep last() const;              // before the first: step 0
    // Instead of TrainOptions::learning_rate, from the next step on; the schedule goes on with it. Checkpoints keep it.
    void set_learning_rate(float rate);
    // Mean loss per trained token. go_on is asked now and then; false cancels.
    [[nodiscard]] double evaluate(const Dataset&, const std::function<bool()>& go_on = {}) const;
    void save(const std::string& folder) const;        // everything a run needs to go on; atomic
    // Continues byte for byte. Another model, configuration, tokenizer, data set, adapter or set of options is an Error
    // that says what was and what is; what differs in rounding only (see RunMachine), or cannot be compared, comes back
    // as a sentence each.
    std::vector<std::string> resume(const std::string& folder);
    // nothing: made by version 0.1.0, which did not say
    [[nodiscard]] static std::optional<RunMachine> machine_of(const std::string& checkpoint);
    ~Trainer();
    Trainer(Trainer&&) noexcept;
    Trainer& operator=(Trainer&&) noexcept;
private:
    std::unique_ptr<struct TrainerImpl> impl_;
};

// ---- Generation.
struct Sampling {
    float temperature = 0.7f;                          // 0 = greedy: the likeliest token, always
    // Otherwise one is drawn from the top_k likeliest (0 = all), of them the fewest that have a share of top_p of their
    // probability, and of them those that are at least min_p times as likely as the likeliest.
    float top_p = 0.9f, min_p = 0;
    float repeat_penalty = 1;                          // above 1: against tokens among the repeat_last last ones
    int64_t top_k = 40, max_tokens = 512, repeat_last = 64;
    double max_seconds = 0;    // of wall time from the call on, prompt included, then Finish::deadline; 0 = no limit
    uint64_t seed = 0;
    std::vector<std::string> stop = {};                // ends the reply before any of these texts
    bool logprobs = false;                             // fill Reply::logprobs, which takes a little time
    // What may come next: changes the scores {vocabulary} in place before a token is chosen (-infinity rules one out).
    // `reply` is what was chosen so far. For grammars and fixed choices.
    std::function<void(std::span<const Token> reply, std::span<float> scores)> mask = {};
};
// Whole UTF-8 characters. Called with an empty text between the pieces of a long prompt. Return false to stop. A reply
// that is stopped, here or by its deadline, before it has begun leaves the dialogue as it was.
using OnText = std::function<bool(std::string_view)>;
enum class Finish {
    end,                                               // the model ended its reply
    stop_text,                                         // one of Sampling::stop came
    length,                                            // max_tokens
    context_full,                                      // SessionOptions::context
    deadline,                                          // max_seconds
    cancelled                                          // OnText returned false
};
[[nodiscard]] std::string_view name_of(Finish);
struct SessionOptions {
    int64_t context = 0;                               // tokens; 0 = the model's own length, 4096 at most
    // What keys and values are held in: f32 (exact), f16, bf16, or q8_0 (8 bits). Nothing = 16 bits: bf16 where the
    // model's embedding is, else f16.
    std::optional<DType> cache = {};
};
struct SessionStats {
    int64_t prompt_tokens = 0, reply_tokens = 0, context_used = 0, context = 0;
    double prompt_seconds = 0, reply_seconds = 0;
    DType cache = DType::f32;                          // of the keys and values, ...
    int64_t cache_bytes = 0;                           // ... and what they take
};
struct Reply {
    std::string text;
    Tokens tokens;                                     // as chosen, with the one that ended the reply
    // Natural logarithm of the probability that the model gave each of them, before temperature, penalties and mask;
    // if Sampling::logprobs.
    std::vector<float> logprobs;
    Finish finish = Finish::end;
    SessionStats stats;
};
// One conversation: its dialogue, and the keys and values of what was read. One call at a time; history() and stats()
// may be asked in a callback. Make as many as you like, for as many threads: they share the model.
class Session {
public:
    explicit Session(Adapted, const SessionOptions& = {});
    // One turn through the chat template: a user's text, ...
    Reply chat(std::string_view user, const Sampling& = {}, const OnText& = {});
    // ... or any messages behind the dialogue, such as the results of tools. options: tools, variables, prefill,
    // template; a prefill is part of the reply's text.
    Reply chat(std::span<const Message> more, const RenderOptions& options, const Sampling& = {}, const OnText& = {});
    // Raw text, history cleared first. control: as in Tokenizer::encode.
    Reply complete(std::string_view prompt, const Sampling& = {}, const OnText& = {}, bool control = false);
    // the same, of tokens as they are
    Reply complete(std::span<const Token> prompt, const Sampling& = {}, const OnText& = {});
    // Goes on with another adapter, with none, or with one `scale` times as strong: the dialogue stays, its keys and
    // values are computed anew with the next reply. The model must be the session's. With a scale other than 1 it is
    // Lora::sum of the adapter as it is now: later steps of training are not seen, and dora and pissa are refused.
    void adapt(Adapted, float scale = 1);
    // Another session in the state of this one: both go on from here. Keys and values are copied.
    [[nodiscard]] Session fork() const;
    // The dialogue, and what has been read with its keys and values, as bytes; restore() takes those of a session of
    // the same model, adapter, context and cache type, and is an Error{argument} for others.
    [[nodiscard]] std::string save() const;
    void restore(std::string_view saved);
    void reset(std::string_view system = {});          // forgets the dialogue, sets the system text
    void set_history(std::vector<Message>);            // replaces the dialogue (to undo, to load)
    [[nodiscard]] std::vector<Message> history() const;
    [[nodiscard]] SessionStats stats() const;          // of the last reply
    ~Session();
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;
private:
    explicit Session(std::unique_ptr<struct SessionImpl>);
    std::unique_ptr<struct SessionImpl> impl_;
};

// ---- Several sequences generated together: rows of one product, which reads the weights once for up to four of them
// (sixteen in bf16). Each has its own sampling and, if asked, its own adapter; its bytes depend on neither the others
// nor the threads.
struct BatchOptions {
    int64_t slots = 4;                                 // sequences at a time
    int64_t context = 0;                               // tokens of each, as in SessionOptions
    std::optional<DType> cache = {};                   // as in SessionOptions
};
// One call at a time; running() and free_slots() may be asked in a callback.
//   qlora::Batch batch(model);
//   std::vector<int64_t> slots;                       // as many prompts as there are slots
//   for (const qlora::Tokens& prompt : prompts) slots.push_back(batch.add(prompt));
//   while (batch.step()) {}
//   for (const int64_t slot : slots) std::cout << batch.remove(slot).text << '\n';
class Batch {
public:
    explicit Batch(Model, const BatchOptions& = {});
    // Reads a prompt into a free slot and returns its number; Error{argument} where none is free. With lora the
    // sequence runs with that adapter, which must be on the batch's model. Its Sampling::max_seconds begin now.
    [[nodiscard]] int64_t add(std::span<const Token> prompt, const Sampling& = {}, std::optional<Lora> lora = {});
    // The next token of every sequence that runs; false when there was none. on_text: as OnText, with the slot; false
    // ends that sequence. What throws while a token is chosen (a mask) ends that one alone; step() may be called again.
    bool step(const std::function<bool(int64_t slot, std::string_view text)>& on_text = {});
    [[nodiscard]] bool running(int64_t slot) const;
    Reply remove(int64_t slot);                        // frees the slot; a sequence that runs ends as cancelled
    [[nodiscard]] int64_t free_slots() const;
    ~Batch();
    Batch(Batch&&) noexcept;
    Batch& operator=(Batch&&) noexcept;
private:
    std::unique_ptr<struct BatchImpl> impl_;
};

// ---- Measuring: functions of a model, with or without an adapter; any thread. A classifier:
//   const qlora::Message asked{"user", "Is this about sport or politics? Answer with one word. " + text};
//   const std::vector<std::string> labels{"sport", "politics"};
//   const std::vector<double> p = qlora::score(model, std::span(&asked, 1), labels);
//   std::cout << labels[size_t(std::max_element(p.begin(), p.end()) - p.begin())];

struct Perplexity { double nll = 0, perplexity = 0; int64_t tokens = 0; };   // nll: mean over the scored tokens
[[nodiscard]] Perplexity perplexity(const Adapted&, std::span<const Token> tokens, int64_t context = 512,
                                    int64_t stride = 256);
struct Difference {                                    // over all positions of a text
    double mean_logit = 0, max_logit = 0;              // |expected - actual|
    double kl = 0;                                     // mean divergence of actual from expected, in nats
    double same_best = 0;                              // share of positions where both think the same token likeliest
    double nll_expected = 0, nll_actual = 0;           // mean loss of each
    int64_t tokens = 0;
};
// what a conversion or a merge costs
[[nodiscard]] Difference difference(const Adapted& expected, const Adapted& actual, std::span<const Token> tokens);
[[nodiscard]] double evaluate(const Adapted&, const Dataset&);    // mean loss per trained token
// The choice of the highest mean log-probability per byte after `query`; control tokens that the texts spell are read
// as such.
[[nodiscard]] int64_t best_choice(const Adapted&, std::string_view query, std::span<const std::string> choices);
// The log-probability (natural, summed over the tokens) of each continuation behind the prompt. The prompt is read
// once.
[[nodiscard]] std::vector<double> score(const Adapted&, std::span<const Token> prompt,
                                        std::span<const Tokens> continuations);
// The same of replies in a dialogue, each through the chat template up to where the assistant's turn ends.
[[nodiscard]] std::vector<double> score(const Adapted&, std::span<const Message> chat,
                                        std::span<const std::string> replies);
enum class Pooling { mean, last };
// A vector of info().hidden numbers for each text: the last hidden states (behind the final norm), their mean or that
// of the last token, divided by its length if `normalize`. Row-major: {texts, hidden}.
[[nodiscard]] std::vector<float> embeddings(const Adapted&, std::span<const std::string> texts, Pooling = Pooling::mean,
                                            bool normalize = true);

// ---- The floor below: tensors and graphs. Building checks shapes at once; run() plans memory once, then only
// computes. One call at a time, of a graph and of what is built in it. Ten steps that make x w small:
//   qlora::Graph g;
//   const qlora::Tensor x = g.input({1, 2}), w = g.param({1, 2}), loss = qlora::sum(qlora::matmul(x, w));
//   g.backward(loss);
//   g.write(x, std::vector<float>{1, 2});
//   for (int i = 0; i < 10; ++i) g.run(), g.step(0.1f);
class Graph;
class Tensor {                                         // a name for a node: copy freely, valid as long as its Graph
public:
    [[nodiscard]] Shape shape() const;
    [[nodiscard]] DType dtype() const;
    Tensor() = default;
    // of use to the library alone
    Tensor(struct GraphImpl* graph, int32_t id) : graph_(graph), id_(id) {}
    [[nodiscard]] struct GraphImpl* graph() const { return graph_; }
    [[nodiscard]] int32_t id() const { return id_; }
private:
    struct GraphImpl* graph_ = nullptr;
    int32_t id_ = -1;
};
class Graph {
public:
    explicit Graph(Backend = Backend::best());
    [[nodiscard]] Tensor input(Shape, DType = DType::f32);    // f32 or i32; fed by write()
    [[nodiscard]] Tensor param(Shape);                 // f32; fed by write(), has a gradient and may be stepped
    // a stored, frozen tensor of a model; asking for its gradient throws
    [[nodiscard]] Tensor weight(const Model&, std::string_view name);
    void   backward(Tensor scalar_loss);               // appends the gradient nodes
    // throws Error{argument} before backward() or where no gradient flows
    [[nodiscard]] Tensor grad(Tensor param) const;
    void   write(Tensor, std::span<const float>);
    void   write(Tensor, std::span<const int32_t>);
    void   run();
    // on every param with the gradients of the last run; moments have 32 bits here
    void   step(float learning_rate, const AdamW& = {});
    [[nodiscard]] std::vector<float> read(Tensor) const;
    // of the arena: the plan's prediction, and the high-water mark of the runs
    [[nodiscard]] int64_t planned_bytes() const, used_bytes() const;
    ~Graph();
    Graph(Graph&&) noexcept;
    Graph& operator=(Graph&&) noexcept;
private:
    std::unique_ptr<struct GraphImpl> impl_;
};
[[nodiscard]] Tensor operator+(Tensor, Tensor);        // same shape, or b {n}: added to every row of a {..., n}
[[nodiscard]] Tensor operator*(Tensor, Tensor);        // same shape
[[nodiscard]] Tensor operator*(Tensor, float);
[[nodiscard]] Tensor matmul(Tensor x, Tensor w);       // x {rows, in}, w {out, in} (float or stored) -> {rows, out}
[[nodiscard]] Tensor silu(Tensor);
// x P(X < x) of a normal X (arXiv:1606.08415): exact, by erf, or x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
enum class Gelu : uint8_t { erf, tanh };
[[nodiscard]] Tensor gelu(Tensor, Gelu = Gelu::erf);
[[nodiscard]] Tensor clamp(Tensor, float low, float high);    // into [low, high]; NaN stays; gradients pass inside
[[nodiscard]] Tensor sum(Tensor);                      // -> {1}
[[nodiscard]] Tensor rms_norm(Tensor x, Tensor w, float eps = 1e-5f);
// (x - mean) / sqrt(variance + eps) * w + b by rows of n; w {n} and b {n}, each or both may be Tensor{} (none)
[[nodiscard]] Tensor layer_norm(Tensor x, Tensor w, Tensor b, float eps = 1e-5f);
// x {rows, heads * head_dim}, halves rotated
[[nodiscard]] Tensor rope(Tensor x, Tensor positions, int64_t heads, float theta = 10000);
// causal; first_key i32 {rows}
[[nodiscard]] Tensor attention(Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, Tensor first_key = {});
[[nodiscard]] Tensor embed(Tensor table, Tensor ids);  // table {vocabulary, n}, ids i32 {rows} -> {rows, n}
[[nodiscard]] Tensor cross_entropy(Tensor logits, Tensor targets);    // mean over targets >= 0 -> {1}

// ---- What programs need beside models, as the library itself does it.
// Error{io} if missing or larger
[[nodiscard]] std::string read_file(const std::string& path, int64_t limit = int64_t(1) << 30);
// Writes beside the target, syncs, renames over it, syncs the folder: afterwards the old or the new content is there,
// never a part. What is no regular file (a pipe, /dev/stdout) is written to in place.
void write_file_atomic(const std::string& path, std::string_view bytes);
// sorted, without . and ..; Error{io} when it cannot be read
[[nodiscard]] std::vector<std::string> names_in(const std::string& folder);
// a file, or a folder with all that is in it; links are removed, not followed; 0 or the first error (errno)
int remove_tree(const std::string& path) noexcept;

constexpr int most_threads = 256;                      // that Backend::cpu takes
// that this process may run at once: the smaller of affinity and container quota, at least 1
[[nodiscard]] int usable_threads();

// Ends long work that has no callback of its own: reading files, tokenizing, data sets, templates, measuring. While a
// StopScope lives, calls of its thread ask `go_on` far more often than once a second, and throw Error{cancelled} when
// it says false. Of several the innermost is asked; an empty one asks nothing.
class StopScope {
public:
    explicit StopScope(std::function<bool()> go_on);
    ~StopScope();
    StopScope(const StopScope&) = delete;
    StopScope& operator=(const StopScope&) = delete;
private:
    std::function<bool()> go_on_;
    const std::function<bool()>* before_;
};

// JSON (RFC 8259), which messages, tools and records are made of: a strict parser with limits, and a writer. Objects
// keep the order of their keys.
class Json {
public:
    enum class Kind : uint8_t { null, boolean, integer, number, string, array, object };
    using Array  = std::vector<Json>;
    using Member = std::pair<std::string, Json>;
    using Object = std::vector<Member>;                // keys unique

    Json() = default;
    Json(std::nullptr_t) {}
    Json(bool v) : kind_(Kind::boolean), bool_(v) {}
    Json(int v) : kind_(Kind::integer), int_(v) {}
    Json(int64_t v) : kind_(Kind::integer), int_(v) {}
    Json(double v) : kind_(Kind::number), num_(v) {}
    Json(const char* v) : kind_(Kind::string), str_(v) {}
    Json(std::string_view v) : kind_(Kind::string), str_(v) {}
    Json(std::string v) : kind_(Kind::string), str_(std::move(v)) {}
    Json(Array v) : kind_(Kind::array), array_(std::move(v)) {}
    Json(Object v) : kind_(Kind::object), object_(std::move(v)) {}

    // `where` names the file in errors, which have line and column; "chats.jsonl:12": the text begins in that line
    struct Limits { int64_t depth = 128, bytes = int64_t(1) << 30; };
    static Json parse(std::string_view text, std::string_view where, const Limits& limits);
    static Json parse(std::string_view text, std::string_view where) { return parse(text, where, Limits{}); }
    // indent < 0: one line with ", " and ": " (Python's json.dumps); otherwise that many spaces a level. NaN and
    // infinity are Error{numeric}.
    std::string dump(int indent = -1) const;

    Kind kind() const { return kind_; }
    bool is_null() const { return kind_ == Kind::null; }
    bool is_bool() const { return kind_ == Kind::boolean; }
    bool is_int() const { return kind_ == Kind::integer; }
    bool is_number() const { return kind_ == Kind::integer || kind_ == Kind::number; }
    bool is_string() const { return kind_ == Kind::string; }
    bool is_array() const { return kind_ == Kind::array; }
    bool is_object() const { return kind_ == Kind::object; }

    // Checked access. `where` names file and field: "config.json: hidden_size must be an integer, is a string".
    bool as_bool(std::string_view where) const;
    int64_t as_int(std::string_view where) const;      // integers, and numbers such as 4.0 or 1e3 that are whole
    double as_number(std::string_view where) const;
    const std::string& as_string(std::string_view where) const;
    const Array& as_array(std::string_view where) const;
    const Object& as_object(std::string_view where) const;
    // Unchecked: 0 or empty where the kind is another.
    bool boolean() const { return bool_; }
    int64_t integer() const { return int_; }
    double number() const { return kind_ == Kind::integer ? double(int_) : num_; }
    const std::string& string() const { return str_; }
    const Array& array() const { return array_; }
    const Object& object() const { return object_; }
    Array& array() { return array_; }
    Object& object() { return object_; }

    const Json* find(std::string_view key) const;      // null when absent or not an object
    Json& set(std::string key, Json value);            // adds or replaces; turns null into an object; returns *this
    Json& push(Json value);                            // turns null into an array; returns *this
private:
    Kind kind_ = Kind::null;
    bool bool_ = false;
    int64_t int_ = 0;
    double num_ = 0;
    std::string str_;
    Array array_;
    Object object_;
};

} }  // namespace qlora
#endif  // QLORA_H

#if defined(QLORA_IMPLEMENTATION) && !defined(QLORA_IMPLEMENTED)
#define QLORA_IMPLEMENTED
#include "qlora.cpp"
#endif
