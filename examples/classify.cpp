// classify.cpp - puts texts into classes: the label that the model would most likely answer with, and how sure it is.
//   ./classify MODEL "sport,politics,weather" "It will rain tomorrow." "The vote is on Monday."
// Without texts it reads a line each from the standard input.
#include "qlora.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <sstream>

// The probability of each label among them all, from the model's scores of them as replies.
static std::vector<double> classify(const qlora::Model& model, const std::vector<std::string>& labels,
                                    const std::string& text) {
    std::string question = "Which of these fits the text: ";
    for (const std::string& label : labels) question += (&label == &labels[0] ? "" : ", ") + label;
    const qlora::Message asked{"user", question + "? Answer with one of them alone.\n\nText: " + text};
    std::vector<double> p = qlora::score(model, std::span(&asked, 1), labels);
    const double best = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& v : p) sum += v = std::exp(v - best);
    for (double& v : p) v /= sum;
    return p;
}

int main(int argc, char** argv) try {
    const std::string first = argc > 1 ? argv[1] : "--help";
    if (first == "--help" || first == "-h")
        std::cout << "usage: classify MODEL LABEL,LABEL[,...] [TEXT...]\nPrints the label of each text.\n";
    else if (first == "--version") std::cout << "classify (qlora) " QLORA_VERSION_STRING "\n";
    else {
        const qlora::Model model = qlora::Model::load(first);
        std::vector<std::string> labels;
        std::istringstream list(argc > 2 ? argv[2] : "");
        for (std::string label; std::getline(list, label, ',');) labels.push_back(label);
        if (labels.size() < 2) throw std::runtime_error("name two labels at least, with commas between them");
        const auto print = [&](const std::string& text) {
            const std::vector<double> p = classify(model, labels, text);
            const size_t best = size_t(std::max_element(p.begin(), p.end()) - p.begin());
            std::cout << labels[best] << '\t' << std::fixed << std::setprecision(3) << p[best] << '\t' << text
                      << std::endl;
        };
        for (int i = 3; i < argc; ++i) print(argv[i]);
        for (std::string line; argc == 3 && std::getline(std::cin, line);) print(line);
    }
    if (!std::cout.flush()) throw std::runtime_error("writing to the standard output failed");
} catch (const std::exception& error) {
    return std::cerr << "classify: " << error.what() << '\n', 1;
}
