// hello.cpp - the whole library in twenty lines: load a model in NF4, and let it answer.
//   ./hello models/smollm2-135m-instruct-q4_1.gguf "What is the capital of France?"
#include "qlora.h"

#include <iostream>

int main(int argc, char** argv) try {
    const std::string first = argc > 1 ? argv[1] : "--help";
    if (first == "--help" || first == "-h")
        std::cout << "usage: hello MODEL [QUESTION]\nLoads MODEL in NF4 and answers.";
    else if (first == "--version") std::cout << "hello (qlora) " QLORA_VERSION_STRING;
    else {
        const qlora::Model model = qlora::Model::load(first, {.quantize = qlora::DType::nf4});
        qlora::Session session(model);
        session.chat(argc > 2 ? argv[2] : "Hello!", {.temperature = 0}, [](std::string_view text) {
            std::cout << text << std::flush;
            return true;
        });
    }
    if (!(std::cout << std::endl)) throw std::runtime_error("writing to the standard output failed");
} catch (const std::exception& error) {
    return std::cerr << "hello: " << error.what() << '\n', 1;
}
