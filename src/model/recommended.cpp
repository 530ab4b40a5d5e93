// recommended.cpp - one table of the names that either world has for a number. transformers draws only where do_sample
// is true; here its absence says nothing, and false is temperature 0.
#include "src/model/recommended.h"

#include "src/base/error.h"
#include "src/model/hf_model.h"
#include "src/model/metadata.h"

namespace qlora { inline namespace QLORA_ABI {
namespace recommended_room {

enum Which { temperature, top_p, min_p, top_k, repeat_penalty, repeat_last, how_many };
struct Place {
    const char *folder, *gguf;                         // what a number is called in either world
    double low, high;                                  // outside of them it is no recommendation but a mistake
    bool whole = false, draws = true;
};
constexpr Place places[how_many] = {
    {"temperature", "general.sampling.temp", 0, 100},
    {"top_p", "general.sampling.top_p", 0, 1},
    {"min_p", "general.sampling.min_p", 0, 1},
    {"top_k", "general.sampling.top_k", -1, 1 << 30, true},                               // -1 is all, as 0 is
    {"repetition_penalty", "general.sampling.penalty_repeat", 0.01, 100, false, false},
    {"repeat_last_n", "general.sampling.penalty_last_n", -1, 1 << 30, true, false},       // -1 is the whole context
};

// What a model's files say.
class Said {
public:
    explicit Said(const ModelImpl& model) : model_(model) {
        if (const std::string* text = model.metadata->file("generation_config.json"))
            config_ = Json::parse(*text, model.path + "/generation_config.json");
    }

    std::optional<double> number(Which which) const {
        const Place& place = places[which];
        std::optional<double> value;
        std::string where = model_.path + ": ";
        const auto& gguf = model_.metadata->gguf;
        if (const Json* v = config_.find(place.folder); v && !v->is_null()) {
            where += std::string("generation_config.json: ") + place.folder;
            value = v->as_number(where);
        } else if (gguf && gguf->pair(place.gguf)) {
            where += place.gguf;
            value = gguf->number(place.gguf, 0);
        }
        if (value && !(*value >= place.low && *value <= place.high))
            fail(Errc::format, where, " is ", *value, ", expected ", place.low, " to ", place.high, "; mend the file");
        return which == temperature && is_greedy() ? 0 : value;
    }

private:
    const ModelImpl& model_;
    Json config_;
    bool is_greedy() const {
        const Json* draws = config_.find("do_sample");
        return draws && draws->is_bool() && !draws->boolean();
    }
};

// (place, number) for each that is said.
template <class F> void for_each_said(const ModelImpl& model, const F& each) {
    const Said said(model);
    for (int which = 0; which < how_many; ++which)
        if (const std::optional<double> value = said.number(Which(which))) each(places[which], *value);
}

}  // namespace recommended_room

Sampling recommended_sampling(const ModelImpl& model) {
    namespace room = recommended_room;
    const room::Said said(model);
    Sampling s;
    if (const auto v = said.number(room::temperature)) s.temperature = float(*v);
    if (const auto v = said.number(room::top_p)) s.top_p = float(*v);
    if (const auto v = said.number(room::min_p)) s.min_p = float(*v);
    if (const auto v = said.number(room::repeat_penalty)) s.repeat_penalty = float(*v);
    if (const auto v = said.number(room::top_k)) s.top_k = std::max<int64_t>(0, int64_t(*v));
    if (const auto v = said.number(room::repeat_last)) s.repeat_last = *v < 0 ? 1 << 30 : int64_t(*v);
    return s;
}

void write_recommended(const ModelImpl& model, GgufWriter& out) {
    using Type = GgufWriter::Type;
    recommended_room::for_each_said(model, [&](const recommended_room::Place& place, double value) {
        if (place.whole) out.set(place.gguf, Type::i32, Json(int64_t(value)));
        else out.set(place.gguf, Type::f32, Json(value));
    });
}

// transformers minds what is said of drawing where nothing is drawn.
void write_recommended(const ModelImpl& model, Json& config) {
    namespace room = recommended_room;
    const std::optional<double> temperature = room::Said(model).number(room::temperature);
    const bool greedy = temperature && *temperature == 0;
    room::for_each_said(model, [&](const room::Place& place, double value) {
        if (place.draws) config.set("do_sample", !greedy);
        if (place.draws && greedy) return;
        config.set(place.folder, place.whole ? Json(int64_t(value)) : shortest(float(value)));
    });
}

}}  // namespace qlora
