// SPDX-License-Identifier: Apache-2.0
// Tables of sequential for the host program; written by torch2fpga.
#include "tables.hpp"

namespace host {

const Design &design() {
  static const Design found = {
      "sequential",
      // of manifest.json
      "SHA-256",
      1,  // sequences a launch
      3,  // rows a sequence
      1,  // at least
      // kernels: numbers of a launch by argument index, and indices of streams
      {
          {"sequential_0",
           {{5, 0, "batch"}, {6, 1, "seq"}},
           {}},
      },
      // ports: kernel, name, argument, written, role, HBM channel, bytes, port with the same buffer;
      // image; bytes of a row, rows that go together, one row a sequence, ids below; golden vectors;
      // its sum: place, words read for every tile, rows of a tile
      {
          {0, "input_input_in", 0, false, Role::rows, 3, 64, -1,
           nullptr, nullptr,
           16, 1, false, 0,
           {"golden/input_input_in.bin", 64,
            "SHA-256", 0, 0},
           {-1, 0, 1}},
          {0, "linear_weights_in", 1, false, Role::weights, 0, 384, -1,
           "weights/linear_weights_in.bin",
           "SHA-256",
           0, 1, false, 0,
           {nullptr, 0, nullptr, 0, 0},
           {-1, 0, 1}},
          {0, "linear_1_weights_in", 2, false, Role::weights, 1, 192, -1,
           "weights/linear_1_weights_in.bin",
           "SHA-256",
           0, 1, false, 0,
           {nullptr, 0, nullptr, 0, 0},
           {-1, 0, 1}},
          {0, "output0_out", 3, true, Role::output, 4, 128, -1,
           nullptr, nullptr,
           32, 1, false, 0,
           {"golden/output0_out.bin", 128,
            "SHA-256", 0, 0},
           {-1, 0, 1}},
          {0, "parameters", 4, false, Role::params, 2, 640, -1,
           "weights/sequential_0_parameters.bin",
           "SHA-256",
           0, 1, false, 0,
           {nullptr, 0, nullptr, 0, 0},
           {-1, 0, 1}},
      },
      // generation: tokens a launch, rows of a cache, ports of ids, settings and tokens, unit of logits
      {0, 0, 0, 0, 0, 0.0},
      // golden launch: sequences, rows, rows in the cache, tokens
      {1, 3, 0, 1},
      // port of the sums of what kernels read (-1: none), numbers a turn
      -1, 0,
  };
  return found;
}

}  // namespace host
