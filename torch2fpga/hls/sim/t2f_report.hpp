// SPDX-License-Identifier: Apache-2.0
//
// The text of a deadlock: who waits for what, and how the waits close into a cycle.
#ifndef T2F_SIM_REPORT_HPP
#define T2F_SIM_REPORT_HPP

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "t2f_process.hpp"

namespace t2f::sim {

// A text as a JSON string.
inline std::string quoted(const std::string &text) {
  static const char hex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += std::string("\\u00") + hex[byte >> 4] + hex[byte & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

class Report {
 public:
  explicit Report(const std::vector<std::unique_ptr<Process>> &processes) : all_(processes) {
    for (const auto &process : processes) {
      if (process->alive && process->waits_on != nullptr) blocked_.push_back(process.get());
      if (process->alive && !process->joining) ++alive_;
    }
    guess_peers();
  }

  std::string text(const std::string &headline) const {
    std::string out = headline + ": " + std::to_string(blocked_.size()) + " of " +
                      std::to_string(alive_) + " unfinished processes wait on a stream\n";
    for (const Process *process : blocked_) out += "  " + wait_line(process) + "\n";
    out += cycles();
    out.pop_back();
    return out;
  }

  // {"waits": [{process, stream, side, held, depth, peer, cycle}], "cycles": [[process]]}.
  // `peer` is null where nothing shows who it is; `cycle` (when the wait began) is 0 in
  // a run without a clock.
  std::string json() const {
    std::string out = "{\"waits\":[";
    for (const Process *process : blocked_) {
      const Channel *stream = process->waits_on;
      const Process *other = next(process);
      if (process != blocked_.front()) out += ",";
      out += "{\"process\":" + quoted(process->path) + ",\"stream\":" + quoted(stream->key()) +
             ",\"side\":" + (process->waits_to == Side::read ? "\"read\"" : "\"write\"") +
             ",\"held\":" + std::to_string(stream->fill()) +
             ",\"depth\":" + std::to_string(stream->depth_) +
             ",\"peer\":" + (other == nullptr ? "null" : quoted(other->path)) +
             ",\"cycle\":" + std::to_string(since(process)) + "}";
    }
    out += "],\"cycles\":[";
    const std::vector<std::vector<const Process *>> found = rings();
    for (std::size_t i = 0; i < found.size(); ++i) {
      out += i == 0 ? "[" : ",[";
      for (const Process *process : found[i]) {
        out += (process == found[i].front() ? "" : ",") + quoted(process->path);
      }
      out += "]";
    }
    return out + "]}";
  }

 private:
  static std::uint64_t since(const Process *process) {
#ifdef T2F_TIMED
    return process->clock.now;
#else
    static_cast<void>(process);
    return 0;
#endif
  }

  // Who would have to act, as far as the run has shown it.
  static const Process *peer(const Process *process) {
    const Channel *stream = process->waits_on;
    return process->waits_to == Side::read ? stream->writer_ : stream->reader_;
  }

  bool is_blocked(const Process *process) const {
    return std::find(blocked_.begin(), blocked_.end(), process) != blocked_.end();
  }

  std::string wait_line(const Process *process) const {
#ifdef T2F_TIMED
    return line_of(process) + ", since cycle " + std::to_string(process->clock.now);
#else
    return line_of(process);
#endif
  }

  std::string line_of(const Process *process) const {
    const Channel *stream = process->waits_on;
    const bool reads = process->waits_to == Side::read;
    const Process *other = peer(process);
    std::string line = process->path + (reads ? " waits to read " : " waits to write ") +
                       stream->key() + " (" + (reads ? "empty" : "full") + ", " +
                       std::to_string(stream->fill()) + " of " + std::to_string(stream->depth_) +
                       " tokens), " + (reads ? "written by " : "read by ");
    if (other == nullptr) return line + "a process unknown yet" + guess(process);
    line += other->path;
    if (!other->alive) return line + ", which has finished";
    if (other->joining) return line + ", which waits for its own processes";
    return line;
  }

  std::string guess(const Process *process) const {
    const auto at = likely_.find(process);
    return at == likely_.end() ? "" : " (likely " + at->second->path + ")";
  }

  // Where a stream's other side was never used: the process whose statement names the stream.
  // A process around it may name it, too; what counts is the innermost one.
  const Process *namesake(const Process *process) const {
    const Process *found = nullptr;
    for (const auto &other : all_) {
      if (within(process, other.get()) || !refers(other.get(), process->waits_on)) continue;
      if (found != nullptr && !within(other.get(), found)) return nullptr;  // it is not clear
      found = other.get();  // parents come first
    }
    return found;
  }

  void guess_peers() {
    for (const Process *process : blocked_) {
      if (peer(process) != nullptr) continue;
      const Process *other = namesake(process);
      if (other != nullptr) likely_[process] = other;
    }
  }

  static bool refers(const Process *process, const void *stream) {
    const auto &all = process->refers_to;
    return std::find(all.begin(), all.end(), stream) != all.end();
  }

  static bool within(const Process *process, const Process *around) {
    while (process != around && process != nullptr) process = process->parent;
    return process == around;
  }

  const Process *next(const Process *process) const {
    const auto at = likely_.find(process);
    return at == likely_.end() ? peer(process) : at->second;
  }

  // Each process waits for at most one other, so following the waits from any process
  // either ends or comes back to a process seen before: then that part is a cycle.
  std::vector<std::vector<const Process *>> rings() const {
    std::vector<std::vector<const Process *>> found;
    std::vector<const Process *> done;
    for (const Process *start : blocked_) {
      std::vector<const Process *> walk;
      const Process *at = start;
      while (at != nullptr && is_blocked(at) && !contains(done, at) && !contains(walk, at)) {
        walk.push_back(at);
        at = next(at);
      }
      const auto first = std::find(walk.begin(), walk.end(), at);
      if (first != walk.end()) found.emplace_back(first, walk.end());
      done.insert(done.end(), walk.begin(), walk.end());
    }
    return found;
  }

  std::string cycles() const {
    std::string out;
    for (const auto &ring : rings()) {
      out += "wait cycle:\n";
      for (const Process *process : ring) out += "  " + wait_line(process) + "\n";
    }
    return out.empty() ? "no wait cycle among the processes known to share streams\n" : out;
  }

  static bool contains(const std::vector<const Process *> &all, const Process *one) {
    return std::find(all.begin(), all.end(), one) != all.end();
  }

  const std::vector<std::unique_ptr<Process>> &all_;
  std::vector<const Process *> blocked_;
  std::size_t alive_ = 0;
  std::map<const Process *, const Process *> likely_;
};

}  // namespace t2f::sim

#endif
