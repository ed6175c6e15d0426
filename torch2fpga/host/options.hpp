// SPDX-License-Identifier: Apache-2.0
// Command line: what was asked for, checked.
#ifndef HOST_OPTIONS_HPP
#define HOST_OPTIONS_HPP

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace host {

enum class Action { none, help, list, check, verify, bench, generate, infer, serve };

struct Options {
  Action action = Action::none;
  std::string project = ".";
  std::string xclbin;  // empty: where `make` leaves it
  std::string device = "0";
  std::string root = "/";  // where dev/ and sys/ are looked for
  std::string json;        // empty: none is written
  int timeout_ms = 10000;
  bool recover = false;
  // generation
  std::vector<int> prompt;
  std::vector<int> ends;
  int tokens = 0;   // 0: as many as there is room for
  int step = 0;     // tokens a launch, 0: chosen
  int top_k = 1;
  double temperature = 1.0;
  std::uint64_t seed = 0;
  // inference
  std::map<std::string, std::string> inputs;   // port -> file
  std::map<std::string, std::string> outputs;  // port -> file
  int batch = 0;
  int seq = 0;
  // bench
  int launches = 0;  // 0: for `seconds`
  double seconds = 1.0;
};

// Throws Usage with everything that is wrong.
Options parse(int count, const char *const *arguments);

std::string help_text();

// Ports, numbers and files of the design, for --list.
std::string list_text();

}  // namespace host

#endif
