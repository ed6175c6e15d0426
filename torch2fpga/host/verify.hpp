// SPDX-License-Identifier: Apache-2.0
// The launch of the golden vectors: outputs and caches, byte by byte.
#ifndef HOST_VERIFY_HPP
#define HOST_VERIFY_HPP

#include <cstddef>
#include <string>
#include <vector>

#include "files.hpp"
#include "launch.hpp"

namespace host {

struct Verdict {
  std::size_t compared = 0;              // bytes
  std::vector<std::string> differences;  // a line a port

  bool equal() const { return compared > 0 && differences.empty(); }
};

// Runs once, in memory whose caches are unwritten. What the device leaves alone differs: outputs are filled
// beforehand with what they must not be, and caches hold what no key or value is.
Verdict verify(const Project &project, Memory &memory, Launcher &launcher);

}  // namespace host

#endif
