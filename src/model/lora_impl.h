// lora_impl.h - the steps that creating and loading adapters share.
#pragma once
#include "src/base/json.h"
#include "src/model/lora.h"

namespace qlora::inline v0_1 {

std::shared_ptr<LoraImpl> empty_lora(std::shared_ptr<const ModelImpl>, const LoraOptions&);
void add_lora_target(LoraImpl&, int64_t layer, Module, int64_t rank, float scale);     // in the order of layer, then module
float lora_scale(const LoraOptions&);
bool names(std::string_view key, std::string_view name);               // PEFT's rule: the name itself, or its end behind a dot
bool selects(const LoraOptions&, int64_t layer, Module);               // by layers and exclude
LoraOptions options_at(const LoraOptions&, int64_t layer, Module);     // with the rank and alpha that the patterns give this layer
void set_lora_values(LoraImpl&, const std::vector<float>&);            // allocates the flat buffer on the base's backend
std::vector<float> lora_values(const LoraImpl&);       // a copy of the flat buffer, ...
std::vector<float> lora_values(const LoraImpl&, int64_t first, int64_t count);         // ... or of a part of it
std::shared_ptr<DoraNorms> make_norms(const LoraImpl&);                // of the base and the buffer as they are: after both are set
void start_magnitudes(LoraImpl&);
// options.init at work: on the values (null: they are known already), and for pissa on the base, from LoraImpl::start if that is given.
void start_lora(LoraImpl&, std::vector<float>* values);
// A pissa adapter as a plain one of twice the rank for the original base, s (B A - B0 A0), and back. The base of the results is the argument's.
std::shared_ptr<LoraImpl> without_start(const LoraImpl&);
std::shared_ptr<LoraImpl> with_start(const LoraImpl& plain, const LoraOptions&);
bool can_split(const LoraImpl&);                                       // are the weights that pissa splits at hand, and can the rest be encoded?
Json peft_config(const LoraImpl&);                                     // adapter_config.json
LoraOptions read_peft_config(const Json&, const std::string& where);
std::shared_ptr<LoraImpl> load_lora_peft(std::shared_ptr<const ModelImpl>, const std::string& folder);
std::shared_ptr<LoraImpl> load_lora_gguf(std::shared_ptr<const ModelImpl>, const std::string& path);

}  // namespace qlora
