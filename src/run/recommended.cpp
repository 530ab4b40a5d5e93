// recommended.cpp - generation_config.json of a folder, general.sampling.* of a GGUF file (the keys of llama.cpp).
// transformers draws only where do_sample is true; here its absence says nothing, and false is temperature 0.
#include "src/run/recommended.h"

#include "src/base/error.h"
#include "src/base/json.h"
#include "src/model/metadata.h"

#include <cmath>

namespace qlora { inline namespace QLORA_ABI {
namespace recommended_room {

struct Place { const char *folder, *gguf; };           // what a number is called in either world

// The number there, or nothing; outside of its range it is no recommendation but a mistake.
std::optional<double> number(const ModelImpl& model, const Json& config, const Place& place, double low, double high) {
    std::optional<double> value;
    std::string where = model.path + ": ";
    if (const Json* v = config.find(place.folder); v && !v->is_null()) {
        where += std::string("generation_config.json: ") + place.folder;
        value = v->as_number(where);
    } else if (model.metadata->gguf && model.metadata->gguf->pair(place.gguf)) {
        where += place.gguf;
        value = model.metadata->gguf->number(place.gguf, 0);
    }
    if (value && !(*value >= low && *value <= high))
        fail(Errc::format, where, " is ", *value, ", expected ", low, " to ", high, "; mend the file");
    return value;
}

}  // namespace recommended_room

Sampling recommended_sampling(const ModelImpl& model) {
    using recommended_room::number;
    Json config;
    if (const std::string* text = model.metadata->file("generation_config.json"))
        config = Json::parse(*text, model.path + "/generation_config.json");
    Sampling s;
    if (const auto v = number(model, config, {"temperature", "general.sampling.temp"}, 0, 100))
        s.temperature = float(*v);
    if (const auto v = number(model, config, {"top_p", "general.sampling.top_p"}, 0, 1)) s.top_p = float(*v);
    if (const auto v = number(model, config, {"min_p", "general.sampling.min_p"}, 0, 1)) s.min_p = float(*v);
    if (const auto v = number(model, config, {"repetition_penalty", "general.sampling.penalty_repeat"}, 0.01, 100))
        s.repeat_penalty = float(*v);
    // -1 is all, as 0 is
    if (const auto v = number(model, config, {"top_k", "general.sampling.top_k"}, -1, 1 << 30))
        s.top_k = std::max<int64_t>(0, int64_t(*v));
    // -1 is the whole context
    if (const auto v = number(model, config, {"repeat_last_n", "general.sampling.penalty_last_n"}, -1, 1 << 30))
        s.repeat_last = *v < 0 ? 1 << 30 : int64_t(*v);
    const Json* draws = config.find("do_sample");
    if (draws && draws->is_bool() && !draws->boolean()) s.temperature = 0;
    return s;
}

}}  // namespace qlora
