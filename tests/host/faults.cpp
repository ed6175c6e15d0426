// SPDX-License-Identifier: Apache-2.0
// In front of XRT (LD_PRELOAD): calls that fail as on a card that is denied, busy, hanging or gone.
// T2F_FAULT: denied, busy, alloc, hang (every launch), hang-once, error, stuck (wait never returns),
// stuck-abort (the launch hangs and so does stopping it), power (a sensor's report), late-start (the kernel
// is done before its start returns).
// T2F_SKIP=N: kernels do nothing from the N-th start on, and are said to be done.
#include <dlfcn.h>
#include <unistd.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include <any>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>

namespace {

bool fault(const char *name) {
  const char *value = std::getenv("T2F_FAULT");
  return value != nullptr && std::strcmp(value, name) == 0;
}

int waits = 0;
int starts = 0;

// Is this start one that does nothing?
bool skips() {
  const char *value = std::getenv("T2F_SKIP");
  return value != nullptr && starts >= std::atoi(value);
}

// Does this wait not see its kernel end?
bool hangs() {
  if (fault("hang") || fault("stuck-abort")) return true;
  return fault("hang-once") && waits == 1;
}

template <typename F>
F *next(const char *symbol) {
  return reinterpret_cast<F *>(dlsym(RTLD_NEXT, symbol));
}

}  // namespace

namespace xrt {

device::device(unsigned int index) {
  if (fault("denied")) throw std::system_error(EACCES, std::generic_category(), "open of the device");
  next<void(device *, unsigned int)>("_ZN3xrt6deviceC1Ej")(this, index);
}

kernel::kernel(const xrt::device &d, const xrt::uuid &id, const std::string &name, cu_access_mode mode) {
  if (mode != cu_access_mode::exclusive) throw std::runtime_error("kernels are opened by others too");
  if (fault("busy")) throw std::system_error(EBUSY, std::generic_category(), "open context");
  using Make = void(kernel *, const xrt::device &, const xrt::uuid &, const std::string &, cu_access_mode);
  next<Make>(
      "_ZN3xrt6kernelC1ERKNS_6deviceERKNS_4uuidERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
      "NS0_14cu_access_modeE")(this, d, id, name, mode);
}

bo::bo(xclDeviceHandle d, size_t size, bo::flags f, memory_group group) {
  if (fault("alloc")) throw std::bad_alloc();
  using Make = void(bo *, xclDeviceHandle, size_t, bo::flags, memory_group);
  next<Make>("_ZN3xrt2boC1EPvmNS0_5flagsEj")(this, d, size, f, group);
}

void run::start() {
  ++starts;
  if (skips()) return;
  next<void(run *)>("_ZN3xrt3run5startEv")(this);
  if (fault("late-start")) std::this_thread::sleep_for(std::chrono::milliseconds(150));
}

ert_cmd_state run::wait(const std::chrono::milliseconds &timeout) const {
  ++waits;
  if (skips()) return ERT_CMD_STATE_COMPLETED;
  if (fault("stuck")) pause();
  if (fault("error")) return ERT_CMD_STATE_ERROR;
  if (!hangs()) {
    using Wait = ert_cmd_state(const run *, const std::chrono::milliseconds &);
    return next<Wait>("_ZNK3xrt3run4waitERKNSt6chrono8durationIlSt5ratioILl1ELl1000EEEE")(this, timeout);
  }
  std::this_thread::sleep_for(timeout);
  return ERT_CMD_STATE_TIMEOUT;
}

ert_cmd_state run::state() const {
  if (fault("error")) return ERT_CMD_STATE_ERROR;
  return hangs() ? ERT_CMD_STATE_RUNNING : next<ert_cmd_state(const run *)>("_ZNK3xrt3run5stateEv")(this);
}

ert_cmd_state run::abort() {
  if (fault("stuck-abort")) pause();
  return ERT_CMD_STATE_ABORT;
}

std::any device::get_info_std(info::device what, const xrt::detail::abi &) const {
  if (!fault("power")) throw std::runtime_error("no such query");
  if (what == info::device::electrical) {
    return std::string("{\"power_consumption_max_watts\": \"225\", \"power_consumption_watts\": \"31.25\"}");
  }
  return std::string("0000:3b:00.1");
}

}  // namespace xrt
