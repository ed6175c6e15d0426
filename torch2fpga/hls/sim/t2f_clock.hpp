// SPDX-License-Identifier: Apache-2.0
//
// The clock of a process in the timed run, and what it was spent on.
//
// Rules (docs/timed-run.md):
//   - A pipelined loop issues an iteration every II cycles. What it writes appears
//     `depth` cycles after the issue; behind the last iteration it drains. Entering and
//     leaving a loop takes a cycle each (UG1399).
//   - All reads of an iteration happen together, when the last of their tokens is there;
//     a slot is free in the cycle behind. (Where an iteration writes and then reads on, the
//     reads in front of the write are one group, those behind it another.)
//   - A full output stops the whole pipeline from the cycle of that write on: what was
//     issued before has been read, what comes later issues later. What is written in
//     a cycle can be read in the next.
// Times depend on the order of tokens only, never on which process ran first on the host.
#ifndef T2F_SIM_CLOCK_HPP
#define T2F_SIM_CLOCK_HPP

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "t2f_memory_port.hpp"

namespace t2f::sim {

class Channel;
class Scheduler;
struct Process;

// A pipelined loop in the source: one object for each instance of its template.
struct Site {
  const char *file;
  int line;
  unsigned ii;
};

// Why a process does not issue.
enum class Stall { input, output, memory };

// How often one process went through a pipelined loop, and what held it up.
struct SiteUse {
  const Site *site = nullptr;
  Cycle depth = 1;
  Cycle latency = 0;  // of the memory read in it, on top of the depth
  std::uint64_t entries = 0;
  std::uint64_t iterations = 0;
  Cycle stalls[3] = {0, 0, 0};
};

// Stalled cycles over the run in a fixed number of buckets, whose width doubles when
// the run gets longer.
class Timeline {
 public:
  static constexpr std::size_t buckets = 512;

  // `from` to `to` were lost to `why`.
  void add(Stall why, Cycle from, Cycle to) {
    while (((to - 1) >> shift_) >= buckets) halve();
    for (Cycle at = from; at < to;) {
      const Cycle bucket = at >> shift_;
      const Cycle end = (bucket + 1) << shift_;
      const Cycle stop = end < to ? end : to;
      rows_[bucket].lost[static_cast<int>(why)] += static_cast<std::uint32_t>(stop - at);
      at = stop;
    }
  }

  // Gives the timeline the bucket width of the longest one.
  void widen(unsigned shift) {
    while (shift_ < shift) halve();
  }
  unsigned shift() const { return shift_; }
  std::uint32_t lost(std::size_t bucket, Stall why) const {
    return rows_[bucket].lost[static_cast<int>(why)];
  }

 private:
  struct Row {
    std::uint32_t lost[3];
  };
  void halve() {
    for (std::size_t i = 0; i < buckets; ++i) {
      for (int why = 0; why < 3; ++why) {
        const std::size_t from = 2 * i;
        rows_[i].lost[why] =
            from < buckets ? rows_[from].lost[why] + rows_[from + 1].lost[why] : 0;
      }
    }
    ++shift_;
  }

  unsigned shift_ = 4;
  std::vector<Row> rows_ = std::vector<Row>(buckets, Row{{0, 0, 0}});
};

class Clock {
 public:
  // Issue time of the current iteration; outside of loops, where the process stands.
  Cycle now = 0;
  // Cycles from the issue of an iteration to its writes.
  Cycle write_offset = 0;
  // Time of the iteration's latest read.
  Cycle read_at = 0;

  __attribute__((noinline)) void stall(Stall why, Cycle until) {
    if (use_ != nullptr) use_->stalls[static_cast<int>(why)] += until - now;
    totals_[static_cast<int>(why)] += until - now;
    timeline_.add(why, now, until);
    now = until;
    if (now >= limit_) over_limit();
  }

  // The iteration's issue waits until `there`, when what it reads is there. Stops of the
  // pipeline that fall into that time delay it further.
  void await(Stall why, Cycle there) {
    while (first_stop_ != last_stop_) {
      const Stop &stop = stops_[first_stop_ & stop_mask_];
      const Cycle begins = stop.at + stopped_;
      if (begins > (now > there ? now : there)) break;
      if (begins > now) stall(why, begins);
      take_stop();
    }
    if (now < there) stall(why, there);
  }

  // A write of this iteration has to wait `cycles` for space: the pipeline stops there.
  void stop(Stall why, Cycle cycles) {
    if (site_ == nullptr) {
      stall(why, now + cycles);
      return;
    }
    add_stop(why, now - stopped_ + write_offset, cycles);
  }
  // When a write of this iteration reaches its output, as far as known.
  Cycle write_at() const { return now + ahead_; }

  // A token of `channel` was read in this iteration; its slot is free when the
  // iteration's reads are complete.
  void hold(Channel *channel) {
    if (held_count_ == held_limit) release();
    held_[held_count_++] = channel;
  }
  void release();
  void release_one(Channel *channel);
  // The iteration's reads are complete, if it made any.
  void end_reads() {
    if (held_count_ == 0) return;
    if (held_count_ == 1) {
      held_count_ = 0;
      release_one(held_[0]);
      return;
    }
    release();
  }

  void tick(const Site &site) {
    end_reads();
    if (&site != site_) {
      enter(site);
      return;
    }
    now += ii_;
    ++iterations_;
    if (now >= attention_) attend();
  }

  // Drains the loop that the process is in, if any, and leaves it.
  void leave();

  void memory(const void *address, std::size_t bytes, bool write);

  Cycle total(Stall why) const { return totals_[static_cast<int>(why)]; }
  const std::vector<SiteUse> &uses() const { return uses_; }
  const Timeline &timeline() const { return timeline_; }
  Timeline &timeline() { return timeline_; }

 private:
  friend class Scheduler;
  static constexpr std::size_t held_limit = 16;

  // The pipeline stands still for `cycles` when it has run `at` cycles of its own.
  struct Stop {
    Cycle at;
    Cycle cycles;
    Stall why;
  };

  // `attention_` is passed: a stop is due, or the limit.
  __attribute__((noinline)) void attend() {
    while (first_stop_ != last_stop_ && now - stopped_ >= stops_[first_stop_ & stop_mask_].at) {
      take_stop();
    }
    if (now >= limit_) over_limit();
  }
  void look_ahead() {
    attention_ = first_stop_ == last_stop_ ? limit_ : stops_[first_stop_ & stop_mask_].at + stopped_;
    if (limit_ < attention_) attention_ = limit_;
  }
  void take_stop() {
    const Stop stop = stops_[first_stop_++ & stop_mask_];
    stall(stop.why, now + stop.cycles);
    stopped_ += stop.cycles;
    ahead_ -= stop.cycles;
    look_ahead();
  }
  void add_stop(Stall why, Cycle at, Cycle cycles);

  void enter(const Site &site);
  [[noreturn]] void over_limit();

  const Site *site_ = nullptr;  // the loop that the process is in
  Cycle ii_ = 1;
  SiteUse *use_ = nullptr;
  Cycle limit_ = std::numeric_limits<Cycle>::max();
  Cycle attention_ = 0;            // from here on an iteration has more to do: a stop, the limit
  std::uint64_t iterations_ = 0;   // of this entry of the loop
  // Stops of the pipeline that are ahead of the issue: an iteration's writes come
  // `write_offset` later, when others have been issued already.
  std::vector<Stop> stops_ = std::vector<Stop>(16);
  std::uint64_t stop_mask_ = 15;
  std::uint64_t first_stop_ = 0;
  std::uint64_t last_stop_ = 0;
  Cycle ahead_ = 0;     // from the issue to the iteration's writes, those stops included
  Cycle stopped_ = 0;   // cycles that the loop has stood still: now - stopped_ is its own time
  std::size_t held_count_ = 0;
  Channel *held_[held_limit] = {};
  MemoryPort *port_ = nullptr;      // last one accessed
  Cycle written_until_ = 0;         // when the last memory write is answered
  std::uint64_t entry_ = 0;         // loop entries so far, to tell bursts apart
  Process *owner_ = nullptr;
  Scheduler *scheduler_ = nullptr;
  std::vector<SiteUse> uses_;
  Cycle totals_[3] = {0, 0, 0};
  Timeline timeline_;
};

}  // namespace t2f::sim

#endif
