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
#include <type_traits>

#include "t2f_sim.hpp"

namespace t2f::sim {

// Reads a whole number. The stream's own way takes "-1" for the largest one.
template <typename T>
std::istream &whole(std::istream &in, T &value) {
  static_assert(std::is_unsigned_v<T>);
  if ((in >> std::ws).peek() == '-') in.setstate(std::ios::failbit);
  return in >> value;
}

inline void read_port(std::istream &in, Timing &timing, const void *const *inputs, void *const *outputs) {
  std::string name;
  std::string direction;
  std::size_t buffer = 0;
  std::uint64_t bytes = 0;
  PortModel model;
  in >> name;
  whole(in, buffer) >> direction;
  for (std::uint64_t *number :
       {&bytes, &model.beat, &model.beat_bytes, &model.row, &model.cross, &model.channel_bytes, &model.latency}) {
    whole(in, *number);
  }
  whole(in, model.outstanding);
  whole(in, model.burst);
  const bool write = direction == "out";
  if ((!write && direction != "in") || model.beat_bytes == 0) in.setstate(std::ios::failbit);
  if (!in) return;
  timing.ports.emplace_back(name, write ? outputs[buffer] : inputs[buffer], bytes, model);
}

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
      whole(in, timing.default_depth);
    } else if (word == "depth_percent") {
      whole(in, timing.depth_percent);
    } else if (word == "cycle_limit") {
      whole(in, timing.cycle_limit);
    } else if (word == "launches") {
      whole(in, timing.launches);
      if (timing.launches == 0) in.setstate(std::ios::failbit);
    } else if (word == "depth") {
      in >> name >> site;
      whole(in, timing.depths[name + " " + site]);
    } else if (word == "fifo") {
      in >> name;  // depth 0 is refused where the processes at its ends are known
      whole(in, timing.fifo_depths[name]);
    } else if (word == "latency") {
      in >> name;
      whole(in, timing.latencies[name]);
    } else if (word == "port") {
      read_port(in, timing, inputs, outputs);
    } else {
      in.setstate(std::ios::failbit);
    }
    std::string rest;
    if (!in || in >> rest) throw std::runtime_error("setting not understood: " + line);
  }
  return timing;
}

}  // namespace t2f::sim

#endif
