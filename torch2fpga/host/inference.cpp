// SPDX-License-Identifier: Apache-2.0
#include "inference.hpp"

#include <chrono>
#include <cstring>
#include <exception>
#include <utility>

#include "failure.hpp"

namespace host {

using Clock = std::chrono::steady_clock;

Pipeline::Pipeline(const Card &card, Memory &memory, Watchdog &watchdog, int timeout_ms)
    : memory_(memory),
      other_(card, memory),
      first_(card, memory_, watchdog, timeout_ms),
      second_(card, other_, watchdog, timeout_ms) {}

void Pipeline::send(Memory &memory, const Numbers &numbers) {
  try {
    for (std::size_t i = 0; i < memory.size(); ++i) {
      const Port &port = design().ports[i];
      if (is_input(port)) memory[i].to_device(launch_bytes(port, numbers));
    }
    // Behind a launch that runs this costs no time: every launch must write its own sums.
    clear_sums(memory, numbers);
  } catch (const DeviceError &) {
    throw;
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer of inputs: ") + error.what());
  }
}

void Pipeline::fetch(Memory &memory, const Numbers &numbers) {
  try {
    for (std::size_t i = 0; i < memory.size(); ++i) {
      const Port &port = design().ports[i];
      if (is_output(port)) memory[i].from_device(launch_bytes(port, numbers));
    }
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer of outputs: ") + error.what());
  }
  check_sums(memory, numbers, ++fetched_);
}

void Pipeline::settle(Launcher &launcher) {
  try {
    launcher.wait();
  } catch (const DeviceError &) {
    // What went wrong first is what is told.
  }
}

void Pipeline::run(const Numbers &numbers, const std::function<bool(std::size_t)> &more,
                   const std::function<void(std::size_t, Memory &)> &fill,
                   const std::function<void(std::size_t, Memory &)> &drain,
                   const std::function<void(std::int64_t)> &lasted) {
  if (!more(0)) return;
  Memory *memory = &memory_;
  Memory *next = &other_;
  Launcher *launcher = &first_;
  Launcher *waiting = &second_;
  fill(0, *memory);
  send(*memory, numbers);
  launcher->start(numbers, ++started_);
  Clock::time_point begin = Clock::now();
  for (std::size_t i = 0;; ++i) {
    const bool again = more(i + 1);
    if (again) {
      fill(i + 1, *next);
      send(*next, numbers);
    }
    launcher->wait();
    lasted(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count());
    if (again) {
      waiting->start(numbers, ++started_);
      begin = Clock::now();
    }
    try {
      fetch(*memory, numbers);
    } catch (const DeviceError &) {
      if (again) settle(*waiting);
      throw;
    }
    drain(i, *memory);
    if (!again) return;
    std::swap(memory, next);
    std::swap(launcher, waiting);
  }
}

Numbers launch_size(const Options &options) {
  const Numbers numbers = {options.batch == 0 ? design().max_batch : options.batch,
                           options.seq == 0 ? design().max_seq : options.seq, 0, 1};
  const std::string problem = refused(numbers);
  if (!problem.empty()) throw Usage(problem);
  return numbers;
}

Inputs::Inputs(const Options &options, const Numbers &numbers) : numbers_(numbers) {
  const std::vector<Port> &ports = design().ports;
  std::vector<std::string> problems;
  std::vector<std::string> unclear;
  content_.resize(ports.size());
  const std::string size = std::to_string(numbers.batch) + " x " + std::to_string(numbers.seq);
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const auto output = options.outputs.find(ports[i].name);
    if (is_output(ports[i]) && output == options.outputs.end()) {
      unclear.push_back(std::string("--output ") + ports[i].name + "=FILE is missing");
    }
    if (!is_input(ports[i])) continue;
    const auto input = options.inputs.find(ports[i].name);
    if (input == options.inputs.end()) {
      unclear.push_back(std::string("--input ") + ports[i].name + "=FILE is missing");
      continue;
    }
    try {
      content_[i] = read_file(input->second);
    } catch (const Failure &failure) {
      problems.push_back(failure.what());
      continue;
    }
    const std::size_t bytes = launch_bytes(ports[i], numbers);
    const std::size_t count = content_[i].size() / bytes;
    if (content_[i].empty() || content_[i].size() % bytes != 0) {
      problems.push_back(input->second + " has " + std::to_string(content_[i].size()) +
                         " bytes; a launch of " + size + " rows takes " + std::to_string(bytes));
    } else if (launches_ != 0 && launches_ != count) {
      problems.push_back(input->second + " holds " + std::to_string(count) +
                         " launches, another input " + std::to_string(launches_));
    } else {
      launches_ = count;
      const auto *ids = reinterpret_cast<const std::int32_t *>(content_[i].data());
      const std::string wrong = wrong_ids(ports[i], ids, content_[i].size() / 4);
      if (!wrong.empty()) problems.push_back(input->second + ": " + wrong);
    }
  }
  if (!unclear.empty()) throw Usage(joined(unclear));
  if (!problems.empty()) throw Failure(joined(problems));
}

void Inputs::fill(std::size_t launch, Memory &memory) const {
  for (std::size_t i = 0; i < content_.size(); ++i) {
    if (content_[i].empty()) continue;
    const std::size_t bytes = launch_bytes(design().ports[i], numbers_);
    std::memcpy(memory[i].data, content_[i].data() + launch * bytes, bytes);
  }
}

std::size_t infer(const Options &options, Pipeline &pipeline, const Inputs &inputs) {
  const Numbers numbers = launch_size(options);
  const std::vector<Port> &ports = design().ports;
  std::vector<Bytes> results(ports.size());
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (is_output(ports[i])) results[i].resize(inputs.launches() * launch_bytes(ports[i], numbers));
  }
  const auto fill = [&](std::size_t launch, Memory &memory) { inputs.fill(launch, memory); };
  const auto drain = [&](std::size_t launch, Memory &memory) {
    for (std::size_t i = 0; i < ports.size(); ++i) {
      if (!is_output(ports[i])) continue;
      const std::size_t bytes = launch_bytes(ports[i], numbers);
      std::memcpy(results[i].data() + launch * bytes, memory[i].data, bytes);
    }
  };
  pipeline.run(
      numbers, [&](std::size_t launch) { return launch < inputs.launches(); }, fill, drain,
      [](std::int64_t) {});
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (!is_output(ports[i])) continue;
    write_file(options.outputs.at(ports[i].name), results[i].data(), results[i].size());
  }
  return inputs.launches();
}

}  // namespace host
