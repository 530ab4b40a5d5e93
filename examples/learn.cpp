// learn.cpp - an assistant that learns from its user. A line is a question; a line that begins with "!" is what the
// last answer should have been. What it was told is kept in FOLDER; at the end of the input it learns from all of it,
// within limits of time and memory, and the next start goes on with what it learned.
//   ./learn MODEL FOLDER [SECONDS [MEGABYTES]]
#include "qlora.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

static void learn(const qlora::Lora& lora, const qlora::Dataset& data, double seconds) {
    const qlora::TrainOptions options{.epochs = 8,
                                      .max_seconds = std::max(seconds, 1e-9),          // 0 would be no limit
                                      .accumulate = 1,
                                      .context = 256,
                                      .learning_rate = 1e-3f,
                                      .schedule = qlora::Schedule::cosine};
    qlora::Trainer trainer(lora, data, options);
    while (trainer.step()) {}                          // what it has learned when its time is over counts
    std::cerr << "learned from " << data.info().rows << " answers: " << trainer.last().step << " steps, loss "
              << trainer.last().loss << '\n';
}

static void run(const std::string& path, const std::filesystem::path& folder, double seconds, int64_t megabytes) {
    qlora::Backend backend = qlora::Backend::best();
    backend.limit_memory(megabytes << 20);
    const qlora::Model model = qlora::Model::load(path, {.backend = backend, .quantize = qlora::DType::nf4});
    const std::filesystem::path told = folder / "told.txt", adapter = folder / "adapter";
    std::filesystem::create_directories(folder);
    const qlora::Lora lora = std::filesystem::exists(adapter) ? qlora::Lora::load(model, adapter.string())
                                                              : qlora::Lora::create(model, {.rank = 8});
    qlora::Session session(lora);
    std::ofstream keep(told, std::ios::app);
    std::string asked;
    for (std::string line; std::getline(std::cin, line); session.reset())
        if (line.starts_with("!")) keep << asked << '\n' << line.substr(1) << std::endl;
        else std::cout << session.chat(asked = line, {.temperature = 0, .max_tokens = 64}).text << std::endl;
    std::vector<std::vector<qlora::Message>> all;
    std::ifstream read(told);
    for (std::string question, answer; std::getline(read, question) && std::getline(read, answer);)
        all.push_back({{"user", question}, {"assistant", answer}});
    if (all.empty()) return;
    learn(lora, qlora::Dataset::from_dialogues(all, model), seconds);
    lora.save(adapter.string());
}

int main(int argc, char** argv) try {
    const std::string first = argc > 1 ? argv[1] : "--help";
    if (first == "--version") std::cout << "learn (qlora) " QLORA_VERSION_STRING "\n";
    else if (argc < 3 || first == "-h" || first == "--help")
        std::cout << "usage: learn MODEL FOLDER [SECONDS [MEGABYTES]]\n";
    else run(first, argv[2], argc > 3 ? std::stod(argv[3]) : 60, argc > 4 ? std::stoll(argv[4]) : 4096);
    if (!std::cout.flush()) throw std::runtime_error("writing to the standard output failed");
} catch (const std::exception& error) {
    return std::cerr << "learn: " << error.what() << '\n', 1;
}
