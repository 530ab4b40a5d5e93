// base_record.cpp - the fingerprints of a model, the record that carries them, and what follows from a record.
#include "src/model/base_record.h"

#include "src/base/source.h"
#include "src/base/stop.h"
#include "src/cpu/cpu.h"
#include "src/format/gguf.h"
#include "src/model/fused.h"
#include "src/model/head.h"

#include <algorithm>
#include <cstdio>

namespace qlora { inline namespace QLORA_ABI {
namespace base_record_room {

// in pieces of whole words: what is left over goes in with its length
void add(Hash& hash, const void* bytes, int64_t count) {
    hash.add(bytes, count / 8 * 8);
    char rest[16] = {};
    std::copy_n(static_cast<const char*>(bytes) + count / 8 * 8, count % 8, rest);
    std::copy_n(reinterpret_cast<const char*>(&count), 8, rest + 8);
    hash.add(rest, 16);
}

void add(Hash& hash, const WeightPtr& held) {
    if (!held) return add(hash, "absent", 6);
    const WeightPtr w = on_host(held);
    const int64_t head[] = {int64_t(w->dtype), int64_t(w->shape.size()), w->elements()};
    add(hash, head, sizeof head);
    add(hash, w->data, bytes_of(w->dtype, w->elements()));
    w->check();                                        // a record with the fingerprint of zeros would never fit again
}

void add_scales(Hash& hash, const WeightPtr& held) {
    if (!held) return;
    const WeightPtr w = on_host(held);
    const FourBit& q = w->quant;
    if (w->dtype == DType::nvfp4) add(hash, q.absmax_map, 256 * 4);
    if (const Tiles& t = w->tiles; t.scale) {
        const int64_t sizes[] = {t.rows, t.cols};
        add(hash, sizes, sizeof sizes);
        add(hash, t.scale, t.count(w->elements()) * 4);
    }
    if (!is_4bit(w->dtype)) return;
    const int64_t blocks = (w->elements() + q.block - 1) / q.block;
    add(hash, q.codebook, 16 * 4);
    if (q.absmax) return add(hash, q.absmax, blocks * 4);
    add(hash, q.absmax_code, blocks);
    add(hash, q.absmax_map, 256 * 4);
    add(hash, q.absmax2, (blocks + q.block2 - 1) / q.block2 * 4);
    add(hash, &q.offset, 4);
}

std::string hex(const Hash& hash) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash.value()));
    return text;
}

void add_values(Hash& hash, const WeightPtr& norm) {
    if (!norm) return;
    const std::vector<float> values = norm->decoded();
    add(hash, values.data(), int64_t(values.size()) * 4);
}

Hash of_configuration(const Config& c) {
    Hash hash;
    const int64_t sizes[] = {c.vocabulary,        c.hidden,   c.layers,         c.heads,
                             c.kv_heads,          c.head_dim, c.feed_forward,   c.window,
                             c.window_from_layer, c.rotated,  c.adjacent_pairs, c.tied};
    add(hash, sizes, sizeof sizes);
    const float numbers[] = {c.eps, c.rope_magnitude};
    add(hash, numbers, sizeof numbers);
    add(hash, c.inverse_frequencies.data(), int64_t(c.inverse_frequencies.size()) * 4);
    // Switches that the first records did not know count where they are used.
    const auto switches = [](const Config& of) {
        return std::array{float(of.activation), float(of.post_norms), float(of.full_every), of.embedding_scale,
                          of.attention_scale,   of.attention_cap,     of.logit_cap};
    };
    if (const auto used = switches(c); used != switches({})) add(hash, used.data(), sizeof used);
    const auto later = [](const Config& of) {
        return std::array{float(of.gated),       float(of.norm),      float(of.norm_biases),
                          float(of.pre_norms),   float(of.parallel),  float(of.q_k_norms),
                          of.clip_qkv,           of.residual_scale,   of.logit_scale,
                          float(of.learned_positions), of.query_growth, float(of.query_growth_every)};
    };
    Config qwen3;                                      // whose norms the first records knew by their tensors
    qwen3.q_k_norms = QkNorms::heads;
    if (const auto used = later(c); used != later({}) && used != later(qwen3)) add(hash, used.data(), sizeof used);
    if (!c.kv_heads_of.empty()) add(hash, c.kv_heads_of.data(), int64_t(c.kv_heads_of.size()) * 8);
    for (const std::vector<uint8_t>* list : {&c.sliding, &c.turned})
        if (!list->empty()) add(hash, list->data(), int64_t(list->size()));
    if (!c.long_frequencies.empty()) {
        add(hash, c.long_frequencies.data(), int64_t(c.long_frequencies.size()) * 4);
        add(hash, &c.rope_scaling.original_context, sizeof c.rope_scaling.original_context);
    }
    if (!c.sliding_frequencies.empty())
        add(hash, c.sliding_frequencies.data(), int64_t(c.sliding_frequencies.size()) * 4);
    return hash;
}

// The 4-bit type that LoadOptions would name to get this model: nothing where the linear layers are in several types,
// or in a stored one.
void held(const ModelImpl& m, AdapterBase& base) {
    const Weight* first = nullptr;
    bool same = true;
    for_each_weight(m, [&](const Row& row, const WeightPtr& w) {
        if (row.kind != Kind::linear) return;
        if (!first) first = w.get();
        same = same && is_4bit(w->dtype) && w->dtype == first->dtype && !w->quant.absmax == !first->quant.absmax;
    });
    if (!first || !same) return;
    base.quantize = first->dtype;
    base.double_quant = !first->quant.absmax;
}

std::shared_ptr<const ModelImpl> quantized(const ModelImpl& from, DType type, bool double_quant) {
    auto model = std::make_shared<ModelImpl>(from);
    ThreadPool* pool = &from.backend->host().pool;
    for_each_tensor(from.config, [&](const Row& row, int64_t layer) {
        if (row.kind != Kind::linear || !is_module(from.config, row.slot)) return;
        const std::span<const Slot> slots = parts_of(from.config, row.slot);
        // as when a file is loaded: what is in the type already stays as it is
        if (from.at(row.slot, layer)->dtype == type) return;
        std::vector<Weight> parts;
        for (const Slot part : slots) parts.push_back(*on_host(from.at(part, layer)));
        parts = convert_module(from.config, row.slot, layer, parts, type, double_quant, pool);
        for (size_t i = 0; i < slots.size(); ++i)
            model->replace(slots[i], layer,
                           from.backend->hold(std::make_shared<const Weight>(std::move(parts[i])), Placement::device),
                           from.stored(slots[i], layer));
    });
    return model;
}

std::string differing(const Json& recorded, const Json& now) {
    std::string names;
    for (const auto& [name, value] : now.object()) {
        const Json* old = recorded.find(name);
        if (name == "norm values" || (old && old->dump() == value.dump())) continue;
        names += (names.empty() ? "" : ", ") + name;
    }
    return names;
}

bool same_norms(const Json& a, const Json& b) {
    const Json *x = a.find("norm values"), *y = b.find("norm values");
    return x && y && x->dump() == y->dump();
}

Json computed_fingerprint(const ModelImpl& m) {
    Hash values, norms, embeddings, weights, scales, biases;
    const auto of_layer = [&](const Row& row, const WeightPtr& w) {
        if (row.kind == Kind::bias) add(biases, w);
        else if (row.kind == Kind::norm) add(norms, w);
        if (row.kind == Kind::norm && row.out == Dim::hidden) add_values(values, w);
        if (row.kind == Kind::linear) add(weights, w);
        if (row.kind == Kind::linear) add_scales(scales, w);
    };
    for (int64_t layer = 0; layer < m.config.layers; ++layer) {
        check_stop();
        // The absence of biases and of the norms of heads is part of a record, as it was in the first.
        for (const Row& row : tensor_rows())
            if (row.in_layer() && (row.exists(m.config, layer) || row.kind == Kind::bias || row.out == Dim::head))
                of_layer(row, m.at(row.slot, layer));
    }
    add_values(values, m.at(Slot::final_norm));
    add(norms, m.at(Slot::final_norm));
    for (const Row& row : tensor_rows())
        if (row.kind == Kind::embedding && row.exists(m.config, -1)) {
            add(embeddings, m.at(row.slot));
            add_scales(scales, m.at(row.slot));
        }
    return Json()
        .set("norm values", hex(values))
        .set("configuration", hex(of_configuration(m.config)))
        .set("norms", hex(norms))
        .set("embeddings", hex(embeddings))
        .set("weights", hex(weights))
        .set("scales", hex(scales))
        .set("biases", hex(biases));
}

}  // namespace base_record_room

Json fingerprint_of(const ModelImpl& m) {
    const std::lock_guard<std::mutex> computing(m.fingerprint.lock);
    std::optional<Json>& kept = m.fingerprint.value;
    if (!kept) kept = base_record_room::computed_fingerprint(m);
    else for_each_weight(m, [](const Row&, const WeightPtr& w) { w->check(); });
    return *kept;
}

BaseRecord record_of(const ModelImpl& m) {
    if (m.backend && m.backend->is_outline())
        fail(Errc::argument, m.path, " is an outline (Model::outline), which has no weights to save, merge or compare; "
                             "use Model::load");
    BaseRecord record;    // member by member: g++ 12 destroys a nested member twice where a later initializer throws
    record.base.model = m.path;
    record.base.weights = describe(m).weights;
    try {
        record.fingerprint = fingerprint_of(m);
    } catch (const Error& e) {    // the model's file is gone or cut: what was learned on it can still be saved
        if (e.code != Errc::io) throw;
    }
    base_record_room::held(m, record.base);
    record.base.head = m.head;
    return record;
}

Json to_json(const BaseRecord& r) {
    Json json;
    json.set("model", r.base.model)
        .set("weights", r.base.weights)
        .set("quant", r.base.quantize ? std::string(name_of(*r.base.quantize)) : "none")
        .set("double_quant", r.base.double_quant);
    if (r.base.head) json.set("head", std::string(name_of(*r.base.head)));
    return json.set("library", QLORA_VERSION_STRING).set("fingerprint", r.fingerprint);
}

BaseRecord read_base_record(const Json& j, const std::string& where) {
    BaseRecord r;
    j.as_object(where);
    const auto at = [&](const char* key) { return where + ": " + key; };
    if (const Json* v = j.find("model")) r.base.model = v->as_string(at("model"));
    if (const Json* v = j.find("weights")) r.base.weights = v->as_string(at("weights"));
    if (const Json* v = j.find("double_quant")) r.base.double_quant = v->as_bool(at("double_quant"));
    if (const Json* v = j.find("quant")) {
        const std::string& quant = v->as_string(at("quant"));
        if (quant == "nf4") r.base.quantize = DType::nf4;
        else if (quant == "fp4") r.base.quantize = DType::fp4;
        else if (quant != "none") fail(Errc::format, at("quant"), " is \"", quant, "\", expected nf4, fp4 or none");
    }
    if (const Json* v = j.find("head")) {
        const std::string& head = v->as_string(at("head"));
        if (head == "q8_0") r.base.head = DType::q8_0;
        else if (head == "q4_0") r.base.head = DType::q4_0;
        else if (head == "iq4_nl") r.base.head = DType::iq4_nl;
        else fail(Errc::format, at("head"), " is \"", head, "\", expected q8_0, q4_0 or iq4_nl");
    }
    if (const Json* v = j.find("fingerprint"); v && !v->is_null()) {
        for (const auto& [name, value] : v->as_object(at("fingerprint"))) value.as_string(at("fingerprint"));
        r.fingerprint = *v;
    }
    return r;
}

std::optional<BaseRecord> recorded_base(const Source& adapter) {
    if (has_files(adapter)) {
        const std::string file = path_in(adapter, base_record_file);
        if (!has_file(adapter, base_record_file)) return {};
        return read_base_record(Json::parse(text_of(adapter, base_record_file, 1 << 20), file), file);
    }
    const std::string text = Gguf::open(adapter)->string(base_record_key, ""),
                      where = str(adapter.name(), ": ", base_record_key);
    if (text.empty()) return {};
    return read_base_record(Json::parse(text, where), where);
}

std::shared_ptr<const ModelImpl> follow_record(std::shared_ptr<const ModelImpl> model, const BaseRecord& r,
                                               OnBase on_base, const std::string& adapter) {
    namespace room = base_record_room;
    if (on_base == OnBase::any) return model;
    // other forms can be brought into a 4-bit one, and only there
    if (on_base == OnBase::recorded && r.base.quantize) {
        AdapterBase now;
        room::held(*model, now);
        if (!now.quantize) model = room::quantized(*model, *r.base.quantize, r.base.double_quant);
    }
    if (on_base == OnBase::recorded && r.base.head && !model->head) model = model_with_head(*model, *r.base.head);
    if (!r.fingerprint.is_object()) return model;
    const Json now = fingerprint_of(*model);
    const std::string of = str("load ", adapter, ": the adapter was trained on ", r.base.model, " (", r.base.weights,
                               "), and this is ");
    const std::string is = str(model->path, " (", describe(*model).weights, ")");
    if (!room::same_norms(r.fingerprint, now))
        fail(Errc::argument, of, "another model, ", is,
             ": its norms have other values; load the model it was trained on, or turn this check off (OnBase::any, in "
             "the programs --any-base)");
    if (on_base == OnBase::as_held) return model;
    if (const std::string parts = room::differing(r.fingerprint, now); !parts.empty())
        fail(Errc::argument, of, is, ", which differs in: ", parts, "; load the model it was trained on",
             r.base.quantize ? str(" with quantize = ", name_of(*r.base.quantize)) : " as it is stored",
             r.base.quantize && !r.base.double_quant ? " and double_quant = false" : "",
             ", or say that another form of that model will do (OnBase::as_held, in the programs --quant TYPE)");
    return model;
}

}}  // namespace qlora
