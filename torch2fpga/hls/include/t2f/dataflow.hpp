// SPDX-License-Identifier: Apache-2.0
//
// The statements that a dataflow region, a pipelined loop and a memory access are
// written with.
//
//   void top(hls::stream<word> &in, hls::stream<word> &out) {
//   #pragma HLS dataflow
//     hls::stream<word, 16> mid("mid");
//     T2F_PROCESS("scale", scale(in, mid));
//     T2F_PROCESS("store", store(mid, out));
//     T2F_DATAFLOW_END;
//   }
//
// For synthesis, and for C simulation with a vendor's own stream header, they
// leave the plain calls, pragmas and subscripts that the tools ask for. Under T2F_SIM
// each process becomes a fiber of the running scheduler (see t2f_sim.hpp); under
// T2F_TIMED it also has a clock, which these statements move (see t2f_clock.hpp).
//
// What the clock, and the checker that derives intervals and depths, take for granted:
//   - T2F_PIPELINE is the first statement of the loop that is pipelined.
//   - A pipelined loop is one loop, or a perfect nest with constant inner bounds (what
//     the tools flatten). An outer loop that enters one and the same pipelined loop
//     again says T2F_LOOP_ENTRY in front of it.
//   - Streams and memory are accessed in pipelined loops only.
//   - What one process writes and another one reads is there for the reader from the writer's
//     T2F_WRITTEN(memory) on, in front of the token that tells it so. On the card that is where the
//     writer has the answers to its writes, which it awaits when it leaves the loop around them.
#ifndef T2F_DATAFLOW_HPP
#define T2F_DATAFLOW_HPP

#if defined(T2F_ANALYSIS)

// For the checker's parser only: the statements stay visible in the syntax tree.
void t2f_process(const char *name);
void t2f_pipeline(int ii);
void t2f_loop_entry();
#define T2F_PROCESS(name, ...) (t2f_process(name), __VA_ARGS__)
#define T2F_DATAFLOW_END
#define T2F_PIPELINE(ii) t2f_pipeline(ii)
#define T2F_LOOP_ENTRY t2f_loop_entry()
#define T2F_MEMORY(pointer, index) (pointer)[index]
#define T2F_WRITTEN(pointer)

#elif defined(T2F_SIM) && !defined(__SYNTHESIS__)

#include "t2f_sim.hpp"

// The call's arguments are evaluated in the new fiber, which starts at once, so
// they mean what they mean in a plain call (a loop index is read before it moves).
#define T2F_PROCESS(name, ...) ::t2f::sim::process(name, [&]() { __VA_ARGS__; })

// The streams of a region are locals of its function: it must not return before
// its processes have.
#define T2F_DATAFLOW_END ::t2f::sim::join()

// What was written so far becomes visible to readers of the same memory.
#define T2F_WRITTEN(pointer) ::t2f::sim::written(pointer)

#ifdef T2F_TIMED
// The site is an object of its own for each loop (and each instance of its template).
#define T2F_PIPELINE(ii)                                                           \
  do {                                                                             \
    static constexpr ::t2f::sim::Site t2f_site{__FILE__, __LINE__, ii};            \
    ::t2f::sim::tick(t2f_site);                                                    \
  } while (false)
#define T2F_LOOP_ENTRY ::t2f::sim::loop_entry()
#define T2F_MEMORY(pointer, index) (*::t2f::sim::access((pointer) + (index)))
#else
#define T2F_PIPELINE(ii)
#define T2F_LOOP_ENTRY
#define T2F_MEMORY(pointer, index) (pointer)[index]
#endif

#else

#define T2F_PROCESS(name, ...) __VA_ARGS__
#define T2F_DATAFLOW_END
#define T2F_LOOP_ENTRY
#define T2F_MEMORY(pointer, index) (pointer)[index]
#define T2F_WRITTEN(pointer)

#ifdef __SYNTHESIS__
#define T2F_PRAGMA(text) _Pragma(#text)
// The literal is put into the pragma's text, so it must be spelled as a number.
#define T2F_PIPELINE(ii) T2F_PRAGMA(HLS pipeline II=ii style=flp)
#else
#define T2F_PIPELINE(ii)
#endif

#endif

#endif
