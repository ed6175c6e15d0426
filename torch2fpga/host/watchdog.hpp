// SPDX-License-Identifier: Apache-2.0
// Ends the program when a call into XRT does not come back: a driver may wait for ever where a card hangs.
#ifndef HOST_WATCHDOG_HPP
#define HOST_WATCHDOG_HPP

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace host {

class Watchdog {
 public:
  Watchdog() : thread_([this] { watch(); }) {}
  ~Watchdog() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  Watchdog(const Watchdog &) = delete;
  Watchdog &operator=(const Watchdog &) = delete;

  // From now on the program may not take longer than that in `what`; cheap enough for each launch.
  void arm(const char *what, std::int64_t milliseconds) {
    what_ = what;
    deadline_ = now() + milliseconds;
  }
  void disarm() { deadline_ = 0; }

 private:
  static std::int64_t now() {
    using namespace std::chrono;
    return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
  }

  void watch() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!wake_.wait_for(lock, std::chrono::milliseconds(100), [this] { return stop_; })) {
      const std::int64_t deadline = deadline_;
      if (deadline == 0 || now() < deadline) continue;
      std::fflush(stdout);
      std::fprintf(stderr,
                   "host: %s does not come back from the driver; the card needs a reset "
                   "(xbutil reset --device <address>)\n",
                   what_.load());
      std::_Exit(1);
    }
  }

  std::atomic<const char *> what_{""};
  std::atomic<std::int64_t> deadline_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace host

#endif
