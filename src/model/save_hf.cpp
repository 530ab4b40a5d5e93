// save_hf.cpp - a model into a Hugging Face folder: its own config.json and tokenizer files, and model.safetensors, in
// which 4-bit linear layers lie as bitsandbytes writes them, bit for bit.
//
// A model out of a GGUF file gets both files written anew, and q and k in Hugging Face row order where GGUF has
// another.
#include "src/base/half.h"
#include "src/model/fused.h"
#include "src/model/hf_model.h"
#include "src/model/vocabulary.h"
#include "src/tensor/encode.h"
#include "src/text/tiktoken.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {

namespace save_hf_room {

using Tensor = SafeTensorsWriter::Tensor;

void raw(SafeTensorsWriter& out, std::string name, const char* dtype, Shape shape, const void* data, int64_t bytes,
         WeightPtr owner) {
    out.tensors.push_back(Tensor{std::move(name), dtype, std::move(shape), bytes, [data, bytes, owner](AtomicFile& f) {
        f.write(data, bytes);
        owner->check();
    }});
}

// The text of a float as Python prints the double of the same value: 17 digits name it exactly.
std::string exact(float v) {
    std::string text = Json(double(v)).dump();
    return text.find_first_of(".en") == text.npos ? text + ".0" : text;
}

// W, W.absmax, W.quant_map, W.nested_absmax, W.nested_quant_map and the JSON text W.quant_state.bitsandbytes__nf4.
void four_bit(SafeTensorsWriter& out, const std::string& name, const WeightPtr& w) {
    const FourBit& q = w->quant;
    const int64_t n = w->elements(), blocks = (n + q.block - 1) / q.block, groups = (blocks + q.block2 - 1) / q.block2;
    const std::string type(name_of(w->dtype));
    raw(out, name, "U8", {(n + 1) / 2, 1}, w->data, (n + 1) / 2, w);
    raw(out, name + ".quant_map", "F32", {16}, q.codebook, 64, w);
    std::string state = str("{\"quant_type\": \"", type, "\", \"blocksize\": ", q.block, ", \"dtype\": \"",
                            torch_name(q.source), "\", \"shape\": [", w->shape[0], ", ", w->shape[1], "]");
    if (q.absmax) {
        raw(out, name + ".absmax", "F32", {blocks}, q.absmax, blocks * 4, w);
    } else {
        raw(out, name + ".absmax", "U8", {blocks}, q.absmax_code, blocks, w);
        raw(out, name + ".nested_absmax", "F32", {groups}, q.absmax2, groups * 4, w);
        raw(out, name + ".nested_quant_map", "F32", {256}, q.absmax_map, 1024, w);
        state += str(", \"nested_blocksize\": ", q.block2,
                     ", \"nested_dtype\": \"float32\", \"nested_offset\": ", exact(q.offset));
    }
    state += "}";
    out.tensors.push_back(Tensor{name + ".quant_state.bitsandbytes__" + type,
                                 "U8",
                                 {int64_t(state.size())},
                                 int64_t(state.size()),
                                 [state](AtomicFile& f) { f.write(state.data(), int64_t(state.size())); }});
}

void tensor(SafeTensorsWriter& out, const std::string& name, const DraftTensor& t) {
    if (is_4bit(t.dtype)) return four_bit(out, name, t.now());
    const char* dtype = t.dtype == DType::f32    ? "F32"
                        : t.dtype == DType::f16  ? "F16"
                        : t.dtype == DType::bf16 ? "BF16"
                                                 : nullptr;
    if (!dtype)
        fail(Errc::unsupported, "save: ", name, " is of type ", name_of(t.dtype),
             ", which a Hugging Face folder cannot hold; convert the model to f32, f16, bf16 or nf4, or save a GGUF "
             "file");
    out.tensors.push_back(Tensor{name, dtype, t.shape, t.bytes(), [t](AtomicFile& f) {
        const WeightPtr made = t.now();
        f.write(made->data, made->bytes());
        made->check();
    }});
}

// Norms and biases, which the kernels read as floats, in the type of the embedding: transformers runs a 4-bit
// checkpoint in the types it finds, and floats would meet bf16 in the head. Only where that changes no value.
WeightPtr small(const WeightPtr& w, DType type) {
    if (w->dtype == type || (type != DType::f16 && type != DType::bf16)) return w;
    const std::vector<float> values = w->decoded();
    for (const float v : values)
        if (v != (type == DType::f16 ? f32_from_f16(f16_from_f32(v)) : f32_from_bf16(bf16_from_f32(v)))) return w;
    return std::make_shared<const Weight>(convert_weight(*w, type));
}

// Rows of q and k (or of their bias) out of GGUF's order for adjacent pairs. Groups of 4-bit scales cross row borders,
// so those rows are quantized again: where a row is whole blocks they get the codes that they had, and scales that
// differ in the last of their 8 bits.
void reordered(SafeTensorsWriter& out, const std::string& name, const DraftTensor& t, int64_t head_dim) {
    const int64_t rows = t.shape[0];
    if (is_4bit(t.dtype)) {
        const WeightPtr w = t.now();
        const std::vector<float> held = w->decoded();
        std::vector<float> values(held.size());
        const int64_t row = int64_t(held.size()) / rows;
        for (int64_t r = 0; r < rows; ++r)
            std::copy_n(held.begin() + gguf_row_of_hf(r, head_dim) * row, row, values.begin() + r * row);
        Weight again = convert_weight(dense_weight(w->name, w->shape, std::move(values)), w->dtype,
                                      w->quant.absmax == nullptr);
        again.quant.source = w->quant.source;
        return tensor(out, name, std::make_shared<const Weight>(std::move(again)));
    }
    const int64_t row = t.bytes() / rows;
    tensor(out, name, t);
    out.tensors.back().write = [t, rows, row, head_dim](AtomicFile& f) {
        const WeightPtr made = t.now();
        for (int64_t r = 0; r < rows; ++r) f.write(made->data + gguf_row_of_hf(r, head_dim) * row, row);
        made->check();
    };
}

// Embedding and head of a model in 4 bits, where a GGUF file has them in blocks: in the type that transformers then
// computes in.
DraftTensor dense(const DraftTensor& t, bool codes) {
    const bool blocks = codes && t.dtype != DType::f32 && t.dtype != DType::f16 && t.dtype != DType::bf16 &&
                        !is_4bit(t.dtype);
    return blocks ? DraftTensor(DType::bf16, t.shape, [t] { return convert_weight(*t.now(), DType::bf16); }) : t;
}

// 4-bit codes of a GGUF file are said to come from the type that the rest of the folder has.
DraftTensor from_type(const DraftTensor& t, DType type) {
    if (!is_4bit(t.dtype)) return t;
    Weight said = *t.now();
    said.quant.source = type;
    return std::make_shared<const Weight>(std::move(said));
}

// {out, in} -> {in, out}, which only dense matrices are stored as.
DraftTensor turned_over(const DraftTensor& t) {
    if (is_4bit(t.dtype)) return t;
    return {t.dtype, Shape{t.shape[1], t.shape[0]}, [t] { return transposed(*t.now()); }};
}

DraftTensor as_stored(const ModelImpl& model, Kind kind, const DraftTensor& t, bool codes, DType type) {
    switch (kind) {
        case Kind::embedding: return dense(t, codes);
        case Kind::norm:
            return small(model.config.norms_from_one ? std::make_shared<const Weight>(plus(*t.now(), -1)) : t.now(),
                         type);
        case Kind::bias: return small(t.now(), type);
        case Kind::linear: break;
    }
    return model.metadata->of_folder() ? t : from_type(t, type);
}

// Without 4-bit layers nothing says so any more, and the model computes in the type it is stored in.
Json dense_config(Json j, DType type) {
    std::erase_if(j.object(), [](const Json::Member& m) { return m.first == "quantization_config"; });
    const Json name(torch_name(type));
    const bool v5 = j.find("dtype"), v4 = j.find("torch_dtype") || !v5;
    if (v5) j.set("dtype", name);
    if (v4) j.set("torch_dtype", name);
    return j;
}

// The configuration of the source, with what quantization changed.
Json config(const Draft& draft, DType type) {
    const ModelImpl& model = draft.model;
    const bool of_folder = model.metadata->of_folder();
    Json j = of_folder ? model.metadata->config : hf_config_of(model);
    WeightPtr first;
    bool mixed = false;
    for_each_in_file(World::hf, draft, [&](const Row& row, int64_t, const std::string&, const DraftTensor& t) {
        if (row.kind != Kind::linear) return;
        if (!is_4bit(t.dtype)) mixed = true;
        else if (!first) first = t.weight;
    });
    if (!first) return dense_config(std::move(j), draft.at(Slot::q_proj, 0).dtype);
    if (!of_folder) j.set("torch_dtype", torch_name(type));
    const Json* before = j.find("quantization_config");
    const Json* method = before && before->is_object() ? before->find("quant_method") : nullptr;
    // what another method says does not hold for these codes
    if (!method || !method->is_string() || method->string() != "bitsandbytes") before = nullptr;
    Json q = before ? *before : Json{Json::Object{}};
    if (!before) {
        q.set("_load_in_4bit", Json(true))
            .set("_load_in_8bit", Json(false))
            .set("bnb_4bit_compute_dtype", Json(torch_name(type)));
        q.set("llm_int8_enable_fp32_cpu_offload", Json(false))
            .set("llm_int8_has_fp16_weight", Json(false))
            .set("llm_int8_threshold", Json(6.0));
        q.set("load_in_4bit", Json(true)).set("load_in_8bit", Json(false)).set("quant_method", Json("bitsandbytes"));
    }
    q.set("bnb_4bit_quant_storage", Json("uint8"))
        .set("bnb_4bit_quant_type", Json(name_of(first->dtype)))
        .set("bnb_4bit_use_double_quant", Json(first->quant.absmax == nullptr));
    // layers that stayed dense in the source may be quantized by now
    if (!before || !mixed) q.set("llm_int8_skip_modules", Json());
    return j.set("quantization_config", std::move(q));
}

// The other small files of a model that came with none: what a GGUF file says in theirs.
std::vector<TextFile> text_files(const ModelImpl& model) {
    std::vector<TextFile> out;
    if (const Json said = hf_generation_config(model); !said.object().empty())
        out.push_back({"generation_config.json", said.dump(2) + "\n"});
    if (!model.tokenizer) return out;
    const std::optional<TextFiles> kept = original_text(model);
    const TextFiles files = kept ? *kept : hf_vocabulary(model);
    for (const auto& [name, content] :
         {std::pair{std::string("tokenizer.json"), &files.tokenizer},
          std::pair{std::string(tiktoken_file(files.form)), &files.model},
          std::pair{std::string("tokenizer_config.json"), &files.config},
          std::pair{std::string("chat_template.jinja"), &files.chat_template}})
        if (!content->empty()) out.push_back({name, *content});
    return out;
}

// One model.safetensors, or, above `most` bytes, shards and the list of what lies where. The parts of a 4-bit tensor
// stay together.
void write_tensors(SafeTensorsWriter&& all, const std::string& folder, int64_t most) {
    std::vector<SafeTensorsWriter> shards(1);
    int64_t total = 0, bytes = 0;
    for (size_t i = 0; i < all.tensors.size();) {
        const std::string first = all.tensors[i].name + ".";
        size_t end = i;
        int64_t size = 0;
        for (; end < all.tensors.size() && (end == i || all.tensors[end].name.starts_with(first)); ++end)
            size += all.tensors[end].bytes;
        if (bytes > 0 && bytes + size > most) {
            shards.emplace_back();
            bytes = 0;
        }
        for (; i < end; ++i) shards.back().tensors.push_back(std::move(all.tensors[i]));
        bytes += size;
        total += size;
    }
    if (shards.size() == 1) return shards[0].write(folder + "/model.safetensors");
    const auto five = [](size_t n) {
        return std::string(5 - std::min<size_t>(std::to_string(n).size(), 5), '0') + std::to_string(n);
    };
    Json places{Json::Object{}};
    for (size_t n = 0; n < shards.size(); ++n) {
        const std::string file = "model-" + five(n + 1) + "-of-" + five(shards.size()) + ".safetensors";
        for (const Tensor& t : shards[n].tensors) places.object().emplace_back(t.name, Json(file));
        shards[n].write(folder + "/" + file);
    }
    Json index{Json::Object{}};
    index.set("metadata", Json(Json::Object{{"total_size", total}})).set("weight_map", std::move(places));
    write_file_atomic(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace save_hf_room

void save_hf_model(const Draft& draft, const std::string& folder, int64_t shard_bytes) {
    namespace room = save_hf_room;
    const ModelImpl& model = draft.model;
    SafeTensorsWriter out;
    bool codes = false;
    for_each_tensor(model.config, [&](const Row& row, int64_t layer) {
        codes = codes || (row.kind == Kind::linear && is_4bit(draft.at(row.slot, layer).dtype));
    });
    const DType type = room::dense(draft.at(Slot::embedding, -1), codes).dtype;
    const Config& c = model.config;
    for_each_in_file(World::hf, draft, [&](const Row& row, int64_t, const std::string& name, const DraftTensor& held) {
        const DraftTensor t = room::as_stored(model, row.kind, held, codes, type);
        if (row.turned && c.adjacent_pairs) room::reordered(out, name, t, c.head_dim);
        else if (row.kind == Kind::linear && c.names.transposed) room::tensor(out, name, room::turned_over(t));
        else room::tensor(out, name, t);
    });
    const Json config = room::config(draft, type);
    const bool own = model.metadata->of_folder();
    const std::vector<TextFile> made = own ? std::vector<TextFile>() : room::text_files(model);
    AtomicFolder target(folder);
    write_file_atomic(target.path() + "/config.json", config.dump(2) + "\n");
    for (const TextFile& file : own ? model.metadata->files : made)
        write_file_atomic(target.path() + "/" + file.name, file.content);
    room::write_tensors(std::move(out), target.path(), shard_bytes);
    target.commit();
}

}}  // namespace qlora
