// SPDX-License-Identifier: Apache-2.0
// Launches for another process: requests on standard input, answers on standard output.
#ifndef HOST_SERVE_HPP
#define HOST_SERVE_HPP

#include "launch.hpp"

namespace host {

// Request: "run <batch> <seq> <past> <turns> <bytes> ...\n" with a size for every input port in the
// order of --list, and then that many bytes of each. Answer: "ok <bytes> ...\n" with a size for every
// output port, and their bytes; or "refused <text>\n" (nothing has run) or "failed <text>\n" (the
// program ends). "quit\n" or the end of the input ends it. Gives the exit code.
int serve(Memory &memory, Launcher &launcher);

}  // namespace host

#endif
