// SPDX-License-Identifier: Apache-2.0
//
// State of the bridge: what the host opened, allocated and set, beside the objects of XRT's own library.
// Never destroyed: objects of the host may outlive everything that has a destructor here.
#ifndef T2F_CARD_BRIDGE_HPP
#define T2F_CARD_BRIDGE_HPP

#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine.hpp"
#include "xclbin.h"
#include "xrt/xrt_bo.h"
#include "xrt/xrt_device.h"
#include "xrt/xrt_kernel.h"

namespace t2f_card {

// The function of that name in the library behind this one.
template <typename F>
F *real(const char *symbol) {
  void *found = dlsym(RTLD_NEXT, symbol);
  if (found == nullptr) {
    throw Refused(std::string("the XRT library has no ") + symbol + "; the bridge is made for XRT 2.13");
  }
  return reinterpret_cast<F *>(found);
}

// An xrt::kernel. `banks`: where each memory argument is connected.
struct KernelInfo {
  int index = 0;
  const t2f_card_kernel *table = nullptr;
  std::vector<unsigned> banks;
  std::uint64_t generation = 0;
};

// An xrt::run.
struct RunInfo {
  std::shared_ptr<const KernelInfo> kernel;
  struct Value {
    bool set = false;
    int number = 0;
    std::weak_ptr<xrt::bo_impl> owner;
    std::weak_ptr<Buffer> buffer;
    // Null for a number, and for a buffer that the host gave up.
    std::shared_ptr<Buffer> alive() const { return owner.expired() ? nullptr : buffer.lock(); }
  };
  std::vector<Value> values;  // of each argument
  std::shared_ptr<Launch> launch;
};

// Objects by the address of XRT's own; an address that is used again is a new object.
template <typename Impl, typename Info>
class Registry {
 public:
  void add(const std::shared_ptr<Impl> &impl, std::shared_ptr<Info> info) {
    if (entries_.size() >= limit_) {
      for (auto at = entries_.begin(); at != entries_.end();) {
        at = at->second.impl.expired() ? entries_.erase(at) : std::next(at);
      }
      limit_ = 64 + 2 * entries_.size();
    }
    entries_[impl.get()] = {impl, std::move(info)};
  }
  std::shared_ptr<Info> find(const Impl *impl) const {
    const auto at = entries_.find(impl);
    return at == entries_.end() ? nullptr : at->second.info;
  }
  // What the host gave up gives its memory back.
  void sweep() {
    for (auto &entry : entries_) {
      if (entry.second.impl.expired()) entry.second.info.reset();
    }
  }

 private:
  struct Entry {
    std::weak_ptr<Impl> impl;
    std::shared_ptr<Info> info;
  };
  std::unordered_map<const Impl *, Entry> entries_;
  std::size_t limit_ = 64;
};

class Bridge {
 public:
  static Bridge &get();

  void opened();                // a device was
  void reset(const char *why);  // all kernels, memory and what the host made of it are gone
  void start(const std::shared_ptr<Launch> &launch);
  void loaded(const axlf *xclbin);
  // Takes the card for this process until it ends, where T2F_CARD_LOCK names a file that processes share.
  // Throws std::system_error (EBUSY) where another one has it.
  void claim(const std::string &kernel);
  // Throws where the device was lost, or the object is of before.
  void check(std::uint64_t generation, const char *what) const;
  void check_open(const char *what) const;

  Bank &bank(unsigned group);
  std::shared_ptr<Buffer> allocate(std::uint64_t size, xrt::bo::flags flags, unsigned group);
  void transfer(Buffer &buffer, bool to_card, unsigned char *host, std::uint64_t size, std::uint64_t offset);

  Engine &engine();

  std::mutex mutex;
  Registry<xrt::bo_impl, Buffer> buffers;
  Registry<xrt::kernel_impl, KernelInfo> kernels;
  Registry<xrt::run_impl, RunInfo> runs;
  std::atomic<std::uint64_t> generation{0};  // counts resets
  std::atomic<bool> lost{false};             // reset, and not opened again

 private:
  Bridge();
  void connect(const axlf *xclbin);

  Faults faults_;
  Log log_;
  std::unique_ptr<Engine> engine_;
  std::vector<Bank> banks_;
  std::multimap<std::string, unsigned> connected_;  // argument -> bank
  std::uint64_t allocations_ = 0;
  int lock_ = -1;  // stays open as long as the process lives
};

}  // namespace t2f_card

#endif
