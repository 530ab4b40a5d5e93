// tokenizer.h - text to ids and back: byte-level BPE, SentencePiece's BPE and Unigram, from a GGUF vocabulary, a
// Hugging Face tokenizer.json, a SentencePiece model or a list of tiktoken.
//
// Linear or n log n in the length of the text, whatever the text. Control tokens are never matched inside user text:
// only encode_template(), which is fed by the chat template, turns "<|im_end|>" into its id.
#pragma once
#include "src/text/chat_template.h"

namespace qlora { inline namespace QLORA_ABI {

struct Vocabulary {    // as the file gives it; the loaders (gguf, tokenizer.json, tokenizer.model) fill it
    enum class Kind : uint8_t { byte_bpe, spm, unigram };    // "gpt2" | "llama" | "t5" of tokenizer.ggml.model
    enum class Type : uint8_t { normal = 1, unknown, control, user_defined, unused, byte };
    Kind kind = Kind::byte_bpe;
    std::string pre;                                   // name of the pre-tokenizer: "smollm", "llama-bpe", "qwen2", ...
    std::vector<std::string> tokens;                   // by id
    std::vector<float> scores;                         // spm, unigram; empty = none
    std::vector<Type> types;                           // by id; empty = all normal
    std::vector<std::string> merges;                   // byte_bpe: "left right", best first
    Token bos = -1, eos = -1, eot = -1, unk = -1, pad = -1;
    bool add_bos = false, add_eos = false, add_space_prefix = true, ignore_merges = false;
    // SentencePiece: how many of the tokens are its own, whose rules then hold to the letter. 0: those of llama.cpp.
    int64_t pieces = 0;
    // no two spaces in a row and none at the ends; characters without a token become their bytes; the space in front
    // goes before the text only, not before every stretch between added tokens
    bool remove_extra_spaces = false, byte_fallback = true, prefix_once = false;
    std::string charsmap;                              // SentencePiece's compiled normalizer; see charsmap.h
    bool rank_of_result = false;    // byte_bpe: merges are as good as the token they make (tiktoken)
    std::vector<Token> ends;    // more tokens that end a reply (generation_config.json names them)
    std::string rules;    // what else decides how text is cut, as the file spells it (tokenizer.json's components)
    std::string chat_template;                         // jinja; empty = none
    std::vector<std::string> notes;                    // see Tokenizer::notes()
};

struct TokenizerImpl {
    virtual ~TokenizerImpl() = default;
    virtual void encode(std::string_view text, Tokens& out) const = 0;          // text only
    // control tokens written out in the text are recognised
    virtual void encode_template(std::string_view text, Tokens& out) const = 0;
    // A rendered chat as one text: control tokens are recognised outside the literal ranges (sorted:
    // RenderedTemplate::content), where they stay text. starts (null = not wanted) gets, per token added, the byte of
    // `text` at which it begins: what the loss mask is made from.
    virtual void encode_rendered(std::string_view text, std::span<const RenderedTemplate::Span> literal, Tokens& out,
                                 std::vector<int64_t>* starts) const = 0;
    // the bytes of one token in running text; control tokens print only when asked
    virtual std::string piece(Token, bool control = false) const = 0;
    virtual std::string decode(std::span<const Token> tokens, bool control = false) const = 0;
    virtual int64_t size() const = 0;
    virtual Token id_of(std::string_view token) const = 0;                      // -1 = no such token
    virtual bool is_control(Token) const = 0;
    virtual int64_t count_control(std::string_view text) const = 0;    // control tokens written out in the text
    Token bos = -1, eos = -1;
    bool add_bos = false, add_eos = false;
    uint64_t rules = 0;    // hash of merges, scores and what else decides how text is cut: the same tokens cut alike
    // eos, eot and the tokens that models name as such ("<|im_end|>", "<|eot_id|>", ...)
    std::vector<Token> end_of_reply;
    std::string chat_template, bos_text, eos_text;
    std::vector<std::string> notes;                    // see Tokenizer::notes()
};

// how models call the tokens that end a reply: "<|im_end|>", "<|eot_id|>", ...
std::span<const std::string_view> reply_end_names();

// A text that stands alone. bos: it begins with the start of text, which is not put in front of one that the text
// spells. control: control tokens written out in the text are recognised.
Tokens encode_text(const TokenizerImpl&, std::string_view text, bool bos, bool control);

// `where` names the file in errors
std::shared_ptr<const TokenizerImpl> make_tokenizer(Vocabulary, std::string_view where);
// config: tokenizer_config.json or null; ends: of Vocabulary
std::shared_ptr<const TokenizerImpl> load_tokenizer_json(const Json& tokenizer, const Json& config,
                                                         std::string_view where, std::vector<Token> ends = {});

}}  // namespace qlora
