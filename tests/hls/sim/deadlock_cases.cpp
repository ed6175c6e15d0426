// SPDX-License-Identifier: Apache-2.0
//
// Designs that stop when a FIFO is too small or token counts disagree, and designs with a
// defect, for tests/timing/test_deadlocks.py. FIFO depths are template arguments or
// settings of the run; the twins differ in one number.
#include "case_library.hpp"

// x goes around a stage that takes in a whole row: bypass must hold the row.
template <int DEPTH>
static void residual(Arguments a) {
  hls::stream<long, 2> x("x");
  hls::stream<long, 2> to_layer("to_layer");
  hls::stream<long, 2> from_layer("from_layer");
  hls::stream<long, DEPTH> bypass("bypass");
  T2F_PROCESS("source", source(x, 3 * a[0]));
  T2F_PROCESS("fork", fork(x, to_layer, bypass, 3 * a[0]));
  T2F_PROCESS("layer", by_row(to_layer, from_layer, 3, a[0]));
  T2F_PROCESS("add", join(from_layer, bypass, 3 * a[0], a[1] != 0));
  T2F_DATAFLOW_END;
}

// Takes in all keys before it looks at a query.
static void attend(Tokens &q, Tokens &k, long count) {
  long sum = 0;
KEYS:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    sum += k.read();
  }
QUERIES:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    kept.push_back(q.read() + sum);
  }
}

template <int DEPTH>
static void attention(Arguments a) {
  hls::stream<long, 2> x("x");
  hls::stream<long, 2> to_q("to_q");
  hls::stream<long, 2> to_k("to_k");
  hls::stream<long, DEPTH> q("q");
  hls::stream<long, 2> k("k");
  T2F_PROCESS("source", source(x, a[0]));
  T2F_PROCESS("fork", fork(x, to_q, to_k, a[0]));
  T2F_PROCESS("project_q", relay(to_q, q, a[0]));
  T2F_PROCESS("project_k", relay(to_k, k, a[0]));
  T2F_PROCESS("attend", attend(q, k, a[0]));
  T2F_DATAFLOW_END;
}

// The largest score first, then every score again.
static void two_pass(Tokens &first, Tokens &again, Tokens &out, long count) {
  long largest = 0;
MAXIMUM:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    const long score = first.read();
    largest = score > largest ? score : largest;
  }
WEIGHTS:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    out.write(largest - again.read());
  }
}

template <int DEPTH>
static void softmax(Arguments a) {
  hls::stream<long, 2> scores("scores");
  hls::stream<long, 2> first("first");
  hls::stream<long, DEPTH> again("again");
  hls::stream<long, 2> weights("weights");
  T2F_PROCESS("source", source(scores, a[0]));
  T2F_PROCESS("fork", fork(scores, first, again, a[0]));
  T2F_PROCESS("softmax", two_pass(first, again, weights, a[0]));
  T2F_PROCESS("sink", sink(weights, a[0]));
  T2F_DATAFLOW_END;
}

// a[0] tokens are written, a[1] read.
static void counts(Arguments a) {
  hls::stream<long, 16> x("x");
  T2F_PROCESS("source", source(x, a[0]));
  T2F_PROCESS("sink", sink(x, a[1]));
  T2F_DATAFLOW_END;
}

// Reads `ahead` tokens before it writes its first.
static void exchange(Tokens &in, Tokens &out, long count, long ahead) {
EXCHANGE:
  for (long i = 0; i < count + ahead; ++i) {
    T2F_PIPELINE(1);
    if (i < count) kept.push_back(in.read());
    if (i >= ahead) out.write(i - ahead);
  }
}

static void answer(Tokens &in, Tokens &out, long count, long given) {
ANSWER:
  for (long i = 0; i < count + given; ++i) {
    T2F_PIPELINE(1);
    if (i < count) out.write(i);
    if (i >= given) kept.push_back(in.read());
  }
}

// a waits for b's first token before it writes; b, too, unless a[1] tokens are given first.
static void crossed(Arguments a) {
  hls::stream<long, 4> ab("ab");
  hls::stream<long, 4> ba("ba");
  T2F_PROCESS("a", exchange(ba, ab, a[0], 1));
  if (a[1] != 0) {
    T2F_PROCESS("b", answer(ab, ba, a[0], a[1]));
  } else {
    T2F_PROCESS("b", exchange(ab, ba, a[0], 1));
  }
  T2F_DATAFLOW_END;
}

// --- defects -----------------------------------------------------------------------------

static void endless(Tokens &in, Tokens &out) {
  out.write(in.read());
ENDLESS:
  for (volatile bool go = true; go;) {
    T2F_PIPELINE(1);
  }
}

static void never_ends(Arguments) {
  hls::stream<long, 2> x("x");
  hls::stream<long, 2> y("y");
  T2F_PROCESS("source", source(x, 1));
  T2F_PROCESS("endless", endless(x, y));
  T2F_PROCESS("sink", sink(y, 2));
  T2F_DATAFLOW_END;
}

static long deep(long level) {
  volatile long room[512];
  room[0] = level;
  return level == 0 ? 0 : deep(level - 1) + room[0];
}

// Recursion of 4 KiB a level: the stack of a process is 64 MiB.
static void overflow(Arguments a) {
  hls::stream<long, 2> x("x");
  hls::stream<long, 2> y("y");
  T2F_PROCESS("source", source(x, 4));
  T2F_PROCESS("deep", {
    for (long i = 0; i < 4; ++i) {
      T2F_PIPELINE(1);
      const long token = x.read();
      y.write(i == 2 ? deep(a[0]) : token);
    }
  });
  T2F_PROCESS("sink", sink(y, 4));
  T2F_DATAFLOW_END;
}

const std::map<std::string, void (*)(Arguments)> &cases() {
  static const std::map<std::string, void (*)(Arguments)> all = {
      {"residual62", residual<62>},
      {"residual63", residual<63>},
      {"attention36", attention<36>},
      {"attention37", attention<37>},
      {"softmax8", softmax<8>},
      {"softmax9", softmax<9>},
      {"counts", counts},
      {"crossed", crossed},
      {"never_ends", never_ends},
      {"overflow", overflow},
  };
  return all;
}
