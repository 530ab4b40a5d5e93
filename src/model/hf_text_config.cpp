// hf_text_config.cpp - config.json of a model that sees as well. Its text part is a configuration of its own in there,
// text_config, and a family of its own; all the rest of this library gets to see only that.
#include "src/model/family.h"
#include "src/model/hf_model.h"

namespace qlora { inline namespace QLORA_ABI {
namespace hf_text_config_room {

struct Seeing { std::string_view model_type, hf_class, text_type; };   // text_type: where text_config does not say
constexpr Seeing kinds[] = {{"gemma3", "Gemma3ForConditionalGeneration", "gemma3_text"},
                            {"mistral3", "Mistral3ForConditionalGeneration", "mistral"}};

const Seeing* kind_of(const Json& config) {
    const Json* type = config.find("model_type");
    for (const Seeing& kind : kinds)
        if (type && type->is_string() && type->string() == kind.model_type) return &kind;
    return nullptr;
}

}  // namespace hf_text_config_room

Json text_configuration(Json config, const std::string& where, bool& sees) {
    const hf_text_config_room::Seeing* kind = hf_text_config_room::kind_of(config);
    sees = kind != nullptr;
    if (!kind) return config;
    const std::string place = where + ": text_config";
    const HfFields whole{config, where};
    if (const Json* classes = whole.find("architectures"))
        for (const Json& name : classes->as_array(whole.at("architectures")))
            if (name.as_string(whole.at("architectures")) != kind->hf_class)
                fail(Errc::unsupported, where, ": the class ", name.string(), " is not supported, expected ",
                     kind->hf_class);
    const Json* inner = whole.find("text_config");
    Json text = inner ? *inner : Json(Json::Object{});
    text.as_object(place);
    const std::string type = HfFields{text, place}.text("model_type", kind->text_type);
    const Family* family = family_named(type);
    if (!family)
        fail(Errc::unsupported, place, ": model_type \"", type, "\" is not supported; supported families: ",
             family_names());
    text.set("model_type", type).set("architectures", Json(Json::Array{Json(family->hf_class)}));
    for (const char* key : {"torch_dtype", "dtype", "transformers_version", "tie_word_embeddings", "bos_token_id",
                            "eos_token_id", "pad_token_id", "quantization_config"})
        if (const Json* v = whole.find(key); v && !HfFields{text, place}.find(key)) text.set(key, *v);
    return text;
}

}}  // namespace qlora
