// SPDX-License-Identifier: Apache-2.0
// Power of the card while something runs, as XRT or the kernel's sensors say; no figure without one.
#ifndef HOST_POWER_HPP
#define HOST_POWER_HPP

#include <xrt/xrt_device.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace host {

// Reads twice a second, on a thread of its own, until it is destroyed.
class PowerMeter {
 public:
  PowerMeter(const xrt::device &device, const std::string &root);
  ~PowerMeter();
  PowerMeter(const PowerMeter &) = delete;
  PowerMeter &operator=(const PowerMeter &) = delete;

  // Ends the readings.
  void stop();

  // Readings, their mean in W, and where they are from ("" if there are none).
  int readings() const { return readings_; }
  double mean() const { return readings_ == 0 ? 0.0 : sum_ / readings_; }
  const std::string &source() const { return source_; }

 private:
  bool read(double &watts);
  void watch();

  xrt::device device_;
  std::string root_;
  std::string source_;
  double sum_ = 0.0;
  int readings_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace host

#endif
