// SPDX-License-Identifier: Apache-2.0
//
// xrt::kernel and xrt::run of the emulated card: the real ones check names and numbers of arguments,
// the card's engine runs what was started.
#include <cstring>
#include <iostream>

#include "bridge.hpp"
#include "calls.hpp"

using t2f_card::Bridge;
using t2f_card::Call;
using t2f_card::KernelInfo;
using t2f_card::Launch;
using t2f_card::real;
using t2f_card::Refused;
using t2f_card::RunInfo;
using t2f_card::State;

namespace {

std::shared_ptr<RunInfo> known(const xrt::run &run, const char *what) {
  Bridge &bridge = Bridge::get();
  const std::lock_guard<std::mutex> lock(bridge.mutex);
  auto found = bridge.runs.find(run.get_handle().get());
  if (found == nullptr) throw Refused(std::string(what) + ": the run is none of this card");
  return found;
}

const char *kind_of(const t2f_card_argument &argument) {
  switch (argument.kind) {
    case T2F_CARD_MEMORY:
      return "a buffer";
    case T2F_CARD_STREAM:
      return "a stream to another kernel, for which nothing is set";
    default:
      return "a number of 4 bytes";
  }
}

std::string place(const KernelInfo &kernel, int index) {
  return std::string("argument ") + std::to_string(index) + " (" + kernel.table->arguments[index].name +
         ") of kernel " + kernel.table->name;
}

const t2f_card_argument &argument_at(const RunInfo &run, int index, int kind, const char *given) {
  const t2f_card_kernel &table = *run.kernel->table;
  if (index < 0 || index >= table.count) {
    throw Refused(std::string("kernel ") + table.name + " has no argument " + std::to_string(index) +
                  ", only 0 to " + std::to_string(table.count - 1));
  }
  const t2f_card_argument &argument = table.arguments[index];
  if (argument.kind != kind) {
    throw Refused(place(*run.kernel, index) + " is " + kind_of(argument) + ", given was " + given);
  }
  return argument;
}

bool pending(const RunInfo &run) {
  if (run.launch == nullptr) return false;
  const State state = Bridge::get().engine().state(*run.launch);
  return state == State::queued || state == State::running;
}

ert_cmd_state code(State state) {
  switch (state) {
    case State::queued:
      return ERT_CMD_STATE_QUEUED;
    case State::running:
      return ERT_CMD_STATE_RUNNING;
    case State::completed:
      return ERT_CMD_STATE_COMPLETED;
    case State::error:
      return ERT_CMD_STATE_ERROR;
    default:
      return ERT_CMD_STATE_ABORT;
  }
}

// All that keeps a run from being started.
std::string problems_of(const RunInfo &run) {
  std::string problems;
  const auto add = [&](const std::string &text) { problems += (problems.empty() ? "" : "; ") + text; };
  const t2f_card_kernel &table = *run.kernel->table;
  for (int i = 0; i < table.count; ++i) {
    const t2f_card_argument &a = table.arguments[i];
    const RunInfo::Value &value = run.values[static_cast<std::size_t>(i)];
    if (a.kind != T2F_CARD_STREAM && !value.set) add(place(*run.kernel, i) + " was not set");
    if (a.kind != T2F_CARD_MEMORY || !value.set) continue;
    const auto buffer = value.alive();
    if (buffer == nullptr) {
      add(place(*run.kernel, i) + ": its buffer is gone; keep the xrt::bo as long as runs use it");
      continue;
    }
    if (buffer->generation != Bridge::get().generation) {
      add(place(*run.kernel, i) + ": its buffer is of before the device was reset");
    }
    for (int j = 0; a.shares >= 0 && j < i; ++j) {
      const auto other = run.values[static_cast<std::size_t>(j)].alive();
      if (table.arguments[j].port != a.shares || other == nullptr) continue;
      if (other->data() != buffer->data()) {
        add(place(*run.kernel, i) + " and " + table.arguments[j].name +
            " are one cache: set one buffer for both");
      }
    }
  }
  if (pending(run)) add(std::string("this run of kernel ") + table.name + " is not over yet");
  return problems;
}

std::shared_ptr<KernelInfo> describe(const xrt::kernel &kernel, const std::string &name) {
  Bridge &bridge = Bridge::get();
  auto info = std::make_shared<KernelInfo>();
  info->index = bridge.engine().kernel(name.substr(0, name.find(':')));
  if (info->index < 0) {
    throw Refused(std::string("the card library is of design ") + bridge.engine().design().name +
                  ", which has no kernel " + name);
  }
  info->table = &bridge.engine().design().kernels[info->index];
  info->generation = bridge.generation;
  for (int i = 0; i < info->table->count; ++i) {
    const bool memory = info->table->arguments[i].kind == T2F_CARD_MEMORY;
    info->banks.push_back(memory ? static_cast<unsigned>(kernel.group_id(i)) : 0);
  }
  return info;
}

}  // namespace

namespace xrt {

kernel::kernel(const xrt::device &device, const xrt::uuid &id, const std::string &name, cu_access_mode mode) {
  Bridge &bridge = Bridge::get();
  bridge.check_open("kernel");
  real<void(kernel *, const xrt::device &, const xrt::uuid &, const std::string &, cu_access_mode)>(
      "_ZN3xrt6kernelC1ERKNS_6deviceERKNS_4uuidERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEENS0_"
      "14cu_access_modeE")(this, device, id, name, mode);
  if (mode == cu_access_mode::exclusive) bridge.claim(name);
  auto info = describe(*this, name);
  const std::lock_guard<std::mutex> lock(bridge.mutex);
  bridge.kernels.add(handle, std::move(info));
}

run::run(const kernel &of) {
  Bridge &bridge = Bridge::get();
  real<void(run *, const kernel &)>("_ZN3xrt3runC1ERKNS_6kernelE")(this, of);
  const std::lock_guard<std::mutex> lock(bridge.mutex);
  auto info = std::make_shared<RunInfo>();
  info->kernel = bridge.kernels.find(of.get_handle().get());
  if (info->kernel == nullptr) throw Refused("the kernel was not opened through xrt::kernel(device, ...)");
  bridge.check(info->kernel->generation, "run");
  info->values.resize(static_cast<std::size_t>(info->kernel->table->count));
  bridge.runs.add(handle, std::move(info));
}

void run::set_arg_at_index(int index, const void *value, size_t bytes) {
  const Call call;
  static const auto behind =
      real<void(run *, int, const void *, size_t)>("_ZN3xrt3run16set_arg_at_indexEiPKvm");
  const auto info = known(*this, "set_arg");
  Bridge::get().check(info->kernel->generation, "set_arg");
  const auto &argument = argument_at(*info, index, T2F_CARD_NUMBER, "a number");
  if (bytes != argument.bytes) {
    throw Refused(place(*info->kernel, index) + " has " + std::to_string(argument.bytes) +
                  " bytes, given were " + std::to_string(bytes));
  }
  behind(this, index, value, bytes);
  RunInfo::Value &known_value = info->values[static_cast<std::size_t>(index)];
  std::memcpy(&known_value.number, value, sizeof known_value.number);
  known_value.set = true;
}

void run::set_arg_at_index(int index, const bo &buffer) {
  const Call call;
  static const auto behind = real<void(run *, int, const bo &)>("_ZN3xrt3run16set_arg_at_indexEiRKNS_2boE");
  const auto info = known(*this, "set_arg");
  Bridge &bridge = Bridge::get();
  bridge.check(info->kernel->generation, "set_arg");
  argument_at(*info, index, T2F_CARD_MEMORY, "a buffer");
  std::shared_ptr<t2f_card::Buffer> found;
  {
    const std::lock_guard<std::mutex> lock(bridge.mutex);
    found = bridge.buffers.find(buffer.get_handle().get());
    if (found == nullptr) throw Refused(place(*info->kernel, index) + ": the buffer is none of this card");
    bridge.check(found->generation, "set_arg");
    const unsigned wanted = info->kernel->banks[static_cast<std::size_t>(index)];
    if (found->bank != wanted) {
      throw Refused(place(*info->kernel, index) + " is connected to " + bridge.bank(wanted).name +
                    ", the buffer is in " + bridge.bank(found->bank).name + "; allocate it with group_id(" +
                    std::to_string(index) + ")");
    }
  }
  behind(this, index, buffer);
  RunInfo::Value &value = info->values[static_cast<std::size_t>(index)];
  value.owner = buffer.get_handle();
  value.buffer = found;
  value.set = true;
}

void run::start() {
  const Call call;
  Bridge &bridge = Bridge::get();
  const auto info = known(*this, "start");
  bridge.check(info->kernel->generation, "start");
  const std::string problems = problems_of(*info);
  if (!problems.empty()) throw Refused("start: " + problems);
  auto launch = std::make_shared<Launch>();
  launch->kernel = info->kernel->index;
  launch->memory.reserve(info->values.size());
  launch->held.reserve(info->values.size());
  for (const RunInfo::Value &value : info->values) {
    const auto buffer = value.alive();
    if (buffer == nullptr) continue;
    const t2f_card::Region &region = *buffer->region;
    const bool part = buffer->part();
    launch->memory.push_back(
        {buffer->data(), part ? buffer->size : region.bytes(), part ? 0 : region.beyond()});
    launch->held.push_back(buffer->region);
  }
  for (int i = 0; i < info->kernel->table->count; ++i) {
    if (info->kernel->table->arguments[i].kind != T2F_CARD_NUMBER) continue;
    launch->numbers.push_back(info->values[static_cast<std::size_t>(i)].number);
  }
  info->launch = launch;
  bridge.start(launch);
}

ert_cmd_state run::wait(const std::chrono::milliseconds &timeout) const {
  const auto info = known(*this, "wait");
  if (info->launch == nullptr) throw Refused("wait: the run was never started");
  auto &engine = Bridge::get().engine();
  if (!engine.wait(*info->launch, timeout)) return ERT_CMD_STATE_TIMEOUT;
  return code(engine.state(*info->launch));
}

ert_cmd_state run::state() const {
  const auto info = known(*this, "state");
  return info->launch == nullptr ? ERT_CMD_STATE_NEW : code(Bridge::get().engine().state(*info->launch));
}

ert_cmd_state run::abort() {
  const auto info = known(*this, "abort");
  if (info->launch == nullptr) throw Refused("abort: the run was never started");
  Bridge::get().engine().abort(*info->launch);
  return state();
}

// --- what the emulated card does not have ---------------------------------------

kernel::kernel(xclDeviceHandle, const xrt::uuid &, const std::string &, cu_access_mode) {
  throw Refused("kernels are opened with xrt::kernel(xrt::device, ...)");
}
void run::start(const autostart &) { throw Refused("start with autostart is not there"); }
void run::stop() { throw Refused("stop belongs to autostart, which is not there"); }
void run::update_arg_at_index(int, const void *, size_t) {
  throw Refused("update_arg is not there; use set_arg");
}
void run::update_arg_at_index(int, const bo &) { throw Refused("update_arg is not there; use set_arg"); }
void run::add_callback(ert_cmd_state, std::function<void(const void *, ert_cmd_state, void *)>, void *) {
  throw Refused("add_callback is not there; use wait");
}
void run::set_event(const std::shared_ptr<event_impl> &) const {
  throw Refused("events are not there; use wait");
}

}  // namespace xrt

// Programs that use the C interface would run without computing.
extern "C" {
#define T2F_EXPORTED __attribute__((visibility("default")))
T2F_EXPORTED xrtKernelHandle xrtPLKernelOpen(xrtDeviceHandle, const xuid_t, const char *) {
  std::cerr << "emulated card: the C interface of XRT is not there; use xrt::kernel\n";
  return nullptr;
}
T2F_EXPORTED xrtKernelHandle xrtPLKernelOpenExclusive(xrtDeviceHandle, const xuid_t, const char *) {
  std::cerr << "emulated card: the C interface of XRT is not there; use xrt::kernel\n";
  return nullptr;
}
}
