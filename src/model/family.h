// family.h - what distinguishes the families of models that this library runs. Each is a room of src/families, which
// holds its names, the defaults of its class, its switches, and the fields that only it has.
#pragma once
#include "src/model/fields.h"
#include "src/model/model.h"

namespace qlora { inline namespace QLORA_ABI {

constexpr std::string_view q_and_v[] = {"q_proj", "v_proj"};

struct Family {
    std::string_view name;                             // Config::family and Hugging Face's model_type
    std::string_view gguf;                             // general.architecture
    std::string_view hf_class;                         // architectures[0]
    // What other files say for the same two; the model_type may be another family's too, then the class tells.
    std::string_view other_class = {}, other_name = {};
    // The defaults of the class, which Hugging Face leaves out of config.json.
    // -1: the class has no such field; 0: kv_heads = heads, head_dim = hidden / heads, feed_forward = 4 hidden
    struct Defaults {
        int64_t vocabulary, hidden, layers, heads, kv_heads, head_dim, feed_forward, context, window = 0;
        double eps = 1e-6, theta = 10000;              // theta: the rotary base
        bool tied = false;
        double rotated = 1;                            // the part of a head that turns
    } defaults;
    bool adjacent_pairs = false;    // in GGUF: rotary pairs (2i, 2i+1), so q and k rows are stored permuted
    bool rope_freqs = false;        // llama.cpp reads a divisor for each frequency, rope_freqs.weight
    bool partial_rotation = false;  // the class may turn a part of each head (partial_rotary_factor)
    bool attention_bias = false;    // the class has a switch for biases on all four projections of attention
    bool use_bias = false;          // and one for all linear layers
    bool kv_heads_by_layer = false; // GGUF's head_count_kv may differ from layer to layer
    bool mlp_bias = false;          // and one for those of the feed-forward
    bool gguf_biases = false;       // llama.cpp reads biases of all linear layers, not only of q, k and v
    bool gguf_any_gelu = false;     // and computes one gelu for all
    bool gguf_pattern = false;      // and which layers slide: attention.sliding_window_pattern
    bool plain_sliding = false;     // layers that slide turn by plain frequencies: sliding_theta, else the base of all
    enum class Head { either, tied, own } gguf_head = Head::either;    // and which head: the embedding, one of its own
    std::string_view windowed = {}; // the family that is this one with a sliding window, where that is another
    std::string_view activation_key = "hidden_act";    // in config.json
    std::string_view eps_key = "rms_norm_eps";         // in config.json
    std::string_view rope_parameters = {};             // of a config.json that has none, as JSON
    Names names = {};                                  // of its tensors
    // Names in config.json where the class has others: {"hidden_size", "n_embd"}
    std::span<const Alias> aliases = {};
    std::span<const std::string_view> peft_targets = q_and_v;          // what PEFT adapts where nothing is named
    // Each may be null. What every model of the family has, before its file is asked:
    void (*configure)(Config&) = nullptr;
    // the fields that the loaders and savers of all families do not know:
    void (*read_hf)(Config&, const HfFields&, const Family&) = nullptr;
    void (*write_hf)(const Config&, Json&) = nullptr;
    void (*read_gguf)(Config&, const GgufFields&) = nullptr;
    void (*write_gguf)(const Config&, const Family&, GgufWriter&, bool codes) = nullptr;

    Config start() const;                              // the family's name and switches
};

#define QLORA_FAMILY(name) extern const Family name##_family;
#include "src/model/families.def"
#undef QLORA_FAMILY
std::span<const Family* const> families();
const Family* family_named(std::string_view model_type);               // null = not supported
// of a config.json; the class may be empty
const Family* family_of_hf(std::string_view model_type, std::string_view hf_class);
const Family* family_of_gguf(std::string_view architecture);           // the first of those that share it
std::string family_names();                            // for error messages

std::string_view eps_key(const Config&);               // of the norms' epsilon, in GGUF
// kv_heads from kv_heads_of, which is emptied where all layers have the same
void set_kv_heads(Config&, const std::string& where);
std::string_view activation_name(Activation);          // in config.json
std::optional<Activation> activation_named(std::string_view name);     // nothing: not supported
// Error{unsupported}: llama.cpp does not run such models with that; null: it does.
void refuse_for_llama_cpp(const Family&, const char* what);
// Which layers slide, where that is not what the rule of the family gives; nothing slides where none does.
void set_sliding(Config&, std::vector<uint8_t> by_layer);
[[noreturn]] void refuse_window(const Config&, const HfFields&);
void check_config(const Config&, const std::string& where);            // every bound that later code relies on

// Rotary frequencies with their scaling already applied.
void set_frequencies(Config&, double theta, const RopeScaling&, const std::string& where);
// Those of the layers that slide: plain ones.
void set_sliding_frequencies(Config&, double theta, const std::string& where);
// those that a file lists: normal numbers, none above 1000
void check_frequencies(std::span<const float>, const std::string& where);
// those that the model has, to the last bits: its theta with this scaling
bool gives_frequencies(const Config&, const RopeScaling&);

}}  // namespace qlora
