// SPDX-License-Identifier: Apache-2.0
#include "sums.hpp"

#include <algorithm>
#include <exception>
#include <string>
#include <vector>

#include "failure.hpp"
#include "launch.hpp"

namespace host {
namespace {

// What sums that were not written hold. A right one is the same once in 2^32 times.
constexpr unsigned char blank = 0xa5;
constexpr std::uint32_t blank_sum = 0xa5a5a5a5u;

Buffer &buffer(Memory &memory) { return memory[static_cast<std::size_t>(design().sums)]; }

// A design that does not generate has one turn.
int turns_of(const Numbers &numbers) { return design().generation.turns > 0 ? numbers.turns : 1; }

std::size_t bytes_of(int turns) {
  return static_cast<std::size_t>(turns) * static_cast<std::size_t>(design().sum_stride) * 4;
}

void fill(Buffer &sums, std::size_t bytes) {
  std::memset(sums.data, blank, bytes);
  try {
    sums.to_device(bytes);
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer of the sums: ") + error.what());
  }
}

void fetch(Buffer &sums, std::size_t bytes) {
  try {
    sums.from_device(bytes);
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer of the sums: ") + error.what());
  }
}

std::uint32_t given(const unsigned char *sums, int turn, int place) {
  std::uint32_t value = 0;
  std::memcpy(&value, sums + bytes_of(turn) + static_cast<std::size_t>(place) * 4, sizeof value);
  return value;
}

// Does the turn's sum of that port differ?
bool wrong(const Memory &memory, std::size_t port, const Numbers &numbers, int turn,
           const unsigned char *sums) {
  const Sum &sum = design().ports[port].sum;
  if (sum.place < 0) return false;
  // Behind the first turn there is one row, the token of the turn before it.
  const int rows = turn == 0 ? numbers.seq : 1;
  return given(sums, turn, sum.place) != expected_sum(sum, memory.added(port), numbers.batch, rows);
}

// The first turn with a sum that differs; -1: all are right.
int first_wrong(const Memory &memory, const Numbers &numbers, const unsigned char *sums) {
  for (int turn = 0; turn < turns_of(numbers); ++turn) {
    for (std::size_t i = 0; i < memory.size(); ++i) {
      if (wrong(memory, i, numbers, turn, sums)) return turn;
    }
  }
  return -1;
}

// A line for each port whose sum of that turn differs.
std::string description(const Memory &memory, const Numbers &numbers, int turn,
                        const unsigned char *sums) {
  std::vector<std::string> lines;
  bool any = false;  // was one written?
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const Port &port = design().ports[i];
    if (port.sum.place >= 0 && given(sums, turn, port.sum.place) != blank_sum) any = true;
    if (!wrong(memory, i, numbers, turn, sums)) continue;
    const std::string kernel = std::string("kernel ") + design().kernels[std::size_t(port.kernel)].name;
    lines.push_back(kernel + " read other bytes from " + port.name + " than " +
                    (port.file == nullptr ? "the project" : port.file) +
                    " holds: memory of the card (HBM[" + std::to_string(port.channel) +
                    "]) is not sound");
  }
  return any ? joined(lines) : "the device wrote no sums of what its kernels read";
}

}  // namespace

void clear_sums(Memory &memory) {
  if (design().sums >= 0) fill(buffer(memory), buffer(memory).bytes);
}

void clear_sums(Memory &memory, const Numbers &numbers) {
  if (design().sums >= 0) fill(buffer(memory), bytes_of(turns_of(numbers)));
}

void check_sums(Memory &memory, const Numbers &numbers, std::int64_t launch) {
  if (design().sums < 0) return;
  Buffer &sums = buffer(memory);
  const std::size_t bytes = bytes_of(turns_of(numbers));
  fetch(sums, bytes);
  const int turn = first_wrong(memory, numbers, sums.data);
  if (turn < 0) return;
  // It may be the sums that changed on their way.
  const Bytes before(sums.data, sums.data + bytes);
  fetch(sums, bytes);
  const std::string when = "launch " + std::to_string(launch) +
                           (design().generation.turns > 0 ? ", turn " + std::to_string(turn + 1) : "") +
                           ": ";
  if (!std::equal(before.begin(), before.end(), sums.data)) {
    throw DeviceError(when + "two transfers of the same sums differ: the way from the device is not sound");
  }
  throw DeviceError(when + description(memory, numbers, turn, before.data()));
}

}  // namespace host
