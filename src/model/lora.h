// lora.h - adapters: y = W x + scale * B A dropout(x) on chosen linear layers. All factors live in one flat f32 buffer,
// so that gradients, moments, checkpoints and clipping each are one array of the same layout. With dora a vector of
// magnitudes is one factor more.
#pragma once
#include "src/model/model.h"

#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <thread>

namespace qlora { inline namespace QLORA_ABI {

struct LoraTarget {
    int64_t layer = 0;
    Module module = Module::q_proj;                    // of a fused layer the first part; its parts share A,
    int64_t in = 0, out = 0, rank = 0;                 // and their rows of B and m lie below each other
    float scale = 1;                                   // alpha / rank, or alpha / sqrt(rank)
    int64_t a = 0, b = 0;    // offsets in floats into the flat buffer: A {rank, in}, B {out, rank}
    int64_t m = -1;                                    // dora: of the magnitudes {out}, else -1
    int64_t norm = -1;    // dora: where this target's norms lie among those of all (src/model/dora.cpp)
};

// Who may touch the factors when. A reader (a save, a measure, one run of a Session) holds them still for as long as it
// needs one and the same adapter; a trainer holds the training lock for a whole step, so that two of them take turns,
// and keeps readers out while it writes. A thread that waits for writing lets no new reader in, or a crowd of them
// would keep it waiting for ever. Callbacks run under the training lock alone: they may read.
class FactorLock {
public:
    class Training {
    public:
        Training(FactorLock& of, const char* what) : of_(of) {
            if (of.trainer_ == std::this_thread::get_id())
                fail(Errc::argument, what, ": called in a callback of a trainer that is at work on the same adapter; "
                     "wait until its call has returned");
            of.training_.lock();
            of.trainer_ = std::this_thread::get_id();
        }
        ~Training() {
            of_.trainer_ = std::thread::id();
            of_.training_.unlock();
        }
        Training(const Training&) = delete;
        Training& operator=(const Training&) = delete;
    private:
        FactorLock& of_;
    };
    std::shared_lock<std::shared_mutex> read() {
        const std::lock_guard turn(turn_);
        return std::shared_lock(factors_);
    }
    std::unique_lock<std::shared_mutex> write() {      // inside train()
        const std::lock_guard turn(turn_);
        return std::unique_lock(factors_);
    }
    // reading is safe: only who trains writes
    Training train(const char* what) { return Training(*this, what); }
private:
    std::atomic<std::thread::id> trainer_{};           // who holds training_
    std::mutex training_, turn_;
    std::shared_mutex factors_;
};

// The factors in f16, laid out as the flat buffer, for generation where the backend takes them so: half of the bytes.
struct FactorHalves {
    std::mutex lock;                                   // sessions of several threads may share an adapter
    BufferRef buffer;
    uint64_t version = 0;                              // of the factors that they belong to
    bool fit = false;                                  // else f16 would lose too much of some
};

struct LoraImpl {
    std::shared_ptr<const ModelImpl> base;
    LoraOptions options;
    std::vector<LoraTarget> targets;                   // ordered by layer, then module
    BufferRef values;                                  // the flat buffer, on the base's backend
    uint64_t version = 0;    // raised by whoever changes them: what was computed from older ones is stale
    mutable FactorLock lock;
    mutable FactorHalves halves;
    std::atomic<int> trainers{0};                      // that are at work on it
    int64_t parameters = 0;                            // floats in it
    std::vector<float> start;    // pissa: the factors that left the original base, laid out as the buffer; else empty
    std::shared_ptr<struct DoraNorms> norms;           // dora only
    std::shared_ptr<struct BaseOfAdapter> record;      // of the base that it was made for: base_of()
    const LoraTarget* find(int64_t layer, Slot linear) const;          // of the module to which it belongs
};

std::shared_ptr<LoraImpl> create_lora(std::shared_ptr<const ModelImpl>, const LoraOptions&);
// where the adapter of a checkpoint, or of weights named themselves, lies
Source adapter_folder(const Source&);
// PEFT folder (or its weights, or a checkpoint) or GGUF adapter
std::shared_ptr<LoraImpl> load_lora(std::shared_ptr<const ModelImpl>, const Source&, OnBase = OnBase::recorded);
std::shared_ptr<LoraImpl> copy_lora(const LoraImpl&);  // of the factors as they are
std::shared_ptr<LoraImpl> sum_loras(std::span<const std::shared_ptr<LoraImpl>>, std::span<const float> scales);
uint64_t fingerprint_of(const LoraImpl&);              // of the factors; the caller holds them still
const struct BaseRecord& base_of(const LoraImpl&);     // reads all weights once
// adapter_config.json + adapter_model.safetensors; q and k in Hugging Face row order
void save_lora_peft(const LoraImpl&, const std::string& folder);
Files lora_files(const LoraImpl&);                     // the same in memory
void save_lora_mlx(const LoraImpl&, const std::string& folder);        // as mlx-lm: adapters.safetensors
void save_lora_gguf(const LoraImpl&, const std::string& path);
BufferRef refresh_halves(const LoraImpl&);   // of the values as they are now; null: they do not fit
BufferRef refresh_norms(const LoraImpl&);    // dora: the norms that belong to the values as they are now
int64_t norm_bytes(const LoraImpl&);                                   // dora: of memory for them
std::vector<Module> parse_modules(const Config&, std::string_view modules);    // "all", "attention", "q_proj,v_proj"

}}  // namespace qlora
