// SPDX-License-Identifier: Apache-2.0
//
// A process of a dataflow region: its place in the design, and its fiber.
#ifndef T2F_SIM_PROCESS_HPP
#define T2F_SIM_PROCESS_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "t2f_channel.hpp"
#include "t2f_fiber.hpp"
#ifdef T2F_TIMED
#include "t2f_clock.hpp"
#endif

namespace t2f::sim {

// Thrown out of a blocked call to unwind the stack of a process that is given up.
// Not a std::exception, so that code which handles those does not stop it.
struct Cancelled {};

// One object per name and enclosing process, used again when a region is entered
// again: the reader of a stream is then the same process in every iteration.
struct Process {
  std::string name;
  std::string path;  // "kernel/process"
  Process *parent = nullptr;
  unsigned level = 0;        // 0 for a kernel
  std::uint64_t region = 0;  // which of its parent's regions it was last started in
  std::vector<Process *> children;

  std::uint64_t open_region = 1;  // number of the region it is itself in
  unsigned unnamed = 0;           // streams without a name made in that region
  std::size_t live_children = 0;
  bool alive = false;
  bool joining = false;
  const Channel *waits_on = nullptr;
  Side waits_to = Side::read;

  std::function<void()> body;
  std::vector<const void *> refers_to;  // what its statement captured; streams among it
  Context context;
  Stack stack;
  Process *next_ready = nullptr;
#ifdef T2F_TIMED
  Clock clock;
  std::vector<Cycle> begins;  // of its launches
  std::vector<Cycle> ends;
#endif
};

#ifdef T2F_TIMED
// The process whose code runs. One timed run at a time in each library (Scheduler::run
// sees to that), because looking through a thread-local variable at every iteration of
// every loop would cost more than the clock itself.
__attribute__((visibility("hidden"))) inline Process *active = nullptr;
#endif

// Whether two processes may use the same side of a stream: one is part of the other,
// or they belong to regions that their common parent entered one after the other.
inline bool same_user(const Process *a, const Process *b) {
  while (a->level > b->level) a = a->parent;
  while (b->level > a->level) b = b->parent;
  if (a == b) return true;
  while (a->parent != b->parent) {
    a = a->parent;
    b = b->parent;
  }
  return a->region != b->region;
}

}  // namespace t2f::sim

#endif
