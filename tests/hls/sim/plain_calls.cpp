// SPDX-License-Identifier: Apache-2.0
//
// The macros outside of our simulation: T2F_PROCESS must leave a plain call, which the
// side effect on a local shows, and the streams must work in sequence.
#include <cstdio>

#include "hls_stream.h"
#include "t2f/dataflow.hpp"

#define TEXT_OF(...) #__VA_ARGS__
#define TEXT(...) TEXT_OF(__VA_ARGS__)

static void produce(hls::stream<int> &out, int count) {
  for (int i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    out.write(i);
  }
}

static int consume(hls::stream<int> &in, int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) {
    T2F_PIPELINE(2);
    sum += in.read();
  }
  return sum;
}

int main() {
  hls::stream<int, 4> mid("mid");
  int sum = 0;
  T2F_PROCESS("produce", produce(mid, 100));
  T2F_PROCESS("consume", sum = consume(mid, 100));
  T2F_DATAFLOW_END;
  std::printf("%d\n", sum);
  std::printf("[%s] [%s]\n", TEXT(T2F_PROCESS("name", call(a, b))), TEXT(T2F_DATAFLOW_END));
  return 0;
}
