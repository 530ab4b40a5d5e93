// amalgamate.cpp - makes the one-file library, and inspects the house.
//
//   amalgamate ROOT > OUT     ROOT (qlora.h or qlora-cuda.cu) with every quoted include replaced by the file's text
//   amalgamate --check        includes go down only, programs know the public header only, every room is in its table
//                             of contents, files and lines stay short
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;

// The floors: a file may include its own floor and those named here. qlora.h is the ground that every floor stands on.
const std::map<std::string, std::set<std::string>> floors = {
    {"base",   {}},
    {"tensor", {"base"}},
    {"cpu",    {"base", "tensor"}},
    {"graph",  {"base", "tensor"}},
    {"ops",    {"base", "tensor", "cpu", "graph"}},
    {"format", {"base", "tensor"}},
    {"text",   {"base"}},
    {"model",  {"base", "tensor", "cpu", "graph", "ops", "format", "text"}},
    {"families", {"base", "tensor", "format", "text", "model"}},
    {"run",    {"base", "tensor", "cpu", "graph", "ops", "format", "text", "model"}},
    {"cuda",   {"base", "tensor", "cpu", "graph", "cuda/plan"}},
    {"cuda/plan", {"base", "tensor", "cpu", "graph"}},
};
constexpr int max_lines = 500;                         // above, a file says "Long because ..." near its top
constexpr int64_t max_columns = 120;

int complaints = 0;

void complain(const std::string& what, const std::string& why, const std::string& fix) {
    std::cerr << "What: " << what << "\nWhy:  " << why << "\nFix:  " << fix << "\n\n";
    ++complaints;
}

std::vector<std::string> lines_of(const std::string& path) {
    std::ifstream in(path);
    if (!in) {
        std::cerr << "amalgamate: cannot open " << path << "; run it from the top of the checkout\n";
        std::exit(1);
    }
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

// The path of an include in such marks, or "".
std::string included(const std::string& line, const char* marks = "\"\"") {
    const size_t hash = line.find_first_not_of(" \t");
    if (hash == line.npos || line[hash] != '#') return "";
    const size_t word = line.find_first_not_of(" \t", hash + 1);
    if (word == line.npos || line.compare(word, 7, "include") != 0) return "";
    const size_t open = line.find(marks[0], word), close = open == line.npos ? open : line.find(marks[1], open + 1);
    return close == line.npos ? "" : line.substr(open + 1, close - open - 1);
}

std::string floor_of(const std::string& path) {
    if (path.rfind("src/", 0) != 0) return "";
    if (path.rfind("src/cuda/plan/", 0) == 0) return "cuda/plan";      // for any compiler, below the kernels
    const size_t slash = path.find('/', 4);
    return path.substr(4, slash - 4);
}

// Lists of operations and instruction-set bodies are meant to be included more than once.
bool repeats(const std::string& path) { return path.ends_with(".def") || path.ends_with(".inl"); }

void emit(const std::string& path, const std::string& root, std::set<std::string>& seen) {
    if (!repeats(path) && !seen.insert(path).second) return;
    std::cout << "// ---- " << path << "\n";
    for (const std::string& line : lines_of(path)) {
        if (line.find("#pragma once") != line.npos) continue;
        const std::string inner = included(line);
        if (inner.empty() || (root.ends_with(".cu") && inner == "qlora.h")) std::cout << line << "\n";
        else emit(inner, root, seen);
    }
}

void check_file(const std::string& path) {
    const std::vector<std::string> lines = lines_of(path);
    const std::string floor = floor_of(path);
    for (const std::string& line : lines) {
        const std::string inner = included(line), below = floor_of(inner);
        if (inner.empty() || floor == "api" || below == floor || inner == "qlora.h") continue;
        const auto it = floors.find(floor);
        if (it == floors.end()) {
            complain(path + " is on no floor", "the table in tools/amalgamate.cpp lists the floors",
                     "move it, or add the floor to the table and to ARCHITECTURE.md");
            break;
        }
        if (!it->second.count(below))
            complain(path + " includes " + inner,
                     "floor '" + floor + "' may not know " + (below.empty() ? inner : "floor '" + below + "'") +
                         ": includes only go down",
                     "move the shared part to a lower floor, or let the upper floor call down");
    }
    const auto has = [&](const char* text) {
        return std::any_of(lines.begin(), lines.end(),
                           [&](const std::string& line) { return line.find(text) != line.npos; });
    };
    if (has("QLORA_ABI") && !has("#include \""))
        complain(path + " does not include qlora.h", "QLORA_ABI would be the name of the namespace", "include it");
    if (int(lines.size()) <= max_lines) return;
    for (size_t k = 0; k < 12; ++k) if (lines[k].find("Long because") != std::string::npos) return;
    complain(path + " has " + std::to_string(lines.size()) + " lines",
             "a room of up to " + std::to_string(max_lines) + " lines can be read at one sitting",
             "split it, or write \"Long because ...\" near its top");
}

// A program is a user of the library like any other: an installed one must be enough for it.
void check_program(const std::string& path) {
    for (const std::string& line : lines_of(path)) {
        const std::string quoted = included(line), system = included(line, "<>");
        const bool shared = quoted.starts_with("examples/") && quoted.find("..") == quoted.npos;
        if ((quoted.empty() || quoted == "qlora.h" || shared) && (system.empty() || !fs::exists(system))) continue;
        complain(path + " includes " + quoted + system,
                 "programs know qlora.h, examples/ and the headers of the system, no room of the library",
                 "do without it, or make what any program would need a part of qlora.h");
    }
}

// Columns as a reader sees them: bytes that continue a UTF-8 character are none.
int64_t columns_of(const std::string& line) {
    return std::count_if(line.begin(), line.end(),
                         [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// Text in raw strings is data, and as long as it is.
void check_columns(const std::string& path) {
    bool raw = false;
    int64_t number = 0;
    for (const std::string& line : lines_of(path)) {
        ++number;
        const size_t begins = line.find("R\"(");
        const bool data = raw || begins != line.npos;
        if (raw || begins != line.npos) raw = line.find(")\"", raw ? 0 : begins + 3) == line.npos;
        if (data || columns_of(line) <= max_columns) continue;
        complain(path + ":" + std::to_string(number) + " has " + std::to_string(columns_of(line)) + " columns",
                 "lines of up to " + std::to_string(max_columns) + " stand side by side on a screen",
                 "break it (.clang-format does)");
    }
}

bool is_code(const std::string& path) {
    for (const char* extension : {".cpp", ".h", ".cu", ".cuh", ".inl", ".def"})
        if (path.ends_with(extension)) return true;
    return false;
}

void check_table_of_contents(const std::string& table, const std::string& extension) {
    std::set<std::string> listed;
    for (const std::string& line : lines_of(table))
        if (const std::string inner = included(line); !inner.empty()) listed.insert(inner);
    for (const auto& entry : fs::recursive_directory_iterator("src")) {
        const std::string path = entry.path().generic_string();
        if (path.ends_with(extension) && !listed.count(path))
            complain(path + " is not in " + table, "the one-file and unity builds would lack it",
                     "add its #include to " + table);
    }
}

int main(int argc, char** argv) {
    const std::string root = argc == 2 ? argv[1] : "";
    if (root == "--check") {
        for (const auto& entry : fs::recursive_directory_iterator("src"))
            if (entry.is_regular_file() && !entry.path().generic_string().ends_with(".def"))
                check_file(entry.path().generic_string());
        for (const char* folder : {"src", "examples", "tests", "tools"})
            for (const auto& entry : fs::recursive_directory_iterator(folder))
                if (entry.is_regular_file() && is_code(entry.path().generic_string()))
                    check_columns(entry.path().generic_string());
        for (const auto& entry : fs::recursive_directory_iterator("examples"))
            if (entry.is_regular_file() && is_code(entry.path().generic_string()))
                check_program(entry.path().generic_string());
        for (const char* file : {"qlora.h", "qlora.cpp", "qlora-cuda.cu"})
            if (fs::exists(file)) check_columns(file);
        check_table_of_contents("qlora.cpp", ".cpp");
        if (fs::exists("qlora-cuda.cu")) check_table_of_contents("qlora-cuda.cu", ".cuh");
        if (complaints) std::cerr << "lint: " << complaints << " complaints\n";
        else std::cout << "lint: the house is in order\n";
        return complaints ? 1 : 0;
    }
    if (root.empty() || root[0] == '-') {
        std::cerr << "usage: amalgamate qlora.h > OUT | amalgamate qlora-cuda.cu > OUT | amalgamate --check\n";
        return 2;
    }
    std::set<std::string> seen;
    emit(root, root, seen);
}
