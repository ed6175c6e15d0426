// SPDX-License-Identifier: Apache-2.0
//
// Small dataflow designs for tests/hls/test_sim_runtime.py. Each argument names a
// case; for each the status of its run is printed, then what the case adds.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>

#include "hls_stream.h"
#include "t2f/dataflow.hpp"

using t2f::sim::Scheduler;
using t2f::sim::Status;

struct alignas(16) token {
  std::int32_t lane[4];
};

static token make(int value) { return token{{value, value + 1, value + 2, value + 3}}; }

static void produce(hls::stream<token> &out, int count) {
  for (int i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    out.write(make(i));
  }
}

static void expect(hls::stream<token> &in, int count) {
  for (int i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    const token got = in.read();
    const token want = make(i);
    if (std::memcmp(&got, &want, sizeof got) != 0) throw std::runtime_error("out of order");
  }
}

static void forward(hls::stream<token> &in, hls::stream<token> &out, int count) {
  for (int i = 0; i < count; ++i) out << in.read();
}

static void show(const Status &status) {
  std::printf("%s\n%s\n", status.ok ? "ok" : "failed", status.message.c_str());
}

static void run(const std::function<void()> &body) {
  Scheduler scheduler;
  scheduler.kernel("k", body);
  show(scheduler.run());
  for (const auto &[key, use] : scheduler.streams()) {
    std::printf("use %s depth %d high %d written %d read %d by %s to %s\n", key.c_str(),
                int(use.depth), int(use.high_water), int(use.written), int(use.read),
                use.writer.c_str(), use.reader.c_str());
  }
}

static void order() {
  run([] {
    hls::stream<token, 7> a("a");
    hls::stream<token> b("b");
    T2F_PROCESS("produce", produce(a, 5000));
    T2F_PROCESS("forward", forward(a, b, 5000));
    T2F_PROCESS("expect", expect(b, 5000));
    T2F_DATAFLOW_END;
  });
}

// Works as a normalisation does: nothing leaves before a whole row has come in.
static void row_stage(hls::stream<token> &in, hls::stream<token> &out, int rows, int row) {
  auto held = std::make_unique<token[]>(static_cast<std::size_t>(row));
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < row; ++i) held[static_cast<std::size_t>(i)] = in.read();
    for (int i = 0; i < row; ++i) out.write(held[static_cast<std::size_t>(i)]);
  }
}

static void split(hls::stream<token> &layer, hls::stream<token> &bypass, int count) {
  for (int i = 0; i < count; ++i) {
    layer.write(make(i));
    bypass.write(make(i));
  }
}

static void add(hls::stream<token> &layer, hls::stream<token> &bypass, int count) {
  for (int i = 0; i < count; ++i) {
    const int a = layer.read().lane[0];
    const int b = bypass.read().lane[0];
    if (a != i || b != i) throw std::runtime_error("out of order");
  }
}

template <int DEPTH>
static void residual() {
  run([] {
    hls::stream<token> to_layer("to_layer");
    hls::stream<token> from_layer("from_layer");
    hls::stream<token, DEPTH> bypass("bypass");
    T2F_PROCESS("split", split(to_layer, bypass, 3 * 768));
    T2F_PROCESS("layer", row_stage(to_layer, from_layer, 3, 768));
    T2F_PROCESS("add", add(from_layer, bypass, 3 * 768));
    T2F_DATAFLOW_END;
  });
}

static void crossed() {
  const auto exchange = [](hls::stream<token> &in, hls::stream<token> &out) {
    out.write(make(0));
    in.read();
    in.read();  // after one token each way, both wait for the other
    out.write(make(1));
  };
  run([&] {
    hls::stream<token> ab("ab");
    hls::stream<token> ba("ba");
    T2F_PROCESS("a", exchange(ba, ab));
    T2F_PROCESS("b", exchange(ab, ba));
    T2F_DATAFLOW_END;
  });
}

static void thrown() {
  run([] {
    hls::stream<token> s("s");
    T2F_PROCESS("produce", produce(s, 100));
    T2F_PROCESS("broken", {
      for (int i = 0; i < 10; ++i) s.read();
      try {
        throw std::runtime_error("inner");
      } catch (const std::runtime_error &) {
      }
      throw std::out_of_range("row 10 of 10");
    });
    T2F_DATAFLOW_END;
  });
}

static int destroyed = 0;

// Blocked processes of a failed run are unwound, those of nested regions too.
static void unwound() {
  struct guard {
    ~guard() { ++destroyed; }
  };
  Scheduler scheduler;
  const auto wait = [](hls::stream<token> &in) {
    guard g;
    in.read();
  };
  scheduler.kernel("first", [&] {
    guard g;
    hls::stream<token> s("s");
    T2F_PROCESS("outer", {
      guard o;
      hls::stream<token> t("t");
      T2F_PROCESS("inner", wait(t));
      T2F_DATAFLOW_END;
    });
    T2F_PROCESS("wait", wait(s));
    T2F_DATAFLOW_END;
  });
  show(scheduler.run());
  std::printf("destroyed %d\n", destroyed);
}

static void unread() {
  run([] {
    hls::stream<token, 8> s("s");
    T2F_PROCESS("produce", produce(s, 10));
    T2F_PROCESS("expect", expect(s, 7));
    T2F_DATAFLOW_END;
  });
}

static void two_readers() {
  run([] {
    hls::stream<token> s("s");
    T2F_PROCESS("produce", produce(s, 10));
    T2F_PROCESS("left", expect(s, 5));
    T2F_PROCESS("right", expect(s, 5));
    T2F_DATAFLOW_END;
  });
}

static void two_writers() {
  run([] {
    hls::stream<token, 8> s("s");
    T2F_PROCESS("left", produce(s, 3));
    T2F_PROCESS("right", produce(s, 3));
    T2F_PROCESS("read", expect(s, 6));
    T2F_DATAFLOW_END;
  });
}

// A process that enters a region of its own several times; loop indices and locals
// must be those of the statement, and the streams must outlive their users.
static void inner_region(hls::stream<token> &in, hls::stream<token> &out, int count) {
  hls::stream<token, 3> mid[4];
  std::array<int, 4> seen{};
  T2F_PROCESS("first", forward(in, mid[0], count));
  for (int i = 0; i < 3; ++i) {
    T2F_PROCESS("lane", {
      const int lane = i;
      forward(mid[lane], mid[lane + 1], count);
      seen[static_cast<std::size_t>(lane)] = lane + 1;
    });
  }
  T2F_PROCESS("last", forward(mid[3], out, count));
  T2F_DATAFLOW_END;
  if (seen != std::array<int, 4>{1, 2, 3, 0}) throw std::runtime_error("lanes mixed up");
}

static void nested() {
  run([] {
    hls::stream<token> a("a");
    hls::stream<token> b("b");
    T2F_PROCESS("produce", produce(a, 300));
    T2F_PROCESS("stage", {
      for (int pass = 0; pass < 3; ++pass) inner_region(a, b, 100);
    });
    T2F_PROCESS("expect", expect(b, 300));
    T2F_DATAFLOW_END;
  });
}

static void no_join() {
  run([] {
    hls::stream<token> s("s");
    T2F_PROCESS("produce", produce(s, 10));
    T2F_PROCESS("expect", expect(s, 20));
  });
}

static void two_kernels() {
  Scheduler scheduler;
  scheduler.recorder().enable();
  Scheduler::Scope scope(scheduler);
  hls::stream<token, 4> link("ab");
  scheduler.kernel("a", [&] {
    hls::stream<token> s("s");
    T2F_PROCESS("produce", produce(s, 5));
    T2F_PROCESS("send", forward(s, link, 5));
    T2F_DATAFLOW_END;
  });
  scheduler.kernel("b", [&] { expect(link, 5); });
  show(scheduler.run());
  for (const std::string &key : scheduler.recorder().keys()) {
    const t2f::sim::Tap *tap = scheduler.recorder().find(key);
    std::printf("tap %s size %d bytes", key.c_str(), int(tap->token_size));
    for (std::size_t i = 0; i < tap->bytes.size(); i += 4) {
      std::int32_t lane = 0;
      std::memcpy(&lane, tap->bytes.data() + i, sizeof lane);
      std::printf(" %d", int(lane));
    }
    std::printf("\n");
  }
}

static void same_tap() {
  Scheduler scheduler;
  scheduler.recorder().enable();
  scheduler.kernel("k", [] {
    hls::stream<token> first("s");
    hls::stream<token> second("s");
  });
  show(scheduler.run());
}

static void unread_link() {
  Scheduler scheduler;
  Scheduler::Scope scope(scheduler);
  hls::stream<token, 4> link("ab");
  produce(link, 9);  // before the run a link takes any number
  scheduler.kernel("b", [&] { expect(link, 8); });
  show(scheduler.run());
  std::printf("left %d\n", int(link.read().lane[0]));
}

static void polling() {
  run([] {
    hls::stream<token> s("s");
    hls::stream<token> t("t");
    T2F_PROCESS("try", {
      for (int i = 0; i < 1000;) {
        if (s.write_nb(make(i))) ++i;
      }
    });
    T2F_PROCESS("move", {
      token held{};
      for (int i = 0; i < 1000; ++i) {
        while (s.empty()) {
        }
        while (!s.read_nb(held) || t.full()) {
        }
        t.write(held);
      }
    });
    T2F_PROCESS("expect", expect(t, 1000));
    T2F_DATAFLOW_END;
  });
}

static void poll_forever() {
  run([] {
    hls::stream<token> s("s");
    T2F_PROCESS("poll", {
      while (s.empty()) {
      }
    });
    T2F_DATAFLOW_END;
  });
}

// Without a scheduler processes run one after the other and streams take everything.
static void sequential() {
  hls::stream<token> a("a");
  hls::stream<token, 4> b("b");
  T2F_PROCESS("produce", produce(a, 1000));
  T2F_PROCESS("forward", forward(a, b, 1000));
  T2F_PROCESS("expect", expect(b, 999));
  T2F_DATAFLOW_END;
  token last{};
  std::printf("full %d left %d\n", int(b.full()), int(b.size()));
  b >> last;
  std::printf("last %d high %d again %d\n", int(last.lane[0]), int(b.high_water()),
              int(b.read_nb(last)));
  try {
    b.read();
  } catch (const std::runtime_error &error) {
    std::printf("%s\n", error.what());
  }
}

// Tokens that own memory move through the ring, and are freed when left in it.
static void owning() {
  run([] {
    hls::stream<std::string, 100> s("s");
    T2F_PROCESS("write", {
      for (int i = 0; i < 300; ++i) s.write("a token longer than the small buffer " + std::to_string(i));
    });
    T2F_PROCESS("read", {
      for (int i = 0; i < 290; ++i) {
        if (s.read().find(std::to_string(i)) == std::string::npos) throw std::runtime_error("lost");
      }
    });
    T2F_DATAFLOW_END;
  });
}

// A process may keep megabytes on its stack.
static void big_locals() {
  run([] {
    hls::stream<token> s("s");
    T2F_PROCESS("produce", produce(s, 4));
    T2F_PROCESS("big", {
      std::int32_t table[4 << 20];
      for (int i = 0; i < 4; ++i) table[i << 20] = s.read().lane[0];
      if (table[3 << 20] != 3) throw std::runtime_error("lost");
    });
    T2F_DATAFLOW_END;
  });
}

int main(int argc, char **argv) {
  const std::map<std::string, void (*)()> cases = {
      {"order", order},
      {"residual_512", residual<512>},
      {"residual_768", residual<768>},
      {"crossed", crossed},
      {"thrown", thrown},
      {"unwound", unwound},
      {"unread", unread},
      {"two_readers", two_readers},
      {"two_writers", two_writers},
      {"nested", nested},
      {"no_join", no_join},
      {"two_kernels", two_kernels},
      {"same_tap", same_tap},
      {"unread_link", unread_link},
      {"polling", polling},
      {"poll_forever", poll_forever},
      {"sequential", sequential},
      {"owning", owning},
      {"big_locals", big_locals},
  };
  for (int i = 1; i < argc; ++i) {
    std::printf("case %s\n", argv[i]);
    cases.at(argv[i])();
  }
  return 0;
}
