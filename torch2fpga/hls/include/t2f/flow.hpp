// SPDX-License-Identifier: Apache-2.0
// Where data goes: forks, the layer loop, row selection, channel slices, joins of
// channels.  Nothing here computes.  Cycles: one token a cycle.
#ifndef T2F_FLOW_HPP
#define T2F_FLOW_HPP

#include "t2f/core.hpp"

namespace t2f {

// Every token to each output (a stream has one reader).
template <typename C>
void fork(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y0,
          hls::stream<typename C::token_t> &y1, int batch, int seq) {
#pragma HLS inline off
  const int tokens = C::steps * batch * seq * C::blocks;
FORK:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    y0.write(v);
    y1.write(v);
  }
}

template <typename C>
void fork(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y0,
          hls::stream<typename C::token_t> &y1, hls::stream<typename C::token_t> &y2, int batch,
          int seq) {
#pragma HLS inline off
  const int tokens = C::steps * batch * seq * C::blocks;
FORK:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    y0.write(v);
    y1.write(v);
    y2.write(v);
  }
}

// A token stream through a FIFO: the near end of a stream between two kernels.
template <typename C>
void relay(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y, int batch,
           int seq) {
#pragma HLS inline off
  const int tokens = C::uses * batch * seq * C::blocks;
RELAY:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    y.write(x.read());
  }
}

// The layer loop opens: the first step takes `first`, later steps what came back.
template <typename C>
void loop_enter(hls::stream<typename C::token_t> &first, hls::stream<typename C::token_t> &back,
                hls::stream<typename C::token_t> &y, int batch, int seq) {
#pragma HLS inline off
  const int tokens = batch * seq * C::blocks;
STEP:
  for (int step = 0; step < C::steps; ++step) {
  PASS:
    for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
      T2F_PIPELINE(1);
      if (step == 0) {
        y.write(first.read());
      } else {
        y.write(back.read());
      }
    }
  }
}

// The layer loop closes: every step but the last goes back, the last goes on.
template <typename C>
void loop_exit(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &back,
               hls::stream<typename C::token_t> &y, int batch, int seq) {
#pragma HLS inline off
  const int tokens = batch * seq * C::blocks;
STEP:
  for (int step = 0; step < C::steps; ++step) {
  PASS:
    for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
      T2F_PIPELINE(1);
      const typename C::token_t v = x.read();
      if (step + 1 < C::steps) {
        back.write(v);
      } else {
        y.write(v);
      }
    }
  }
}

// A format that only the next layer wants: the last step's tokens are dropped.
template <typename C>
void loop_back(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &back,
               int batch, int seq) {
#pragma HLS inline off
  const int tokens = batch * seq * C::blocks;
STEP:
  for (int step = 0; step < C::steps; ++step) {
  PASS:
    for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
      T2F_PIPELINE(1);
      const typename C::token_t v = x.read();
      if (step + 1 < C::steps) back.write(v);
    }
  }
}

// A format that only the code behind the loop wants: all but the last step dropped.
template <typename C>
void loop_last(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y, int batch,
               int seq) {
#pragma HLS inline off
  const int tokens = batch * seq * C::blocks;
STEP:
  for (int step = 0; step < C::steps; ++step) {
  PASS:
    for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
      T2F_PIPELINE(1);
      const typename C::token_t v = x.read();
      if (step + 1 == C::steps) y.write(v);
    }
  }
}

// Row C::row of every sequence; the output has one row a sequence.
template <typename C>
void select_row(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y, int batch,
                int seq) {
#pragma HLS inline off
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      BLOCK:
        for (int block = 0; block < C::blocks; ++block) {
        ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            const typename C::token_t v = x.read();
            if (first + t == C::row) y.write(v);
          }
        }
      }
    }
  }
}

// Channels [start, start + size): block `start / lanes` onwards, lanes turned by
// start % lanes.  Tiles are read row by row into a small buffer because the turn
// joins neighbouring blocks of one row.
template <typename C>
void slice_channels(hls::stream<vec<typename C::value_t, C::lanes>> &x,
                    hls::stream<vec<typename C::value_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  vec<typename C::value_t, C::lanes> rows[C::in_blocks + 1][C::tile];
#pragma HLS aggregate variable = rows
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      FILL:
        for (int block = 0; block <= C::in_blocks; ++block) {
        FILL_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            rows[block][t] = vec<typename C::value_t, C::lanes>{};
            if (block < C::in_blocks) rows[block][t] = x.read();
          }
        }
      DRAIN:
        for (int block = 0; block < C::out_blocks; ++block) {
        DRAIN_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            constexpr int turn = C::start % C::lanes;
            const int source = C::start / C::lanes + block;
            vec<typename C::value_t, C::lanes> out;
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              const int from = lane + turn;
              const bool next = from >= C::lanes;
              const typename C::value_t value =
                  rows[source + (next ? 1 : 0)][t].d[next ? from - C::lanes : from];
              out.d[lane] = block * C::lanes + lane < C::size ? value : 0;
            }
            y.write(out);
          }
        }
      }
    }
  }
}

// Channels of a, then channels of b.
template <typename C>
void concat_channels(hls::stream<vec<typename C::value_t, C::lanes>> &a,
                     hls::stream<vec<typename C::value_t, C::lanes>> &b,
                     hls::stream<vec<typename C::value_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  vec<typename C::value_t, C::lanes> rows[C::a_blocks + C::b_blocks + 1][C::tile];
#pragma HLS aggregate variable = rows
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int s = 0; s < batch; ++s) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      FILL:
        for (int block = 0; block <= C::a_blocks + C::b_blocks; ++block) {
        FILL_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            rows[block][t] = vec<typename C::value_t, C::lanes>{};
            if (block < C::a_blocks) {
              rows[block][t] = a.read();
            } else if (block < C::a_blocks + C::b_blocks) {
              rows[block][t] = b.read();
            }
          }
        }
      DRAIN:
        for (int block = 0; block < C::out_blocks; ++block) {
        DRAIN_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            vec<typename C::value_t, C::lanes> out;
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              const int channel = block * C::lanes + lane;
              const int in_b = channel - C::a_channels;
              const int at = in_b < 0 ? channel : C::a_blocks * C::lanes + in_b;
              const bool used = channel < C::a_channels + C::b_channels;
              out.d[lane] = used ? rows[at / C::lanes][t].d[at % C::lanes] : 0;
            }
            y.write(out);
          }
        }
      }
    }
  }
}

}  // namespace t2f
#endif
