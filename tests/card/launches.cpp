// SPDX-License-Identifier: Apache-2.0
// Kernels launched one by one on one scheduler (t2f_launch.hpp): prints what came of each step.
#include <sys/mman.h>

#include <iostream>
#include <string>

#include "hls_stream.h"

namespace {

struct Gone {
  ~Gone() { std::cout << "unwound\n"; }
};

void put(hls::stream<int> &out, int from, int to) {
  for (int i = from; i < to; ++i) out.write(i);
}

void take(hls::stream<int> &in, int count) {
  const Gone gone;
  for (int i = 0; i < count; ++i) {
    const int token = in.read();
    std::cout << "took " << token << "\n";
  }
}

void show(t2f::sim::Scheduler &scheduler, const char *what) {
  const t2f::sim::Status status = scheduler.advance();
  std::cout << what << ": " << (scheduler.busy("writer") ? "writer busy, " : "writer free, ")
            << (scheduler.busy("reader") ? "reader busy" : "reader free") << " " << status.message << "\n";
}

template <typename Call>
void refused(Call call) {
  try {
    call();
  } catch (const std::exception &error) {
    std::cout << "refused: " << error.what() << "\n";
  }
}

void streams() {
  t2f::sim::Scheduler scheduler;
  t2f::sim::Scheduler::Scope scope(scheduler);
  hls::stream<int, 3> link("link");
  show(scheduler, "nothing");
  scheduler.launch("writer", [&] { put(link, 0, 5); });
  show(scheduler, "full");  // 3 of 5 tokens fit
  std::cout << scheduler.waits() << "\n";
  refused([&] { scheduler.launch("writer", [] {}); });
  scheduler.launch("reader", [&] { take(link, 3); });
  show(scheduler, "3 of 5");  // 2 stay
  scheduler.launch("reader", [&] { take(link, 4); });
  show(scheduler, "2 of 4");
  scheduler.launch("writer", [&] { put(link, 5, 7); });
  show(scheduler, "all");
  scheduler.launch("reader", [&] { take(link, 1); });
  show(scheduler, "waits");
  scheduler.stop();
  std::cout << "stopped\n";
}

void failures() {
  const std::size_t page = 4096;
  auto *memory = static_cast<unsigned char *>(
      mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(memory + page, page, PROT_NONE);
  t2f::sim::Scheduler scheduler;
  t2f::sim::Scheduler::Scope scope(scheduler);
  hls::stream<int, 2> link("link");
  scheduler.fence(memory + page, page, "reads beyond it");
  scheduler.launch("reader", [&] { take(link, 1); });
  show(scheduler, "waits");
  scheduler.launch("writer", [&] {
    volatile unsigned char *bytes = memory;
    link.write(bytes[page - 1]);
    link.write(bytes[page]);
  });
  show(scheduler, "fenced");
  refused([&] { scheduler.launch("writer", [] {}); });
}

}  // namespace

int main() {
  streams();
  failures();
}
