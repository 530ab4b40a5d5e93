// tokenizer_model.cpp - see tokenizer_model.h.
#include "src/text/tokenizer_model.h"

#include "src/text/sentencepiece.h"
#include "src/text/tiktoken.h"
#include "src/text/tokenizer_parts.h"

namespace qlora { inline namespace QLORA_ABI {
namespace tokenizer_model_room {

// The classes of transformers around a SentencePiece model: a text begins with bos in those of Llama and Gemma, and
// ends with eos in T5's. Where "legacy" is false, the space in front is that of the text; else of every stretch.
inline void rules_of_class(const Json& config, Vocabulary& v, const TokenizerParts& read) {
    v.add_bos = v.kind == Vocabulary::Kind::spm && v.bos >= 0;
    v.add_eos = v.kind == Vocabulary::Kind::unigram && v.eos >= 0;
    if (config.is_null()) return;
    config.as_object(read.name("tokenizer_config.json"));
    v.prefix_once = !read.flag(config, "legacy", true);
    v.add_space_prefix = v.add_space_prefix && read.flag(config, "add_prefix_space", true);
}

}  // namespace tokenizer_model_room

TokenizerModel read_tokenizer_model(std::string_view bytes, std::string_view form, const Json& config,
                                    const std::string& where) {
    TokenizerModel out;
    Vocabulary& v = out.vocabulary;
    if (is_tiktoken(bytes)) {
        v = read_tiktoken(bytes, form, config, where);
    } else {
        v = read_sentencepiece(bytes, where);
        tokenizer_model_room::rules_of_class(config, v, TokenizerParts{where});
    }
    out.added = add_decoder_tokens(config, v, where);
    read_tokenizer_config(config, v, {}, {}, where);
    return out;
}

std::shared_ptr<const TokenizerImpl> make_tokenizer(TokenizerModel model, std::string_view where) {
    if (model.vocabulary.kind != Vocabulary::Kind::byte_bpe)
        return make_spm(std::move(model.vocabulary), std::move(model.added), where);
    return make_byte_bpe(std::move(model.vocabulary), std::move(model.added), where);
}

}}  // namespace qlora
