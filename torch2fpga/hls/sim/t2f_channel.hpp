// SPDX-License-Identifier: Apache-2.0
//
// What a stream is apart from its token type: counts, limits, who reads and who
// writes. hls_stream.h puts the ring of tokens on top.
//
// The fast path of a transfer is two comparisons against `write_limit_` or
// `read_floor_` and the current process. Everything rare is reached by setting those
// limits so that the comparison fails: a full or empty stream, a ring that must
// grow, the first transfer of a process, and a peer that waits and must be woken.
#ifndef T2F_SIM_CHANNEL_HPP
#define T2F_SIM_CHANNEL_HPP

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "t2f_recorder.hpp"
#ifdef T2F_TIMED
#include "t2f_clock.hpp"
#endif

#define T2F_NOINLINE __attribute__((noinline))
#define T2F_UNLIKELY(condition) __builtin_expect(static_cast<bool>(condition), 0)

namespace t2f::sim {

class Scheduler;
struct Process;

enum class Side { read, write };

// The running process where there is no scheduler. Hidden, because an inline variable
// that other libraries can see keeps its library from ever being unloaded.
__attribute__((visibility("hidden"))) inline constexpr Process *nobody = nullptr;

// How one stream was used, kept after the stream itself is gone.
struct StreamUse {
  std::uint64_t depth = 0;
  std::uint64_t high_water = 0;  // most tokens held at once
  std::uint64_t written = 0;
  std::uint64_t read = 0;
  std::string writer;  // path of the process; empty when none has
  std::string reader;
#ifdef T2F_TIMED
  Cycle stalled_reads = 0;   // cycles that its reader waited for a token
  Cycle stalled_writes = 0;  // cycles that its writer waited for space
#endif
};

class Channel {
 public:
  Channel(const Channel &) = delete;
  Channel &operator=(const Channel &) = delete;

  std::size_t size() const { return static_cast<std::size_t>(written_ - first_live()); }
  std::size_t capacity() const { return static_cast<std::size_t>(depth_); }
  // Tokens held at once, at most, and in total since construction.
  std::uint64_t high_water() const { return high_water_; }
  std::uint64_t written() const { return written_; }
  std::uint64_t read_count() const { return read_; }
  // "kernel/stream" in a scheduled run, else the stream's own name.
  const std::string &key() const { return key_; }

 protected:
  // `token_size` is 0 for a token whose bytes cannot be recorded.
  Channel(std::uint64_t depth, const char *name, std::size_t token_size);
  ~Channel();

  std::uint64_t fill() const { return written_ - read_; }

  bool write_needs_care() const { return *current_ != writer_ || fill() >= write_limit_; }
  bool read_needs_care() const { return *current_ != reader_ || fill() <= read_floor_; }

  // Claims the stream for the current process, waits for space, wakes the reader.
  // True: the ring is at its capacity and must grow before the write.
  bool acquire_write(std::uint64_t ring);
  // Claims the stream, waits for a token, wakes the writer.
  void acquire_read();
  // The same without waiting: false when the transfer cannot be made now. A failing
  // try lets other processes run, so that polling loops make progress.
  bool try_write() const { return *current_ == nullptr || fill() < depth_ || retry(Side::write); }
  bool try_read() const { return written_ != first_live() || retry(Side::read); }

  // To be called when the ring has got a new capacity.
  void ring_grown(std::uint64_t ring) {
#ifdef T2F_TIMED
    if (ring != times_.size()) grow_times(ring);
#endif
    write_limit_ = *current_ != nullptr && depth_ < ring ? depth_ : ring;
  }

#ifdef T2F_TIMED
  void time_write();
  void time_read();
  void release_own();
  void release_slot(Cycle free);
  // The oldest token that is not read: one that was keeps its slot until the reads of its
  // iteration are complete.
  std::uint64_t first_live() const { return read_ + held_; }
  bool holds() const { return held_ != 0; }
  void count_write() { ++written_; }  // high_water_ is a matter of times
  void count_read() {
    if (held_ == 0) ++read_;
  }
#else
  void time_write() {}
  void time_read() {}
  void release_own() {}
  std::uint64_t first_live() const { return read_; }  // the oldest token that is not read
  bool holds() const { return false; }
  void count_write() {
    ++written_;
    const std::uint64_t held = fill();
    if (held > high_water_) high_water_ = held;
  }
  void count_read() { ++read_; }
#endif

  std::uint64_t written_ = 0;
  std::uint64_t read_ = 0;
  std::uint64_t write_limit_ = 0;         // a write at this fill takes the slow path
  std::uint64_t read_floor_ = 0;          // a read at this fill takes the slow path
  Process *const *current_ = &nobody;     // the scheduler's running process
  Process *writer_ = nullptr;
  Process *reader_ = nullptr;
  std::uint64_t high_water_ = 0;
  Tap *tap_ = nullptr;

 private:
  friend class Scheduler;
  friend class Report;
#ifdef T2F_TIMED
  friend class Clock;
  void grow_times(std::uint64_t ring);
  void count_held(Cycle at);
#endif

  static constexpr std::uint64_t always = std::numeric_limits<std::uint64_t>::max();
  void claim(Process *&owner, Side side);
  void wait(Side side);
  bool retry(Side side) const;
  void detach();

  std::uint64_t depth_;
  Process *waiting_reader_ = nullptr;
  Process *waiting_writer_ = nullptr;
  Process *maker_ = nullptr;  // the process that constructed it, if any
  Scheduler *scheduler_ = nullptr;
  Channel *previous_ = nullptr;  // live channels of the scheduler
  Channel *next_ = nullptr;
  std::string key_;
#ifdef T2F_TIMED
  std::uint64_t held_ = 0;           // 1: the token read last keeps its slot
  Clock *writer_clock_ = nullptr;
  Clock *reader_clock_ = nullptr;
  std::vector<Cycle> times_;         // when the token in each slot of the ring can be read
  std::uint64_t times_mask_ = 0;
  std::vector<Cycle> freed_;         // when the slots of the last `depth` reads got free
  std::uint64_t freed_mask_ = 0;
  std::uint64_t counted_ = 0;        // writes that high_water_ takes account of
  std::uint64_t gone_ = 0;           // reads before the last of those
  Cycle latency_ = 0;                // of the wires, on top of the FIFO's own cycle
  Cycle stalled_reads_ = 0;
  Cycle stalled_writes_ = 0;
#endif
};

}  // namespace t2f::sim

#endif
