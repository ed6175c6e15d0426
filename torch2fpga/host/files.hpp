// SPDX-License-Identifier: Apache-2.0
// Files of the project: sizes and checksums are checked, everything that is wrong is said at once.
#ifndef HOST_FILES_HPP
#define HOST_FILES_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tables.hpp"

namespace host {

using Bytes = std::vector<unsigned char>;

// Content of a file that a user named. Throws Failure.
Bytes read_file(const std::string &path);

// Replaces a file, which appears whole or not at all. Throws Failure.
void write_file(const std::string &path, const void *data, std::size_t bytes);

// Differs wherever one word of 8 bytes does; quicker than SHA-256, for what is compared within a run.
std::uint64_t quick_sum(const unsigned char *data, std::size_t bytes);

class Project {
 public:
  explicit Project(const std::string &folder) : folder_(folder) {}

  std::string path(const std::string &name) const { return folder_ + "/" + name; }

  // Refuses a folder of another project than the one that this program was built for.
  void check_manifest() const;

  // Reads every image, the golden files too where they are wanted, into the memory that `room`
  // gives for a port (nullptr: the file is checked only). Throws Failure with every problem.
  void read_images(const std::function<unsigned char *(std::size_t port)> &room) const;

  // Checks images and golden files. Throws Failure with every problem.
  void check() const;

  // Golden content of a port.
  Bytes golden(const Port &port) const;

 private:
  // What is wrong with a file, empty if nothing is; `to` may be nullptr.
  std::string take(const char *name, std::size_t bytes, const char *sha256,
                   unsigned char *to) const;

  std::string folder_;
};

}  // namespace host

#endif
