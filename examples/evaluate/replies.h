// replies.h - many prompts answered together, in the order of the prompts.
#pragma once
#include "examples/common/load.h"

#include <functional>

namespace program {

// on_reply: prompt by prompt, in their order; false ends the work. Keys and values are held in `cache`.
void answer_all(const Loaded&, const std::vector<qlora::Tokens>& prompts, const qlora::Sampling&,
                std::optional<qlora::DType> cache,
                const std::function<bool(size_t prompt, const qlora::Reply&)>& on_reply);

// A file of questions ({text}, {question}, {prompt}, {instruction} or {turns}), each answered through the chat
// template; every row is written with its "answer" (of turns: "answers"). -> how many rows.
int64_t answer_file(const Loaded&, const std::string& path, const std::string& text, const qlora::Sampling&,
                    int64_t limit, const std::string& out, std::string system);

}    // namespace program
