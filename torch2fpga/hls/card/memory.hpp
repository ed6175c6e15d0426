// SPDX-License-Identifier: Apache-2.0
//
// Memory of the emulated card: its banks, and what is allocated in them. It is not the host's: only a
// transfer (xrt::bo::sync) brings bytes from one to the other.
#ifndef T2F_CARD_MEMORY_HPP
#define T2F_CARD_MEMORY_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/mman.h>

namespace t2f_card {

// All that the emulated card refuses, as a text.
struct Refused : std::runtime_error {
  explicit Refused(const std::string &text) : std::runtime_error("emulated card: " + text) {}
};

// Where XRT throws std::bad_alloc, with a text.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(const std::string &text) : text_("emulated card: " + text) {}
  const char *what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// Pages of the card. The buffer ends where pages begin that nobody may touch: a kernel that goes beyond
// it is found out. Fresh memory holds a pattern, as a card's holds what was there before.
class Region {
 public:
  static constexpr std::size_t page = 4096;
  static constexpr std::size_t word = 64;  // of a memory port
  static constexpr unsigned char fresh = 0xA5;

  // `beyond`: bytes behind the buffer that are out of bounds.
  Region(std::size_t bytes, std::size_t beyond)
      : bytes_(up(bytes, word)), pages_(up(bytes, page)), beyond_(up(beyond, page)) {
    base_ = mmap(nullptr, pages_ + beyond_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) throw OutOfMemory("this machine has no room for the card's memory");
    if (mprotect(base_, pages_, PROT_READ | PROT_WRITE) != 0) {
      munmap(base_, pages_ + beyond_);
      throw OutOfMemory("this machine has no room for the card's memory");
    }
    std::memset(data(), fresh, bytes_);
  }
  Region(const Region &) = delete;
  Region &operator=(const Region &) = delete;
  ~Region() { munmap(base_, pages_ + beyond_); }

  unsigned char *data() const { return static_cast<unsigned char *>(base_) + pages_ - bytes_; }
  std::size_t bytes() const { return bytes_; }  // whole words of a memory port
  std::size_t beyond() const { return beyond_; }
  std::size_t pages() const { return pages_; }

 private:
  static std::size_t up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

  std::size_t bytes_;
  std::size_t pages_;
  std::size_t beyond_;
  void *base_ = nullptr;
};

// A bank of the xclbin's memory topology.
struct Bank {
  std::string name;
  std::uint64_t bytes = 0;
  std::vector<std::weak_ptr<Region>> regions;

  std::uint64_t used() {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < regions.size();) {
      if (const auto region = regions[i].lock()) {
        sum += region->pages();
        ++i;
      } else {
        regions[i] = regions.back();
        regions.pop_back();
      }
    }
    return sum;
  }

  // Room of `size` bytes.
  std::shared_ptr<Region> allocate(std::uint64_t size) {
    const std::uint64_t taken = used();
    const std::uint64_t pages = (size + Region::page - 1) / Region::page * Region::page;
    if (size > bytes || pages > bytes - taken) {
      throw OutOfMemory("a buffer of " + std::to_string(size) + " bytes does not fit into " + name + ": " +
                        std::to_string(taken) + " of its " + std::to_string(bytes) + " bytes are taken");
    }
    auto region = std::make_shared<Region>(size, bytes);
    regions.push_back(region);
    return region;
  }
};

// An xrt::bo on the card.
struct Buffer {
  std::shared_ptr<Region> region;
  std::uint64_t offset = 0;  // of a part of another buffer
  std::uint64_t size = 0;
  unsigned bank = 0;
  std::uint64_t generation = 0;
  bool host_mapped = true;  // false for device_only

  unsigned char *data() const { return region->data() + offset; }
  bool part() const { return offset != 0 || size + Region::word <= region->bytes(); }
};

}  // namespace t2f_card

#endif
