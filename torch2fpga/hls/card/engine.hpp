// SPDX-License-Identifier: Apache-2.0
//
// The card behind the bridge: runs launches of kernels on a thread of its own, through the C interface
// of the design's card library (t2f_card.hpp).
#ifndef T2F_CARD_ENGINE_HPP
#define T2F_CARD_ENGINE_HPP

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "faults.hpp"
#include "log.hpp"
#include "memory.hpp"
#include "t2f_card.hpp"
#include "timed.hpp"

namespace t2f_card {

using Time = std::chrono::steady_clock;

enum class State { queued, running, completed, error, aborted };

// A bit of a buffer that changes when a launch begins.
struct Flip {
  const Fault *fault;
  unsigned char *byte;
};

// One start of a kernel. Guarded by the engine's mutex once it was handed over.
struct Launch {
  int kernel = 0;
  std::uint64_t count = 0;  // the how manieth start of the kernel
  std::vector<t2f_card_memory> memory;
  std::vector<std::shared_ptr<Region>> held;  // as long as the launch may use it
  std::vector<int> numbers;
  std::vector<Flip> flips;
  State state = State::queued;
  bool hangs = false;
  bool given_up = false;  // a wait timed out, or it was aborted
  bool through = false;   // the kernel is, but a fault delays that
  std::uint64_t delay_ms = 0;
  Time::time_point begin;
  Time::time_point due;
};

// The functions of a card library.
struct Library {
  explicit Library(const std::string &path);  // Refused, where it is none

  decltype(&t2f_card_describe) describe = nullptr;
  decltype(&t2f_card_new) make = nullptr;
  decltype(&t2f_card_free) drop = nullptr;
  decltype(&t2f_card_start) start = nullptr;
  decltype(&t2f_card_advance) advance = nullptr;
  decltype(&t2f_card_busy) busy = nullptr;
  decltype(&t2f_card_waits) waits = nullptr;
};

class Engine {
 public:
  // `timed`: null, or what runs complete sets of launches instead.
  Engine(const std::string &library, std::unique_ptr<Timed> timed, Faults &faults, Log &log);

  const t2f_card_design &design() const { return *design_; }
  int kernel(const std::string &name) const;  // -1: none

  // Hands a launch over; a launch of the same kernel that still runs is waited for, as XRT's queue does.
  // True: a fault resets the device now. Throws Refused where a fault asks for a bit that is not there.
  bool start(const std::shared_ptr<Launch> &launch);
  State state(const Launch &launch);
  // True: it is over. False: the time (0: none) is; its state stays what it is.
  bool wait(Launch &launch, std::chrono::milliseconds timeout);
  void abort(Launch &launch);

  // All that runs is aborted, the kernels and their streams are as new.
  void reset(const char *why);
  // Has something gone wrong that only a reset ends?
  bool stuck();

 private:
  void work();
  bool ready() const;
  bool complete_set() const;
  void step(std::unique_lock<std::mutex> &lock);
  std::vector<Flip> flips(const Launch &launch);
  void flip(const Launch &launch);
  void begin(Launch &launch);
  void begin_timed(std::unique_lock<std::mutex> &lock);
  void collect(const std::string &problem);
  void end(Launch &launch, State state);
  void leave(std::deque<std::shared_ptr<Launch>> &queue);
  void give_card_back();
  std::string report(std::unique_lock<std::mutex> &lock);
  Time::time_point next_due() const;

  Library library_;
  const t2f_card_design *design_;
  std::unique_ptr<Timed> timed_;
  Faults &faults_;
  Log &log_;

  std::mutex mutex_;
  std::condition_variable work_;     // for the thread
  std::condition_variable changed_;  // for those who wait
  std::vector<std::deque<std::shared_ptr<Launch>>> queues_;  // of each kernel; the first one runs
  std::vector<std::uint64_t> counts_;
  void *card_ = nullptr;  // only the thread touches it
  bool advance_ = false;  // something was started
  bool drop_ = false;     // the card is to be given back
  bool failed_ = false;
  bool asked_ = false;  // for a report
  std::string report_;
};

}  // namespace t2f_card

#endif
