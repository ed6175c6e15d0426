// SPDX-License-Identifier: Apache-2.0
//
// How long the host's threads were in calls that the emulated card answers itself (arguments, starts,
// transfers; not waits): time that is the emulation's and not the host program's.
#ifndef T2F_CARD_CALLS_HPP
#define T2F_CARD_CALLS_HPP

#include <atomic>
#include <chrono>
#include <cstdint>

namespace t2f_card {

class Call {
 public:
  Call() : begin_(std::chrono::steady_clock::now()) {}
  Call(const Call &) = delete;
  Call &operator=(const Call &) = delete;
  ~Call() {
    const auto passed = std::chrono::steady_clock::now() - begin_;
    total_ += static_cast<std::uint64_t>(std::chrono::nanoseconds(passed).count());
  }

  // Of all calls so far.
  static std::uint64_t total_ns() { return total_; }

 private:
  inline static std::atomic<std::uint64_t> total_{0};
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace t2f_card

#endif
