// SPDX-License-Identifier: Apache-2.0
//
// hls::stream for g++: the interface of the vendor's header, written from scratch.
//
// In a scheduled run (t2f_sim.hpp) a stream is a FIFO of its declared depth and a
// process that cannot read or write lets others run. Anywhere else it is unbounded,
// and reading it when empty throws instead of waiting for a writer that cannot come.
#ifndef T2F_SIM_HLS_STREAM_H
#define T2F_SIM_HLS_STREAM_H

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

#include "t2f_sim.hpp"

namespace hls {

template <typename T, int DEPTH = 0>
class stream;

// The stream without its depth, which is what functions take as a parameter.
template <typename T>
class stream<T, 0> : public t2f::sim::Channel {
 public:
  stream() : stream(default_depth, nullptr) {}
  explicit stream(const char *name) : stream(default_depth, name) {}

  ~stream() {
    // The counts stay as they are: what was never read is reported after this.
    for (std::uint64_t i = first_live(); i != written_; ++i) slot(i)->~T();
    release(ring_);
  }

  T read() {
    if (T2F_UNLIKELY(holds())) release_own();
    if (T2F_UNLIKELY(read_needs_care())) prepare_read();
    return pop();
  }
  void read(T &value) { value = read(); }

  void write(const T &value) {
    if (T2F_UNLIKELY(write_needs_care())) prepare_write();
    push(value);
  }

  bool read_nb(T &value) {
    if (!try_read()) return false;
    value = read();
    return true;
  }
  bool write_nb(const T &value) {
    if (!try_write()) return false;
    write(value);
    return true;
  }

  bool empty() const { return !try_read(); }
  bool full() const { return !try_write(); }

  void operator>>(T &value) { read(value); }
  void operator<<(const T &value) { write(value); }

 protected:
  static constexpr int default_depth = 2;  // of a local stream without a depth in Vitis HLS

  stream(int depth, const char *name)
      : Channel(static_cast<std::uint64_t>(depth), name, recordable ? sizeof(T) : 0) {}

 private:
  // Taps copy raw bytes, which is sound for tokens that are only bits.
  static constexpr bool recordable =
      std::is_trivially_copyable_v<T> ||
      (std::is_standard_layout_v<T> && std::is_trivially_destructible_v<T>);
  static constexpr std::uint64_t first_ring = 64;

  // push and pop are where tokens enter and leave the ring, and the only such places.
  void push(const T &value) {
    ::new (static_cast<void *>(slot(written_))) T(value);
    if (T2F_UNLIKELY(tap_ != nullptr)) tap_->append(&value);
    time_write();
    count_write();
  }

  T pop() {
    T *from = slot(read_);
    T value(std::move(*from));
    from->~T();
    time_read();
    count_read();
    return value;
  }

  T2F_NOINLINE void prepare_write() {
    if (acquire_write(ring_size_)) grow();
  }
  T2F_NOINLINE void prepare_read() { acquire_read(); }

  T *slot(std::uint64_t index) const { return ring_ + (index & (ring_size_ - 1)); }

  // The ring starts small and doubles as the fill does: a deep FIFO takes memory for
  // the tokens it really holds, and a shallow use of it stays in the cache.
  void grow() {
    const std::uint64_t wanted = ring_size_ == 0 ? first_size() : ring_size_ * 2;
    T *ring = static_cast<T *>(
        ::operator new(static_cast<std::size_t>(wanted) * sizeof(T), std::align_val_t{alignof(T)}));
    for (std::uint64_t i = first_live(); i != written_; ++i) {
      T *from = slot(i);
      ::new (static_cast<void *>(ring + (i & (wanted - 1)))) T(std::move(*from));
      from->~T();
    }
    release(ring_);
    ring_ = ring;
    ring_size_ = wanted;
    ring_grown(wanted);
  }

  std::uint64_t first_size() const {
    std::uint64_t size = 1;
    while (size < capacity() && size < first_ring) size *= 2;
    return size;
  }

  static void release(T *ring) { ::operator delete(ring, std::align_val_t{alignof(T)}); }

  T *ring_ = nullptr;
  std::uint64_t ring_size_ = 0;  // 0, or a power of two
};

template <typename T, int DEPTH>
class stream : public stream<T, 0> {
  static_assert(DEPTH > 0, "a stream holds at least one token");

 public:
  stream() : stream<T, 0>(DEPTH, nullptr) {}
  explicit stream(const char *name) : stream<T, 0>(DEPTH, name) {}
};

}  // namespace hls

#endif
