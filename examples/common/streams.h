// streams.h - the three standard streams: held open, asked whether everything was written, and read by lines.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace program {

// A program may be started with any of them closed. The next file that it opens would get that number, and what is
// printed would land in it; so the number is taken, in a way that makes writing to the output fail as it should.
void hold_standard_streams();
std::vector<std::string> arguments(int argc, char** argv);   // UTF-8 on Windows too, where main() gets less
std::string output_error();    // flushes the standard output; empty, or why not all of it was written
// The next line of the standard input, without its end; false at the end of the input, and after a signal that
// interrupted() reports. Other signals do not end the input. Throws qlora::Error{io} when reading fails.
bool read_line(std::string& line);
bool is_piped(int fd);                                 // a pipe or a file: somebody sends something
int64_t read_input(char* to, size_t bytes);            // as read() of the standard input
bool input_waits();                                    // something to read, within a moment
// The rest of the standard input. Where nothing comes for a moment, a line on stderr says what is waited for.
std::string read_all();

}  // namespace program
