// SPDX-License-Identifier: Apache-2.0
// The timed run's side of the comparison with Verilog: the test benches of bench_*.v around the stage library's
// own templates. The entries for each size are written by tests/rtl/comparison.py.
#ifndef T2F_TESTS_RTL_TIMED_HPP
#define T2F_TESTS_RTL_TIMED_HPP

#include <cstring>
#include <string>
#include <vector>

#include <hls_stream.h>

#include "t2f/attention.hpp"
#include "t2f/matmul.hpp"
#include "t2f/normalize.hpp"
#include "t2f_settings.hpp"
#include "t2f_timed_report.hpp"

// A process with one pipelined loop, of which `burst` iterations in `period` move a token.
struct Pattern {
  long iterations, ii, period, burst;
};

// One run of a bench: the streams in the order of its arguments, and what came out.
struct Run {
  const void *const *tokens;
  const Pattern *patterns;
  std::string text;                 // the report, or the error behind an exclamation mark
  std::vector<unsigned char> out;   // tokens
  std::vector<t2f::sim::Cycle> at;  // when each was read
};

template <int II, typename T>
void source_at(hls::stream<T> &out, const void *tokens, const Pattern &pattern) {
  const auto *next = static_cast<const unsigned char *>(tokens);
  long place = 0;
SOURCE:
  for (long i = 0; i < pattern.iterations; ++i) {
    T2F_PIPELINE(II);
    if (place < pattern.burst) {
      T token;
      std::memcpy(&token, next, sizeof(T));
      next += sizeof(T);
      out.write(token);
    }
    if (++place == pattern.period) place = 0;
  }
}

template <int II, typename T>
void sink_at(hls::stream<T> &in, Run &run, const Pattern &pattern) {
  long place = 0;
SINK:
  for (long i = 0; i < pattern.iterations; ++i) {
    T2F_PIPELINE(II);
    if (place < pattern.burst) {
      const T token = in.read();
      const auto *bytes = reinterpret_cast<const unsigned char *>(&token);
      run.out.insert(run.out.end(), bytes, bytes + sizeof(T));
      run.at.push_back(t2f::sim::active->clock.now);
    }
    if (++place == pattern.period) place = 0;
  }
}

template <typename T>
void source(hls::stream<T> &out, const Run &run, int stream) {
  const Pattern &pattern = run.patterns[stream];
  if (pattern.ii == 1) {
    source_at<1>(out, run.tokens[stream], pattern);
  } else if (pattern.ii == 3) {
    source_at<3>(out, run.tokens[stream], pattern);
  } else {
    throw std::invalid_argument("a source has II 1 or 3");
  }
}

template <typename T>
void sink(hls::stream<T> &in, Run &run, int stream) {
  const Pattern &pattern = run.patterns[stream];
  if (pattern.ii == 1) {
    sink_at<1>(in, run, pattern);
  } else if (pattern.ii == 3) {
    sink_at<3>(in, run, pattern);
  } else {
    throw std::invalid_argument("a sink has II 1 or 3");
  }
}

// FIFO depths are a setting of the run.
template <typename C>
void matmul(Run &run, int batch, int seq) {
  hls::stream<t2f::vec<int8_t, C::lanes>, 2> x("x");
  hls::stream<t2f::tile_block<C::tile, C::lanes>, t2f::larger(C::in_blocks, 2)> tiles("tiles");
  hls::stream<t2f::word, 2> w("w");
  hls::stream<t2f::vec<int32_t, C::lanes>, 2> y("y");
  T2F_PROCESS("x", source(x, run, 0));
  T2F_PROCESS("w", source(w, run, 1));
  T2F_PROCESS("front", t2f::join_rows<C>(x, tiles, batch, seq));
  T2F_PROCESS("stage", t2f::matmul<C>(tiles, w, y, batch, seq));
  T2F_PROCESS("y", sink(y, run, 2));
  T2F_DATAFLOW_END;
}

template <typename C>
void layer_norm(Run &run, int batch, int seq) {
  hls::stream<t2f::vec<typename C::in_t, C::lanes>, 2> x("x");
  hls::stream<t2f::word, 2> params("params");
  hls::stream<t2f::vec<int32_t, C::lanes>, 2> y("y");
  T2F_PROCESS("x", source(x, run, 0));
  T2F_PROCESS("params", source(params, run, 1));
  T2F_PROCESS("stage", t2f::normalize<C>(x, params, y, batch, seq));
  T2F_PROCESS("y", sink(y, run, 2));
  T2F_DATAFLOW_END;
}

template <typename C>
void softmax(Run &run, int batch, int seq) {
  hls::stream<t2f::vec<int32_t, C::lanes>, 2> scores("scores");
  hls::stream<t2f::vec<int8_t, C::lanes>, 2> mask("mask");
  hls::stream<t2f::word, 2> params("params");
  hls::stream<t2f::vec<uint8_t, C::lanes>, 2> y("y");
  T2F_PROCESS("scores", source(scores, run, 0));
  T2F_PROCESS("mask", source(mask, run, 1));
  T2F_PROCESS("params", source(params, run, 2));
  T2F_PROCESS("stage", t2f::softmax_weights<C>(scores, mask, params, y, batch, seq));
  T2F_PROCESS("y", sink(y, run, 3));
  T2F_DATAFLOW_END;
}

template <typename Bench>
void *timed_run(Bench bench, const void *const *tokens, const Pattern *patterns, const char *settings) {
  auto *run = new Run{tokens, patterns, {}, {}, {}};
  try {
    t2f::sim::Scheduler scheduler;
    scheduler.timing = t2f::sim::read_settings(settings, nullptr, nullptr);
    scheduler.kernel("k", [&] { bench(*run); });
    const t2f::sim::Status status = scheduler.run();
    run->text = status.ok ? t2f::sim::TimedReport(scheduler).json() : "!" + status.message;
  } catch (const std::exception &error) {
    run->text = std::string("!") + error.what();
  }
  return run;
}

extern "C" {
const char *timed_text(void *run) { return static_cast<Run *>(run)->text.c_str(); }
const void *timed_tokens(void *run) { return static_cast<Run *>(run)->out.data(); }
const void *timed_cycles(void *run) { return static_cast<Run *>(run)->at.data(); }
long timed_count(void *run) { return static_cast<long>(static_cast<Run *>(run)->at.size()); }
void timed_free(void *run) { delete static_cast<Run *>(run); }
}

#endif
