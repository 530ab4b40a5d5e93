// interrupt.h - Ctrl-C as a request: the first one sets a flag that the program looks at, a second one ends it at once.
#pragma once
#include "qlora.h"

#include <string>

namespace program {

// false: a callback cancelled it
template <class Call>
bool unless_cancelled(const Call& call) {
    try {
        call();
        return true;
    } catch (const qlora::Error& error) {
        if (error.code != qlora::Errc::cancelled) throw;
        return false;
    }
}

// SIGINT, SIGTERM, and SIGHUP unless it is ignored (nohup); on Windows Ctrl-C, Ctrl-Break and closing the window
void catch_interrupts();
int interrupted();                                     // the signal's number, 0 = none so far
inline bool go_on() { return interrupted() == 0; }     // for qlora::StopScope
void clear_interrupt();                                // dealt with: the next one is a first one again
void answer_interrupt(const std::string& line);        // what a first one prints on stderr, at once; "" = nothing

}  // namespace program
