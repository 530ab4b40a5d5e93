// lora_impl.h - the steps that creating and loading adapters share.
#pragma once
#include "src/base/json.h"
#include "src/model/base_record.h"
#include "src/model/lora.h"

namespace qlora { inline namespace QLORA_ABI {

std::shared_ptr<LoraImpl> empty_lora(std::shared_ptr<const ModelImpl>, const LoraOptions&);
// in the order of layer, then module
void add_lora_target(LoraImpl&, int64_t layer, Module, int64_t rank, float scale);
float lora_scale(const LoraOptions&);
constexpr float most_alpha = 1e9f;                     // beyond any use; what a file may hold, too
void check_alpha(float alpha, const std::string& name);
// Which layers get an adapter, and of which rank: PEFT's rules (adapter_names.cpp).
bool names(std::string_view key, std::string_view name);               // all of it, or its end behind a dot
bool selects(const Config&, const LoraOptions&, int64_t layer, Module);        // by layers, exclude and exclude_pattern
// config: adapter_config.json, read as the options
bool peft_adapts(const Config&, const Json& config, const LoraOptions&, std::string_view name,
                 const std::string& where);
void add_module(std::string& list, const Config&, Module);             // its name, once
// a name that fits no layer is a slip of the pen: for new adapters
void check_names(const LoraOptions&, const Config&);
// with the rank and alpha that the patterns give this layer
LoraOptions options_at(const Config&, const LoraOptions&, int64_t layer, Module);
// Error{numeric} for the first that is not
void check_finite(std::span<const float>, const std::string& where, const std::string& tensor);
void set_lora_values(LoraImpl&, const std::vector<float>&);    // allocates the flat buffer on the base's backend
std::vector<float> lora_values(const LoraImpl&);       // a copy of the flat buffer, ...
std::vector<float> lora_values(const LoraImpl&, int64_t first, int64_t count);         // ... or of a part of it
std::shared_ptr<DoraNorms> make_norms(const LoraImpl&);    // of the base and the buffer as they are: after both are set
void start_magnitudes(LoraImpl&);
// options.init at work: on the values (null: they are known already), and for pissa on the base, from LoraImpl::start
// if that is given.
void start_lora(LoraImpl&, std::vector<float>* values);
// A pissa adapter as a plain one of twice the rank for the original base, s (B A - B0 A0), and back. The base of the
// results is the argument's.
std::shared_ptr<LoraImpl> without_start(const LoraImpl&);
std::shared_ptr<LoraImpl> with_start(const LoraImpl& plain, const LoraOptions&);
bool can_split(const LoraImpl&);    // are the weights that pissa splits at hand, and can the rest be encoded?
Json peft_config(const LoraImpl&);                                     // adapter_config.json
// layers: what the family calls the list of its layers, as in model.layers.3
LoraOptions read_peft_config(const Json&, const std::string& where, std::string_view layers = "layers");
// B {out, rank} between the rows of the model and those of Hugging Face folders, which adapters have too.
void reorder_rows(const Config&, Module, int64_t layer, std::vector<float>& b, int64_t rank, bool to_file);
bool is_mlx_adapter(const Source& folder);
std::shared_ptr<LoraImpl> load_lora_mlx(std::shared_ptr<const ModelImpl>, const Source& folder);
std::shared_ptr<LoraImpl> load_lora_peft(std::shared_ptr<const ModelImpl>, const Source& folder);
std::shared_ptr<LoraImpl> load_lora_gguf(std::shared_ptr<const ModelImpl>, const Source&);

}}  // namespace qlora
