// base_record.h - what an adapter was trained on: written with every save, followed and compared when it is loaded.
//
//   {"model": PATH, "weights": "nf4, double-quantized", "quant": "nf4" | "fp4" | "none", "double_quant": true,
//    "head": "q8_0" (where it was brought into that), "library": "0.1.0",
//    "fingerprint": {"norm values": ..., "configuration": ..., "norms": ..., "embeddings": ..., "weights": ...,
//    "scales": ..., "biases": ...}}
//
// in base.json of a folder and under the key qlora.base of a GGUF adapter. Every byte of the model is in one of the
// fingerprints, so two that agree hold the same numbers. The first one is of the norms as floats, which no form of a
// model changes: it tells another form from another model. Records of version 0.1.0 have no fingerprint.
#pragma once
#include "src/base/json.h"
#include "src/model/model.h"

#include <mutex>

namespace qlora { inline namespace QLORA_ABI {

constexpr const char* base_record_file = "base.json";
constexpr const char* base_record_key = "qlora.base";

struct BaseRecord {
    AdapterBase base;
    Json fingerprint;                                  // an object of the names above; null = not recorded
};

BaseRecord record_of(const ModelImpl&);
Json fingerprint_of(const ModelImpl&);                 // computed once; Error{io} where its file has changed since
Json to_json(const BaseRecord&);
BaseRecord read_base_record(const Json&, const std::string& where);
std::optional<BaseRecord> recorded_base(const Source& adapter);   // of a PEFT folder or a GGUF adapter

// The base for an adapter with this record, and what was computed of it on the way. Error{argument} with the remedy
// where it is another one.
std::shared_ptr<const ModelImpl> follow_record(std::shared_ptr<const ModelImpl>, const BaseRecord&, OnBase,
                                               const std::string& adapter);

// The record of an adapter's base is computed once, when it is first asked for: that reads all weights. Shared by forms
// of one adapter.
struct BaseOfAdapter {
    std::once_flag once;
    BaseRecord record;
};

}}  // namespace qlora
