// replies.cpp - see replies.h.
#include "examples/evaluate/replies.h"

#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"
#include "examples/evaluate/tasks.h"

#include <algorithm>
#include <map>

namespace program {

using qlora::Json;

void answer_all(const Loaded& loaded, const std::vector<qlora::Tokens>& prompts, const qlora::Sampling& sampling,
                std::optional<qlora::DType> cache,
                const std::function<bool(size_t prompt, const qlora::Reply&)>& on_reply) {
    constexpr size_t slots = 8;
    size_t longest = 0;
    for (const qlora::Tokens& prompt : prompts) longest = std::max(longest, prompt.size());
    const int64_t own = loaded.model.info().context, wanted = int64_t(longest) + sampling.max_tokens;
    const int64_t context = own > 0 ? std::min(wanted, own) : wanted;
    if (int64_t(longest) >= context)
        throw qlora::Error(qlora::Errc::argument, "a question of " + std::to_string(longest) +
                                                      " tokens leaves no room for an answer in a context of " +
                                                      std::to_string(context) +
                                                      "; fewer --shots, or shorter questions");
    qlora::Batch batch(loaded.model,
                       {.slots = int64_t(std::min(slots, prompts.size())), .context = context, .cache = cache});
    std::map<int64_t, size_t> running;       // slot -> prompt
    std::map<size_t, qlora::Reply> ready;    // not yet handed out
    size_t next = 0, handed = 0;
    while (handed < prompts.size()) {
        while (next < prompts.size() && batch.free_slots() > 0) {
            const int64_t slot = batch.add(prompts[next], sampling, loaded.lora);
            running[slot] = next++;
        }
        (void)batch.step();
        for (auto it = running.begin(); it != running.end();) {
            if (batch.running(it->first)) {
                ++it;
                continue;
            }
            ready[it->second] = batch.remove(it->first);
            it = running.erase(it);
        }
        for (auto it = ready.begin(); it != ready.end() && it->first == handed; it = ready.erase(it), ++handed)
            if (!on_reply(it->first, it->second)) return;
        if (interrupted()) return;
    }
}

static std::vector<std::string> turns_of(const Json& row, const std::string& where) {
    if (const Json* turns = row.find("turns")) {
        std::vector<std::string> out;
        for (const Json& turn : turns->as_array(where + ": turns")) out.push_back(turn.as_string(where + ": turns"));
        return out;
    }
    for (const char* key : {"text", "question", "prompt", "instruction", "query", "input"})
        if (const Json* text = row.find(key)) return {text->as_string(where + ": " + key)};
    throw qlora::Error(qlora::Errc::format, where +
                                                ": no question; expected text, question, prompt, instruction or "
                                                "turns");
}

int64_t answer_file(const Loaded& loaded, const std::string& path, const std::string& text,
                    const qlora::Sampling& sampling, int64_t limit, const std::string& out, std::string system) {
    auto rows = read_rows(path, text);
    if (limit > 0 && int64_t(rows.size()) > limit) rows.resize(size_t(limit));
    std::vector<std::vector<std::string>> turns;
    std::vector<std::vector<qlora::Message>> chats(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
        turns.push_back(turns_of(rows[i].second, rows[i].first));
        if (!system.empty()) chats[i].push_back({"system", system});
    }
    const qlora::Tokenizer tokenizer = loaded.model.tokenizer();
    Progress progress(2);
    int64_t done = 0;
    for (size_t turn = 0;; ++turn) {
        std::vector<size_t> asked;
        std::vector<qlora::Tokens> prompts;
        for (size_t i = 0; i < rows.size(); ++i) {
            if (turn >= turns[i].size()) continue;
            chats[i].push_back({"user", turns[i][turn]});
            asked.push_back(i);
            prompts.push_back(tokenizer.render(chats[i], true).tokens);
        }
        if (asked.empty() || interrupted()) break;
        answer_all(loaded, prompts, sampling, {}, [&](size_t k, const qlora::Reply& reply) {
            chats[asked[k]].push_back({"assistant", reply.text});
            ++done;
            if (progress.live()) progress.update(std::to_string(done) + " answers");
            return interrupted() == 0;
        });
    }
    if (progress.live()) progress.update("");
    std::string lines;
    int64_t written = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
        Json answers{Json::Array()};
        for (const qlora::Message& m : chats[i])
            if (m.role == "assistant") answers.push(m.content);
        if (answers.array().size() < turns[i].size()) continue;    // stopped before it
        if (turns[i].size() == 1) rows[i].second.set("answer", answers.array()[0]);
        else rows[i].second.set("answers", answers);
        lines += rows[i].second.dump() + '\n';
        ++written;
    }
    qlora::write_file_atomic(out, lines);
    return written;
}

}    // namespace program
