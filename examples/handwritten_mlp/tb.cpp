// SPDX-License-Identifier: Apache-2.0
// Test bench: runs the kernel on the files that generate.py wrote and compares every output byte.
//
//   tb FOLDER BATCH SEQ
//
// With -DT2F_SIM the processes run as fibers on bounded streams, so that a FIFO that is too short
// shows as a deadlock. Without it they run one after the other, as C simulation does.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kernels/handwritten_mlp_config.hpp"

extern "C" void handwritten_mlp(const t2f::word *input, const t2f::word *hidden_weights,
                                const t2f::word *hidden_params, const t2f::word *scores_weights,
                                const t2f::word *scores_params, t2f::word *output, int batch,
                                int seq);

namespace {
// std::vector aligns its memory for t2f::word, which is aligned to 64 bytes.
std::vector<t2f::word> load(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  if (!file || bytes.empty() || bytes.size() % sizeof(t2f::word) != 0) {
    std::fprintf(stderr, "%s: missing, or no whole number of 64-byte words\n", path.c_str());
    std::exit(2);
  }
  std::vector<t2f::word> words(bytes.size() / sizeof(t2f::word));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    words[i / 64].d[i % 64] = static_cast<int8_t>(bytes[i]);
  }
  return words;
}

std::string run(const std::string &folder, std::vector<t2f::word> &output, int batch, int seq) {
  const auto input = load(folder + "/input.bin");
  const auto w1 = load(folder + "/hidden_weights.bin");
  const auto p1 = load(folder + "/hidden_params.bin");
  const auto w2 = load(folder + "/scores_weights.bin");
  const auto p2 = load(folder + "/scores_params.bin");
  const auto launch = [&] {
    handwritten_mlp(input.data(), w1.data(), p1.data(), w2.data(), p2.data(), output.data(), batch,
                    seq);
  };
#ifdef T2F_SIM
  t2f::sim::Scheduler scheduler;
  scheduler.kernel("handwritten_mlp", launch);
  return scheduler.run().message;
#else
  launch();
  return "";
#endif
}
}  // namespace

int main(int argc, char **argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s FOLDER BATCH SEQ\n", argv[0]);
    return 2;
  }
  const std::string folder = argv[1];
  const int batch = std::atoi(argv[2]);
  const int seq = std::atoi(argv[3]);
  if (batch < 1 || batch > Mlp::max_batch || seq < 1 || seq > Mlp::max_seq) {
    std::fprintf(stderr, "at most %d x %d rows\n", Mlp::max_batch, Mlp::max_seq);
    return 2;
  }
  const std::vector<t2f::word> golden = load(folder + "/golden.bin");
  std::vector<t2f::word> output(golden.size());
  const std::string problem = run(folder, output, batch, seq);
  if (!problem.empty()) {
    std::fprintf(stderr, "%s\n", problem.c_str());
    return 1;
  }
  long wrong = 0;
  for (std::size_t i = 0; i < golden.size() * 64; ++i) {
    wrong += golden[i / 64].d[i % 64] != output[i / 64].d[i % 64] ? 1 : 0;
  }
  std::printf("%s: %ld of %zu bytes differ\n", wrong == 0 ? "PASS" : "FAIL", wrong, golden.size() * 64);
  return wrong == 0 ? 0 : 1;
}
