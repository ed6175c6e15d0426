// SPDX-License-Identifier: Apache-2.0
#include "power.hpp"

#include <dirent.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <vector>

namespace host {
namespace {

// Folders inside of `folder` whose names begin so.
std::vector<std::string> inside(const std::string &folder, const std::string &start) {
  std::vector<std::string> found;
  DIR *open = opendir(folder.c_str());
  if (open == nullptr) return found;
  while (const dirent *entry = readdir(open)) {
    const std::string name = entry->d_name;
    if (name.compare(0, start.size(), start) == 0) found.push_back(folder + "/" + name);
  }
  closedir(open);
  return found;
}

// "power_consumption_watts" of XRT's report on its electrical sensors: a number, or one in quotes.
bool reported(const xrt::device &device, double &watts) {
  const std::string text = device.get_info<xrt::info::device::electrical>();
  const std::string key = "\"power_consumption_watts\"";
  const std::size_t at = text.find(key);
  if (at == std::string::npos) return false;
  const std::size_t value = text.find_first_not_of(" \t\r\n:\"", at + key.size());
  if (value == std::string::npos) return false;
  char *end = nullptr;
  watts = std::strtod(text.c_str() + value, &end);
  return end != text.c_str() + value && watts > 0;
}

bool microwatts(const std::string &file, double &watts) {
  std::ifstream stream(file);
  double value = 0.0;
  if (!(stream >> value) || value <= 0) return false;
  watts = value / 1e6;
  return true;
}

}  // namespace

PowerMeter::PowerMeter(const xrt::device &device, const std::string &root)
    : device_(device), root_(root == "/" ? "" : root), thread_([this] { watch(); }) {}

PowerMeter::~PowerMeter() { stop(); }

void PowerMeter::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool PowerMeter::read(double &watts) {
  try {
    if (reported(device_, watts)) {
      source_ = "xrt";
      return true;
    }
  } catch (const std::exception &) {
    // This device or driver has no such report: the kernel may have a sensor.
  }
  try {
    const std::string address = device_.get_info<xrt::info::device::bdf>();
    const std::string folder = root_ + "/sys/bus/pci/devices/" + address;
    std::vector<std::string> sensors;
    for (const std::string &xmc : inside(folder, "xmc.")) sensors.push_back(xmc + "/xmc_power");
    for (const std::string &hwmon : inside(folder + "/hwmon", "hwmon")) {
      sensors.push_back(hwmon + "/power1_input");
    }
    for (const std::string &sensor : sensors) {
      if (!microwatts(sensor, watts)) continue;
      source_ = sensor;
      return true;
    }
  } catch (const std::exception &) {
    // No address: no sensor either.
  }
  return false;
}

void PowerMeter::watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::milliseconds(500), [this] { return stop_; })) {
    lock.unlock();
    double watts = 0.0;
    const bool found = read(watts);
    lock.lock();
    if (!found) return;
    sum_ += watts;
    ++readings_;
  }
}

}  // namespace host
