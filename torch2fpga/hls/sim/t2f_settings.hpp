// SPDX-License-Identifier: Apache-2.0
//
// What a timed run is told, from text: one setting a line (written by
// torch2fpga/simulate/timed.py).
//
//   default_depth CYCLES           depth_percent PERCENT
//   cycle_limit CYCLES             launches COUNT
//   depth PROCESS FILE:LINE CYCLES
//   fifo STREAM TOKENS             latency STREAM CYCLES
//   port NAME BUFFER in|out BYTES BEAT BEAT_BYTES ROW CROSS CHANNEL_BYTES LATENCY OUTSTANDING BURST
#ifndef T2F_SIM_SETTINGS_HPP
#define T2F_SIM_SETTINGS_HPP

#include <sstream>
#include <stdexcept>
#include <string>

#include "t2f_sim.hpp"

namespace t2f::sim {

// `inputs` and `outputs` are the buffers that `port` lines refer to by number.
inline Timing read_settings(const char *text, const void *const *inputs, void *const *outputs) {
  Timing timing;
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream in(line);
    std::string word;
    std::string name;
    std::string site;
    in >> word;
    if (word == "default_depth") {
      in >> timing.default_depth;
    } else if (word == "depth_percent") {
      in >> timing.depth_percent;
    } else if (word == "cycle_limit") {
      in >> timing.cycle_limit;
    } else if (word == "launches") {
      in >> timing.launches;
    } else if (word == "depth") {
      in >> name >> site;
      in >> timing.depths[name + " " + site];
    } else if (word == "fifo") {
      in >> name;
      in >> timing.fifo_depths[name];
      if (in && timing.fifo_depths[name] == 0) {
        throw std::runtime_error("stream " + name + " has depth 0: a FIFO holds at least one token");
      }
    } else if (word == "latency") {
      in >> name;
      in >> timing.latencies[name];
    } else if (word == "port") {
      std::size_t buffer = 0;
      std::string direction;
      std::uint64_t bytes = 0;
      PortModel model;
      in >> name >> buffer >> direction >> bytes >> model.beat >> model.beat_bytes >> model.row >>
          model.cross >> model.channel_bytes >> model.latency >> model.outstanding >> model.burst;
      const void *base = direction == "out" ? outputs[buffer] : inputs[buffer];
      timing.ports.emplace_back(name, base, bytes, model);
    } else {
      in.setstate(std::ios::failbit);
    }
    if (!in) throw std::runtime_error("setting not understood: " + line);
  }
  return timing;
}

}  // namespace t2f::sim

#endif
