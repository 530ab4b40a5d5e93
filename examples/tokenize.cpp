// tokenize.cpp - text to token ids, one line of ids per line of text; with --chat dialogues through the model's
// template, and their loss mask.
#include "examples/common/find_model.h"
#include "examples/common/load.h"
#include "examples/common/masked.h"
#include "examples/common/rows.h"
#include "examples/common/streams.h"

#include <cstdio>

using namespace program;

static std::string joined(const auto& numbers) {
    std::string out;
    for (const auto n : numbers) out += (out.empty() ? "" : " ") + std::to_string(int64_t(n));
    return out;
}

static void print_chat(const qlora::Tokenizer& tokenizer, const std::string& path,
                       const qlora::DatasetOptions& options) {
    const qlora::Dataset data = qlora::Dataset::load(path, tokenizer, options);
    const qlora::DatasetInfo info = data.info();
    for (int64_t i = 0; i < info.rows; ++i) {
        const qlora::Rendered row = data.row(i);
        std::printf("%s\n", show_masked(row, tokenizer).c_str());
        std::printf("ids  %s\nmask %s\n", joined(row.tokens).c_str(), joined(row.trained).c_str());
    }
    std::fprintf(stderr, "%s: %s\n", path.c_str(), rows_line(info).c_str());
}

static int body(int argc, char** argv) {
    std::string model, file, chat, text;
    RowFlags rows;
    int64_t context = 1 << 20;
    bool bos = false, pieces = false;
    Flags flags(
        "tokenize", "-m MODEL [-f FILE] [--chat FILE]",
        "Prints the token ids of each line of FILE or of the standard input; of dialogues also their loss mask.");
    flags
        .add("-m --model --vocab", model, "MODEL",
             "a GGUF file (one that holds only a vocabulary too), a Hugging Face folder or a tokenizer.json")
        .required();
    flags.add("-f --file", file, "FILE", "text to read instead of the standard input");
    flags.add("-p --prompt --text", text, "TEXT", "text to tokenize, as one piece");
    flags.add(
        "--chat", chat, "FILE",
        "dialogues, as finetune reads them: text with the trained part marked, ids, and mask; the counts on stderr");
    flags.toggle("--bos --add-bos", bos, "start each line with the token that starts a text");
    flags.toggle("--pieces", pieces, "print the text of every token instead of its id");
    flags.section("Rows of --chat");
    flags.add("--max-seq-len", context, 8, 1 << 20, "longer rows are cut");
    rows.declare(flags);
    flags.parse(argc, argv);

    const qlora::Tokenizer tokenizer = qlora::Tokenizer::load(find_model(model));
    print_notes(tokenizer.notes());
    if (!chat.empty()) return rows.warn(), print_chat(tokenizer, chat, rows.options(context)), 0;
    const auto print = [&](std::string_view line) {
        const qlora::Tokens tokens = tokenizer.encode(line, bos, reads_control(rows.special));
        if (!pieces) { std::printf("%s\n", joined(tokens).c_str()); return; }
        for (const qlora::Token& token : tokens)
            std::printf("[%s]", tokenizer.decode(std::span(&token, 1), true).c_str());
        std::printf("\n");
    };
    if (flags.given("--prompt")) return print(text), 0;
    if (!file.empty()) {
        const std::string all = qlora::read_file(file);
        for (size_t from = 0; from < all.size();) {
            const size_t to = std::min(all.find('\n', from), all.size());
            print(std::string_view(all).substr(from, to - from));
            from = to + 1;
        }
        return 0;
    }
    for (std::string line; read_line(line);) print(line);
    return 0;
}

int main(int argc, char** argv) {
    return run("tokenize", [&] { return body(argc, argv); });
}
