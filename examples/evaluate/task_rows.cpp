// task_rows.cpp - the forms of questions in files, each a row of a table.
#include "examples/evaluate/tasks.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace program {

using qlora::Json;

namespace {

struct Row {
    const Json& json;
    const std::string& where;

    [[noreturn]] void fail(const std::string& what) const {
        throw qlora::Error(qlora::Errc::format, where + ": " + what);
    }
    bool has(const char* key) const { return json.find(key) != nullptr; }
    const Json& at(const char* key) const {
        const Json* value = json.find(key);
        if (!value) fail(std::string("needs ") + key);
        return *value;
    }
    std::string text(const char* key) const {
        const Json& value = at(key);
        return value.is_number() ? value.dump() : value.as_string(where + ": " + key);
    }
    std::vector<std::string> texts(const char* key) const {
        std::vector<std::string> out;
        for (const Json& value : at(key).as_array(where + ": " + key))
            out.push_back(value.as_string(where + ": " + key));
        return out;
    }
    int64_t gold(const char* key, size_t count) const {
        const int64_t value = at(key).as_int(where + ": " + key);
        if (value < 0 || value >= int64_t(count))
            fail(std::string(key) + " is " + std::to_string(value) + " of " + std::to_string(count) +
                 " choices, counted from 0");
        return value;
    }
};

std::string trimmed(const std::string& text) {
    const size_t from = text.find_first_not_of(" \t\r\n"), to = text.find_last_not_of(" \t\r\n");
    return from == std::string::npos ? "" : text.substr(from, to + 1 - from);
}

Question read_choices(const Row& r) {
    Question q;
    q.prompt = r.text(r.has("query") ? "query" : "question");
    q.choices = r.texts("choices");
    q.gold = r.gold(r.has("gold") || !r.has("answer") ? "gold" : "answer", q.choices.size());
    q.answer = q.choices[size_t(q.gold)];
    return q;
}

// The words around a question are those of EleutherAI's harness, so that accuracies can be compared. MMLU: letters.
Question read_letters(const Row& r) {
    Question q = read_choices(r);
    if (q.choices.size() > 26) r.fail("more choices than letters");
    std::string subject = r.text("subject");
    std::replace(subject.begin(), subject.end(), '_', ' ');
    q.heading = "The following are multiple choice questions (with answers) about " + subject + ".\n\n";
    q.subject = r.text("subject");
    q.prompt = trimmed(q.prompt) + '\n';
    for (size_t i = 0; i < q.choices.size(); ++i) {
        const std::string letter(1, char('A' + i));
        q.prompt += letter + ". " + std::exchange(q.choices[i], letter) + '\n';
    }
    q.prompt += "Answer:";
    q.answer = q.choices[size_t(q.gold)];
    return q;
}

Question read_solutions(const Row& r) {    // PIQA
    Question q{.prompt = "Question: " + r.text("goal") + "\nAnswer:", .choices = {r.text("sol1"), r.text("sol2")}};
    q.gold = r.gold("label", 2);
    q.answer = q.choices[size_t(q.gold)];
    return q;
}

Question read_labels(const Row& r) {    // ARC, CommonsenseQA: {"question", "choices": {"text", "label"}, "answerKey"}
    const Row choices{r.at("choices"), r.where};
    const std::vector<std::string> labels = choices.texts("label");
    Question q{.prompt = "Question: " + r.text("question") + "\nAnswer:", .choices = choices.texts("text")};
    q.gold = std::find(labels.begin(), labels.end(), r.text("answerKey")) - labels.begin();
    if (labels.size() != q.choices.size() || q.gold == int64_t(labels.size()))
        r.fail("answerKey is " + r.text("answerKey") + ", which is none of the labels of " +
               std::to_string(q.choices.size()) + " choices");
    q.answer = q.choices[size_t(q.gold)];
    return q;
}

Question read_contexts(const Row& r) {
    Question q;
    q.contexts = r.texts("context_options");
    q.answer = r.text("continuation");
    q.gold = r.gold("gold", q.contexts.size());
    q.prompt = q.contexts[size_t(q.gold)];
    return q;
}

Question read_continuation(const Row& r) { return {.prompt = r.text("context"), .answer = r.text("continuation")}; }

Question read_output(const Row& r) {
    return {.prompt = r.text("input"), .answer = r.text("output"), .subject = r.text("subject")};
}

Question read_answer(const Row& r) { return {.prompt = r.text("question"), .answer = r.text("answer")}; }

struct Form {
    const char* kind;
    bool (*fits)(const Row&);
    Question (*read)(const Row&);
};
constexpr Form forms[] = {
    {"choices", [](const Row& r) { return r.has("question") && r.has("choices") && r.has("answerKey"); }, read_labels},
    {"choices", [](const Row& r) { return r.has("question") && r.has("choices") && r.has("subject"); }, read_letters},
    {"choices", [](const Row& r) { return r.has("goal") && r.has("sol1") && r.has("sol2"); }, read_solutions},
    {"choices", [](const Row& r) { return r.has("choices") && (r.has("query") || r.has("question")); }, read_choices},
    {"contexts", [](const Row& r) { return r.has("context_options") && r.has("continuation"); }, read_contexts},
    {"continuations", [](const Row& r) { return r.has("context") && r.has("continuation"); }, read_continuation},
    {"outputs", [](const Row& r) { return r.has("subject") && r.has("input") && r.has("output"); }, read_output},
    {"answers", [](const Row& r) { return r.has("question") && r.has("answer"); }, read_answer},
};

}    // namespace

std::vector<std::pair<std::string, Json>> read_rows(const std::string& path, const std::string& text) {
    const size_t first = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
    std::vector<std::pair<std::string, Json>> rows;
    if (first != std::string::npos && text[first] == '[') {
        for (const Json& row : Json::parse(text.substr(first), path).as_array(path))
            rows.emplace_back(path + ": row " + std::to_string(rows.size() + 1), row);
        return rows;
    }
    int64_t number = std::count(text.begin(), text.begin() + int64_t(std::min(first, text.size())), '\n');
    for (size_t from = first == std::string::npos ? text.size() : first; from < text.size();) {
        const size_t to = std::min(text.find('\n', from), text.size());
        const std::string line = text.substr(from, to - from);
        from = to + 1;
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const std::string where = path + ":" + std::to_string(number);
        rows.emplace_back(where, Json::parse(line, where));
    }
    return rows;
}

std::optional<Task> read_task(const std::string& path, const std::string& text, bool with_answers) {
    if (!path.ends_with(".jsonl") && !path.ends_with(".json")) return {};
    // only the first row is read before it is clear that the file is none of ours
    const size_t begin = text.find('{'), end = std::min(text.find('\n', begin), text.size());
    const std::string start = begin == std::string::npos ? std::string() : text.substr(begin, end - begin);
    const auto names = [&](const char* key) { return start.find('"' + std::string(key) + '"') != std::string::npos; };
    const bool single = path.ends_with(".jsonl");
    const auto ours = {"choices", "continuation", "output", "answer", "sol1"};
    if (single && std::none_of(ours.begin(), ours.end(), names)) return {};
    const auto rows = read_rows(path, text);
    if (rows.empty()) return {};
    const auto* form = std::find_if(std::begin(forms), std::end(forms), [&](const Form& f) {
        return f.fits(Row{rows[0].second, rows[0].first});
    });
    if (form == std::end(forms) || (!with_answers && std::strcmp(form->kind, "answers") == 0)) return {};
    Task task{form->kind, {}};
    for (const auto& [where, row] : rows) task.questions.push_back(form->read(Row{row, where}));
    return task;
}

}    // namespace program
