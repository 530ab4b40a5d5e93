// unicode_packed.h - the packing of the character tables: numbers in base 32, each ended by a capital letter that says
// what it was.
#pragma once
#include "src/text/unicode.h"

namespace qlora { inline namespace QLORA_ABI { namespace unicode_packed_room {

// Reads "number letter" pairs; the number is base 32 and defaults to 1.
struct PackedReader {
    const char* p;
    bool next(uint32_t& number, char& letter) {
        if (*p == 0) return false;
        number = 0;
        bool any = false;
        for (; *p < 'A' || *p > 'Z'; ++p, any = true)
            number = number * 32 + uint32_t(*p <= '9' ? *p - '0' : *p - 'a' + 10);
        if (!any) number = 1;
        letter = *p++;
        return true;
    }
};

}}}  // namespace qlora
