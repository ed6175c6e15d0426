// SPDX-License-Identifier: Apache-2.0
// What goes wrong, by what the program does about it.
#ifndef HOST_FAILURE_HPP
#define HOST_FAILURE_HPP

#include <stdexcept>
#include <string>
#include <vector>

namespace host {

// Exit code 1: a file, the xclbin, a comparison.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Exit code 1: the device failed or ran out of time; --recover tries once more.
struct DeviceError : Failure {
  using Failure::Failure;
};

// Exit code 2: what was asked for cannot be done.
struct Usage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One text of all problems.
inline std::string joined(const std::vector<std::string> &problems) {
  std::string text;
  for (const std::string &problem : problems) text += (text.empty() ? "" : "\n  ") + problem;
  return text;
}

}  // namespace host

#endif
