// SPDX-License-Identifier: Apache-2.0
// What the host knows of a design; design.cpp, which is generated, holds its numbers.
#ifndef HOST_TABLES_HPP
#define HOST_TABLES_HPP

#include <cstddef>
#include <vector>

namespace host {

// What a memory port is for. The first three are images of the project.
enum class Role { weights, table, params, ids, mask, rows, settings, cache, output, tokens, sums };

// Numbers of a launch, in the order of Scalar::number.
struct Numbers {
  int batch;  // sequences
  int seq;    // rows of each
  int past;   // rows in the cache before the launch
  int turns;  // tokens that are generated
};

// Golden content of a port; words are of 64 bytes.
struct Golden {
  const char *file;  // nullptr: none
  std::size_t bytes;
  const char *sha256;
  std::size_t run;     // words that lie together (caches: a step's rows), 0: all of them
  std::size_t stride;  // words from the start of one run to that of the next one
};

// What a kernel adds up of an image while it reads it: each 64-byte word, its sixteen numbers folded by
// exclusive or, modulo 2^32 - 1 (sums.hpp).
struct Sum {
  int place;               // in the numbers of a turn; -1: the kernel does not add this port up
  std::size_t tile_words;  // the first words of the image, which are read again for every tile of rows
  int tile;                // rows of a tile
};

struct Port {
  int kernel;  // in Design::kernels
  const char *name;
  int index;  // of the argument
  bool write;
  Role role;
  int channel;  // HBM pseudo-channel
  std::size_t bytes;
  int shares;          // port whose buffer it has, -1: its own
  const char *file;    // of an image, nullptr: none
  const char *sha256;  // of the image
  // A launch has batch * (rows, filled up to a multiple of `unit`) * row_bytes bytes, in whole words;
  // 0: all bytes.
  std::size_t row_bytes;
  int unit;
  bool one_row;  // one row a sequence
  int entries;   // ids lie in [0, entries), 0: any value
  Golden golden;
  Sum sum;
};

// An int argument that takes a number of the launch.
struct Scalar {
  int index;
  int number;
  const char *name;
};

struct Kernel {
  const char *name;
  std::vector<Scalar> scalars;
  std::vector<int> streams;  // argument indices of AXI streams
};

// Numbers of a design that generates tokens; ports are those of Design::ports.
struct Generation {
  int turns;  // tokens a launch, at most; 0: the design generates none
  int keys;   // rows of a cache
  int ids;
  int settings;
  int tokens;
  double logits_scale;  // real value of one unit of the logits
};

struct Design {
  const char *name;
  const char *manifest_sha256;
  int max_batch;
  int max_seq;
  int min_seq;  // rows that a sequence must have
  std::vector<Kernel> kernels;
  std::vector<Port> ports;
  Generation generation;
  Numbers golden;
  int sums;        // port of the sums that come with results, -1: there is none
  int sum_stride;  // of a turn, in numbers of four bytes
};

const Design &design();

// Bytes of a port in a launch.
std::size_t launch_bytes(const Port &port, const Numbers &numbers);

inline bool is_image(Role role) { return role <= Role::params; }
// Does the host write it for each launch?
inline bool is_input(const Port &port) {
  return !port.write && !is_image(port.role) && port.role != Role::cache;
}
// Is it what a user gets of each launch?
inline bool is_output(const Port &port) {
  return port.role == Role::output || port.role == Role::tokens;
}
// Does the host read it after each launch?
inline bool is_result(const Port &port) { return is_output(port) || port.role == Role::sums; }

}  // namespace host

#endif
