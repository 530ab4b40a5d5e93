// candidates_test.cpp - generation on the emulation: the best scores are chosen on the device, the tokens are those of
// whole rows on the host, and what comes down for a token is counted.
#include "tests/cuda-emulation/cuda_emulation.h"

#include "src/base/access.h"
#include "src/graph/backend.h"

#include <gtest/gtest.h>

namespace cuda_candidates_test {

using qlora::Compute;
using qlora::Sampling;

TEST(CudaCandidates, TheSameReplyAndAKilobyteAToken) {
    for (const Compute compute : {Compute::f32, Compute::bf16}) {
        const auto device = qlora::handle_of<qlora::Backend>(qlora::make_cuda_backend(0, compute));
        const qlora::Model model =
            qlora::Model::load("models/tiny.gguf", {.backend = device, .quantize = qlora::DType::nf4});
        const int64_t row = model.info().vocabulary * (compute == Compute::f32 ? 4 : 2), chosen = 2 * 128 * 4;
        qlora::Session session(model, {.context = 64});
        for (Sampling s :
             {Sampling{.temperature = 0}, {.temperature = 1.5f}, {.temperature = 1, .repeat_penalty = 1.2f}}) {
            if (compute == Compute::bf16 && s.temperature != 1) continue;
            s.max_tokens = 4;
            s.seed = 3;
            const auto reply = [&](int64_t& bytes) {
                const int64_t before = cuda_emulation::bytes_to_host;
                const qlora::Reply r = session.complete("First Citizen", s);
                bytes = (cuda_emulation::bytes_to_host - before) / int64_t(r.tokens.size());
                return r.tokens;
            };
            int64_t few = 0, all = 0;
            const auto of_the_best = reply(few);
            s.mask = [](std::span<const qlora::Token>, std::span<float>) {};   // wants to see every score
            EXPECT_EQ(reply(all), of_the_best);
            EXPECT_LE(few, chosen * 3 / 2 + 200) << "the prompt's pieces, and a word whether a run went well";
            EXPECT_GE(all, row * 9 / 10);
        }
    }
}

}  // namespace cuda_candidates_test
