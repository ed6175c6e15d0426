// SPDX-License-Identifier: Apache-2.0
//
// Taps: copies of every token written to a stream during a scheduled run, so that
// each stream can be compared with the reference, not the outputs only.
#ifndef T2F_SIM_RECORDER_HPP
#define T2F_SIM_RECORDER_HPP

#include <cstddef>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace t2f::sim {

// The tokens of one stream, end to end in the order written.
struct Tap {
  std::size_t token_size = 0;
  std::vector<unsigned char> bytes;

  void append(const void *token) {
    const auto *from = static_cast<const unsigned char *>(token);
    bytes.insert(bytes.end(), from, from + token_size);
  }
};

// Enable it before the streams are made: a stream asks for its tap when it is
// constructed. Keys are the path of the constructing process and the stream's name,
// "kernel/stream" for a stream of a kernel's own region.
class Recorder {
 public:
  // Records every named stream, or the selected ones where any are selected.
  void enable() { enabled_ = true; }
  void select(std::string key) { selected_.insert(std::move(key)); }
  bool enabled() const { return enabled_; }

  std::vector<std::string> keys() const {
    std::vector<std::string> all;
    for (const auto &entry : taps_) all.push_back(entry.first);
    return all;
  }

  // Null when no stream of that key was recorded.
  const Tap *find(const std::string &key) const {
    const auto at = taps_.find(key);
    return at == taps_.end() ? nullptr : &at->second;
  }

  // For a stream that is being constructed: its tap, or null if it is not recorded.
  Tap *open(const std::string &key, std::size_t token_size) {
    if (!enabled_ || (!selected_.empty() && selected_.count(key) == 0)) return nullptr;
    const auto made = taps_.emplace(key, Tap{});
    if (!made.second) {
      throw std::runtime_error("two streams are named " + key + ": a recorded name must be unique");
    }
    made.first->second.token_size = token_size;
    return &made.first->second;
  }

 private:
  bool enabled_ = false;
  std::set<std::string> selected_;
  std::map<std::string, Tap> taps_;  // a map, because taps must not move
};

}  // namespace t2f::sim

#endif
