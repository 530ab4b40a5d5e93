// held_out.cpp - the held-out rows of a run, written down and found again.
#include "examples/common/held_out.h"

#include "examples/common/rows.h"

#include <filesystem>

namespace program {

namespace fs = std::filesystem;
using qlora::Json;

std::string held_out_path(const std::string& adapter_folder) {
    return (fs::path(adapter_folder) / "held_out.json").string();
}

void write_held_out(const std::string& adapter_folder, const HeldOut& h) {
    Json json, paths = Json::Array{};
    for (const std::string& path : h.paths) paths.push(fs::absolute(path).lexically_normal().string());
    json.set("path", h.paths.size() == 1 ? paths.array()[0] : paths).set("split", h.split);
    json.set("fraction", double(h.fraction)).set("seed", int64_t(h.seed));
    json.set("loss", name_of(h.options.loss)).set("special", name_of(h.options.special));
    json.set("system", name_of(h.options.system)).set("long_rows", name_of(h.options.long_rows));
    if (h.options.skip_bad_rows) json.set("bad_rows", "skip");
    if (h.each) json.set("each", true);
    Json columns{Json::Object()};
    for (const auto& [theirs, ours] : h.options.columns) columns.set(theirs, ours);
    if (!h.options.columns.empty()) json.set("columns", columns);
    qlora::write_file_atomic(held_out_path(adapter_folder), json.set("context", h.options.context).dump(2) + '\n');
}

HeldOut read_held_out(const std::string& adapter_folder) {
    HeldOut h;
    const std::string path = held_out_path(adapter_folder);
    if (std::error_code unknown; !fs::exists(path, unknown)) return h;
    const Json json = Json::parse(qlora::read_file(path, 1 << 20), path);
    if (const Json* v = json.find("path"); v && v->is_array())
        for (const Json& each : v->array()) h.paths.push_back(each.as_string(path + ": path"));
    else if (v) h.paths = {v->as_string(path + ": path")};
    if (const Json* v = json.find("split")) h.split = v->as_string(path + ": split");
    if (const Json* v = json.find("fraction"); v && v->is_number()) h.fraction = float(v->number());
    if (const Json* v = json.find("seed")) h.seed = uint64_t(v->as_int(path + ": seed"));
    if (const Json* v = json.find("context")) h.options.context = v->as_int(path + ": context");
    if (const Json* v = json.find("loss")) h.options.loss = loss_of(v->as_string(path + ": loss"), path + ": loss");
    if (const Json* v = json.find("special"))
        h.options.special = special_of(v->as_string(path + ": special"), path + ": special");
    if (const Json* v = json.find("system"))
        h.options.system = system_rule_of(v->as_string(path + ": system"), path + ": system");
    if (const Json* v = json.find("long_rows"))
        h.options.long_rows = long_rows_of(v->as_string(path + ": long_rows"), path + ": long_rows");
    if (const Json* v = json.find("bad_rows")) h.options.skip_bad_rows = v->as_string(path + ": bad_rows") == "skip";
    if (const Json* v = json.find("each")) h.each = v->as_bool(path + ": each");
    if (const Json* v = json.find("columns"))
        for (const auto& [theirs, ours] : v->as_object(path + ": columns"))
            h.options.columns.emplace_back(theirs, ours.as_string(path + ": columns"));
    // anyone may have written it
    if (h.options.context < 2 || h.options.context > 1 << 20 || !(h.fraction >= 0 && h.fraction < 1))
        throw qlora::Error(qlora::Errc::format, path +
                                                    ": context must be 2 to 1048576, fraction from 0 to below 1; write "
                                                    "it anew, or measure on --measure FILE");
    return h;
}

qlora::Dataset load_held_out(const HeldOut& h, const qlora::Tokenizer& tokenizer) {
    qlora::DatasetOptions options = h.options;
    options.split = h.split;
    if (h.each && h.fraction > 0) {
        std::vector<qlora::Dataset> parts;
        for (const std::string& path : h.paths)
            parts.push_back(qlora::Dataset::load(path, tokenizer, options).split(h.fraction, h.seed).second);
        return qlora::Dataset::join(parts);
    }
    const qlora::Dataset rows = load_rows(h.paths, tokenizer, options);
    return h.fraction > 0 ? rows.split(h.fraction, h.seed).second : rows;
}

bool holds_rows(const std::string& path) {
    const std::string ending = fs::path(path).extension().string();
    return fs::is_directory(path) || ending == ".jsonl" || ending == ".json" || ending == ".csv" || ending == ".tsv";
}

}  // namespace program
