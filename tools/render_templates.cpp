// render_templates.cpp - renders chat templates given as JSON lines, for tools/make_template_sweep.py to compare with
// jinja2.
//
//   g++ -std=c++20 -O1 -I. tools/render_templates.cpp build/libqlora.a -pthread -o build/render_templates
//   build/render_templates < cases.jsonl > results.jsonl
//
// A case: {"template": text, "variables": object}. Its result: {"text": what is printed} or {"error": message}.
#include "src/text/chat_template.h"

#include <iostream>

int main() {
    using namespace qlora;
    std::ios::sync_with_stdio(false);
    for (std::string line; std::getline(std::cin, line);) {
        Json result;
        try {
            const Json row = Json::parse(line, "case");
            result.set(
                "text",
                ChatTemplate::parse(row.find("template")->string(), "case")->render(*row.find("variables")).text);
        } catch (const Error& e) {
            result = Json().set("error", e.what());
        }
        std::cout << result.dump() << "\n";
    }
}
