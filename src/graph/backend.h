// backend.h - what runs a graph: its memory, the stored weights where they are read, a kernel for each operation, and
// operations that it computes together. The CPU is one (src/ops/cpu_backend.cpp), a CUDA device another
// (src/cuda/backend.cuh).
//
// Nobody but a backend follows the pointers of a Buffer or of a weight that a backend holds: they may be addresses of a
// device. Everybody else uploads, downloads, copies and zeroes.
#pragma once
#include "src/base/json.h"
#include "src/base/memory_limit.h"
#include "src/tensor/weight.h"

#include <span>

namespace qlora { inline namespace QLORA_ABI {

enum class Op : uint8_t;
struct GraphImpl;
struct Node;
struct Plan;
struct Call;
struct Cpu;
struct Pager;
struct PageRequest;

// What memory is for. A backend with one kind of memory gives that for all of them.
enum class Memory : uint8_t {
    device,                                            // results, factors, caches: what kernels read and write
    unified,                                           // states of the optimizer, which may be larger than the device
    pinned,                                            // of the host, for copies that go on beside kernels
    host
};

// A slice shares its parent's allocation.
struct Buffer {
    void* data = nullptr;
    int64_t bytes = 0;
    std::shared_ptr<void> owner;
    bool file = false;    // pages of a mapped file: they may leave memory, and come again when they are read
};
using BufferRef = std::shared_ptr<Buffer>;
BufferRef slice(const BufferRef&, int64_t offset, int64_t bytes);
// Where so many bytes begin, or Error{argument} where they are not all inside. what: "cpu: copy"
inline char* bytes_at(const char* what, const Buffer& b, int64_t offset, int64_t bytes) {
    if (offset < 0 || bytes < 0 || offset > b.bytes - bytes)
        fail(Errc::argument, what, " of bytes ", offset, " to ", offset + bytes, " of ", b.bytes);
    return static_cast<char*>(b.data) + offset;
}

struct Kernel {                                        // of one operation
    void (*run)(const Call&) = nullptr;
    int64_t (*scratch)(const GraphImpl&, const Node&) = nullptr;               // bytes, all threads together
};

// Several operations that a backend computes in one go.
struct Fusion {
    const char* name;
    // Nodes that may run together with `first`, itself in front and in their order; fewer than two = not this time.
    // `run` lists the nodes of the graph that will run, in order. The plan takes only what may run as early as `first`;
    // that some may read the results of others is for `match` to want or to leave out.
    std::vector<int32_t> (*match)(const GraphImpl&, std::span<const int32_t> run, size_t first);
    // One Call a node, without scratch. The result of one that only others of them read has no memory: Call::out is
    // null.
    void (*run)(std::span<const Call>);
};

// Where a stored weight is best kept: a table of which few rows are read at a time need not fill a device.
enum class Placement : uint8_t { device, host };

struct BackendImpl {
    virtual ~BackendImpl() = default;
    virtual std::string name() const = 0;              // for people
    virtual Json machine() const = 0;                  // for checkpoints: what may round differently elsewhere
    virtual Compute compute() const = 0;               // of products
    virtual Compute gradients() const { return compute(); }   // of those that gradients are made of: f32 or bf16
    // Threads and kernels for work that is no graph's: quantizing, merging, fingerprints.
    virtual Cpu& host() = 0;

    virtual int64_t memory_free() const = 0;           // bytes, of the machine
    int64_t memory_left() const { return std::min(memory_free(), limit->left()); }
    // What allocate() and hold() give out counts here. A backend over another shares that one's.
    std::shared_ptr<MemoryLimit> limit = std::make_shared<MemoryLimit>();
    // Zeroed, aligned to 64 bytes; Error{memory} names the size.
    virtual BufferRef allocate(int64_t bytes, Memory = Memory::device) = 0;
    virtual void zero(Buffer&, int64_t offset, int64_t bytes) = 0;
    virtual void copy(const Buffer& from, int64_t from_offset, Buffer& to, int64_t to_offset, int64_t bytes) = 0;
    virtual void upload(Buffer& to, int64_t offset, const void* from, int64_t bytes) = 0;
    virtual void download(const Buffer& from, int64_t offset, void* to, int64_t bytes) = 0;
    // Null: all of it fits where kernels read it, and lies there best; or this backend pages nothing.
    virtual std::shared_ptr<Pager> pager(const PageRequest&);
    // What is written once and read much later lies here: of the host for a device, in a file without a name in
    // `folder` on the CPU (empty: where temporary files go).
    virtual BufferRef apart(int64_t bytes, const std::string& folder);
    // This backend without memory, for plans: what it gives out are addresses, and nothing runs.
    virtual std::shared_ptr<BackendImpl> outline() const;
    virtual bool is_outline() const { return false; }
    virtual bool has_host_memory() const { return true; }              // else device memory is a device's own
    virtual bool is_readable_here() const { return false; }            // its results, by any thread, without download()
    // Waits until everything asked for is done. What kernels cannot throw (an index out of range) is thrown here, by
    // download() or by the next run().
    virtual void synchronize() {}
    // The weight where this backend reads it: the same one, or another with the same contents, after which the caller
    // drops the one it gave and so frees its memory. This one leaves it where the host has it.
    virtual WeightPtr hold(WeightPtr w, Placement);

    virtual const Kernel* kernel(Op) const = 0;        // null: it does not have this operation
    virtual std::span<const Fusion> fusions() const { return {}; }
    // The type in which the result of a new node, f32 to those who read it, is stored: f32, f16 or bf16.
    virtual DType storage(const GraphImpl&, const Node&) const { return DType::f32; }
    // What keys and values are held in unless somebody chose: `half` is the 16-bit type of the model.
    virtual DType cache_type(DType half) const { return half; }
    // Batches are padded to a multiple of so many rows, so that a few graphs serve batches of all sizes.
    virtual int64_t row_step() const { return 32; }
    // In products with such a weight of up to so many rows, each row is what it would be alone, to the last bit.
    virtual int64_t rows_alike(const WeightRef&) const { return 4; }
    // In products of up to so many rows factors of adapters may be states in f16, which are faster to read; 0: never.
    virtual int64_t rows_of_half_factors() const { return 0; }
    virtual void run(GraphImpl&, const Plan&) = 0;     // may record the plan at first and replay it then
    virtual Work work() const { return {}; }           // of every run so far
};
// empty = the best
std::shared_ptr<BackendImpl> make_cpu_backend(int threads, Compute compute, std::string_view instructions = {});
// Defined by qlora-cuda.cu, so only in a program with QLORA_CUDA. Error{device} if there is no such device.
std::shared_ptr<BackendImpl> make_cuda_backend(int device, Compute compute);

}}  // namespace qlora
