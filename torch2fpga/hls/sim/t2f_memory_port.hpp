// SPDX-License-Identifier: Apache-2.0
//
// One AXI master and the HBM pseudo-channel behind it.
//
// Reads: the first request of a run of addresses leaves when its iteration issues, data is
// due `latency` cycles later. Requests for what follows run ahead as far as the buffer
// (`outstanding` transactions of `burst` beats) has room: the length of a burst is known
// where its loop is entered. The channel delivers one beat after the other at its
// sustained rate. A transaction
// that does not continue the one before opens a row: transactions start at least
// `row` apart. One that changes the pseudo-channel waits for the round trip of the one
// before, because data of one AXI id returns in order. At most `outstanding`
// transactions are under way.
// Writes: posted into a buffer of that many beats; the answer to the last one is awaited
// when the loop is left.
// Constants come from the board table; docs/timed-run.md compares the model with
// published measurements.
#ifndef T2F_SIM_MEMORY_PORT_HPP
#define T2F_SIM_MEMORY_PORT_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace t2f::sim {

using Cycle = std::uint64_t;

// Rates are no whole cycles: times inside of a port are counted in 1/1024 cycle.
constexpr unsigned port_fraction = 10;

// Times in 1/1024 cycle where not said otherwise.
struct PortModel {
  std::uint64_t beat = 1024;            // a beat of `beat_bytes` at the sustained rate
  std::uint64_t beat_bytes = 64;        // width of the port
  std::uint64_t row = 0;                // start of a transaction to the start of the next
  std::uint64_t cross = 0;              // a change of the pseudo-channel
  std::uint64_t channel_bytes = 0;      // size of a pseudo-channel; 0: no crossing
  Cycle latency = 64;                   // whole cycles
  unsigned outstanding = 16;            // transactions
  unsigned burst = 32;                  // beats of a transaction at most
};

class MemoryPort {
 public:
  MemoryPort(std::string name, const void *base, std::uint64_t bytes, const PortModel &model)
      : model_(model),
        name_(std::move(name)),
        base_(static_cast<const char *>(base)),
        bytes_(bytes),
        done_(model.outstanding == 0 ? 1 : model.outstanding, 0),
        taken_(done_.size() * (model.burst == 0 ? 1 : model.burst), 0) {}

  bool contains(const void *address) const {
    const auto at = static_cast<const char *>(address);
    return at >= base_ && at < base_ + bytes_;
  }

  // A read of `bytes` that issues at `now`, in the loop entry numbered `entry`:
  // when its data is there, in cycles, at best now + latency.
  Cycle read(const void *address, std::size_t bytes, Cycle now, std::uint64_t entry) {
    transfer(address, bytes, entry);
    const std::uint64_t room = done_[transaction_ % done_.size()];
    if (opens_) {
      requested_ = now << port_fraction;
      run_ = 0;
      if (requested_ < room) requested_ = room;
    }
    // Beats of the run that fit into the buffer are requested at once, others when the
    // process has taken the one whose place they get.
    std::uint64_t &taken = taken_[run_ % taken_.size()];
    const std::uint64_t request = run_ < taken_.size() || taken < requested_ ? requested_ : taken;
    ++run_;
    const std::uint64_t begin = serve(request + (model_.latency << port_fraction), bytes);
    // What arrives within a cycle is there in it; whole cycles stall.
    const Cycle there = begin >> port_fraction;
    const Cycle best = now + model_.latency;
    taken = (there < best ? best : there) << port_fraction;
    return there < best ? best : there;
  }

  // A write that reaches the port at `now`: until when the process is held up.
  Cycle write(const void *address, std::size_t bytes, Cycle now, std::uint64_t entry) {
    transfer(address, bytes, entry);
    const std::uint64_t at = now << port_fraction;
    const std::uint64_t begin = serve(at, bytes);
    const std::uint64_t buffer = model_.outstanding * model_.burst * model_.beat;
    return begin > at + buffer ? (begin - buffer) >> port_fraction : now;
  }

  // When all writes so far are answered.
  Cycle answered() const { return (free_ >> port_fraction) + model_.latency; }

  const std::string &name() const { return name_; }
  const PortModel &model() const { return model_; }
  std::uint64_t moved() const { return moved_; }
  std::uint64_t transactions() const { return transactions_; }
  // Cycles in which the channel moved data.
  Cycle busy() const { return busy_ >> port_fraction; }
  Cycle first() const { return first_ >> port_fraction; }
  Cycle last() const { return free_ >> port_fraction; }

 private:
  // Is this beat the next of the running transaction, or the first of a new one?
  void transfer(const void *address, std::size_t bytes, std::uint64_t entry) {
    const auto at = static_cast<std::uint64_t>(static_cast<const char *>(address) - base_);
    const bool follows = moved_ != 0 && at == next_ && entry == entry_;
    opens_ = !follows;
    crosses_ = false;
    if (follows && beats_ < model_.burst) {
      ++beats_;
    } else {
      if (transactions_ != 0) done_[transaction_ % done_.size()] = free_;
      ++transaction_;
      ++transactions_;
      beats_ = 1;
    }
    if (model_.channel_bytes != 0) {
      const std::uint64_t channel = at / model_.channel_bytes;
      crosses_ = moved_ != 0 && channel != channel_;
      channel_ = channel;
    }
    next_ = at + bytes;
    entry_ = entry;
  }

  // The channel's time for this beat; gives when it begins.
  std::uint64_t serve(std::uint64_t due, std::size_t bytes) {
    if (opens_ && moved_ != 0 && free_ < opened_ + model_.row) free_ = opened_ + model_.row;
    if (crosses_) free_ += model_.cross;
    const std::uint64_t begin = free_ > due ? free_ : due;
    if (opens_) opened_ = begin;
    if (moved_ == 0) first_ = begin;
    const std::uint64_t cost = bytes >= model_.beat_bytes
                                   ? model_.beat * ((bytes + model_.beat_bytes - 1) / model_.beat_bytes)
                                   : model_.beat;
    free_ = begin + cost;
    busy_ += cost;
    moved_ += bytes;
    return begin;
  }

  PortModel model_;
  std::string name_;
  const char *base_;
  std::uint64_t bytes_;
  std::vector<std::uint64_t> done_;   // when each of the last transactions was complete
  std::vector<std::uint64_t> taken_;  // when the process took each of the last beats of the run
  std::uint64_t run_ = 0;             // beats since the run of addresses began
  std::uint64_t requested_ = 0;       // when it began
  std::uint64_t transaction_ = 0;
  std::uint64_t transactions_ = 0;
  unsigned beats_ = 0;          // of the running transaction
  std::uint64_t next_ = 0;      // address that would continue it
  std::uint64_t entry_ = 0;
  std::uint64_t channel_ = 0;
  bool opens_ = true;
  bool crosses_ = false;
  std::uint64_t opened_ = 0;    // when the last row was opened
  std::uint64_t free_ = 0;      // when the channel has time for the next beat
  std::uint64_t first_ = 0;
  std::uint64_t busy_ = 0;
  std::uint64_t moved_ = 0;
};

}  // namespace t2f::sim

#endif
