// SPDX-License-Identifier: Apache-2.0
// One AXI master that reads transactions at given addresses as fast as its channel lets it: the
// traffic generator of the vendor's "Using HBM" tutorial, for the memory model of the timed run.
#include <hls_stream.h>

#include "t2f/core.hpp"
#include "t2f_settings.hpp"
#include "t2f_timed_report.hpp"

namespace {

// `starts`: word address of each transaction.
void read(const t2f::word *memory, const long *starts, long transactions, long words,
          hls::stream<t2f::word> &out) {
  long transaction = 0;
  long word = 0;
READ:
  for (long i = 0; i < transactions * words; ++i) {
    T2F_PIPELINE(1);
    out.write(T2F_MEMORY(memory, starts[transaction] + word));
    if (++word == words) {
      word = 0;
      ++transaction;
    }
  }
}

void drain(hls::stream<t2f::word> &in, long words) {
DRAIN:
  for (long i = 0; i < words; ++i) {
    T2F_PIPELINE(1);
    in.read();
  }
}

void top(const t2f::word *memory, const long *starts, long transactions, long words) {
  hls::stream<t2f::word, 2> data("data");
  T2F_PROCESS("read", read(memory, starts, transactions, words, data));
  T2F_PROCESS("drain", drain(data, transactions * words));
  T2F_DATAFLOW_END;
}

}  // namespace

// The report's JSON, or what went wrong behind an exclamation mark; valid until the next call.
extern "C" const char *memory_model(const void *memory, const long *starts, long transactions, long words,
                                    const char *settings) {
  static std::string text;
  t2f::sim::Scheduler scheduler;
  scheduler.timing = t2f::sim::read_settings(settings, &memory, nullptr);
  scheduler.kernel("k", [&] { top(static_cast<const t2f::word *>(memory), starts, transactions, words); });
  const t2f::sim::Status status = scheduler.run();
  text = status.ok ? t2f::sim::TimedReport(scheduler).json() : "!" + status.message;
  return text.c_str();
}
