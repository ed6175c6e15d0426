// SPDX-License-Identifier: Apache-2.0
//
// A stream as C simulation has it, and nothing more: unbounded, sequential, C++14. Stands in
// for a vendor's header where a test must not lean on what only the project's own offers.
#ifndef PLAIN_HLS_STREAM_H
#define PLAIN_HLS_STREAM_H

#include <deque>
#include <stdexcept>

namespace hls {

template <typename T, int DEPTH = 0>
class stream;

template <typename T>
class stream<T, 0> {
 public:
  stream() {}
  explicit stream(const char *) {}
  stream(const stream &) = delete;
  stream &operator=(const stream &) = delete;

  bool empty() const { return tokens_.empty(); }
  void write(const T &token) { tokens_.push_back(token); }
  T read() {
    if (empty()) throw std::runtime_error("read of an empty stream");
    const T token = tokens_.front();
    tokens_.pop_front();
    return token;
  }

 private:
  std::deque<T> tokens_;
};

template <typename T, int DEPTH>
class stream : public stream<T, 0> {
 public:
  stream() {}
  explicit stream(const char *name) : stream<T, 0>(name) {}
};

}  // namespace hls

#endif
