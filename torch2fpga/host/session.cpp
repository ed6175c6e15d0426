// SPDX-License-Identifier: Apache-2.0
#include "session.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>

#include "failure.hpp"
#include "settings.hpp"

namespace host {
namespace {

// Tokens a launch where the end of the text is looked for.
constexpr int watched = 16;

std::size_t port(int number) { return static_cast<std::size_t>(number); }

bool is_end(const Request &asked, std::int32_t token) {
  return std::find(asked.ends.begin(), asked.ends.end(), token) != asked.ends.end();
}

// A token goes back as an id: one that is none would read outside of the table.
void check_tokens(const std::int32_t *tokens, int count) {
  const int entries = design().ports[port(design().generation.ids)].entries;
  for (int i = 0; i < count; ++i) {
    if (tokens[i] >= 0 && tokens[i] < entries) continue;
    throw DeviceError("the device gave the token " + std::to_string(tokens[i]) +
                      ", which the model does not have: a transfer or its memory is not sound");
  }
}

}  // namespace

Request request(const Options &options, const std::vector<int> &prompt) {
  const Generation &g = design().generation;
  std::vector<std::string> problems;
  // The last token is given out and not read again: it needs no place in the cache.
  const int room = g.keys - static_cast<int>(prompt.size()) + 1;
  if (prompt.empty()) problems.push_back("--prompt-ids: at least one token is needed");
  if (room < 1) {
    problems.push_back("--prompt-ids: " + std::to_string(prompt.size()) +
                       " tokens; compiled for texts of " + std::to_string(g.keys));
  } else if (options.tokens > room) {
    problems.push_back("--tokens " + std::to_string(options.tokens) + ": from 1 to " +
                       std::to_string(room) + " fit behind " + std::to_string(prompt.size()));
  }
  const std::vector<std::int32_t> ids(prompt.begin(), prompt.end());
  const std::string wrong = wrong_ids(design().ports[port(g.ids)], ids.data(), ids.size());
  if (!wrong.empty()) problems.push_back("--prompt-ids: " + wrong);
  if (options.step > g.turns) {
    problems.push_back("--tokens-per-launch " + std::to_string(options.step) +
                       ": compiled for 1 to " + std::to_string(g.turns));
  }
  if (!problems.empty()) throw Usage(joined(problems));
  const int most = options.ends.empty() ? g.turns : std::min(watched, g.turns);
  return {prompt,
          options.ends,
          options.tokens == 0 ? room : options.tokens,
          options.step == 0 ? most : options.step,
          options.top_k,
          options.temperature,
          options.seed};
}

Session::Session(Memory &memory, Launcher &launcher)
    : memory_(memory),
      ids_(memory[port(design().generation.ids)]),
      settings_(memory[port(design().generation.settings)]),
      tokens_(memory[port(design().generation.tokens)]),
      launcher_(launcher),
      fetched_(tokens_.bytes) {}

void Session::begin(const Request &asked) {
  past_ = 0;
  settings_word(asked.top_k, asked.temperature, design().generation.logits_scale, asked.seed,
                settings_.data);
  try {
    settings_.to_device();
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer of the settings: ") + error.what());
  }
  // Once a text, not for each launch: sums of the launch before are right ones, so that they can hide
  // only that a launch lost its write in the very moment in which a weight changed; the launch behind it
  // finds that weight. That is not worth a transfer a token. A text of one launch writes all of them anew.
  clear_sums(memory_);
}

const std::int32_t *Session::launch(const int *ids, int rows, int turns) {
  try {
    std::memcpy(ids_.data, ids, static_cast<std::size_t>(rows) * 4);
    // Whole words of the memory.
    ids_.to_device((static_cast<std::size_t>(rows) * 4 + 63) / 64 * 64);
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer of the ids: ") + error.what());
  }
  const Numbers numbers = {1, rows, past_, turns};
  launcher_.start(numbers);
  launcher_.wait();
  try {
    fetch_twice(tokens_, static_cast<std::size_t>(turns) * 4, fetched_);
  } catch (const DeviceError &) {
    throw;
  } catch (const std::exception &error) {
    throw DeviceError(std::string("transfer of the tokens: ") + error.what());
  }
  check_sums(memory_, numbers, launcher_.launches());
  past_ += rows + turns - 1;
  return reinterpret_cast<const std::int32_t *>(tokens_.data);
}

int generate(Session &session, const Request &asked, const Tokens &take) {
  const int *rows = asked.prompt.data();
  int left = static_cast<int>(asked.prompt.size());
  session.begin(asked);
  // What does not fit into one launch goes into the caches first.
  for (const int most = design().max_seq; left > most; rows += most, left -= most) {
    session.launch(rows, most, 1);
  }
  int done = 0;
  int last = 0;
  for (bool ended = false; done < asked.count && !ended;) {
    const int turns = std::min(asked.step, asked.count - done);
    const std::int32_t *tokens = session.launch(rows, left, turns);
    int kept = 0;
    while (kept < turns && !ended) ended = is_end(asked, tokens[kept++]);
    check_tokens(tokens, kept);
    take(tokens, kept);
    done += kept;
    last = tokens[kept - 1];
    rows = &last;
    left = 1;
  }
  return done;
}

}  // namespace host
