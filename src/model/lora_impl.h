// lora_impl.h - the steps that creating and loading adapters share.
#pragma once
#include "src/model/lora.h"

namespace qlora::inline v0_1 {

std::shared_ptr<LoraImpl> empty_lora(std::shared_ptr<const ModelImpl>, const LoraOptions&);
void add_lora_target(LoraImpl&, int64_t layer, Module, int64_t rank, float scale);     // in the order of layer, then module
float lora_scale(const LoraOptions&);
bool names(std::string_view key, std::string_view name);               // PEFT's rule: the name itself, or its end behind a dot
bool selects(const LoraOptions&, int64_t layer, Module);               // by layers and exclude
LoraOptions options_at(const LoraOptions&, int64_t layer, Module);     // with the rank and alpha that the patterns give this layer
void set_lora_values(LoraImpl&, const std::vector<float>&);            // allocates the flat buffer on the base's backend
std::vector<float> lora_values(const LoraImpl&);
void start_lora(LoraImpl&, std::vector<float>* values);                // options.init at work: on the values, and for pissa on the base; null = on the base alone
std::shared_ptr<LoraImpl> load_lora_peft(std::shared_ptr<const ModelImpl>, const std::string& folder);
std::shared_ptr<LoraImpl> load_lora_gguf(std::shared_ptr<const ModelImpl>, const std::string& path);

}  // namespace qlora
