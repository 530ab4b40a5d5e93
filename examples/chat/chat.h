// chat.h - a dialogue with a model: one question and its answer, or many at a prompt, with commands between them.
// Answers go to standard output, all else to standard error.
#pragma once
#include "examples/chat/settings.h"
#include "examples/common/lineedit.h"

namespace program {

class Chat {
public:
    Chat(Settings& s, qlora::Model model, qlora::Session session);
    int once(const std::string& question);             // the exit status
    int converse();

private:
    void note(const std::string& text) const;
    void complain(const std::string& text) const;

    // answer.cpp: from a question to an answer
    void answer(const std::string& text);
    void make_room(const std::string& question);
    void check_room(const std::string& text) const;
    int64_t tokens_of(const std::vector<qlora::Message>& dialogue, const std::string& question) const;
    void mark(qlora::Finish finish) const;
    std::string stats() const;
    std::string held() const;

    // commands.cpp
    bool command(const std::string& text);             // false: leave
    std::optional<std::string> take_back();
    void set_system(const std::string& text);
    void save(const std::string& path) const;
    void load(const std::string& path);
    void set(const std::string& argument);

    Settings& s_;
    qlora::Model model_;
    qlora::Session session_;
    LineEditor editor_;
    int64_t answers_ = 0;
    bool shifted_ = false;                             // it was said that old turns are dropped
};

}  // namespace program
