// SPDX-License-Identifier: Apache-2.0
//
// What a timed run found, as JSON text: processes with their loops and timelines,
// streams, memory ports, and the waits of a deadlock.
#ifndef T2F_SIM_TIMED_REPORT_HPP
#define T2F_SIM_TIMED_REPORT_HPP

#include <sstream>
#include <string>

#include "t2f_sim.hpp"

namespace t2f::sim {

class TimedReport {
 public:
  explicit TimedReport(Scheduler &scheduler) : scheduler_(scheduler) {}

  // To be called after run().
  std::string json() {
    unsigned shift = 0;
    for (const auto &process : scheduler_.processes_) {
      if (process->clock.timeline().shift() > shift) shift = process->clock.timeline().shift();
    }
    out_ << "{\"cycles\":" << scheduler_.cycles() << ",\"bucket\":" << (Cycle{1} << shift);
    list("processes", scheduler_.processes_, [&](const auto &process) {
      process->clock.timeline().widen(shift);
      one(*process);
    });
    list("streams", scheduler_.streams(), [&](const auto &entry) { one(entry.first, entry.second); });
    list("ports", scheduler_.timing.ports, [&](const MemoryPort &port) { one(port); });
    out_ << ",\"deadlock\":" << (scheduler_.deadlock_.empty() ? "null" : scheduler_.deadlock_) << "}";
    return out_.str();
  }

 private:
  template <typename Items, typename Print>
  void list(const char *name, const Items &items, Print print) {
    out_ << ",\"" << name << "\":";
    array(items, print);
  }

  template <typename Items, typename Print>
  void array(const Items &items, Print print) {
    const char *comma = "";
    out_ << "[";
    for (const auto &item : items) {
      out_ << comma;
      print(item);
      comma = ",";
    }
    out_ << "]";
  }

  void one(const Process &process) {
    const Clock &clock = process.clock;
    const auto number = [&](Cycle cycle) { out_ << cycle; };
    out_ << "{\"path\":" << quoted(process.path) << ",\"leaf\":" << (process.children.empty() ? "true" : "false");
    list("begins", process.begins, number);
    list("ends", process.ends, number);
    out_ << ",\"input\":" << clock.total(Stall::input) << ",\"output\":" << clock.total(Stall::output)
         << ",\"memory\":" << clock.total(Stall::memory);
    list("loops", clock.uses(), [&](const SiteUse &use) { one(use); });
    std::size_t last = Timeline::buckets;
    while (last != 0 && quiet(clock.timeline(), last - 1)) --last;
    out_ << ",\"lost\":[";
    for (std::size_t i = 0; i < last; ++i) {
      const Timeline &line = clock.timeline();
      out_ << (i == 0 ? "[" : ",[") << line.lost(i, Stall::input) << "," << line.lost(i, Stall::output)
           << "," << line.lost(i, Stall::memory) << "]";
    }
    out_ << "]}";
  }

  static bool quiet(const Timeline &line, std::size_t bucket) {
    return line.lost(bucket, Stall::input) == 0 && line.lost(bucket, Stall::output) == 0 &&
           line.lost(bucket, Stall::memory) == 0;
  }

  void one(const SiteUse &use) {
    const std::string file = use.site->file;
    out_ << "{\"file\":" << quoted(file.substr(file.rfind('/') + 1)) << ",\"line\":" << use.site->line
         << ",\"ii\":" << use.site->ii << ",\"depth\":" << use.depth << ",\"latency\":" << use.latency
         << ",\"entries\":" << use.entries << ",\"iterations\":" << use.iterations
         << ",\"input\":" << use.stalls[0] << ",\"output\":" << use.stalls[1]
         << ",\"memory\":" << use.stalls[2] << "}";
  }

  void one(const std::string &key, const StreamUse &use) {
    out_ << "{\"key\":" << quoted(key) << ",\"depth\":" << use.depth << ",\"high_water\":" << use.high_water
         << ",\"written\":" << use.written << ",\"read\":" << use.read
         << ",\"writer\":" << quoted(use.writer) << ",\"reader\":" << quoted(use.reader)
         << ",\"stalled_reads\":" << use.stalled_reads << ",\"stalled_writes\":" << use.stalled_writes
         << "}";
  }

  void one(const MemoryPort &port) {
    out_ << "{\"name\":" << quoted(port.name()) << ",\"bytes\":" << port.moved()
         << ",\"transactions\":" << port.transactions() << ",\"busy\":" << port.busy()
         << ",\"first\":" << port.first() << ",\"last\":" << port.last() << "}";
  }

  Scheduler &scheduler_;
  std::ostringstream out_;
};

}  // namespace t2f::sim

#endif
