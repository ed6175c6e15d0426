# SPDX-License-Identifier: Apache-2.0
"""A declaration-only <hls_stream.h>: the vendor's documented interface and nothing beyond it.

Code is checked against this and not against the simulation's header, so that what only the
simulation offers is refused, and so that no standard header has to be read.
Source: UG1399 2022.2, "HLS Stream Library".
"""

from __future__ import annotations

NAME = "hls_stream.h"
HEADER = """\
#ifndef T2F_CHECK_HLS_STREAM_H
#define T2F_CHECK_HLS_STREAM_H
namespace hls {
template <typename T, int DEPTH = 0>
class stream;
template <typename T>
class stream<T, 0> {
 public:
  stream();
  explicit stream(const char *name);
  T read();
  void read(T &value);
  bool read_nb(T &value);
  void write(const T &value);
  bool write_nb(const T &value);
  bool empty() const;
  bool full() const;
  unsigned size() const;
  unsigned capacity() const;
  void operator>>(T &value);
  void operator<<(const T &value);
 private:
  stream(const stream &);
  stream &operator=(const stream &);
};
template <typename T, int DEPTH>
class stream : public stream<T, 0> {
 public:
  stream();
  explicit stream(const char *name);
};
}  // namespace hls
#endif
"""
