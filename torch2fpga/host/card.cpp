// SPDX-License-Identifier: Apache-2.0
#include "card.hpp"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <exception>

#include "failure.hpp"
#include "tables.hpp"
#include "xclbin.hpp"

namespace host {
namespace {

std::string variable(const char *name) {
  const char *value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Entries of a folder whose names begin so, sorted.
std::vector<std::string> entries(const std::string &folder, const std::string &start) {
  std::vector<std::string> found;
  DIR *open = opendir(folder.c_str());
  if (open == nullptr) return found;
  while (const dirent *entry = readdir(open)) {
    const std::string name = entry->d_name;
    if (name.compare(0, start.size(), start) == 0 && name[0] != '.') found.push_back(name);
  }
  closedir(open);
  std::sort(found.begin(), found.end());
  return found;
}

// What was looked for, and what is there, when no device opens.
std::string searched(const std::string &root) {
  const std::string mode = variable("XCL_EMULATION_MODE");
  const std::string xrt = variable("XILINX_XRT");
  std::string text = "\n  XILINX_XRT is " + (xrt.empty() ? "not set" : xrt);
  if (!mode.empty()) {
    return text + "\n  XCL_EMULATION_MODE is " + mode + ": XRT looks for " +
           (xrt.empty() ? "$XILINX_XRT" : xrt) + "/lib/libxrt_" + mode + ".so.2";
  }
  const std::string drivers = root + "/sys/bus/pci/drivers/xocl";
  std::string cards;
  for (const std::string &name : entries(drivers, "0")) cards += " " + name;
  text += "\n  " + drivers + ":" + (cards.empty() ? " no card with the driver xocl" : cards);
  const std::string nodes = root + "/dev/dri";
  std::string list;
  bool refused = false;
  for (const std::string &name : entries(nodes, "renderD")) {
    const bool open = access((nodes + "/" + name).c_str(), R_OK | W_OK) == 0;
    refused = refused || !open;
    list += " " + name + (open ? "" : " (no permission)");
  }
  text += "\n  " + nodes + "/renderD*:" + (list.empty() ? " none" : list);
  if (refused) {
    text += "\n  this user may not open it: add the user to the group that owns it (ls -l " + nodes + ")";
  }
  return text + "\n  without a card: make run_emulated";
}

bool busy(const std::string &text) {
  for (const char *part : {"busy", "Busy", "EBUSY", "-16"}) {
    if (text.find(part) != std::string::npos) return true;
  }
  return false;
}

std::string refused(const std::string &what, const std::exception &error) {
  const std::string text = error.what();
  return what + ": " + text +
         (busy(text) ? "; another process uses the card (this program opens its kernels for itself "
                       "alone): xbutil examine -d <address> -r dynamic-regions"
                     : "");
}

std::string default_xclbin(const Options &options) {
  const std::string mode = variable("XCL_EMULATION_MODE");
  const std::string file = std::string(design().name) + ".xclbin";
  if (mode == "noop") return options.project + "/emulation/" + file;
  return options.project + "/build/" + (mode.empty() ? "hw" : mode) + "/" + file;
}

xrt::device open(const Options &options) {
  try {
    const bool address = options.device.find(':') != std::string::npos;
    if (address) return xrt::device(options.device);
    return xrt::device(static_cast<unsigned int>(std::stoul(options.device)));
  } catch (const std::exception &error) {
    throw Failure("device " + options.device + " cannot be opened: " + error.what() +
                  searched(options.root == "/" ? "" : options.root));
  }
}

}  // namespace

Card::Card(const Options &options)
    : xclbin_(options.xclbin.empty() ? default_xclbin(options) : options.xclbin) {
  const xrt::xclbin image = read_xclbin(xclbin_);
  check_xclbin(image, xclbin_);
  device_ = open(options);
  xrt::uuid uuid;
  try {
    uuid = device_.load_xclbin(image);
  } catch (const std::exception &error) {
    throw DeviceError(refused(xclbin_ + " cannot be loaded into device " + options.device, error));
  }
  for (const Kernel &kernel : design().kernels) {
    try {
      // Two processes must not feed the same streams.
      kernels_.emplace_back(device_, uuid, kernel.name, xrt::kernel::cu_access_mode::exclusive);
    } catch (const std::exception &error) {
      throw DeviceError(refused(std::string("kernel ") + kernel.name + " cannot be opened", error));
    }
  }
}

Buffer Card::allocate(std::size_t number) const {
  const Port &port = design().ports[number];
  Buffer buffer;
  buffer.bytes = port.bytes;
  try {
    const xrt::kernel &kernel = kernels_[static_cast<std::size_t>(port.kernel)];
    buffer.memory = xrt::bo(device_, port.bytes, xrt::bo::flags::normal,
                            static_cast<xrt::memory_group>(kernel.group_id(port.index)));
    buffer.data = buffer.memory.map<unsigned char *>();
  } catch (const std::exception &error) {
    throw DeviceError(std::string("buffer of ") + port.name + ", " + std::to_string(port.bytes) +
                      " bytes in HBM[" + std::to_string(port.channel) +
                      "], cannot be allocated: " + error.what());
  }
  return buffer;
}

}  // namespace host
