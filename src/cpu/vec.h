// vec.h - the vector loops that the operations share, one copy per instruction set behind a table of pointers.
// Sums run in a fixed order (lanes, then a tree), so a result depends on the instruction set but never on the threads.
// exp is within 2 ulp; exp(-inf) = 0.
#pragma once
#include "src/cpu/cpu.h"

namespace qlora { inline namespace QLORA_ABI {

struct Vec {
    float (*dot)(const float* a, const float* b, int64_t n);
    // y[j] = dot(a, b + j ldb, n)
    void  (*dots)(const float* a, const float* b, int64_t ldb, int64_t rows, int64_t n, float* y);
    float (*sum)(const float* a, int64_t n);
    float (*max)(const float* a, int64_t n);                                   // -inf for n = 0
    void  (*axpy)(float s, const float* x, float* y, int64_t n);               // y += s x
    void  (*scale)(float s, const float* x, float* y, int64_t n);              // y = s x
    void  (*shift)(float s, const float* x, float* y, int64_t n);              // y = x + s; y may be x
    void  (*add)(const float* a, const float* b, float* y, int64_t n);         // y = a + b
    void  (*mul)(const float* a, const float* b, float* y, int64_t n);         // y = a * b
    // y = exp(x - shift), returns their sum; y may be x
    float (*exp_sum)(const float* x, float shift, float* y, int64_t n);
    void  (*silu)(const float* x, float* y, int64_t n);                        // y = x / (1 + exp(-x))
    void  (*swiglu)(const float* gate, const float* up, float* y, int64_t n);  // y = silu(gate) * up
    // With s = sigmoid(gate): dgate = dy * up * s * (1 + gate * (1 - s))
    void  (*swiglu_back)(const float* gate, const float* up, const float* dy, float* dgate, int64_t n);
    // y = gelu(gate) * up, dgate = dy * up * gelu'(gate), the gelu of tanh or of erf: exp_constants.h. Without up
    // (null) it counts as 1.
    void  (*geglu)(const float* gate, const float* up, float* y, int64_t n);
    void  (*geglu_back)(const float* gate, const float* up, const float* dy, float* dgate, int64_t n);
    void  (*geglu_erf)(const float* gate, const float* up, float* y, int64_t n);
    void  (*geglu_erf_back)(const float* gate, const float* up, const float* dy, float* dgate, int64_t n);
    // y = cap * tanh(x / cap), within 5 ulp of y; y may be x. dx = dy * (1 - (y / cap)^2); dx may be y or dy.
    void  (*softcap)(float cap, const float* x, float* y, int64_t n);
    void  (*softcap_back)(float cap, const float* y, const float* dy, float* dx, int64_t n);
};

// A table of the loops that a room has under these names.
#define QLORA_VEC_OF(room) \
    {room::dot,   room::dots,       room::sum,       room::max,            room::axpy,    room::scale, room::shift, \
     room::add,   room::mul,        room::exp_sum,   room::silu,           room::swiglu,  room::swiglu_back, \
     room::geglu, room::geglu_back, room::geglu_erf, room::geglu_erf_back, room::softcap, room::softcap_back}

}}  // namespace qlora
