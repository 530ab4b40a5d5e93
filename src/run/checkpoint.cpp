// checkpoint.cpp - saving and continuing a training run.
#include "src/run/checkpoint.h"

#include "src/base/file.h"
#include "src/model/lora_impl.h"
#include "src/run/checkpoint_identity.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace checkpoint_room {

// raised when a newer manifest can no longer be read as this one; 1 is read as well
constexpr int64_t format_number = 2;

// JSON has no infinity: a skipped step's loss is kept as text.
Json number(double v) { return std::isfinite(v) ? Json(v) : Json(std::isnan(v) ? "nan" : v > 0 ? "inf" : "-inf"); }

double number_of(const Json& v, const std::string& where) {
    if (!v.is_string()) return v.as_number(where);
    if (v.string() == "nan") return std::nan("");
    if (v.string() == "inf" || v.string() == "-inf") return v.string() == "inf" ? HUGE_VAL : -HUGE_VAL;
    fail(Errc::format, where, " is \"", v.string(), "\", expected a number");
}

Json progress_json(const TrainProgress& p) {
    const TrainStep& s = p.last;
    Json last = Json()
                    .set("step", s.step)
                    .set("steps", s.steps)
                    .set("epoch", s.epoch)
                    .set("loss", number(s.loss))
                    .set("learning_rate", s.learning_rate)
                    .set("grad_norm", number(s.grad_norm))
                    .set("seconds", s.seconds)
                    .set("tokens", s.tokens)
                    .set("trained_tokens", s.trained_tokens)
                    .set("skipped", s.skipped);
    Json progress = Json()
                        .set("step", p.step)
                        .set("updates", p.updates)
                        .set("skipped", p.skipped)
                        .set("bad_in_a_row", p.bad_in_a_row);
    if (p.rate >= 0) progress.set("learning_rate", p.rate);
    return progress.set("last", std::move(last));
}

const Json& field(const Json& object, std::string_view key, const std::string& where) {
    const Json* value = object.find(key);
    if (!value) fail(Errc::format, where, ": \"", key, "\" is missing");
    return *value;
}

TrainProgress read_progress(const Json& j, const std::string& where) {
    const auto count = [&](const Json& from, const char* key) {
        const int64_t v = field(from, key, where).as_int(str(where, ": ", key));
        if (v < 0) fail(Errc::format, where, ": ", key, " is ", v);
        return v;
    };
    TrainProgress p;
    p.step = count(j, "step");
    p.updates = count(j, "updates");
    p.skipped = count(j, "skipped");
    p.bad_in_a_row = count(j, "bad_in_a_row");
    if (const Json* rate = j.find("learning_rate")) p.rate = rate->as_number(where + ": learning_rate");
    const Json& last = field(j, "last", where);
    p.last.step = count(last, "step");
    p.last.steps = count(last, "steps");
    p.last.tokens = count(last, "tokens");
    p.last.trained_tokens = count(last, "trained_tokens");
    p.last.epoch = field(last, "epoch", where).as_number(where);
    p.last.loss = number_of(field(last, "loss", where), where);
    p.last.learning_rate = field(last, "learning_rate", where).as_number(where);
    p.last.grad_norm = number_of(field(last, "grad_norm", where), where);
    p.last.seconds = field(last, "seconds", where).as_number(where);
    p.last.skipped = field(last, "skipped", where).as_bool(where);
    p.last.skipped_steps = p.skipped;
    return p;
}

struct File { std::string name; BufferRef buffer; bool floats = true; };

std::vector<File> files_of(const TrainerImpl& t) {
    std::vector<File> files{{"factors.bin", t.lora->values}};
    for (const FlatAdamW::State& s : t.optimizer.states()) files.push_back({s.name + ".bin", s.buffer, s.floats});
    return files;
}

// Saving and going on need no copy of a whole array: the memory plan has no room for one.
template <class Piece>
void in_pieces(int64_t bytes, const Piece& piece) {
    constexpr int64_t most = 1 << 20;
    for (int64_t at = 0; at < bytes; at += most) piece(at, std::min(most, bytes - at));
}

// Factors and moments are floats, as are the scales of 8-bit moments; their codes are bytes.
void check_piece(const File& file, std::string_view bytes, const std::string& where) {
    if (!file.floats) return;
    std::vector<float> values(bytes.size() / 4);
    std::memcpy(values.data(), bytes.data(), values.size() * 4);
    check_finite(values, where, file.name);
}

void save(const TrainerImpl& t, const std::string& folder) {
    if (exists(folder) && !exists(folder + "/manifest.json"))
        fail(Errc::io, "checkpoint ", folder,
             ": exists and is not a checkpoint; choose another folder (an old checkpoint may be overwritten)");
    const auto training = t.lora->lock.train("Trainer::save");        // factors, moments and counters of one step
    AtomicFolder out(folder, true);
    save_lora_peft(*t.lora, out.path() + "/adapter");
    Json listed{Json::Array()};
    for (const File& file : files_of(t)) {
        AtomicFile to(out.path() + "/" + file.name);
        Hash hash;
        std::string bytes;
        in_pieces(file.buffer->bytes, [&](int64_t at, int64_t count) {
            bytes.resize(size_t(count));
            t.lora->base->backend->download(*file.buffer, at, bytes.data(), count);
            check_piece(file, bytes, str("checkpoint ", folder));
            hash.add(bytes.data(), count);
            to.write(bytes.data(), count);
        });
        to.commit();
        listed.push(Json().set("name", file.name).set("bytes", file.buffer->bytes).set("hash", hex(hash.value())));
    }
    Json manifest;
    manifest.set("format", "qlora checkpoint").set("format_number", format_number).set("library", QLORA_VERSION_STRING);
    const RunIdentity run = identity_of(t);
    manifest.set("progress", progress_json(t.progress))
        .set("options", run.options)
        .set("adapter", run.adapter)
        .set("model", run.model);
    manifest.set("data", run.data).set("machine", run.machine).set("files", std::move(listed));
    // The manifest vouches for the files, and this for the manifest.
    const std::string body = manifest.dump(1);
    manifest.set("hash", hex(hash_bytes(body.data(), int64_t(body.size()))));
    write_file_atomic(out.path() + "/manifest.json", manifest.dump(1) + "\n");
    out.commit();
}

Json read_manifest(const std::string& folder, const std::string& where) {
    if (!exists(folder + "/manifest.json"))
        fail(Errc::io, where, ": no manifest.json there; not a checkpoint, or one that was not finished");
    Json manifest = Json::parse(read_file(folder + "/manifest.json", 16 << 20), folder + "/manifest.json");
    if (const Json* f = manifest.find("format"); !f || !f->is_string() || f->string() != "qlora checkpoint")
        fail(Errc::format, where, ": manifest.json is not that of a checkpoint");
    if (const int64_t n = field(manifest, "format_number", where).as_int(where); n < 1 || n > format_number)
        fail(Errc::unsupported, where, ": checkpoint format ", n, ", this version (", QLORA_VERSION_STRING,
             ") reads 1 to ", format_number);
    const std::string stated = field(manifest, "hash", where).as_string(where);
    std::erase_if(manifest.object(), [](const Json::Member& m) { return m.first == "hash"; });
    const std::string body = manifest.dump(1);
    if (stated != hex(hash_bytes(body.data(), int64_t(body.size()))))
        fail(Errc::format, where, ": manifest.json is damaged or was edited; use an earlier checkpoint");
    return manifest;
}

std::vector<std::string> load(TrainerImpl& t, const std::string& folder) {
    const std::string where = str("resume ", folder);
    const Json manifest = read_manifest(folder, where);
    std::vector<std::string> notes = check_identity(t, manifest, folder, where);

    // Check everything before anything is changed.
    std::vector<std::shared_ptr<const MappedFile>> contents;
    const std::vector<File> files = files_of(t);
    const Json::Array& listed = field(manifest, "files", where).as_array(where);
    for (const File& file : files) {
        const Json* entry = nullptr;
        for (const Json& e : listed)
            if (const Json* name = e.find("name"); name && name->is_string() && name->string() == file.name) entry = &e;
        if (!entry) fail(Errc::format, where, ": manifest.json does not list ", file.name);
        if (!exists(folder + "/" + file.name))
            fail(Errc::format, where, ": ", file.name, " is missing; use an earlier checkpoint");
        const MappedFile& bytes = *contents.emplace_back(MappedFile::open(folder + "/" + file.name));
        if (bytes.size() != file.buffer->bytes || field(*entry, "bytes", where).as_int(where) != file.buffer->bytes)
            fail(Errc::format, where, ": ", file.name, " has ", bytes.size(), " bytes, expected ", file.buffer->bytes,
                 "; use an earlier checkpoint");
        Hash hash;
        in_pieces(bytes.size(), [&](int64_t at, int64_t count) {
            hash.add(bytes.data() + at, count);
            check_piece(file, {reinterpret_cast<const char*>(bytes.data()) + at, size_t(count)}, where);
            bytes.forget(bytes.data() + at, count);
        });
        if (field(*entry, "hash", where).as_string(where) != hex(hash.value()))
            fail(Errc::format, where, ": ", file.name,
                 " is damaged (its hash differs from the manifest's); use an earlier checkpoint");
    }
    TrainProgress progress = read_progress(field(manifest, "progress", where), where + ": manifest.json");
    if (progress.step > t.batches.steps())
        fail(Errc::argument, where, ": the checkpoint is at step ", progress.step, ", the run ends at ",
             t.batches.steps(), "; raise epochs or max_steps");
    const auto training = t.lora->lock.train("Trainer::resume");
    const auto writing = t.lora->lock.write();
    for (size_t i = 0; i < files.size(); ++i)
        in_pieces(contents[i]->size(), [&](int64_t at, int64_t count) {
            t.lora->base->backend->upload(*files[i].buffer, at, contents[i]->data() + at, count);
            contents[i]->forget(contents[i]->data() + at, count);
        });
    for (const auto& file : contents) file->check();
    ++t.lora->version;
    progress.last.steps = t.progress.last.steps;       // the run may have become longer
    progress.last.epochs = t.progress.last.epochs;
    t.progress = progress;
    return notes;
}

}  // namespace checkpoint_room

void save_checkpoint(const TrainerImpl& trainer, const std::string& folder) { checkpoint_room::save(trainer, folder); }
std::vector<std::string> load_checkpoint(TrainerImpl& trainer, const std::string& folder) {
    return checkpoint_room::load(trainer, folder);
}

std::optional<RunMachine> machine_of_checkpoint(const std::string& folder) {
    return machine_of_manifest(checkpoint_room::read_manifest(folder, str("resume ", folder)),
                               folder + "/manifest.json");
}

}}  // namespace qlora
