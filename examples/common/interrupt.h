// interrupt.h - Ctrl-C as a request: the first one sets a flag that the program looks at, a second one ends it at once.
#pragma once

namespace program {

void catch_interrupts();                               // SIGINT and SIGTERM
int interrupted();                                     // the signal's number, 0 = none so far
void clear_interrupt();                                // dealt with: the next one is a first one again

}  // namespace program
