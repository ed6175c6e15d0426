// SPDX-License-Identifier: Apache-2.0
//
// Transfers per second through one stream between two processes, 64-byte tokens.
//
//   g++ -std=c++17 -O2 -DT2F_SIM -Itorch2fpga/hls/include -Itorch2fpga/hls/sim
//       tests/hls/bench_streams.cpp -o bench_streams && ./bench_streams
//
// With -DT2F_TIMED every process has a clock; `--json [transfers]` prints one JSON object
// instead of lines. A transfer is one write and one read. Processor time, not wall time, so that a
// busy machine disturbs it less; the best of several runs is printed.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "hls_stream.h"
#include "t2f/dataflow.hpp"

struct alignas(64) word {
  std::int32_t lane[16];
};

static void produce(hls::stream<word> &out, int count) {
  word token{};
  for (int i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    token.lane[i & 15] = i;
    out.write(token);
  }
}

static void consume(hls::stream<word> &in, int count, std::int64_t &sum) {
  std::int64_t total = 0;
  for (int i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    const word token = in.read();
    total += token.lane[i & 15];
  }
  sum = total;
}

template <int DEPTH>
static void region(int count, std::int64_t &sum) {
  hls::stream<word, DEPTH> mid("mid");
  T2F_PROCESS("produce", produce(mid, count));
  T2F_PROCESS("consume", consume(mid, count, sum));
  T2F_DATAFLOW_END;
}

static bool json = false;

static void show(int depth, bool record, double rate, long long cycles) {
  static const char *separator = "";
  if (json) {
    std::printf("%s{\"depth\":%d,\"recorded\":%s,\"transfers_per_second\":%.0f", separator, depth,
                record ? "true" : "false", rate);
    if (cycles != 0) std::printf(",\"cycles\":%lld", cycles);
    std::printf("}");
    separator = ",";
  } else {
    std::printf("depth %5d%s: %7.1f M transfers/s\n", depth, record ? ", recorded" : "", rate / 1e6);
  }
}

template <int DEPTH>
static bool measure(int count, bool record) {
  double best = 1e30;
  std::int64_t sum = 0;
  long long cycles = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    t2f::sim::Scheduler scheduler;
    if (record) scheduler.recorder().enable();
    scheduler.kernel("bench", [&] { region<DEPTH>(count, sum); });
    const std::clock_t begin = std::clock();
    const t2f::sim::Status status = scheduler.run();
    const double seconds = double(std::clock() - begin) / CLOCKS_PER_SEC;
    if (!status.ok) {
      std::fprintf(stderr, "%s\n", status.message.c_str());
      return false;
    }
    if (seconds < best) best = seconds;
#ifdef T2F_TIMED
    cycles = static_cast<long long>(scheduler.cycles());
#endif
  }
  if (sum != std::int64_t{count} * (count - 1) / 2) return false;
  show(DEPTH, record, count / best, cycles);
  return true;
}

int main(int argc, char **argv) {
  json = argc > 1 && std::strcmp(argv[1], "--json") == 0;
  const int count = argc > 2 ? std::atoi(argv[2]) : 4'000'000;
#ifdef T2F_TIMED
  const char *timed = "true";
#else
  const char *timed = "false";
#endif
  if (json) std::printf("{\"timed\":%s,\"transfers\":%d,\"streams\":[", timed, count);
  const bool good = measure<1>(count, false) && measure<2>(count, false) &&
                    measure<4>(count, false) && measure<16>(count, false) &&
                    measure<64>(count, false) && measure<512>(count, false) &&
                    measure<4096>(count, false) && measure<16>(count / 8, true);
  if (json) std::printf("]}\n");
  return good ? 0 : 1;
}
