// evaluate.h - measuring: the loss of documents, of a data set, of running text, and the choice among answers.
#pragma once
#include "src/run/dataset.h"
#include "src/run/decoders.h"

namespace qlora { inline namespace QLORA_ABI {

struct LossSum { double nll = 0; int64_t tokens = 0; };                // natural logarithms, over the trained targets

// Several documents share a run as long as they fit into `rows` rows (a longer one runs alone); they do not see each
// other. go_on is asked before every run: Error{cancelled} when it returns false.
LossSum loss_of(DecoderPool&, std::span<const Document>, int64_t rows = 1024, const std::function<bool()>& go_on = {});

// Mean loss per trained token of a data set, its rows cut to `context` tokens (0 = as they are).
double dataset_loss(DecoderPool&, const DatasetImpl&, int64_t context = 0, const std::function<bool()>& go_on = {});

// A window of `context` tokens moves by `stride`; in each, the tokens that no earlier window scored are scored, with
// all the tokens of the window before them as their context. So every token but the first is scored exactly once, and
// from the second window on with at least context - stride tokens before it. Nothing is added to the tokens: encode
// them with the start-of-text token if the model expects it.
Perplexity measure_perplexity(DecoderPool&, std::span<const Token>, int64_t context, int64_t stride);

// Each choice is put behind the query as it is (with its own leading space, if it should have one); the tokens by which
// the encoded whole differs from the encoded query are scored, and their log-probability is divided by the bytes of the
// choice. The first best wins.
int64_t choose_best(DecoderPool&, const TokenizerImpl&, std::string_view query, std::span<const std::string> choices);

// decoders that yield losses, without gradients
DecoderPool measuring_pool(std::shared_ptr<const ModelImpl>, const LoraImpl*);

}}  // namespace qlora
