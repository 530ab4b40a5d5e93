// record_text.cpp - the bytes of a data file as text: UTF-8 with or without a mark, UTF-16 with one, or refused as what
// they are. Editors and spreadsheets of Windows write marks; people give files endings that they do not have.
#include "src/run/records.h"
#include "src/text/utf8.h"

namespace qlora {
inline namespace QLORA_ABI {
namespace record_text_room {

struct Known {
    std::string_view begins, what;
};
constexpr Known others[] = {{"PAR1", "a Parquet file"},
                            {"ARROW1", "an Arrow file"},
                            {"\x1F\x8B", "compressed (gzip)"},
                            {"\x28\xB5\x2F\xFD", "compressed (zstd)"},
                            {"BZh", "compressed (bzip2)"},
                            {"\xFD"
                             "7zXZ",
                             "compressed (xz)"},
                            {"PK\x03\x04", "a zip archive or a spreadsheet"},
                            {"GGUF", "a model (GGUF)"},
                            {"version https://git-lfs.github.com/spec",
                             "a pointer of git-lfs, not the file itself (git "
                             "lfs pull fetches it)"},
                            {"<!DOCTYPE", "a web page"},
                            {"<!doctype", "a web page"},
                            {"<html", "a web page"}};

std::string from_utf16(std::string_view bytes, bool little, const std::string& path) {
    const auto unit = [&](size_t i) {
        const auto byte = [&](size_t k) { return unsigned(static_cast<unsigned char>(bytes[k])); };
        return little ? byte(i) | byte(i + 1) << 8 : byte(i) << 8 | byte(i + 1);
    };
    std::string out;
    out.reserve(bytes.size());
    int64_t line = 1;
    for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
        char32_t code = unit(i);
        const bool high = code >= 0xD800 && code < 0xDC00, low = code >= 0xDC00 && code < 0xE000;
        const char32_t next = high && i + 3 < bytes.size() ? char32_t(unit(i + 2)) : 0;
        if (low || (high && (next < 0xDC00 || next > 0xDFFF)))
            fail(Errc::format, "dataset ", path, ":", line, ": half a character (UTF-16); convert the file to UTF-8");
        if (high) {
            code = 0x10000 + ((code - 0xD800) << 10) + (next - 0xDC00);
            i += 2;
        }
        line += code == '\n';
        utf8_append(out, code);
    }
    if (bytes.size() % 2)
        fail(Errc::format, "dataset ", path, ": UTF-16 of an odd number of bytes; the file is cut off");
    return out;
}

}    // namespace record_text_room

std::string dataset_text(std::string bytes, const std::string& path) {
    const std::string_view all = bytes;
    for (const auto& [begins, what] : record_text_room::others)
        if (all.starts_with(begins))
            fail(Errc::unsupported, "dataset ", path, ": is ", what,
                 "; convert it to .jsonl (one JSON object a line), .json, "
                 ".csv or .txt");
    if (all.starts_with("\xEF\xBB\xBF")) return bytes.substr(3);
    if (all.starts_with("\xFF\xFE")) return record_text_room::from_utf16(all.substr(2), true, path);
    if (all.starts_with("\xFE\xFF")) return record_text_room::from_utf16(all.substr(2), false, path);
    if (all.size() >= 2 && (all[0] == 0 || all[1] == 0))
        fail(Errc::unsupported, "dataset ", path,
             ": begins with a zero byte: UTF-16 without a mark, or no text at all; "
             "convert it to UTF-8");
    return bytes;
}

}
}    // namespace qlora
