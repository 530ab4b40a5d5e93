// hf_model.h - what the loader and the saver of Hugging Face folders share.
#pragma once
#include "src/format/safetensors.h"
#include "src/model/load.h"

namespace qlora { inline namespace QLORA_ABI {

// The tensors of a folder: one model.safetensors, or shards named by model.safetensors.index.json.
class HfTensors {
public:
    explicit HfTensors(const Source& folder);
    struct Entry { std::shared_ptr<const SafeTensors> file; const SafeTensor* tensor; };
    const Entry* find(const std::string& name) const;
    const Entry& get(const std::string& name) const;   // Error{format} when missing
    const std::unordered_map<std::string, Entry>& all() const { return entries_; }
    const std::string& folder() const { return folder_.name(); }
    // Of a model that sees as well: the tensors of its text part get the names that they have in a model of text, the
    // others are left out. Returns how many those are.
    int64_t keep_text();
    // Tensors are asked for with `root` before their names, which a file saved of the inner model lacks.
    void put_under(const std::string& root);
private:
    void add(const std::string& file);
    Source folder_;
    std::unordered_map<std::string, Entry> entries_;
};

// "float32", "float16", "bfloat16", as PyTorch calls the dense types.
std::string_view torch_name(DType);
std::optional<DType> torch_dtype(std::string_view name);

// P.weight with its bitsandbytes companions as one 4-bit Weight; nothing when P.weight is an ordinary tensor.
std::optional<Weight> read_bitsandbytes(const HfTensors&, const std::string& name);

// What config.json says of quantization that the tensors do not. Error{unsupported} for a method that is not read,
// with what to do about it.
struct HfQuantization { int64_t tile_rows = 128, tile_cols = 128; };
HfQuantization hf_quantization(const Json& config, const std::string& where);

// P.weight in f8_e4m3 or nvfp4, with its scales; nothing when it is of another type. See hf_float8.cpp.
std::optional<Weight> read_float8(const HfTensors&, const std::string& name, const HfQuantization&);
bool is_float8(const HfTensors&, const std::string& name);
bool has_matrix(const HfTensors&, const std::string& name);            // P.weight under any of its names

// A tensor that belongs to P.weight by its name: a part of it, or scales of activations or of a cache, which nothing
// here is rounded to.
struct HfCompanion {
    std::string tensor;                                // P.weight
    enum class Role : uint8_t { weight, activations, cache } role;
};
std::optional<HfCompanion> hf_companion(std::string_view name);

// The text files of a folder that travel with a model: its tokenizer.json or, where there is none, its tokenizer.model
// (or tiktoken's list), and what is beside it. tokenizer: the name of that file, if it has another one.
std::vector<TextFile> read_text_files(const Source& folder, const std::string& tokenizer = "tokenizer.json",
                                      bool to_save = true);
const TextFile* tokenizer_file(const Metadata&);       // tokenizer.json or tokenizer.model; null: the folder has none
std::string tokenizer_form(const Metadata&);           // of that file; see tiktoken.h
// tokenizer_config.json with what files beside it add; `where` is the path of the tokenizer
Json tokenizer_config_of(const Metadata&, const std::string& where);
// Of Metadata::config and files, which have a tokenizer; `where` is its path.
std::shared_ptr<const TokenizerImpl> hf_tokenizer(const Metadata&, const std::string& where);

// A config.json of a model that sees as well: that of its text part, which a model of text would have. Any other one:
// as it is. sees: which it was.
Json text_configuration(Json config, const std::string& where, bool& sees);
// What stands before the number of a layer where a class that sees calls its modules; the first is today's.
constexpr std::string_view seeing_layers[] = {"model.language_model.layers.", "language_model.model.layers."};
// as: instead of the family that model_type names
Config hf_config(const Json& config, const std::string& where, const struct Family* as = nullptr);
// the way back, for a model that has no config.json: what hf_config() reads as the same
Json hf_config_of(const ModelImpl&);
// which tokens begin a text and end a reply, and how they are to be drawn
Json hf_generation_config(const ModelImpl&);
Json shortest(float);                                  // its shortest decimal: 1e-05, not 9.99999974e-06

}}  // namespace qlora
