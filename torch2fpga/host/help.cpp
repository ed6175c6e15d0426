// SPDX-License-Identifier: Apache-2.0
// Texts of --help and --list.
#include <string>

#include "options.hpp"
#include "tables.hpp"

namespace host {
namespace {

const char *role_name(Role role) {
  static const char *const names[] = {"weights", "table",    "params", "ids",    "mask",
                                      "rows",    "settings", "cache",  "output", "tokens",
                                      "sums"};
  return names[static_cast<int>(role)];
}

const char *const generation_help =
    "Generation: tokens behind a prompt, on standard output as each launch gives them\n"
    "  host --prompt-ids 1,2,3 --tokens 20\n"
    "  --prompt-ids IDS       the prompt, token ids with commas; a long one goes in by several launches\n"
    "  --tokens N             tokens behind the prompt (as many as there is room for)\n"
    "  --eos IDS              tokens that end the text\n"
    "  --top-k K              draw from the K largest logits (1: take the largest)\n"
    "  --temperature T        logits are divided by it (1.0)\n"
    "  --seed N               of the draws; they depend on it and on the position only (0)\n"
    "  --tokens-per-launch N  16 with --eos, otherwise as many as compiled for\n";

const char *const inference_help =
    "Inference: raw files of quantised values in, raw files out (formats: manifest.json)\n"
    "  host --input PORT=FILE --output PORT=FILE --batch B --seq S\n"
    "  --input PORT=FILE      one for each input port (--list); several launches lie one behind another\n"
    "  --output PORT=FILE     where to put an output port's values, launch behind launch\n"
    "  --batch B, --seq S     sequences a launch, rows of each (the largest that were compiled for)\n";

const char *const common_help =
    "Checks and figures\n"
    "  --verify               runs the golden vectors of the project: outputs and caches byte by byte\n"
    "  --bench                warms up, then measures for --seconds S (1) or --launches N\n"
    "  --check                checks manifest, weights and golden vectors; needs no card\n"
    "  --list                 prints ports and sizes; needs no card\n"
    "  --json FILE            writes the result of --verify, --bench or a request\n"
    "Everywhere\n"
    "  --project DIR          folder with manifest.json, weights/, golden/ (.)\n"
    "  --xclbin FILE          (build/hw/NAME.xclbin; build/sw_emu, build/hw_emu or emulation where\n"
    "                         XCL_EMULATION_MODE says so)\n"
    "  --device N|BDF         index of the card, or its address such as 0000:3b:00.1 (0)\n"
    "  --timeout-ms N         longest wait for a launch (10000); then the kernels that are not done are\n"
    "                         named, stopped, and the program ends with 1\n"
    "  --recover              after a device error or a time-out: opens the device anew, loads\n"
    "                         everything again and repeats the request, once\n"
    "  --root DIR             where dev/ and sys/ are looked for (/)\n"
    "  --serve                answers requests on standard input (host/README.md)\n"
    "Exit codes: 0 done, 1 it differs or failed, 2 the command line is wrong\n";

}  // namespace

std::string help_text() {
  const bool generates = design().generation.turns > 0;
  return std::string("host: runs ") + design().name + " on an Alveo card\n\n" +
         (generates ? generation_help : inference_help) + common_help;
}

std::string list_text() {
  const Design &d = design();
  std::string text = std::string("design ") + d.name + "\nlaunch up to " +
                     std::to_string(d.max_batch) + " x " + std::to_string(d.max_seq) + " rows";
  if (d.generation.turns > 0) {
    text += ", " + std::to_string(d.generation.turns) + " tokens; texts of " +
            std::to_string(d.generation.keys) + " rows";
  }
  text += "\n";
  for (const Kernel &kernel : d.kernels) text += std::string("kernel ") + kernel.name + "\n";
  for (const Port &port : d.ports) {
    text += std::string("port ") + port.name + ": argument " + std::to_string(port.index) + " of " +
            d.kernels[static_cast<std::size_t>(port.kernel)].name + ", " +
            (port.write ? "writes " : "reads ") + role_name(port.role) + ", " +
            std::to_string(port.bytes) + " bytes in HBM[" + std::to_string(port.channel) + "]" +
            (port.file == nullptr ? "" : std::string(", ") + port.file) + "\n";
  }
  return text;
}

}  // namespace host
