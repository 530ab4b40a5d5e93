// kernels_test.cpp - the list of instruction sets: how one is chosen and named, and what a table must have.
#include "tests/support/every_set.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

namespace kernels_test {

using namespace qlora;

// QLORA_ISA for as long as this lives.
class Wish {
public:
    explicit Wish(const std::string& name) {
        if (const char* old = std::getenv("QLORA_ISA")) old_ = old;
        setenv("QLORA_ISA", name.c_str(), 1);
    }
    ~Wish() {
        if (old_.empty()) unsetenv("QLORA_ISA");
        else setenv("QLORA_ISA", old_.c_str(), 1);
    }
private:
    std::string old_;
};

template <class F>
std::string error_of(const F& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "no error";
}

const Kernels& best_of_machine() {
    const Wish nothing("");
    return best_kernels();
}

TEST(Kernels, EverySetOfTheListIsRun) {
    std::string missing;
    for (const Kernels* set : all_kernels())
        if (!set->supported()) missing += std::string(missing.empty() ? "" : ", ") + std::string(set->name);
    if (!missing.empty()) GTEST_SKIP() << "this machine has no " << missing << ": no test has run their kernels";
}

TEST(Kernels, TheLastRunsEverywhereAndNamesAreUnique) {
    std::set<std::string_view> names;
    for (const Kernels* set : all_kernels()) EXPECT_TRUE(names.insert(set->name).second) << set->name;
    EXPECT_TRUE(all_kernels().back()->supported());
    EXPECT_EQ(all_kernels().back()->name, "scalar");
}

// What a set supports, a better one of the same processor does too: the list is in order.
TEST(Kernels, ChosenByNameAndLoweredByEnvironment) {
    const Kernels& best = best_of_machine();
    for (const Kernels* set : all_kernels()) {
        const Wish wish{std::string(set->name)};
        EXPECT_EQ(&best_kernels(), set->supported() ? set : &best) << set->name;
        EXPECT_EQ(&kernels_named(""), &best_kernels());
        if (set->supported()) EXPECT_EQ(&kernels_named(set->name), set);
        else
            EXPECT_EQ(error_of([&] { kernels_named(set->name); }),
                      "this machine has no " + std::string(set->name) + "; its best is " + std::string(best.name));
    }
}

TEST(Kernels, UnknownNamesAreAnsweredWithTheList) {
    EXPECT_EQ(error_of([] { kernels_named("sse9"); }),
              "the instruction set is 'sse9', expected scalar, avx2, avx512, avx512_bf16 or amx");
    const Wish wish("mmx");
    EXPECT_EQ(error_of([] { best_kernels(); }),
              "QLORA_ISA is 'mmx', expected scalar, avx2, avx512, avx512_bf16 or amx");
}

// bf16 where there are products of it, integers of generation where there are those, else floats.
TEST(Kernels, WhatCanBeComputedIsReadFromTheTable) {
    for (const Kernels& set : every_set_support::every_set()) {
        EXPECT_EQ(Cpu(1, Compute::f32, set).effective(), Compute::f32);
        for (const Compute asked : {Compute::mixed, Compute::bf16})
            EXPECT_EQ(Cpu(1, asked, set).effective(), set.gemm_bf16 ? asked
                                                      : set.dots16  ? Compute::mixed
                                                                    : Compute::f32)
                << set.name;
    }
}

// Of all but Intel's vdpbf16ps, at half the rate of float's multiply-adds.
TEST(Kernels, MixedTakesBf16WhereItPays) {
    for (const Kernels* set : all_kernels())
        for (const std::string_view vendor : {"GenuineIntel", "AuthenticAMD", "HygonGenuine", ""})
            EXPECT_EQ(bf16_pays(*set, vendor),
                      set->gemm_bf16 && !(set->name == "avx512_bf16" && vendor == "GenuineIntel"))
                << set->name << " of '" << vendor << "'";
    bool intel = false;
#if defined(__x86_64__)
    intel = __builtin_cpu_is("intel");
#endif
    for (const Kernels& set : every_set_support::every_set()) {
        const Compute products = set.gemm_bf16 ? Compute::bf16 : Compute::f32;
        EXPECT_EQ(Cpu(1, Compute::f32, set).gradients(), Compute::f32);
        EXPECT_EQ(Cpu(1, Compute::bf16, set).gradients(), products) << "asked for by name";
        EXPECT_EQ(Cpu(1, Compute::mixed, set).gradients(),
                  intel && set.name == "avx512_bf16" ? Compute::f32 : products)
            << set.name;
    }
}

}  // namespace kernels_test
