// SPDX-License-Identifier: Apache-2.0
//
// Member functions of Clock, and the clock's part of Channel and Scheduler. Included by
// t2f_sim_impl.hpp in the timed run.
#ifndef T2F_SIM_CLOCK_IMPL_HPP
#define T2F_SIM_CLOCK_IMPL_HPP

#include <cstring>

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

// "file:line", without the folder.
inline std::string place_of(const Site &site) {
  const char *slash = std::strrchr(site.file, '/');
  return std::string(slash == nullptr ? site.file : slash + 1) + ":" + std::to_string(site.line);
}

inline void Clock::release_one(Channel *channel) { channel->release_slot(read_at + 1); }

inline void Clock::release() {
  for (std::size_t i = 0; i < held_count_; ++i) held_[i]->release_slot(read_at + 1);
  held_count_ = 0;
}

inline T2F_NOINLINE void Clock::add_stop(Stall why, Cycle at, Cycle cycles) {
  ahead_ += cycles;
  if (first_stop_ != last_stop_) {
    Stop &last = stops_[(last_stop_ - 1) & stop_mask_];
    if (last.at == at && last.why == why) {
      last.cycles += cycles;
      return;
    }
  }
  if (last_stop_ - first_stop_ == stops_.size()) {
    std::vector<Stop> more(stops_.size() * 2);
    for (std::uint64_t i = first_stop_; i != last_stop_; ++i) {
      more[i & (more.size() - 1)] = stops_[i & stop_mask_];
    }
    stops_ = std::move(more);
    stop_mask_ = stops_.size() - 1;
  }
  stops_[last_stop_++ & stop_mask_] = Stop{at, cycles, why};
  look_ahead();
}

inline T2F_NOINLINE void Clock::enter(const Site &site) {
  leave();
  use_ = nullptr;
  for (SiteUse &one : uses_) {
    if (one.site == &site) use_ = &one;
  }
  if (use_ == nullptr) {
    uses_.emplace_back();
    use_ = &uses_.back();
    use_->site = &site;
    use_->depth = scheduler_->depth_of(*owner_, site);
  }
  ++now;
  ++entry_;
  ++use_->entries;
  iterations_ = 1;
  site_ = &site;
  ii_ = site.ii;
  look_ahead();
  write_offset = ahead_ = use_->depth - 1 + use_->latency;
  if (now >= limit_) over_limit();
}

inline T2F_NOINLINE void Clock::leave() {
  end_reads();
  if (site_ == nullptr) return;
  while (first_stop_ != last_stop_) take_stop();  // while the last iterations drain
  stopped_ = 0;
  use_->iterations += iterations_;
  now += use_->depth + use_->latency;
  if (written_until_ > now) {
    const Cycle until = written_until_;
    written_until_ = 0;
    stall(Stall::memory, until);
  }
  ++now;
  site_ = nullptr;
  write_offset = ahead_ = 0;
}

inline T2F_NOINLINE void Clock::memory(const void *address, std::size_t bytes, bool write) {
  if (port_ == nullptr || !port_->contains(address)) port_ = scheduler_->port_of(address);
  if (port_ == nullptr) return;  // no port of the card: an array of a test bench
  if (write) {
    const Cycle at = write_at();
    const Cycle until = port_->write(address, bytes, at, entry_);
    if (until > at) stop(Stall::memory, until - at);
    written_until_ = port_->answered();
    return;
  }
  const Cycle latency = port_->model().latency;
  const Cycle due = port_->read(address, bytes, now, entry_);
  if (use_ != nullptr && use_->latency < latency) {
    use_->latency = latency;
    const Cycle offset = use_->depth - 1 + latency;
    ahead_ += offset - write_offset;
    write_offset = offset;
  }
  if (due > now + latency) await(Stall::memory, due - latency);
}

inline T2F_NOINLINE void Clock::over_limit() {
  std::string where = "outside of pipelined loops";
  if (site_ != nullptr) where = "in the loop at " + place_of(*site_);
  limit_ = std::numeric_limits<Cycle>::max();  // unwinding may still move the clock
  throw std::runtime_error("the cycle limit of " + std::to_string(scheduler_->timing.cycle_limit) +
                           " is passed " + where +
                           ": the process does not terminate, or the limit is too low for this run");
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

// The ring of tokens has got a new size; times move with their tokens.
inline void Channel::grow_times(std::uint64_t ring) {
  std::vector<Cycle> times(ring, 0);
  for (std::uint64_t i = read_; i != written_; ++i) times[i & (ring - 1)] = times_[i & times_mask_];
  times_ = std::move(times);
  times_mask_ = ring - 1;
  if (!freed_.empty()) return;
  std::uint64_t size = 2;
  while (size <= depth_) size *= 2;
  freed_.assign(size, 0);
  freed_mask_ = size - 1;
}

// --- scheduler ----------------------------------------------------------------------

inline Cycle Scheduler::depth_of(const Process &process, const Site &site) const {
  const auto at = timing.depths.find(process.path + " " + place_of(site));
  const Cycle depth = at == timing.depths.end() ? timing.default_depth : at->second;
  const Cycle scaled = (depth * timing.depth_percent + 50) / 100;
  return scaled == 0 ? 1 : scaled;
}

inline MemoryPort *Scheduler::port_of(const void *address) {
  for (MemoryPort &port : timing.ports) {
    if (port.contains(address)) return &port;
  }
  return nullptr;
}

inline Cycle Scheduler::cycles() const {
  Cycle last = 0;
  for (const auto &process : processes_) {
    if (process->clock.now > last) last = process->clock.now;
  }
  return last;
}

}  // namespace t2f::sim

#endif
