// SPDX-License-Identifier: Apache-2.0
// Test bench: runs the tests of all <kernel>_tb.cpp that are linked with it.
//
//   tb [--kernels] [name ...]
//
// --kernels leaves out the tests of single stages (for RTL co-simulation, which replaces the
// kernel only); names choose tests. Ends with "N passed, M failed"; the exit status is 0 only if
// every chosen test compared all its tokens and found no difference.
#include <cstdio>
#include <set>
#include <string>

#include <sys/resource.h>

#include "bench.hpp"

namespace {

// Stages keep their arrays as locals, which become memories on the card but lie on the stack
// here: a megabyte or more where a shell gives eight in all. The main thread's stack grows up to
// the soft limit at the time, so raising it here is enough.
void raise_stack_limit() {
  const rlim_t wanted = static_cast<rlim_t>(1) << 30;
  struct rlimit limit;
  if (getrlimit(RLIMIT_STACK, &limit) != 0) return;
  if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= wanted) return;
  const bool free = limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= wanted;
  limit.rlim_cur = free ? wanted : limit.rlim_max;
  if (setrlimit(RLIMIT_STACK, &limit) != 0) {
    std::fprintf(stderr, "the stack limit could not be raised; try: ulimit -s unlimited\n");
  }
}

}  // namespace

int main(int argc, char **argv) {
  raise_stack_limit();
  std::set<std::string> chosen;
  bool stages = true;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--kernels") {
      stages = false;
    } else {
      chosen.insert(argv[i]);
    }
  }
  int passed = 0;
  int failed = 0;
  for (const auto &file : bench::all_tests()) {
    for (const bench::Test &test : file.second) {
      if (!chosen.empty() && chosen.count(test.name) == 0) continue;
      if (!stages && std::string(test.kind) == "stage") continue;
      (bench::passes(test) ? passed : failed) += 1;
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
