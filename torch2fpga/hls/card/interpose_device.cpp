// SPDX-License-Identifier: Apache-2.0
//
// xrt::device and xrt::bo of the emulated card: the real ones, and memory of the card behind them.
#include <fstream>
#include <iterator>

#include "bridge.hpp"
#include "calls.hpp"
#include "experimental/xrt_xclbin.h"

using t2f_card::Bridge;
using t2f_card::Buffer;
using t2f_card::real;
using t2f_card::Refused;

namespace {

// What the device is loaded with, as the file says it.
std::vector<char> content(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Bridge &open_bridge(const char *what) {
  Bridge &bridge = Bridge::get();
  bridge.check_open(what);
  return bridge;
}

// The buffer behind an xrt::bo.
std::shared_ptr<Buffer> known(const xrt::bo &bo, const char *what) {
  Bridge &bridge = Bridge::get();
  const std::lock_guard<std::mutex> lock(bridge.mutex);
  auto found = bridge.buffers.find(bo.get_handle().get());
  if (found == nullptr) {
    throw Refused(std::string(what) + ": the buffer is none of this card (imported or empty)");
  }
  return found;
}

void check_range(const Buffer &buffer, std::uint64_t size, std::uint64_t offset, const char *what) {
  if (offset <= buffer.size && size <= buffer.size - offset) return;
  throw Refused(std::string(what) + ": bytes " + std::to_string(offset) + " to " +
                std::to_string(offset + size) + " of a buffer of " + std::to_string(buffer.size));
}

void add(const xrt::bo &bo, std::shared_ptr<Buffer> buffer) {
  Bridge &bridge = Bridge::get();
  const std::lock_guard<std::mutex> lock(bridge.mutex);
  bridge.buffers.add(bo.get_handle(), std::move(buffer));
}

}  // namespace

namespace xrt {

device::device(unsigned int index) {
  real<void(device *, unsigned int)>("_ZN3xrt6deviceC1Ej")(this, index);
  Bridge::get().opened();
}

device::device(const std::string &bdf) {
  real<void(device *, const std::string &)>(
      "_ZN3xrt6deviceC1ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE")(this, bdf);
  Bridge::get().opened();
}

uuid device::load_xclbin(const axlf *top) {
  open_bridge("load_xclbin");
  const uuid found = real<uuid(device *, const axlf *)>("_ZN3xrt6device11load_xclbinEPK4axlf")(this, top);
  Bridge::get().loaded(top);
  return found;
}

uuid device::load_xclbin(const std::string &path) {
  open_bridge("load_xclbin");
  const uuid found = real<uuid(device *, const std::string &)>(
      "_ZN3xrt6device11load_xclbinERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE")(this, path);
  const std::vector<char> bytes = content(path);
  Bridge::get().loaded(reinterpret_cast<const axlf *>(bytes.data()));
  return found;
}

uuid device::load_xclbin(const xrt::xclbin &xclbin) {
  open_bridge("load_xclbin");
  const uuid found = real<uuid(device *, const xrt::xclbin &)>("_ZN3xrt6device11load_xclbinERKNS_6xclbinE")(
      this, xclbin);
  Bridge::get().loaded(xclbin.get_axlf());
  return found;
}

// The real one needs a driver that can.
void device::reset() { Bridge::get().reset("xrt::device::reset"); }

// --- buffers --------------------------------------------------------------------

bo::bo(xclDeviceHandle device, void *user, size_t size, bo::flags flags, memory_group group) {
  auto buffer = Bridge::get().allocate(size, flags, group);
  real<void(bo *, xclDeviceHandle, void *, size_t, bo::flags, memory_group)>(
      "_ZN3xrt2boC1EPvS1_mNS0_5flagsEj")(this, device, user, size, flags, group);
  add(*this, std::move(buffer));
}

bo::bo(xclDeviceHandle device, size_t size, bo::flags flags, memory_group group) {
  auto buffer = Bridge::get().allocate(size, flags, group);
  real<void(bo *, xclDeviceHandle, size_t, bo::flags, memory_group)>("_ZN3xrt2boC1EPvmNS0_5flagsEj")(
      this, device, size, flags, group);
  add(*this, std::move(buffer));
}

bo::bo(const bo &parent, size_t size, size_t offset) {
  const auto whole = known(parent, "part of a buffer");
  open_bridge("part of a buffer").check(whole->generation, "part of a buffer");
  check_range(*whole, size, offset, "part of a buffer");
  if (offset % t2f_card::Region::word != 0) {
    throw Refused("part of a buffer: it begins at byte " + std::to_string(offset) +
                  ", not at a multiple of " + std::to_string(t2f_card::Region::word));
  }
  auto part = std::make_shared<Buffer>(*whole);
  part->offset += offset;
  part->size = size;
  real<void(bo *, const bo &, size_t, size_t)>("_ZN3xrt2boC1ERKS0_mm")(this, parent, size, offset);
  add(*this, std::move(part));
}

void bo::sync(xclBOSyncDirection direction, size_t size, size_t offset) {
  const t2f_card::Call call;
  static const auto behind =
      real<void(bo *, xclBOSyncDirection, size_t, size_t)>("_ZN3xrt2bo4syncE18xclBOSyncDirectionmm");
  const auto buffer = known(*this, "sync");
  check_range(*buffer, size, offset, "sync");
  if (!buffer->host_mapped) throw Refused("sync of a buffer that only the card has (device_only)");
  const bool to_card = direction == XCL_BO_SYNC_BO_TO_DEVICE;
  if (!to_card && direction != XCL_BO_SYNC_BO_FROM_DEVICE) throw Refused("sync: unknown direction");
  Bridge::get().check(buffer->generation, "sync");
  behind(this, direction, size, offset);
  Bridge::get().transfer(*buffer, to_card, static_cast<unsigned char *>(map()), size, offset);
}

// From memory of the card to memory of the card.
void bo::copy(const bo &from, size_t size, size_t from_offset, size_t offset) {
  const auto target = known(*this, "copy");
  const auto source = known(from, "copy");
  Bridge::get().check(target->generation, "copy");
  Bridge::get().check(source->generation, "copy");
  check_range(*source, size, from_offset, "copy from");
  check_range(*target, size, offset, "copy to");
  std::memmove(target->data() + offset, source->data() + from_offset, size);
}

}  // namespace xrt
