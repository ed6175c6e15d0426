// SPDX-License-Identifier: Apache-2.0
//
// Member functions of Clock, and the clock's part of Channel and Scheduler, that are not called for every
// token. Included by t2f_sim_impl.hpp in the timed run.
#ifndef T2F_SIM_CLOCK_IMPL_HPP
#define T2F_SIM_CLOCK_IMPL_HPP

#include <cstring>

#include "t2f_sim.hpp"

namespace t2f::sim {

// "file:line", without the folder.
T2F_SIM_BODY std::string place_of(const Site &site) {
  const char *slash = std::strrchr(site.file, '/');
  return std::string(slash == nullptr ? site.file : slash + 1) + ":" + std::to_string(site.line);
}

T2F_SIM_BODY T2F_NOINLINE void Clock::add_stop(Stall why, Cycle at, Cycle cycles) {
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

T2F_SIM_BODY T2F_NOINLINE void Clock::enter(const Site &site) {
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

T2F_SIM_BODY T2F_NOINLINE void Clock::leave() {
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

T2F_SIM_BODY T2F_NOINLINE void Clock::memory(const void *address, std::size_t bytes, bool write) {
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

T2F_SIM_BODY T2F_NOINLINE void Clock::over_limit() {
  std::string where = "outside of pipelined loops";
  if (site_ != nullptr) where = "in the loop at " + place_of(*site_);
  limit_ = std::numeric_limits<Cycle>::max();  // unwinding may still move the clock
  throw std::runtime_error("the cycle limit of " + std::to_string(scheduler_->timing.cycle_limit) +
                           " is passed " + where +
                           ": the process does not terminate, or the limit is too low for this run");
}

// The ring of tokens has got a new size; times move with their tokens.
T2F_SIM_BODY void Channel::grow_times(std::uint64_t ring) {
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

T2F_SIM_BODY Cycle Scheduler::depth_of(const Process &process, const Site &site) const {
  const auto at = timing.depths.find(process.path + " " + place_of(site));
  const Cycle depth = at == timing.depths.end() ? timing.default_depth : at->second;
  const Cycle scaled = (depth * timing.depth_percent + 50) / 100;
  return scaled == 0 ? 1 : scaled;
}

T2F_SIM_BODY MemoryPort *Scheduler::port_of(const void *address) {
  for (MemoryPort &port : timing.ports) {
    if (port.contains(address)) return &port;
  }
  return nullptr;
}

T2F_SIM_BODY Cycle Scheduler::cycles() const {
  Cycle last = 0;
  for (const auto &process : processes_) {
    if (process->clock.now > last) last = process->clock.now;
  }
  return last;
}

}  // namespace t2f::sim

#endif
