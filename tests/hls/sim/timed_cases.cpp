// SPDX-License-Identifier: Apache-2.0
//
// Designs whose cycles tests/hls/test_timed_runtime.py works out by hand.
#include "case_library.hpp"

template <int II>
static void empty_loop(long count) {
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(II);
  }
}

static void alone(Arguments a) {
  T2F_PROCESS("loop", empty_loop<1>(a[0]));
  T2F_DATAFLOW_END;
}

static void alone_slow(Arguments a) {
  T2F_PROCESS("loop", empty_loop<3>(a[0]));
  T2F_DATAFLOW_END;
}

template <int II>
static void chain(Arguments a) {
  hls::stream<long, 2> x("x");
  hls::stream<long, 2> y("y");
  T2F_PROCESS("source", source(x, a[0]));
  T2F_PROCESS("relay", relay<II>(x, y, a[0]));
  T2F_PROCESS("sink", sink(y, a[0]));
  T2F_DATAFLOW_END;
}

template <int DEPTH>
static void pair(Arguments a) {
  hls::stream<long, DEPTH> x("x");
  T2F_PROCESS("source", source(x, a[0]));
  T2F_PROCESS("sink", sink(x, a[0]));
  T2F_DATAFLOW_END;
}

static void rows(Arguments a) {
  hls::stream<long, 2> x("x");
  hls::stream<long, 2> y("y");
  T2F_PROCESS("source", source(x, a[0] * a[1]));
  T2F_PROCESS("by_row", by_row(x, y, a[0], a[1]));
  T2F_PROCESS("sink", sink(y, a[0] * a[1]));
  T2F_DATAFLOW_END;
}

// The same loop over and over: entered anew each time, or one flat nest.
static void entered_again(long outer, long inner) {
  for (long o = 0; o < outer; ++o) {
    T2F_LOOP_ENTRY;
    for (long i = 0; i < inner; ++i) {
      T2F_PIPELINE(1);
    }
  }
}

template <int INNER>
static void nest(long outer) {
  for (long o = 0; o < outer; ++o) {
    for (int i = 0; i < INNER; ++i) {
      T2F_PIPELINE(1);
    }
  }
}

static void entries(Arguments a) {
  T2F_PROCESS("again", entered_again(a[0], 5));
  T2F_PROCESS("nest", nest<5>(a[0]));
  T2F_DATAFLOW_END;
}

// A reader that takes from both streams in an iteration; b comes every fifth cycle only.
static void together(Arguments a) {
  hls::stream<long, 2> x("x");
  hls::stream<long, 2> y("y");
  T2F_PROCESS("fast", source(x, a[0]));
  T2F_PROCESS("slow", source<5>(y, a[0]));
  T2F_PROCESS("join", join(x, y, a[0], a[1] != 0));
  T2F_DATAFLOW_END;
}

// A write between the two reads of an iteration, in both orders of starting the peers.
static void middle(Tokens &in, Tokens &out, Tokens &late, long count) {
MIDDLE:
  for (long i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    const long token = in.read();
    out.write(token);
    kept.push_back(late.read());
  }
}

static void write_between(Arguments a) {
  hls::stream<long, 1> x("x");
  hls::stream<long, 1> y("y");
  hls::stream<long, 1> z("z");
  for (int i = 0; i < 4; ++i) {
    switch ((a[1] + i) % 4) {
      case 0: T2F_PROCESS("source", source(x, a[0])); break;
      case 1: T2F_PROCESS("middle", middle(x, y, z, a[0])); break;
      case 2: T2F_PROCESS("sink", sink<2>(y, a[0])); break;
      default: T2F_PROCESS("late", source<3>(z, a[0])); break;
    }
  }
  T2F_DATAFLOW_END;
}

// --- a writer and a reader in phases of other speeds --------------------------------

template <int II>
static void write_phase(Tokens &out, long count) {
  T2F_LOOP_ENTRY;
  source<II>(out, count);
}

template <int II>
static void read_phase(Tokens &in, long count) {
  T2F_LOOP_ENTRY;
  sink<II>(in, count);
}

// (count, ii) of each phase, ii one of 1, 2, 3 and 7.
static void write_phases(Tokens &out, Arguments a, long phases) {
  for (long i = 0; i < phases; ++i) {
    const long count = a[2 * i];
    switch (a[2 * i + 1]) {
      case 1: write_phase<1>(out, count); break;
      case 2: write_phase<2>(out, count); break;
      case 3: write_phase<3>(out, count); break;
      default: write_phase<7>(out, count); break;
    }
  }
}

static void read_phases(Tokens &in, Arguments a, long phases) {
  for (long i = 0; i < phases; ++i) {
    const long count = a[2 * i];
    switch (a[2 * i + 1]) {
      case 1: read_phase<1>(in, count); break;
      case 2: read_phase<2>(in, count); break;
      case 3: read_phase<3>(in, count); break;
      default: read_phase<7>(in, count); break;
    }
  }
}

// reader_first, phases of the writer, of the reader, then their (count, ii).
static void phases(Arguments a) {
  hls::stream<long, 2> x("x");
  const Arguments writes = a + 3;
  const Arguments reads = writes + 2 * a[1];
  if (a[0] != 0) {
    T2F_PROCESS("sink", read_phases(x, reads, a[2]));
    T2F_PROCESS("source", write_phases(x, writes, a[1]));
  } else {
    T2F_PROCESS("source", write_phases(x, writes, a[1]));
    T2F_PROCESS("sink", read_phases(x, reads, a[2]));
  }
  T2F_DATAFLOW_END;
}

// --- a region inside of a process ------------------------------------------------------

static void inner(Tokens &in, Tokens &out, long count) {
  hls::stream<long, 2> mid("mid");
  T2F_PROCESS("left", relay(in, mid, count));
  T2F_PROCESS("right", relay(mid, out, count));
  T2F_DATAFLOW_END;
}

static void nested(Arguments a) {
  hls::stream<long, 2> x("x");
  hls::stream<long, 2> y("y");
  T2F_PROCESS("source", source(x, a[0]));
  T2F_PROCESS("inner", inner(x, y, a[0]));
  T2F_PROCESS("sink", sink(y, a[0]));
  T2F_DATAFLOW_END;
}

// A stream that is polled while one of its tokens is being used.
static void polled(Arguments a) {
  hls::stream<long, 4> x("x");
  hls::stream<long, 4> y("y");
  T2F_PROCESS("source", source(x, a[0]));
  T2F_PROCESS("poll", {
    for (long i = 0; i < a[0]; ++i) {
      T2F_PIPELINE(1);
      const long token = x.read();
      long next = -1;
      if (i == a[0] - 1 && x.read_nb(next)) throw std::runtime_error("a token that was read is there again");
      y.write(token);
    }
  });
  T2F_PROCESS("sink", sink(y, a[0]));
  T2F_DATAFLOW_END;
}

// --- memory ------------------------------------------------------------------------------

// a[0] entries of a[1] lines each, a[2] lines from one line to the next.
static void fetch(const line *memory, Tokens &out, long loops, long count, long stride) {
  for (long e = 0; e < loops; ++e) {
    T2F_LOOP_ENTRY;
  FETCH:
    for (long i = 0; i < count; ++i) {
      T2F_PIPELINE(1);
      out.write(T2F_MEMORY(memory, i * stride).d[0]);
    }
  }
}

static void reads(Arguments a) {
  hls::stream<long, 2> x("x");
  for (std::size_t i = 0; i < read_memory.size(); ++i) read_memory[i].d[0] = static_cast<long>(i);
  T2F_PROCESS("fetch", fetch(read_memory.data(), x, a[0], a[1], a[2]));
  T2F_PROCESS("sink", sink(x, a[0] * a[1]));
  T2F_DATAFLOW_END;
}

// A reader that takes nothing for a while: the port reads ahead meanwhile.
static void late_sink(Tokens &in, long wait, long count) {
  empty_loop<1>(wait);
  sink(in, count);
}

static void reads_late(Arguments a) {
  hls::stream<long, 2> x("x");
  T2F_PROCESS("fetch", fetch(read_memory.data(), x, 1, a[0], 1));
  T2F_PROCESS("sink", late_sink(x, a[1], a[0]));
  T2F_DATAFLOW_END;
}

static void store(line *memory, long loops, long count) {
  for (long e = 0; e < loops; ++e) {
    T2F_LOOP_ENTRY;
  STORE:
    for (long i = 0; i < count; ++i) {
      T2F_PIPELINE(1);
      T2F_MEMORY(memory, i) = line{{i, 0, 0, 0, 0, 0, 0, 0}};
    }
  }
}

static void writes(Arguments a) {
  T2F_PROCESS("store", store(written_memory.data(), a[0], a[1]));
  T2F_DATAFLOW_END;
  for (long i = 0; i < a[1]; ++i) kept.push_back(written_memory[static_cast<std::size_t>(i)].d[0]);
}

const std::map<std::string, void (*)(Arguments)> &cases() {
  static const std::map<std::string, void (*)(Arguments)> all = {
      {"alone", alone},
      {"alone_slow", alone_slow},
      {"chain", chain<1>},
      {"chain_slow", chain<3>},
      {"pair1", pair<1>},
      {"pair2", pair<2>},
      {"pair16", pair<16>},
      {"rows", rows},
      {"entries", entries},
      {"together", together},
      {"write_between", write_between},
      {"phases", phases},
      {"nested", nested},
      {"polled", polled},
      {"reads", reads},
      {"reads_late", reads_late},
      {"writes", writes},
  };
  return all;
}
