// SPDX-License-Identifier: Apache-2.0
// Generation of tokens: a text whose keys and values lie in the caches of the device.
#ifndef HOST_SESSION_HPP
#define HOST_SESSION_HPP

#include <cstdint>
#include <functional>
#include <vector>

#include "launch.hpp"
#include "options.hpp"

namespace host {

// What generate was asked for, checked.
struct Request {
  std::vector<int> prompt;
  std::vector<int> ends;
  int count;  // tokens behind the prompt
  int step;   // tokens a launch
  int top_k;
  double temperature;
  std::uint64_t seed;
};

// Throws Usage with everything that is wrong.
Request request(const Options &options, const std::vector<int> &prompt);

class Session {
 public:
  Session(Memory &memory, Launcher &launcher);

  // Starts a text: nothing is in the caches, tokens are chosen as the request says.
  void begin(const Request &asked);

  // Rows of the text, and `turns` tokens behind them, which stay valid until the next launch.
  const std::int32_t *launch(const int *ids, int rows, int turns);

  int past() const { return past_; }

 private:
  Memory &memory_;
  Buffer &ids_;
  Buffer &settings_;
  Buffer &tokens_;
  Launcher &launcher_;
  Bytes fetched_;  // tokens, the first time
  int past_ = 0;
};

// Takes the tokens of a launch.
using Tokens = std::function<void(const std::int32_t *tokens, int count)>;

// The whole request; calls `take` after each launch of new tokens. Gives the number of tokens, an end
// included.
int generate(Session &session, const Request &asked, const Tokens &take);

}  // namespace host

#endif
