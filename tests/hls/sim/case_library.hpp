// SPDX-License-Identifier: Apache-2.0
//
// Small dataflow designs behind one C interface (tests/hls/timed_program.py). A case is a
// kernel "k" that takes whole numbers as arguments; what its processes read is kept, so
// that the timed and the untimed build of the same source can be compared.
#ifndef T2F_TESTS_CASE_LIBRARY_HPP
#define T2F_TESTS_CASE_LIBRARY_HPP

#include <array>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "hls_stream.h"
#include "t2f/dataflow.hpp"
#ifdef T2F_TIMED
#include "t2f_settings.hpp"
#include "t2f_timed_report.hpp"
#endif

using Arguments = const long *;
using Tokens = hls::stream<long>;

// Values that a case's processes got, in the order of each.
inline std::vector<long> kept;

struct alignas(64) line {
  long d[8];
};
// What memory ports 0 (read) and 1 (written) are on.
inline std::array<line, 1 << 14> read_memory{};
inline std::array<line, 1 << 14> written_memory{};

const std::map<std::string, void (*)(Arguments)> &cases();

template <int II = 1>
void source(Tokens &out, long count) {
SOURCE:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(II);
    out.write(i);
  }
}

template <int II = 1>
void relay(Tokens &in, Tokens &out, long count) {
RELAY:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(II);
    out.write(in.read() + 1);
  }
}

template <int II = 1>
void sink(Tokens &in, long count) {
SINK:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(II);
    kept.push_back(in.read());
  }
}

inline void fork(Tokens &in, Tokens &a, Tokens &b, long count) {
FORK:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    const long token = in.read();
    a.write(token);
    b.write(token);
  }
}

// Nothing leaves before a whole row has come in, as in a normalisation.
inline void by_row(Tokens &in, Tokens &out, long rows, long row) {
  std::vector<long> held(static_cast<std::size_t>(row));
ROW:
  for (long r = 0; r < rows; ++r) {
  FILL:
    for (long i = 0; i < row; ++i) {
      T2F_PIPELINE(1);
      held[static_cast<std::size_t>(i)] = in.read();
    }
  DRAIN:
    for (long i = 0; i < row; ++i) {
      T2F_PIPELINE(1);
      out.write(held[static_cast<std::size_t>(i)]);
    }
  }
}

// Both inputs in every iteration; `swapped` changes which statement comes first.
inline void join(Tokens &a, Tokens &b, long count, bool swapped) {
JOIN:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    const long first = (swapped ? b : a).read();
    const long second = (swapped ? a : b).read();
    kept.push_back(first + second);
  }
}

struct Run {
  t2f::sim::Scheduler scheduler;
  std::string message;
  std::string report;
  std::vector<long> values;
};

extern "C" {

void *case_run(const char *name, Arguments arguments, const char *settings) {
  auto *run = new Run;
  kept.clear();
  try {
#ifdef T2F_TIMED
    const void *inputs[] = {read_memory.data(), nullptr};
    void *outputs[] = {nullptr, written_memory.data()};
    run->scheduler.timing = t2f::sim::read_settings(settings, inputs, outputs);
#else
    static_cast<void>(settings);
#endif
    run->scheduler.kernel("k", [&] { cases().at(name)(arguments); });
    run->message = run->scheduler.run().message;
#ifdef T2F_TIMED
    run->report = t2f::sim::TimedReport(run->scheduler).json();
#endif
  } catch (const std::exception &error) {
    run->message = error.what();
  }
  run->values = kept;
  return run;
}

const char *case_message(void *run) { return static_cast<Run *>(run)->message.c_str(); }
const char *case_report(void *run) { return static_cast<Run *>(run)->report.c_str(); }
long case_values(void *run, const long **values) {
  *values = static_cast<Run *>(run)->values.data();
  return static_cast<long>(static_cast<Run *>(run)->values.size());
}
void case_free(void *run) { delete static_cast<Run *>(run); }

}  // extern "C"

#endif
