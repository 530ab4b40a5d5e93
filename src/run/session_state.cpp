// session_state.cpp - the state of a conversation: copied into another session, and as bytes.
//
//   "qlora session 1\n" | u64 length of the header | header, JSON | keys and values | u64 hash of all before
//
// Keys and values: of every layer first the keys, then the values, of every head the rows that are used.
#include "src/model/base_record.h"
#include "src/model/lora_impl.h"
#include "src/run/session.h"
#include "src/tensor/dtype.h"

#include <cstring>

namespace qlora { inline namespace QLORA_ABI {
namespace session_state_room {

constexpr std::string_view magic = "qlora session 1\n";

// What must agree before keys and values mean the same.
Json identity(const SessionImpl& s) {
    std::string adapter;
    if (s.lora) {
        Hash hash(fingerprint_of(*s.lora));
        for (const LoraTarget& t : s.lora->targets) {
            const int64_t place[] = {t.layer, int64_t(t.module), t.rank, t.m};
            const double scale = double(t.scale);
            hash.add(place, sizeof place);
            hash.add(&scale, sizeof scale);
        }
        adapter = std::to_string(hash.value());
    }
    return Json()
        .set("model", fingerprint_of(*s.model))
        .set("adapter", adapter)
        .set("context", s.cache.capacity)
        .set("cache", std::string(name_of(s.cache.type)));
}

Json header_of(const SessionImpl& s, int64_t rows) {
    Json messages{Json::Array()}, tokens{Json::Array()};
    for (const Message& m : s.history)
        messages.push(Json().set("role", m.role).set("content", m.content).set("more", m.more));
    for (int64_t i = 0; i < rows; ++i) tokens.push(Json(int64_t(s.cached[size_t(i)])));
    return Json().set("of", identity(s)).set("history", std::move(messages)).set("tokens", std::move(tokens));
}

// f(buffer, offset, bytes) for each stretch of the cache that holds the first `rows` rows
template <class F>
void for_each_stretch(const SessionImpl& s, int64_t rows, const F& f) {
    const Config& c = s.model->config;
    const int64_t row = bytes_of(s.cache.type, c.head_dim);
    for (size_t layer = 0; layer < s.cache.keys.size(); ++layer)
        for (const BufferRef& buffer : {s.cache.keys[layer], s.cache.values[layer]})
            for (int64_t head = 0; head < c.kv_heads_at(int64_t(layer)); ++head)
                f(*buffer, head * s.cache.capacity * row, rows * row);
}

int64_t state_bytes(const SessionImpl& s, int64_t rows) {
    int64_t sum = 0;
    for_each_stretch(s, rows, [&](const Buffer&, int64_t, int64_t bytes) { sum += bytes; });
    return sum;
}

[[noreturn]] void refuse(const std::string& why) { fail(Errc::format, "Session::restore: ", why); }

struct Saved { Json header; std::string_view rows; };

Saved parse(std::string_view bytes) {
    const size_t fixed = magic.size() + 8;
    if (!bytes.starts_with(magic)) refuse("these are not the bytes of a session");
    if (bytes.size() < fixed + 8) refuse("the bytes are cut");
    uint64_t length = 0, hash = 0;
    std::memcpy(&length, bytes.data() + magic.size(), 8);
    std::memcpy(&hash, bytes.data() + bytes.size() - 8, 8);
    if (hash != hash_bytes(bytes.data(), int64_t(bytes.size() - 8)))
        refuse("the bytes are cut or damaged (their hash differs)");
    if (length > bytes.size() - fixed - 8) refuse("the header is longer than the bytes");
    Saved saved;
    saved.header = Json::parse(bytes.substr(fixed, size_t(length)), "Session::restore",
                               {.depth = 16, .bytes = int64_t(64) << 20});
    saved.rows = bytes.substr(fixed + size_t(length), bytes.size() - fixed - size_t(length) - 8);
    return saved;
}

const Json& field(const Json& j, const char* key) {
    const Json* value = j.find(key);
    if (!value) refuse(str("\"", key, "\" is missing"));
    return *value;
}

void check_identity(const Json& then, const Json& now) {
    for (const auto& [name, value] : now.object()) {
        const Json& before = field(then, name.c_str());
        if (before.dump() == value.dump()) continue;
        const bool short_value = name == "context" || name == "cache";
        fail(Errc::argument, "Session::restore: the ", name, " was another one",
             short_value ? str(", ", before.dump(), ", and is ", value.dump()) : "",
             "; restore into a session that was made as the saved one was");
    }
}

}  // namespace session_state_room

std::unique_ptr<SessionImpl> SessionImpl::fork() const {
    auto other = std::make_unique<SessionImpl>(model, lora,
                                               SessionOptions{.context = cache.capacity, .cache = cache.type});
    const int64_t rows = int64_t(cached.size());
    for (size_t layer = 0; layer < cache.keys.size(); ++layer) {
        size_t side = 0;
        for (const BufferRef& from : {cache.keys[layer], cache.values[layer]}) {
            const BufferRef& to = side++ == 0 ? other->cache.keys[layer] : other->cache.values[layer];
            const int64_t row = bytes_of(cache.type, model->config.head_dim);
            for (int64_t head = 0; head < model->config.kv_heads_at(int64_t(layer)); ++head)
                model->backend->copy(*from, head * cache.capacity * row, *to, head * cache.capacity * row, rows * row);
        }
    }
    other->cached = cached;
    other->cached_version = cached_version;
    other->cached_length = cached_length;
    other->cache.used = cache.used;
    other->history = history;
    other->stats = stats;
    return other;
}

std::string SessionImpl::save() const {
    namespace room = session_state_room;
    const auto held = lora ? lora->lock.read() : std::shared_lock<std::shared_mutex>();
    // what older factors left is computed anew anyway; a prompt that was not read to its end may turn as a longer text
    const bool stale = (lora && cached_version != lora->version) ||
                       turns_long(model->config, cached_length) != turns_long(model->config, int64_t(cached.size()));
    const int64_t rows = stale ? 0 : int64_t(cached.size());
    const std::string header = room::header_of(*this, rows).dump();
    const uint64_t length = header.size();
    std::string out(room::magic);
    out.reserve(out.size() + header.size() + size_t(room::state_bytes(*this, rows)) + 16);
    out.append(reinterpret_cast<const char*>(&length), 8).append(header);
    room::for_each_stretch(*this, rows, [&](const Buffer& buffer, int64_t offset, int64_t bytes) {
        out.resize(out.size() + size_t(bytes));
        model->backend->download(buffer, offset, out.data() + out.size() - size_t(bytes), bytes);
    });
    const uint64_t hash = hash_bytes(out.data(), int64_t(out.size()));
    return out.append(reinterpret_cast<const char*>(&hash), 8);
}

void SessionImpl::restore(std::string_view bytes) {
    namespace room = session_state_room;
    const room::Saved saved = room::parse(bytes);
    const auto held = lora ? lora->lock.read() : std::shared_lock<std::shared_mutex>();
    room::check_identity(room::field(saved.header, "of"), room::identity(*this));
    Tokens tokens;
    for (const Json& t : room::field(saved.header, "tokens").as_array("Session::restore: tokens")) {
        const int64_t id = t.as_int("Session::restore: tokens");
        if (id < 0 || id >= model->config.vocabulary) room::refuse(str("token ", id, " is outside the vocabulary"));
        tokens.push_back(Token(id));
    }
    std::vector<Message> messages;
    for (const Json& m : room::field(saved.header, "history").as_array("Session::restore: history")) {
        const auto text = [&](const char* key) { return room::field(m, key).as_string("Session::restore: history"); };
        messages.push_back({text("role"), text("content"), text("more")});
    }
    const int64_t rows = int64_t(tokens.size());
    if (rows > cache.capacity || room::state_bytes(*this, rows) != int64_t(saved.rows.size()))
        room::refuse(str("keys and values of ", saved.rows.size(), " bytes for ", rows, " tokens"));
    cached.clear();                                    // until all rows are those of the new ones
    size_t at = 0;
    room::for_each_stretch(*this, rows, [&](Buffer& buffer, int64_t offset, int64_t count) {
        model->backend->upload(buffer, offset, saved.rows.data() + at, count);
        at += size_t(count);
    });
    cached = std::move(tokens);
    cached_version = lora ? lora->version : 0;
    cached_length = rows;
    cache.used = rows;
    history = std::move(messages);
    stats = {.context_used = rows, .context = stats.context, .cache = stats.cache, .cache_bytes = stats.cache_bytes};
}

}}  // namespace qlora
