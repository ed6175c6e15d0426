// SPDX-License-Identifier: Apache-2.0
//
// The three statements a dataflow region and a pipelined loop are written with.
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
// leave the plain calls that canonical dataflow form asks for. Under T2F_SIM each
// process becomes a fiber of the running scheduler (see t2f_sim.hpp).
#ifndef T2F_DATAFLOW_HPP
#define T2F_DATAFLOW_HPP

#if defined(T2F_SIM) && !defined(__SYNTHESIS__)

#include "t2f_sim.hpp"

// The call's arguments are evaluated in the new fiber, which starts at once, so
// they mean what they mean in a plain call (a loop index is read before it moves).
#define T2F_PROCESS(name, ...) ::t2f::sim::process(name, [&]() { __VA_ARGS__; })

// The streams of a region are locals of its function: it must not return before
// its processes have.
#define T2F_DATAFLOW_END ::t2f::sim::join()

#define T2F_PIPELINE(ii) ::t2f::sim::tick(ii)

#else

#define T2F_PROCESS(name, ...) __VA_ARGS__
#define T2F_DATAFLOW_END

#ifdef __SYNTHESIS__
#define T2F_PRAGMA(text) _Pragma(#text)
// The literal is put into the pragma's text, so it must be spelled as a number.
#define T2F_PIPELINE(ii) T2F_PRAGMA(HLS pipeline II=ii style=flp)
#else
#define T2F_PIPELINE(ii)
#endif

#endif

#endif
