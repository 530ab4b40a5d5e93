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

// as: instead of the family that model_type names
Config hf_config(const Json& config, const std::string& where, const struct Family* as = nullptr);
// the way back, for a model that has no config.json: what hf_config() reads as the same
Json hf_config_of(const ModelImpl&);
Json hf_generation_config(const ModelImpl&);           // which tokens begin a text and end a reply

}}  // namespace qlora
