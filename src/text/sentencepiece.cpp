// sentencepiece.cpp - the fields of sentencepiece_model.proto that decide what text becomes. A message is fields: a key
// (number << 3 | how it is written) and a value, which is a varint, 4 or 8 bytes, or a length and so many bytes.
// Fields that are missing have the defaults of the schema; unknown ones are passed over.
#include "src/text/sentencepiece.h"

#include "src/text/token_core.h"

#include <cmath>
#include <cstring>
#include <unordered_set>

namespace qlora { inline namespace QLORA_ABI {
namespace sentencepiece_room {

using Type = Vocabulary::Type;

struct Field { uint64_t number = 0; unsigned wire = 0; uint64_t value = 0; std::string_view bytes; };

class Message {
public:
    Message(std::string_view bytes, const std::string& where) : s_(bytes), where_(where) {}
    bool next(Field& f) {
        if (at_ == s_.size()) return false;
        const uint64_t key = varint();
        f = {key >> 3, unsigned(key & 7), 0, {}};
        if (f.number == 0) damaged("a field has the number 0");
        switch (f.wire) {
            case 0: f.value = varint(); break;
            case 1: f.bytes = take(8); break;
            case 2: f.bytes = take(varint()); break;
            case 5: f.bytes = take(4); break;
            default: damaged(str("field ", f.number, " is written in the way ", f.wire, ", which there is not"));
        }
        return true;
    }
    [[noreturn]] void damaged(const std::string& what) const {
        fail(Errc::format, where_, ": not a whole SentencePiece model: ", what, " (byte ", at_, " of ", s_.size(),
             " of a message); fetch the file again");
    }

private:
    uint64_t varint() {
        uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const uint64_t byte = uint8_t(take(1)[0]);
            value |= (byte & 0x7F) << shift;
            if (byte < 0x80) return value;
        }
        damaged("a number of more than 64 bits");
    }
    std::string_view take(uint64_t count) {
        if (count > s_.size() - at_) damaged(str(count, " bytes are said to follow, ", s_.size() - at_, " do"));
        at_ += size_t(count);
        return s_.substr(at_ - size_t(count), size_t(count));
    }
    std::string_view s_;
    const std::string& where_;
    size_t at_ = 0;
};

struct Reader {
    std::string where;
    Vocabulary v{};
    std::unordered_set<std::string> seen{};
    uint64_t kind = 1;                                 // of TrainerSpec.model_type: Unigram
    bool bytes = false, suffix = false, escaped = true, trained = false, normalized = false;
    std::string bos = "<s>", eos = "</s>", pad = "<pad>";

    std::string_view text(const Message& in, const Field& f) const {
        if (f.wire != 2) in.damaged(str("field ", f.number, " is no text"));
        return f.bytes;
    }

    void piece(std::string_view message) {
        Message in(message, where);
        std::string text;
        float score = 0;
        uint64_t type = 1;
        for (Field f; in.next(f);) {
            if (f.number == 1) text = this->text(in, f);
            else if (f.number == 2 && f.wire == 5) std::memcpy(&score, f.bytes.data(), 4);
            else if (f.number == 3 && f.wire == 0) type = f.value;
        }
        const size_t id = v.tokens.size();
        if (text.empty()) fail(Errc::format, where, ": piece ", id, " is empty");
        if (!std::isfinite(score)) fail(Errc::format, where, ": the score of piece ", id, " is ", score);
        if (type < 1 || type > 6)
            fail(Errc::format, where, ": piece ", id, " is of the type ", type, ", expected 1 to 6");
        if (!seen.insert(text).second) fail(Errc::format, where, ": the piece \"", text, "\" is there twice");
        if (Type(type) == Type::unknown) {
            if (v.unk >= 0) fail(Errc::format, where, ": pieces ", v.unk, " and ", id, " are both the unknown one");
            v.unk = Token(id);
        }
        v.tokens.push_back(std::move(text));
        v.scores.push_back(score);
        v.types.push_back(Type(type));
    }

    void trainer(std::string_view message) {
        Message in(message, where);
        trained = true;
        for (Field f; in.next(f);) {
            if (f.number == 3) kind = f.value;
            else if (f.number == 24) suffix = f.value != 0;
            else if (f.number == 35) bytes = f.value != 0;
            else if (f.number == 46) bos = text(in, f);
            else if (f.number == 47) eos = text(in, f);
            else if (f.number == 48) pad = text(in, f);
        }
    }

    void normalizer(std::string_view message) {
        Message in(message, where);
        normalized = true;
        for (Field f; in.next(f);) {
            if (f.number == 2) v.charsmap = text(in, f);
            else if (f.number == 3) v.add_space_prefix = f.value != 0;
            else if (f.number == 4) v.remove_extra_spaces = f.value != 0;
            else if (f.number == 5) escaped = f.value != 0;
        }
    }

    void denormalizer(std::string_view message) {
        Message in(message, where);
        for (Field f; in.next(f);)
            if (f.number == 2 && !text(in, f).empty()) unsupported("a denormalizer");
    }

    [[noreturn]] void unsupported(std::string_view what) const {
        fail(Errc::unsupported, where, ": ", what, " is not supported; export the tokenizer as a tokenizer.json");
    }

    void check() {
        if (v.tokens.empty()) fail(Errc::format, where, ": a SentencePiece model without pieces");
        if (!trained || !normalized)                   // all files have both: a cut one may be whole fields
            fail(Errc::format, where, ": not a whole SentencePiece model: its ", trained ? "normalizer" : "kind",
                 " is missing; fetch the file again");
        if (kind != 1 && kind != 2) unsupported(str("a SentencePiece model of type ", kind, " (words, characters)"));
        if (suffix) unsupported("white space behind words (treat_whitespace_as_suffix)");
        if (!escaped) unsupported("white space that is not U+2581 (escape_whitespaces: false)");
        if (v.unk < 0) fail(Errc::format, where, ": no piece is the unknown one");
        v.kind = kind == 1 ? Vocabulary::Kind::unigram : Vocabulary::Kind::spm;
        v.byte_fallback = bytes;
        for (int b = 0; bytes && b < 256; ++b)
            if (!seen.contains(token_of_byte(b)))
                fail(Errc::format, where, ": characters become bytes (byte_fallback), but there is no piece ",
                     token_of_byte(b));
        v.pieces = int64_t(v.tokens.size());
    }

    Token control(const std::string& name) const {
        const auto at = std::find(v.tokens.begin(), v.tokens.end(), name);
        const size_t id = size_t(at - v.tokens.begin());
        return at != v.tokens.end() && v.types[id] == Type::control ? Token(id) : -1;
    }

    Vocabulary read(std::string_view file) {
        v.remove_extra_spaces = true;
        Message in(file, where);
        for (Field f; in.next(f);) {
            if (f.number == 1) piece(text(in, f));
            else if (f.number == 2) trainer(text(in, f));
            else if (f.number == 3) normalizer(text(in, f));
            else if (f.number == 5) denormalizer(text(in, f));
        }
        check();
        v.bos = control(bos);
        v.eos = control(eos);
        v.pad = control(pad);
        return std::move(v);
    }
};

}  // namespace sentencepiece_room

// The key of field 1, a piece, is a line end, with which a JSON may begin too.
bool is_sentencepiece(std::string_view bytes) {
    const size_t begin = bytes.find_first_not_of(" \t\r\n");
    return bytes.starts_with('\n') && begin != bytes.npos && bytes[begin] != '{';
}

Vocabulary read_sentencepiece(std::string_view bytes, std::string_view where) {
    return sentencepiece_room::Reader{std::string(where)}.read(bytes);
}

}}  // namespace qlora
