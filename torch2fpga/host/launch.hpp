// SPDX-License-Identifier: Apache-2.0
// Buffers of all ports, and runs of all kernels on them.
#ifndef HOST_LAUNCH_HPP
#define HOST_LAUNCH_HPP

#include <xrt/xrt_kernel.h>

#include <cstdint>
#include <string>
#include <vector>

#include "card.hpp"
#include "files.hpp"
#include "sums.hpp"
#include "tables.hpp"
#include "watchdog.hpp"

namespace host {

// What a cache holds before it is written: no key or value is -128.
constexpr unsigned char unwritten = 0x80;

// One buffer a port; both ports of a cache have the same one.
class Memory {
 public:
  // All buffers, images loaded and caches unwritten. Images are read back and compared. Throws Failure,
  // DeviceError.
  Memory(const Card &card, const Project &project);

  // Images and caches of another memory, inputs and results of its own: for the next launch.
  Memory(const Card &card, const Memory &other);

  Buffer &operator[](std::size_t port) { return buffers_[port]; }
  const Buffer &operator[](std::size_t port) const { return buffers_[port]; }
  std::size_t size() const { return buffers_.size(); }

  // What an image adds up to, by the bytes that were loaded; nothing where kernels add none up.
  const Added &added(std::size_t port) const { return added_[port]; }

  // Bytes on the device, a shared buffer counted once.
  std::size_t bytes() const;

 private:
  // An image to the device, and back. Throws DeviceError if it is not the same then.
  void load_image(std::size_t port);
  // Caches as they are before the first launch.
  void clear_caches();

  std::vector<Buffer> buffers_;
  std::vector<Added> added_;
};

// Runs of all kernels; they are made once, and a launch sets again only the numbers that changed.
class Launcher {
 public:
  Launcher(const Card &card, const Memory &memory, Watchdog &watchdog, int timeout_ms);

  // Starts every kernel. Throws DeviceError, with the number of the launch: `number`, where several
  // launchers take turns, else that of this one's launches.
  void start(const Numbers &numbers, std::int64_t number = 0);

  // Waits for every kernel. Throws DeviceError: kernels that are not done in time, or failed; all
  // are stopped then.
  void wait();

  // Time inside wait(), that of the processor meanwhile, and launches, so far.
  std::int64_t waited_ns() const { return waited_ns_; }
  std::int64_t waited_cpu_ns() const { return waited_cpu_ns_; }
  std::int64_t launches() const { return launches_; }

 private:
  struct Slot {
    std::size_t run;
    int index;
    int number;
    std::int32_t value;
    bool set;
  };

  // Names of kernels that are not completed, and how they stand.
  std::string unfinished();
  void stop();
  [[noreturn]] void give_up(const std::string &what);

  std::vector<xrt::run> runs_;
  std::vector<Slot> slots_;
  Watchdog &watchdog_;
  int timeout_ms_;
  std::int64_t waited_ns_ = 0;
  std::int64_t waited_cpu_ns_ = 0;
  std::int64_t launches_ = 0;
};

// Time that the processor has worked on the calling thread: other programs on a busy machine are not in it.
std::int64_t cpu_ns();

// Brings the first bytes of a small output to the host, twice. Throws DeviceError if they differ.
void fetch_twice(Buffer &output, std::size_t bytes, Bytes &room);

// What a launch of these numbers was not compiled for; empty if it can be done.
std::string refused(const Numbers &numbers);

// Ids of a launch that lie outside of the vocabulary; empty if none does. A table is read wherever an
// id says.
std::string wrong_ids(const Port &port, const std::int32_t *ids, std::size_t count);

}  // namespace host

#endif
