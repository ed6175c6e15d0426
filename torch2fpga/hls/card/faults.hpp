// SPDX-License-Identifier: Apache-2.0
//
// Faults that the emulated card shows when told to (T2F_CARD_FAULTS): a list with ";" between of
//
//   hang[:KERNEL]@launch=N                   the kernel starts and never ends
//   timeout[:KERNEL]@launch=N[:ms=M]         it ends M milliseconds later (1000 where not said)
//   reset[:KERNEL]@launch=N                  the device resets while the kernels run
//   corrupt-read[:ARGUMENT]@sync=N[:bit=B]   bit B (0) flips on the way from the card to the host
//   corrupt-weights[:ARGUMENT]@sync=N[:bit=B]  the same on the way to the card
//   corrupt-memory:ARGUMENT@launch=N[:bit=B] bit B (0) of the buffer that the argument is set to flips in
//                                            the card's memory, and stays so until it is written again
//   alloc@n=N                                the N-th allocation fails
//
// N counts from 1: starts of that kernel (of the one with the argument), or of whichever kernel gets there
// first; transfers of the buffers in the memory that the argument is connected to, or of all buffers. Each
// fault happens once.
#ifndef T2F_CARD_FAULTS_HPP
#define T2F_CARD_FAULTS_HPP

#include <cstdint>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace t2f_card {

struct Fault {
  std::string text;  // as it was given
  std::string kind;
  std::string target;     // kernel or argument; empty: any
  std::uint64_t at = 0;   // the how manieth time
  std::uint64_t ms = 1000;
  std::uint64_t bit = 0;
  std::uint64_t seen = 0;  // of transfers
  bool done = false;
};

class Faults {
 public:
  // Throws std::invalid_argument with all that is not understood.
  explicit Faults(const std::string &text) {
    std::istringstream in(text);
    std::string one;
    std::string problems;
    while (std::getline(in, one, ';')) {
      if (one.empty()) continue;
      try {
        faults_.push_back(parse(one));
      } catch (const std::invalid_argument &error) {
        problems += (problems.empty() ? "" : "; ") + ("\"" + one + "\": ") + error.what();
      }
    }
    if (!problems.empty()) throw std::invalid_argument(problems);
  }

  // The `count`-th start of a kernel. Null where nothing is to happen.
  const Fault *start(const char *kernel, std::uint64_t count) {
    for (Fault &fault : faults_) {
      const bool meant = fault.kind == "hang" || fault.kind == "timeout" || fault.kind == "reset";
      if (!meant || fault.done || count != fault.at) continue;
      if (!fault.target.empty() && fault.target != kernel) continue;
      fault.done = true;
      return &fault;
    }
    return nullptr;
  }

  // The `count`-th start of a kernel with that memory argument: all that is to happen to its buffer.
  std::vector<const Fault *> memory(const char *argument, std::uint64_t count) {
    std::vector<const Fault *> found;
    for (Fault &fault : faults_) {
      if (fault.kind != "corrupt-memory" || fault.done) continue;
      if (fault.target != argument || fault.at != count) continue;
      fault.done = true;
      found.push_back(&fault);
    }
    return found;
  }

  // One more transfer of a buffer in `bank`; `banks` says where arguments are connected.
  const Fault *transfer(bool to_card, unsigned bank, const std::multimap<std::string, unsigned> &banks) {
    const Fault *found = nullptr;
    for (Fault &fault : faults_) {
      if (fault.kind != (to_card ? "corrupt-weights" : "corrupt-read") || fault.done) continue;
      if (!fault.target.empty() && !connected(fault.target, bank, banks)) continue;
      if (++fault.seen != fault.at || found != nullptr) continue;
      fault.done = true;
      found = &fault;
    }
    return found;
  }

  const Fault *allocation(std::uint64_t count) {
    for (Fault &fault : faults_) {
      if (fault.kind != "alloc" || fault.done || fault.at != count) continue;
      fault.done = true;
      return &fault;
    }
    return nullptr;
  }

  const std::vector<Fault> &all() const { return faults_; }

 private:
  static bool connected(const std::string &name, unsigned bank,
                        const std::multimap<std::string, unsigned> &banks) {
    const auto range = banks.equal_range(name);
    for (auto at = range.first; at != range.second; ++at) {
      if (at->second == bank) return true;
    }
    return false;
  }

  static std::uint64_t number(const std::string &text) {
    if (text.empty() || text.size() > 15 || text.find_first_not_of("0123456789") != std::string::npos) {
      throw std::invalid_argument("\"" + text + "\" is no whole number");
    }
    return std::stoull(text);
  }

  static Fault parse(const std::string &text) {
    static const std::map<std::string, std::string> counters = {
        {"hang", "launch"},       {"timeout", "launch"},       {"reset", "launch"},
        {"corrupt-read", "sync"}, {"corrupt-weights", "sync"}, {"corrupt-memory", "launch"},
        {"alloc", "n"}};
    Fault fault;
    fault.text = text;
    const auto split = text.find('@');
    if (split == std::string::npos) throw std::invalid_argument("no \"@\" that says when");
    const std::string head = text.substr(0, split);
    const auto colon = head.find(':');
    fault.kind = head.substr(0, colon);
    const auto counter = counters.find(fault.kind);
    if (counter == counters.end()) {
      throw std::invalid_argument(
          "unknown kind; there are hang, timeout, reset, corrupt-read, corrupt-weights, corrupt-memory, "
          "alloc");
    }
    if (colon != std::string::npos) {
      fault.target = head.substr(colon + 1);
      if (fault.kind == "alloc") throw std::invalid_argument("alloc takes no name");
      if (fault.target.empty()) throw std::invalid_argument("no name behind \":\"");
    }
    const bool flips = fault.kind.compare(0, 8, "corrupt-") == 0;
    if (fault.kind == "corrupt-memory" && fault.target.empty()) {
      throw std::invalid_argument("corrupt-memory takes the name of an argument");
    }
    std::istringstream rest(text.substr(split + 1));
    std::string part;
    for (bool first = true; std::getline(rest, part, ':'); first = false) {
      const auto equals = part.find('=');
      const std::string key = part.substr(0, equals);
      const std::uint64_t value = number(equals == std::string::npos ? "" : part.substr(equals + 1));
      if (first && key == counter->second) {
        fault.at = value;
      } else if (!first && key == "ms" && fault.kind == "timeout") {
        fault.ms = value;
      } else if (!first && key == "bit" && flips) {
        fault.bit = value;
      } else {
        throw std::invalid_argument("\"" + key + "\" is not for " + fault.kind + ", which counts \"" +
                                    counter->second + "\"");
      }
    }
    if (fault.at == 0) throw std::invalid_argument(counter->second + " counts from 1");
    return fault;
  }

  std::vector<Fault> faults_;
};

}  // namespace t2f_card

#endif
