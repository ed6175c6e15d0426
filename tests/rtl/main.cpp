// SPDX-License-Identifier: Apache-2.0
// Runs a Verilated test bench (class bench) until it finishes, or for as many cycles as it is told.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "bench.h"
#include "verilated.h"

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  const long limit = std::atol(argv[1]);
  const auto context = std::make_unique<VerilatedContext>();
  const auto top = std::make_unique<bench>(context.get());
  // Each turn is one cycle, which the rising edge ends; number 0 is the first without reset.
  for (long cycle = -2; cycle < limit && !context->gotFinish(); ++cycle) {
    top->clk = 0;
    top->rst = cycle < 0;
    top->eval();
    top->clk = 1;
    top->eval();
  }
  top->final();
  if (context->gotFinish()) return 0;
  std::fprintf(stderr, "not finished after %ld cycles\n", limit);
  return 1;
}
