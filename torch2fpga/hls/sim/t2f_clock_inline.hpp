// SPDX-License-Identifier: Apache-2.0
//
// What every token and every iteration calls in the timed run. Included by t2f_sim.hpp.
#ifndef T2F_SIM_CLOCK_INLINE_HPP
#define T2F_SIM_CLOCK_INLINE_HPP

#include "t2f_sim.hpp"

namespace t2f::sim {

// --- what the source's statements call --------------------------------------------

// One iteration of a pipelined loop begins.
inline void tick(const Site &site) {
  if (active != nullptr) active->clock.tick(site);
}

// The next pipelined loop is entered anew, even if it is the one just left.
inline void loop_entry() {
  if (active != nullptr) active->clock.leave();
}

// An element of a memory port is read or, through a pointer to non-const, written.
template <typename T>
const T *access(const T *element) {
  if (active != nullptr) active->clock.memory(element, sizeof(T), false);
  return element;
}
template <typename T>
T *access(T *element) {
  if (active != nullptr) active->clock.memory(element, sizeof(T), true);
  return element;
}

// --- clock --------------------------------------------------------------------------

inline void Clock::release_one(Channel *channel) { channel->release_slot(read_at + 1); }

inline void Clock::release() {
  for (std::size_t i = 0; i < held_count_; ++i) held_[i]->release_slot(read_at + 1);
  held_count_ = 0;
}

// --- streams ------------------------------------------------------------------------

// The time of the write that comes next; the ring has room for it.
inline void Channel::time_write() {
  if (writer_ == nullptr) return;
  Clock &clock = *writer_clock_;
  clock.end_reads();
  Cycle at = clock.write_at();
  if (written_ >= depth_) {
    const Cycle free = freed_[(written_ - depth_) & freed_mask_];
    if (at < free) {
      stalled_writes_ += free - at;
      clock.stop(Stall::output, free - at);
      at = free;
    }
  }
  times_[written_ & times_mask_] = at + 1 + latency_;
  if (counted_ == written_ && read_ != 0 && freed_[(read_ - 1) & freed_mask_] > at) count_held(at);
}

// Most tokens at once, in time: the process that runs first on the host may be the
// later one. Here reads up to a later time than `at` are known.
inline void Channel::count_held(Cycle at) {
  if (written_ + 1 > depth_ && gone_ < written_ + 1 - depth_) gone_ = written_ + 1 - depth_;
  while (freed_[gone_ & freed_mask_] <= at) ++gone_;
  const std::uint64_t held = written_ + 1 - gone_;
  if (held > high_water_) high_water_ = held;
  ++counted_;
}

inline void Channel::time_read() {
  if (reader_ == nullptr) return;
  Clock &clock = *reader_clock_;
  const Cycle there = times_[read_ & times_mask_];
  if (clock.now < there) {
    const Cycle before = clock.total(Stall::input);
    clock.await(Stall::input, there);
    stalled_reads_ += clock.total(Stall::input) - before;  // less what a full output took of it
  }
  clock.read_at = clock.now;
  held_ = 1;
  clock.hold(this);
}

// The token that was read leaves its slot, which can be written again at `free`.
inline void Channel::release_slot(Cycle free) {
  if (held_ == 0) return;
  freed_[read_ & freed_mask_] = free;
  while (counted_ < written_ && times_[counted_ & times_mask_] - 1 - latency_ < free) {
    const std::uint64_t held = counted_ + 1 - read_;
    if (held > high_water_) high_water_ = held;
    ++counted_;
  }
  ++read_;
  held_ = 0;
  if (waiting_writer_ != nullptr) {
    scheduler_->push_ready(waiting_writer_);
    waiting_writer_ = nullptr;
  }
}

// A second read of the stream in one iteration: the first one's slot is free.
inline void Channel::release_own() { release_slot(reader_clock_->read_at + 1); }

// --- scheduler ----------------------------------------------------------------------

}  // namespace t2f::sim

#endif
