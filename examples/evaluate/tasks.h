// tasks.h - questions whose answers are known, and how many a model gets right. The form of a file's rows decides:
//
//   {query or question, choices, gold or answer}    the likeliest choice behind the query, by log-probability per byte
//   {question, subject, choices, answer}            MMLU: the likeliest letter behind the question; also by subject
//   {goal, sol1, sol2, label}                       PIQA, and {question, choices: {text, label}, answerKey}, ARC: the
//                                                   likeliest choice behind "Question: ...\nAnswer:"
//   {context_options, continuation, gold}           the context behind which the continuation is likeliest
//   {context, continuation}                         does greedy generation write the continuation?
//   {subject, input, output}                        the likeliest of the outputs that the file has; also by subject
//   {question, answer}                              is the reply, or its first line, the answer, but for capitals,
//                                                   punctuation and white space? of "#### 42" the last number counts
//
// Where neither side of a border has white space, one space is put between. The first --shots rows of the file are
// shown before each question, solved, and are not asked themselves.
#pragma once
#include "examples/common/load.h"

#include <functional>

namespace program {

struct Question {
    std::string prompt;    // or the dialogue's question
    std::vector<std::string> choices = {}, contexts = {};
    std::string answer = {};    // of choices: the right one
    int64_t gold = -1;     // its place, where there are choices or contexts
    std::string subject = {};
    std::string heading = {};    // before the solved questions
};
struct Task {
    std::string kind;    // "choices", "contexts", "continuations", "outputs", "answers"
    std::vector<Question> questions;
};
// Nothing: rows of another form. {question, answer} is a task only where asked for; it is training data as well.
std::optional<Task> read_task(const std::string& path, const std::string& text, bool with_answers);
// Where each stands ("file: line 3"), and what it is.
std::vector<std::pair<std::string, qlora::Json>> read_rows(const std::string& path, const std::string& text);

struct TaskOptions {
    int64_t shots = 0, limit = 0, max_tokens = 256;
    std::function<void(const qlora::Json& row)> on_row = {};    // what was said, and whether it is right
};
// {"kind", "accuracy", "standard_error", "right", "questions", "subjects"?}
qlora::Json run_task(const Task&, const Loaded&, const TaskOptions&);

}    // namespace program
