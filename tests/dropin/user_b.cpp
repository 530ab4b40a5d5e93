// A consumer's second source file: the interface first, then the implementation.
#include "qlora.h"
#define QLORA_IMPLEMENTATION
#include "qlora.h"

int errors_are_catchable() {
    try {
        (void)qlora::Model::load("no such file.gguf");
    } catch (const qlora::Error& e) {
        return e.code == qlora::Errc::io && std::string(e.what()).find("no such file.gguf") != std::string::npos ? 0
                                                                                                                 : 1;
    }
    return 1;
}
