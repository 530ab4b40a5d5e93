// run_support.h - the tiny committed model, adapters and data sets in memory, for the tests of training and generation.
#pragma once
#include "src/base/access.h"
#include "src/base/file.h"
#include "src/base/rng.h"
#include "src/run/trainer.h"
#include "tests/support/support.h"

#include <filesystem>

namespace run_support {

inline qlora::Model tiny_model(int threads = 1, std::optional<qlora::DType> quantize = {}) {
    return qlora::Model::load(golden_path("training/model"),
                              {.backend = qlora::Backend::cpu(threads, qlora::Compute::f32), .quantize = quantize});
}

struct Row { qlora::Tokens tokens; std::vector<uint8_t> trained; };

inline qlora::Dataset dataset(const std::vector<Row>& rows) {
    auto storage = std::make_shared<qlora::DatasetRows>();
    auto data = std::make_shared<qlora::DatasetImpl>();
    for (const Row& r : rows) {
        storage->tokens.insert(storage->tokens.end(), r.tokens.begin(), r.tokens.end());
        storage->trained.insert(storage->trained.end(), r.trained.begin(), r.trained.end());
        storage->begin.push_back(int64_t(storage->tokens.size()));
        data->index.push_back(int64_t(data->index.size()));
        data->info.trained_tokens += qlora::trained_targets(r.trained);
    }
    data->info.rows = int64_t(rows.size());
    data->rows = storage;
    return qlora::handle_of<qlora::Dataset>(data);
}

// Rows of different lengths; about two thirds of their tokens trained.
inline std::vector<Row> random_rows(int count, uint64_t seed = 3, int64_t shortest = 5, int64_t longest = 40) {
    qlora::Rng rng{seed, 0, 0};
    std::vector<Row> rows;
    for (int i = 0; i < count; ++i) {
        Row r;
        const int64_t length = shortest + int64_t(rng.below(uint64_t(longest - shortest + 1)));
        for (int64_t t = 0; t < length; ++t) {
            r.tokens.push_back(qlora::Token(1 + rng.below(63)));
            r.trained.push_back(uint8_t(t + 1 == length || rng.below(3) > 0));
        }
        rows.push_back(std::move(r));
    }
    return rows;
}

// Of eight rows: four steps of two micro-batches.
inline qlora::TrainOptions options() {
    qlora::TrainOptions o;
    o.epochs = 2;
    o.batch = 2;
    o.accumulate = 2;
    o.context = 64;
    o.learning_rate = 1e-2f;
    return o;
}

inline std::vector<float> download(const qlora::BufferRef& buffer, const qlora::Lora& lora) {
    std::vector<float> values(size_t(buffer->bytes / 4));
    impl_of(lora)->base->backend->download(*buffer, 0, values.data(), buffer->bytes);
    return values;
}

inline std::vector<float> values_of(const qlora::Lora& lora) { return download(impl_of(lora)->values, lora); }

inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    double most = 0;
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) most = std::max(most, std::fabs(double(a[i]) - double(b[i])));
    return most;
}

// A folder that is gone when the test is over.
struct TemporaryFolder {
    std::filesystem::path path;
    explicit TemporaryFolder(const std::string& name)
        : path(std::filesystem::temp_directory_path() /
               (name + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + "-" +
                std::to_string(reinterpret_cast<uintptr_t>(this)))) {
        std::filesystem::remove_all(path);
        std::filesystem::create_directories(path);
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    std::string operator/(const std::string& name) const { return (path / name).string(); }
};

template <class Call>
std::string error_of(const Call& call) {
    try {
        call();
    } catch (const qlora::Error& e) {
        return e.what();
    }
    return "no error";
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace run_support
