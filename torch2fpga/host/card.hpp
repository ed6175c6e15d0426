// SPDX-License-Identifier: Apache-2.0
// The device: opened by index or address, with the design's xclbin and its kernels.
#ifndef HOST_CARD_HPP
#define HOST_CARD_HPP

#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>
#include <xrt/xrt_uuid.h>

#include <cstddef>
#include <string>
#include <vector>

#include "options.hpp"

namespace host {

// Memory of the device with its copy on the host; transfers are asked for.
struct Buffer {
  xrt::bo memory;
  unsigned char *data = nullptr;
  std::size_t bytes = 0;

  void to_device() { memory.sync(XCL_BO_SYNC_BO_TO_DEVICE, bytes, 0); }
  void to_device(std::size_t first) { memory.sync(XCL_BO_SYNC_BO_TO_DEVICE, first, 0); }
  void from_device() { memory.sync(XCL_BO_SYNC_BO_FROM_DEVICE, bytes, 0); }
  void from_device(std::size_t first) { memory.sync(XCL_BO_SYNC_BO_FROM_DEVICE, first, 0); }
};

class Card {
 public:
  // Throws Failure (no card, wrong xclbin) or DeviceError (the card refuses).
  explicit Card(const Options &options);

  const xrt::device &device() const { return device_; }
  const xrt::kernel &kernel(std::size_t number) const { return kernels_[number]; }
  const std::string &xclbin() const { return xclbin_; }

  // A buffer in the bank that the port's argument is connected to.
  Buffer allocate(std::size_t port) const;

 private:
  std::string xclbin_;
  xrt::device device_;
  std::vector<xrt::kernel> kernels_;
};

}  // namespace host

#endif
