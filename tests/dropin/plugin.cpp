// A shared object that has the library inside of it, compiled with -fvisibility=hidden -DQLORA_PUBLIC=, and shows one
// function.
#include "qlora.h"

#include <algorithm>

extern "C" [[gnu::visibility("default")]] int plugin_answer(const char* model, const char* question, char* answer,
                                                            int room) {
    try {
        qlora::Session session(qlora::Model::load(model));
        const std::string said = session.chat(question, {.temperature = 0, .max_tokens = 4}).text;
        const size_t length = std::min(said.size(), size_t(room) - 1);
        std::copy_n(said.begin(), length, answer);
        answer[length] = 0;
        return 0;
    } catch (const qlora::Error& e) { return 1 + int(e.code); }
}
