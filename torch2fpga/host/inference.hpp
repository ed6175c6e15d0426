// SPDX-License-Identifier: Apache-2.0
// Launch behind launch of a plain model: while one runs, the inputs of the next one go to the device.
#ifndef HOST_INFERENCE_HPP
#define HOST_INFERENCE_HPP

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "launch.hpp"
#include "options.hpp"

namespace host {

// Two sets of input and output buffers, used in turns.
class Pipeline {
 public:
  Pipeline(const Card &card, Memory &memory, Watchdog &watchdog, int timeout_ms);

  // Runs launches 0, 1, ... of the same size.
  // more: is there a launch of that number? fill: writes its inputs; drain: reads its outputs.
  // Gives nanoseconds from start to end of each launch to `lasted`.
  void run(const Numbers &numbers, const std::function<bool(std::size_t)> &more,
           const std::function<void(std::size_t, Memory &)> &fill,
           const std::function<void(std::size_t, Memory &)> &drain,
           const std::function<void(std::int64_t)> &lasted);

  std::int64_t waited_ns() const { return first_.waited_ns() + second_.waited_ns(); }

 private:
  void send(Memory &memory, const Numbers &numbers);
  // Launches are counted for what is said of them.
  void fetch(Memory &memory, const Numbers &numbers);
  // Waits for what still runs where something else went wrong: its memory is given back then.
  static void settle(Launcher &launcher);

  Memory &memory_;
  Memory other_;
  Launcher first_;
  Launcher second_;
  std::int64_t started_ = 0;  // launches
  std::int64_t fetched_ = 0;
};

// Sequences and rows of a launch: as asked for, or the largest.
Numbers launch_size(const Options &options);

// Files of inputs, read and checked against the size of a launch.
class Inputs {
 public:
  // Throws Usage or Failure with everything that is wrong.
  Inputs(const Options &options, const Numbers &numbers);

  std::size_t launches() const { return launches_; }
  void fill(std::size_t launch, Memory &memory) const;

 private:
  Numbers numbers_;
  std::size_t launches_ = 0;
  std::vector<Bytes> content_;  // by port
};

// Runs the files that were asked for, and writes the outputs. Gives the number of launches.
std::size_t infer(const Options &options, Pipeline &pipeline, const Inputs &inputs);

}  // namespace host

#endif
