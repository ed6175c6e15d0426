// SPDX-License-Identifier: Apache-2.0
#include "verify.hpp"

#include <cstdio>
#include <cstring>
#include <exception>

#include "failure.hpp"

namespace host {
namespace {

// What stands behind the golden bytes of an output; the device must leave it.
constexpr unsigned char behind = 0xa5;

// Where a golden byte lies in the port's memory.
std::size_t place(const Golden &golden, std::size_t byte) {
  if (golden.run == 0) return byte;
  const std::size_t run = golden.run * 64;
  return byte / run * golden.stride * 64 + byte % run;
}

std::string hex(unsigned char byte) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02x", byte);
  return text;
}

// What the port's memory must hold in all.
Bytes expected(const Port &port, const Bytes &golden, unsigned char rest) {
  Bytes all(port.bytes, rest);
  for (std::size_t i = 0; i < golden.size(); ++i) {
    const std::size_t at = place(port.golden, i);
    if (at >= all.size()) throw Failure(std::string(port.golden.file) + " is larger than its port");
    all[at] = golden[i];
  }
  return all;
}

// A line about what differs; empty if nothing does.
std::string difference(const Port &port, const Bytes &want, const unsigned char *got) {
  std::size_t wrong = 0;
  std::size_t first = 0;
  for (std::size_t i = want.size(); i-- > 0;) {
    if (got[i] == want[i]) continue;
    ++wrong;
    first = i;
  }
  if (wrong == 0) return "";
  return std::string(port.name) + ": first difference at byte " + std::to_string(first) + ": " +
         hex(got[first]) + ", expected " + hex(want[first]) + " (" + std::to_string(wrong) + " of " +
         std::to_string(want.size()) + " differ; " + port.golden.file + ")";
}

bool compared(const Port &port) {
  return is_result(port) || (port.role == Role::cache && port.shares < 0);
}

}  // namespace

Verdict verify(const Project &project, Memory &memory, Launcher &launcher) {
  const std::vector<Port> &ports = design().ports;
  std::vector<Bytes> want(ports.size());
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (ports[i].golden.file == nullptr) continue;
    const Bytes golden = project.golden(ports[i]);
    if (compared(ports[i])) {
      const unsigned char rest = is_result(ports[i]) ? behind : unwritten;
      want[i] = expected(ports[i], golden, rest);
    }
    if (is_input(ports[i])) std::memcpy(memory[i].data, golden.data(), golden.size());
    if (!is_result(ports[i])) continue;
    std::memset(memory[i].data, behind, memory[i].bytes);
    // Sums are told from ones that were not written by what they hold now.
    if (ports[i].role == Role::sums) continue;
    for (std::size_t b = 0; b < golden.size(); ++b) {
      memory[i].data[b] = static_cast<unsigned char>(~golden[b]);
    }
  }
  try {
    for (std::size_t i = 0; i < ports.size(); ++i) {
      if (is_input(ports[i]) || is_result(ports[i])) memory[i].to_device();
    }
    launcher.start(design().golden);
    launcher.wait();
    check_sums(memory, design().golden, launcher.launches());
    for (std::size_t i = 0; i < ports.size(); ++i) {
      if (!want[i].empty()) memory[i].from_device();
    }
  } catch (const Failure &) {
    throw;
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer of the golden vectors: ") + error.what());
  }
  Verdict verdict;
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (want[i].empty()) continue;
    verdict.compared += want[i].size();
    const std::string line = difference(ports[i], want[i], memory[i].data);
    if (!line.empty()) verdict.differences.push_back(line);
  }
  return verdict;
}

}  // namespace host
