// SPDX-License-Identifier: Apache-2.0
//
// The timed build (-DT2F_TIMED) on the emulated card: complete sets of launches, one of each kernel, go
// through it together, because its clocks begin together.
#ifndef T2F_CARD_TIMED_HPP
#define T2F_CARD_TIMED_HPP

#include <dlfcn.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "memory.hpp"
#include "t2f_card.hpp"

namespace t2f_card {

class Timed {
 public:
  // `settings`: file of what the timed run is told (sim/t2f_settings.hpp).
  Timed(const std::string &library, const std::string &settings) {
    void *handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == nullptr) throw Refused("T2F_CARD_TIMED: " + std::string(dlerror()));
    run_ = reinterpret_cast<Run>(dlsym(handle, "t2f_run"));
    status_ = reinterpret_cast<Text>(dlsym(handle, "t2f_status"));
    report_ = reinterpret_cast<Text>(dlsym(handle, "t2f_report"));
    free_ = reinterpret_cast<Free>(dlsym(handle, "t2f_free"));
    if (run_ == nullptr || status_ == nullptr || report_ == nullptr || free_ == nullptr) {
      throw Refused("T2F_CARD_TIMED: " + library + " is no functional or timed library");
    }
    if (settings.empty()) return;
    std::ifstream file(settings);
    if (!file) throw Refused("T2F_CARD_TIMED_SETTINGS: cannot read " + settings);
    std::stringstream all;
    all << file.rdbuf();
    settings_ = all.str();
  }

  struct Result {
    std::string problem;
    std::string report;  // JSON
  };

  // `memory`: of each port in manifest order; `writes`: is it written? `sizes`: numbers of the launch.
  Result run(const std::vector<void *> &memory, const std::vector<int> &writes,
             const std::vector<int> &sizes) const {
    std::vector<const void *> inputs(memory.size() + 1, nullptr);
    std::vector<void *> outputs(memory.size() + 1, nullptr);
    for (std::size_t i = 0; i < memory.size(); ++i) {
      if (writes[i] != 0) outputs[i] = memory[i];
      if (writes[i] == 0) inputs[i] = memory[i];
    }
    void *run = run_(inputs.data(), outputs.data(), sizes.data(), 0, settings_.c_str());
    const Result result{status_(run), report_(run)};
    free_(run);
    return result;
  }

  // The number at the beginning of the report.
  static std::uint64_t cycles(const std::string &report) {
    const std::string head = "{\"cycles\":";
    return report.compare(0, head.size(), head) == 0 ? std::stoull(report.substr(head.size(), 19)) : 0;
  }

 private:
  using Run = void *(*)(const void *const *, void *const *, const int *, int, const char *);
  using Text = const char *(*)(void *);
  using Free = void (*)(void *);
  Run run_ = nullptr;
  Text status_ = nullptr;
  Text report_ = nullptr;
  Free free_ = nullptr;
  std::string settings_;
};

}  // namespace t2f_card

#endif
