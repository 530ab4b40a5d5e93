// tasks.cpp - see tasks.h.
#include "examples/evaluate/tasks.h"

#include "examples/common/interrupt.h"
#include "examples/common/terminal.h"
#include "examples/evaluate/replies.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace program {

using qlora::Json;

namespace {

bool blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// One space at the border, where neither side has white space. Nothing before it, nothing between.
std::string behind(const std::string& before, const std::string& text) {
    const bool apart = before.empty() || text.empty() || blank(before.back()) || blank(text.front());
    return apart ? text : " " + text;
}

// A continuation's tokens are those by which the whole differs from the prompt.
struct Cut {
    qlora::Tokens prompt, rest;
};
Cut cut(const qlora::Tokenizer& tokenizer, const std::string& prompt, const std::string& text) {
    const auto encode = [&](const std::string& t) { return tokenizer.encode(t, true, true); };
    const qlora::Tokens before = encode(prompt), whole = encode(prompt + text);
    size_t common = size_t(std::mismatch(before.begin(), before.end(), whole.begin(), whole.end()).first -
                           before.begin());
    common = std::min(common, whole.size() - 1);    // at least one is scored, and one is before it
    if (common == 0)
        throw qlora::Error(qlora::Errc::argument, "a question is empty, and the model has no token that starts a text");
    return {{whole.begin(), whole.begin() + int64_t(common)}, {whole.begin() + int64_t(common), whole.end()}};
}

double log_probability(const Loaded& loaded, const std::string& prompt, const std::string& text) {
    const Cut c = cut(loaded.model.tokenizer(), prompt, text);
    return loaded.with([&](const auto& m) { return qlora::score(m, c.prompt, std::span(&c.rest, 1)); })[0];
}

// Of numbers and texts as people write them: "1,234." is "1234", "The cat!" is "the cat".
std::string plain(const std::string& text) {
    std::string out;
    for (const char c : text) {
        const bool letter = static_cast<unsigned char>(c) >= 128 || std::isalnum(static_cast<unsigned char>(c));
        if (letter) out += char(std::tolower(static_cast<unsigned char>(c)));
        else if (blank(c) && !out.empty() && out.back() != ' ') out += ' ';
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    return out;
}

std::string last_number(const std::string& text) {
    std::string number;
    for (size_t i = 0; i < text.size(); ++i) {
        if (!std::isdigit(static_cast<unsigned char>(text[i]))) continue;
        number = i > 0 && text[i - 1] == '-' ? "-" : "";
        for (;
             i < text.size() && (std::isdigit(static_cast<unsigned char>(text[i])) || text[i] == ',' || text[i] == '.');
             ++i)
            if (text[i] != ',') number += text[i];
        while (number.ends_with('.')) number.pop_back();
        if (number.find('.') != std::string::npos) {    // 18.00 is 18
            while (number.ends_with('0')) number.pop_back();
            while (number.ends_with('.')) number.pop_back();
        }
    }
    return number;
}

// Of "... #### 42" the number counts: behind the reply's own mark, or its last one.
bool is_right(const std::string& reply, const std::string& answer) {
    const size_t mark = answer.rfind("####");
    if (mark == std::string::npos) {
        const std::string first = reply.substr(0, reply.find('\n', reply.find_first_not_of(" \n\r\t")));
        return plain(reply) == plain(answer) || plain(first) == plain(answer);
    }
    const size_t said = reply.find("####");
    std::string of = said == std::string::npos ? reply : reply.substr(said, reply.find('\n', said) - said);
    return last_number(of) == last_number(answer.substr(mark));
}

class Runner {
public:
    Runner(const Task& task, const Loaded& loaded, const TaskOptions& options)
        : task_(task), loaded_(loaded), options_(options) {
        if (int64_t(task.questions.size()) <= options.shots)
            throw qlora::Error(qlora::Errc::format, "the file holds " + std::to_string(task.questions.size()) +
                                                        " questions; --shots " + std::to_string(options.shots) +
                                                        " leaves none to ask");
        for (int64_t i = 0; i < options.shots; ++i) {
            const Question& q = task.questions[size_t(i)];
            shots_ += q.prompt + behind(q.prompt, q.answer) + "\n\n";
        }
        const size_t end = options.limit > 0 ? std::min(task.questions.size(), size_t(options.shots + options.limit))
                                             : task.questions.size();
        asked_.assign(task.questions.begin() + options.shots, task.questions.begin() + int64_t(end));
    }

    Json run() {
        if (task_.kind == "continuations" || task_.kind == "answers") generate();
        else choose();
        if (progress_.live()) progress_.update("");
        if (count_ == 0) throw qlora::Error(qlora::Errc::format, "no question was answered");
        const double share = double(right_) / double(count_);
        Json out = Json{}
                       .set("kind", task_.kind)
                       .set("accuracy", share)
                       .set("standard_error", std::sqrt(share * (1 - share) / double(count_)))
                       .set("right", right_)
                       .set("questions", count_);
        if (options_.shots) out.set("shots", options_.shots);
        if (subjects_.empty()) return out;
        double sum = 0;
        Json by{Json::Object()};
        for (const auto& [name, counts] : subjects_) {
            const double part = double(counts.first) / double(counts.second);
            sum += part;
            by.set(name, part);
        }
        return out.set("mean_of_subjects", sum / double(subjects_.size())).set("subjects", by);
    }

private:
    void add(const Question& q, bool right, Json said) {
        right_ += right;
        ++count_;
        if (!q.subject.empty()) {
            subjects_[q.subject].first += right;
            ++subjects_[q.subject].second;
        }
        if (options_.on_row) options_.on_row(said.set("right", right));
        if (progress_.live())
            progress_.update(std::to_string(count_) + " questions, " + std::to_string(right_) + " right");
    }

    void choose() {
        std::set<std::string> outputs;
        if (task_.kind == "outputs")
            for (const Question& q : task_.questions) outputs.insert(q.answer);
        for (const Question& q : asked_) {
            try {
                const int64_t best = q.contexts.empty() ? best_choice(q, {outputs.begin(), outputs.end()})
                                                        : best_context(q);
                const bool right = q.gold >= 0 ? best == q.gold : *std::next(outputs.begin(), best) == q.answer;
                Json said = Json().set("choice", best);
                if (q.gold < 0) said.set("output", *std::next(outputs.begin(), best));
                add(q, right, said);
            } catch (const qlora::Error&) {
                if (interrupted()) return;    // the accuracy so far is printed
                throw;
            }
        }
    }

    int64_t best_choice(const Question& q, const std::vector<std::string>& outputs) const {
        const std::string prompt = q.heading + shots_ + q.prompt;
        std::vector<std::string> choices;
        for (const std::string& choice : q.gold >= 0 ? q.choices : outputs) choices.push_back(behind(prompt, choice));
        return loaded_.with([&](const auto& m) { return qlora::best_choice(m, prompt, choices); });
    }

    int64_t best_context(const Question& q) const {
        int64_t best = 0;
        double most = 0;
        for (size_t i = 0; i < q.contexts.size(); ++i) {
            const std::string prompt = shots_ + q.contexts[i];
            const double p = log_probability(loaded_, prompt, behind(prompt, q.answer));
            if (i == 0 || p > most) {
                best = int64_t(i);
                most = p;
            }
        }
        return best;
    }

    // Answers are asked for through the chat template, solved questions as turns before; continuations as plain text.
    void generate() {
        const qlora::Tokenizer tokenizer = loaded_.model.tokenizer();
        const bool chat = task_.kind == "answers";
        std::vector<qlora::Tokens> prompts, expected;
        size_t longest = 0;
        for (const Question& q : asked_) {
            if (chat) {
                prompts.push_back(tokenizer.render(dialogue(q), true).tokens);
            } else {
                Cut c = cut(tokenizer, shots_ + q.prompt, behind(shots_ + q.prompt, q.answer));
                longest = std::max(longest, c.rest.size());
                prompts.push_back(std::move(c.prompt));
                expected.push_back(std::move(c.rest));
            }
        }
        const qlora::Sampling greedy{.temperature = 0, .max_tokens = chat ? options_.max_tokens : int64_t(longest)};
        answer_all(loaded_, prompts, greedy, qlora::DType::f32, [&](size_t i, const qlora::Reply& reply) {
            const bool right = chat ? is_right(reply.text, asked_[i].answer)
                                    : reply.tokens.size() >= expected[i].size() &&
                                          std::equal(expected[i].begin(), expected[i].end(), reply.tokens.begin());
            add(asked_[i], right, Json().set("reply", reply.text));
            return interrupted() == 0;
        });
    }

    std::vector<qlora::Message> dialogue(const Question& asked) const {
        std::vector<qlora::Message> chat;
        for (int64_t i = 0; i < options_.shots; ++i) {
            chat.push_back({"user", task_.questions[size_t(i)].prompt});
            chat.push_back({"assistant", task_.questions[size_t(i)].answer});
        }
        chat.push_back({"user", asked.prompt});
        return chat;
    }

    const Task& task_;
    const Loaded& loaded_;
    const TaskOptions& options_;
    std::string shots_;
    std::vector<Question> asked_;
    int64_t right_ = 0, count_ = 0;
    std::map<std::string, std::pair<int64_t, int64_t>> subjects_;    // right, all
    Progress progress_{2};
};

}    // namespace

Json run_task(const Task& task, const Loaded& loaded, const TaskOptions& options) {
    return Runner(task, loaded, options).run();
}

}    // namespace program
