// SPDX-License-Identifier: Apache-2.0
#include "launch.hpp"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>

#include "failure.hpp"

namespace host {
namespace {

using Clock = std::chrono::steady_clock;

// How long a call into the driver may take beyond its own time-out.
constexpr std::int64_t grace_ms = 5000;

const char *state_name(ert_cmd_state state) {
  switch (state) {
    case ERT_CMD_STATE_NEW: return "not started";
    case ERT_CMD_STATE_QUEUED:
    case ERT_CMD_STATE_SUBMITTED: return "waiting to start";
    case ERT_CMD_STATE_RUNNING: return "running";
    case ERT_CMD_STATE_COMPLETED: return "done";
    case ERT_CMD_STATE_ERROR: return "failed";
    case ERT_CMD_STATE_ABORT: return "aborted";
    case ERT_CMD_STATE_TIMEOUT: return "running (time-out)";
    case ERT_CMD_STATE_NORESPONSE: return "without response";
    default: return "in an unknown state";
  }
}

// A cache is one buffer: its writer and its reader must be connected to one bank.
void check_banks(const Card &card) {
  for (const Port &port : design().ports) {
    if (port.shares < 0) continue;
    const Port &other = design().ports[static_cast<std::size_t>(port.shares)];
    const int group = card.kernel(static_cast<std::size_t>(port.kernel)).group_id(port.index);
    const int there = card.kernel(static_cast<std::size_t>(other.kernel)).group_id(other.index);
    if (group == there) continue;
    throw Failure(card.xclbin() + ": " + port.name + " and " + other.name +
                  " are one cache, but connected to the memory groups " + std::to_string(group) +
                  " and " + std::to_string(there));
  }
}

}  // namespace

Memory::Memory(const Card &card, const Project &project) {
  check_banks(card);
  const std::vector<Port> &ports = design().ports;
  buffers_.resize(ports.size());
  added_.resize(ports.size());
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (ports[i].shares < 0) buffers_[i] = card.allocate(i);
  }
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (ports[i].shares >= 0) buffers_[i] = buffers_[static_cast<std::size_t>(ports[i].shares)];
  }
  project.read_images([this](std::size_t port) { return buffers_[port].data; });
  try {
    for (std::size_t i = 0; i < ports.size(); ++i) {
      if (ports[i].shares >= 0 || ports[i].role == Role::cache) continue;
      if (is_image(ports[i].role)) {
        load_image(i);
        continue;
      }
      // Inputs and outputs too: what is there from an earlier process is nobody's business.
      std::memset(buffers_[i].data, 0, buffers_[i].bytes);
      buffers_[i].to_device();
    }
    clear_caches();
  } catch (const DeviceError &) {
    throw;
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer to the device: ") + error.what());
  }
}

Memory::Memory(const Card &card, const Memory &other) : buffers_(other.buffers_), added_(other.added_) {
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const Port &port = design().ports[i];
    if (is_input(port) || is_result(port)) buffers_[i] = card.allocate(i);
  }
}

void Memory::load_image(std::size_t port) {
  Buffer &buffer = buffers_[port];
  const Sum &of = design().ports[port].sum;
  // The bytes are those whose SHA-256 was checked: they were not on the device yet.
  if (of.place >= 0) added_[port] = add_up(of, buffer.data, buffer.bytes);
  const std::uint64_t sum = quick_sum(buffer.data, buffer.bytes);
  buffer.to_device();
  buffer.from_device();
  if (quick_sum(buffer.data, buffer.bytes) == sum) return;
  throw DeviceError(std::string(design().ports[port].file) + " came back from the device with other bytes (" +
                    design().ports[port].name + "): a transfer or its memory is not sound");
}

void Memory::clear_caches() {
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const Port &port = design().ports[i];
    if (port.role != Role::cache || port.shares >= 0) continue;
    std::memset(buffers_[i].data, unwritten, buffers_[i].bytes);
    buffers_[i].to_device();
  }
}

std::size_t Memory::bytes() const {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    if (design().ports[i].shares < 0) sum += buffers_[i].bytes;
  }
  return sum;
}

Launcher::Launcher(const Card &card, const Memory &memory, Watchdog &watchdog, int timeout_ms)
    : watchdog_(watchdog), timeout_ms_(timeout_ms) {
  const Design &d = design();
  try {
    for (std::size_t k = 0; k < d.kernels.size(); ++k) {
      runs_.emplace_back(card.kernel(k));
      for (const Scalar &scalar : d.kernels[k].scalars) {
        slots_.push_back({k, scalar.index, scalar.number, 0, false});
      }
    }
    for (std::size_t i = 0; i < memory.size(); ++i) {
      const std::size_t kernel = static_cast<std::size_t>(d.ports[i].kernel);
      runs_[kernel].set_arg(d.ports[i].index, memory[i].memory);
    }
  } catch (const std::exception &error) {
    throw DeviceError(std::string("arguments of the kernels: ") + error.what());
  }
}

void Launcher::start(const Numbers &numbers, std::int64_t number) {
  const std::int32_t values[] = {numbers.batch, numbers.seq, numbers.past, numbers.turns};
  try {
    for (Slot &slot : slots_) {
      const std::int32_t value = values[slot.number];
      if (slot.set && slot.value == value) continue;
      runs_[slot.run].set_arg(slot.index, value);
      slot.value = value;
      slot.set = true;
    }
    launches_ = number > 0 ? number : launches_ + 1;
    // Any order is right, streams hold kernels back; the one with the memory ports comes last.
    for (std::size_t i = runs_.size(); i-- > 0;) runs_[i].start();
  } catch (const std::exception &error) {
    give_up(std::string("launch ") + std::to_string(launches_) + " does not start: " + error.what());
  }
}

void Launcher::wait() {
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = begin + std::chrono::milliseconds(timeout_ms_);
  const std::int64_t worked = cpu_ns();
  watchdog_.arm("waiting for the kernels", timeout_ms_ + grace_ms);
  ert_cmd_state worst = ERT_CMD_STATE_COMPLETED;
  std::string thrown;
  try {
    for (const xrt::run &run : runs_) {
      using std::chrono::milliseconds;
      // 0 would wait for ever.
      const auto left = std::chrono::duration_cast<milliseconds>(end - Clock::now());
      const ert_cmd_state state = run.wait(std::max(left, milliseconds(1)));
      if (state == ERT_CMD_STATE_COMPLETED) continue;
      worst = state;
      break;
    }
  } catch (const std::exception &error) {
    thrown = error.what();
  }
  watchdog_.disarm();
  const Clock::duration passed = Clock::now() - begin;
  waited_ns_ += std::chrono::duration_cast<std::chrono::nanoseconds>(passed).count();
  waited_cpu_ns_ += cpu_ns() - worked;
  if (!thrown.empty()) give_up("launch " + std::to_string(launches_) + ": " + thrown);
  if (worst == ERT_CMD_STATE_COMPLETED) return;
  const bool late = worst == ERT_CMD_STATE_TIMEOUT || worst == ERT_CMD_STATE_RUNNING ||
                    worst == ERT_CMD_STATE_NEW || worst == ERT_CMD_STATE_QUEUED ||
                    worst == ERT_CMD_STATE_SUBMITTED;
  give_up("launch " + std::to_string(launches_) +
          (late ? " is not done after " + std::to_string(timeout_ms_) + " ms (--timeout-ms)"
                : std::string(" failed")));
}

std::string Launcher::unfinished() {
  std::string text;
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    std::string how;
    try {
      const ert_cmd_state state = runs_[i].state();
      if (state == ERT_CMD_STATE_COMPLETED) continue;
      how = state_name(state);
    } catch (const std::exception &error) {
      how = error.what();
    }
    text += std::string("\n  kernel ") + design().kernels[i].name + ": " + how;
  }
  return text;
}

void Launcher::stop() {
  for (xrt::run &run : runs_) {
    try {
      const ert_cmd_state state = run.state();
      if (state == ERT_CMD_STATE_COMPLETED || state == ERT_CMD_STATE_NEW) continue;
      watchdog_.arm("stopping a kernel", grace_ms);
      run.abort();
    } catch (const std::exception &) {
      // A device that is gone has nothing left to stop; what went wrong first is what is told.
    }
    watchdog_.disarm();
  }
}

void Launcher::give_up(const std::string &what) {
  const std::string text = what + unfinished();
  stop();
  // Whoever catches this disarms it: closing a device that hangs may not come back either.
  watchdog_.arm("closing the device", grace_ms);
  throw DeviceError(text);
}

std::int64_t cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

void fetch_twice(Buffer &output, std::size_t bytes, Bytes &room) {
  output.from_device(bytes);
  room.resize(bytes);
  std::memcpy(room.data(), output.data, bytes);
  output.from_device(bytes);
  if (std::memcmp(room.data(), output.data, bytes) == 0) return;
  throw DeviceError("two transfers of the same tokens differ: the way from the device is not sound");
}

std::string refused(const Numbers &n) {
  const Design &d = design();
  const Generation &g = d.generation;
  std::string text;
  const auto add = [&text](const std::string &problem) {
    text += (text.empty() ? "" : "; ") + problem;
  };
  if (n.batch < 1 || n.batch > d.max_batch || n.seq < d.min_seq || n.seq > d.max_seq) {
    add(std::to_string(n.batch) + " x " + std::to_string(n.seq) + " rows; compiled for 1 to " +
        std::to_string(d.max_batch) + " sequences of " + std::to_string(d.min_seq) + " to " +
        std::to_string(d.max_seq) + " rows");
  }
  if (g.turns == 0) return text;
  if (n.turns < 1 || n.turns > g.turns) {
    add(std::to_string(n.turns) + " tokens a launch; compiled for 1 to " + std::to_string(g.turns));
  }
  const long long end = static_cast<long long>(n.past) + n.seq + n.turns - 1;
  if (n.past < 0 || end > g.keys) {
    add("rows up to " + std::to_string(end) + "; compiled for " + std::to_string(g.keys));
  }
  return text;
}

std::string wrong_ids(const Port &port, const std::int32_t *ids, std::size_t count) {
  if (port.role != Role::ids || port.entries == 0) return "";
  for (std::size_t i = 0; i < count; ++i) {
    if (ids[i] >= 0 && ids[i] < port.entries) continue;
    return std::string(port.name) + ": id " + std::to_string(ids[i]) + " at " + std::to_string(i) +
           "; expected ids in 0.." + std::to_string(port.entries - 1);
  }
  return "";
}

}  // namespace host
