// SPDX-License-Identifier: Apache-2.0
//
// C interface of a design's card library: its kernels, compiled by g++, as they behave on a card.
// Written by emit/card.py for each design; used by the bridge (bridge.cpp).
//
// Kernels are started one by one, in any order; one that is started waits on its streams until its
// neighbours are. What is left in a stream between launches stays there. All calls on one card come
// from one thread.
#ifndef T2F_CARD_HPP
#define T2F_CARD_HPP

#include <cstdint>

extern "C" {

enum { T2F_CARD_MEMORY = 0, T2F_CARD_STREAM = 1, T2F_CARD_NUMBER = 2 };

struct t2f_card_argument {
  const char *name;
  int kind;
  int write;           // memory and streams: does the kernel write it?
  int port;            // memory: number in manifest order, else -1
  int shares;          // memory: port that has the same buffer (the other side of a cache), else -1
  std::uint64_t bytes; // memory: at the compiled maximum; numbers: size
};

struct t2f_card_kernel {
  const char *name;
  int count;
  const struct t2f_card_argument *arguments;
};

struct t2f_card_design {
  const char *name;
  int ports;  // memory ports of all kernels
  int count;
  const struct t2f_card_kernel *kernels;
};

// `bytes` may be touched from `data` on, and no byte of the `beyond` bytes after them (whole pages that
// the operating system guards).
struct t2f_card_memory {
  void *data;
  std::uint64_t bytes;
  std::uint64_t beyond;
};

const struct t2f_card_design *t2f_card_describe(void);

void *t2f_card_new(void);
void t2f_card_free(void *card);

// Starts a kernel with its memory arguments and numbers, each in the order of its arguments. Texts
// returned here and below are empty where nothing is wrong, and stay until the next call.
const char *t2f_card_start(void *card, int kernel, const struct t2f_card_memory *memory,
                           const int *numbers);

// Runs until nothing can go on. The text says what failed: then nothing goes on any more.
const char *t2f_card_advance(void *card);

// Is the kernel started, and not through?
int t2f_card_busy(void *card, int kernel);

// Who waits for what.
const char *t2f_card_waits(void *card);

}  // extern "C"

#endif
