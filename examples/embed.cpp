// embed.cpp - a program that carries its model in itself: no file is read when it runs.
//   ./embed "To be, or"
// The assembler puts the bytes of EMBEDDED_MODEL, models/tiny.gguf unless the build names another, among the program's
// constants; the library reads the weights where they lie.
#include "qlora.h"

#include <iostream>

#ifndef EMBEDDED_MODEL
#define EMBEDDED_MODEL "models/tiny.gguf"
#endif
#ifdef __APPLE__
#define CONSTANTS ".const_data\n"
#define NAME(name) "_" name
#else
#define CONSTANTS ".section .rodata\n"
#define NAME(name) name
#endif
asm(CONSTANTS ".balign 64\n"
    ".globl " NAME("embedded_model") "\n" NAME("embedded_model") ":\n.incbin \"" EMBEDDED_MODEL "\"\n"
    ".globl " NAME("embedded_model_end") "\n" NAME("embedded_model_end") ":\n.text\n");
extern "C" const std::byte embedded_model[], embedded_model_end[];

int main(int argc, char** argv) try {
    const std::string first = argc > 1 ? argv[1] : "--help";
    if (first == "--help" || first == "-h")
        std::cout << "usage: embed TEXT\nContinues TEXT with the model that is part of this program.";
    else if (first == "--version") std::cout << "embed (qlora) " QLORA_VERSION_STRING;
    else {
        const std::span bytes(embedded_model, embedded_model_end);
        qlora::Session session(qlora::Model::load(qlora::Source::memory(bytes, "the built-in model")));
        std::cout << first;
        session.complete(first, {.temperature = 0, .max_tokens = 60}, [](std::string_view text) {
            std::cout << text << std::flush;
            return true;
        });
    }
    if (!(std::cout << std::endl)) throw std::runtime_error("writing to the standard output failed");
} catch (const std::exception& error) {
    return std::cerr << "embed: " << error.what() << '\n', 1;
}
