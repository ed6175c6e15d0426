// SPDX-License-Identifier: Apache-2.0
// What the test bench of every kernel shares: golden files, comparison, the list of tests.
//
// A test calls one kernel or one stage on golden tokens and compares all that comes out,
// token for token. Streams are used as in Vitis C simulation (unbounded, one call after the
// other), so the same files run there and under g++ with the headers in sim/. C++14, because
// that is what the HLS tools compile.
//
// Files are read from the project folder: the working directory or the nearest folder above
// it that holds SHA256SUMS. A file that does not match its line there fails the test.
#ifndef TB_BENCH_HPP
#define TB_BENCH_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "t2f/core.hpp"
#include "sha256.hpp"

namespace bench {

using Bytes = std::vector<unsigned char>;

// --- files ------------------------------------------------------------------------

// The project folder with its list of checksums.
class Project {
 public:
  static Project &get() {
    static Project project;
    return project;
  }

  // The content of a file whose checksum is right.
  Bytes read(const std::string &name) {
    if (sums_.empty()) find();
    const auto sum = sums_.find(name);
    if (sum == sums_.end()) throw std::runtime_error(name + " is not listed in SHA256SUMS");
    std::ifstream file(root_ + name, std::ios::binary | std::ios::ate);
    if (!file) throw std::runtime_error(name + " is missing");
    Bytes content(static_cast<std::size_t>(file.tellg()));
    file.seekg(0);
    file.read(reinterpret_cast<char *>(content.data()),
              static_cast<std::streamsize>(content.size()));
    if (!file) throw std::runtime_error(name + " cannot be read");
    if (sha256(content) != sum->second) {
      throw std::runtime_error(name + " (" + std::to_string(content.size()) +
                               " bytes) is corrupt or truncated: its checksum is wrong");
    }
    return content;
  }

 private:
  void find() {
    for (int level = 0; level < 16; ++level) {
      std::ifstream list(root_ + "SHA256SUMS");
      if (list) return load(list);
      root_ += "../";
    }
    throw std::runtime_error("SHA256SUMS is neither here nor in a folder above");
  }

  // Lines as sha256sum writes them: checksum, two blanks, name.
  void load(std::istream &list) {
    std::string line;
    while (std::getline(list, line)) {
      if (line.size() > 66) sums_[line.substr(66)] = line.substr(0, 64);
    }
    if (sums_.empty()) throw std::runtime_error("SHA256SUMS is empty");
  }

  std::string root_;
  std::map<std::string, std::string> sums_;
};

// Memory behind a port, at a 64-byte boundary as on the card.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : room_(bytes + 64, unwritten()), bytes_(bytes) {
    const std::size_t over = reinterpret_cast<std::uintptr_t>(room_.data()) % 64;
    data_ = room_.data() + (over == 0 ? 0 : 64 - over);
  }
  unsigned char *data() { return data_; }
  std::size_t size() const { return bytes_; }

  // What an output buffer holds before the run.
  static unsigned char unwritten() { return 0x5a; }

 private:
  std::vector<unsigned char> room_;
  std::size_t bytes_;
  unsigned char *data_;
};

// --- tokens -----------------------------------------------------------------------

// Lanes of a token, for messages: which of them differs, and its values.
template <typename T>
struct Lanes {
  static const int count = 1;
  static long long at(const T &token, int) { return token; }
};
template <typename T, int N>
struct Lanes<t2f::vec<T, N>> {
  static const int count = N;
  static long long at(const t2f::vec<T, N> &token, int lane) { return token.d[lane]; }
};

template <typename T>
T token_at(const Bytes &bytes, std::size_t index) {
  T token;
  std::memcpy(static_cast<void *>(&token), bytes.data() + index * sizeof(T), sizeof(T));
  return token;
}

template <typename T>
bool same(const T &a, const T &b) {
  for (int lane = 0; lane < Lanes<T>::count; ++lane) {
    if (Lanes<T>::at(a, lane) != Lanes<T>::at(b, lane)) return false;
  }
  return true;
}

template <typename T>
std::string difference(const T &got, const T &expected) {
  int lane = 0;
  while (lane + 1 < Lanes<T>::count && Lanes<T>::at(got, lane) == Lanes<T>::at(expected, lane)) {
    ++lane;
  }
  std::ostringstream text;
  if (Lanes<T>::count > 1) text << " lane " << lane;
  text << ": got " << Lanes<T>::at(got, lane) << " expected " << Lanes<T>::at(expected, lane);
  return text.str();
}

// Which words of an image pass in which order: for every step all runs, `repeats` times over.
struct Run {
  int first;  // word of step 0
  int count;
};

struct Words {
  std::vector<Run> runs;
  int stride;  // words from a step to the next
  int steps;
  int repeats;

  std::vector<int> indices() const {
    std::vector<int> found;
    for (int step = 0; step < steps; ++step) {
      for (int again = 0; again < repeats; ++again) {
        for (const Run &run : runs) {
          for (int i = 0; i < run.count; ++i) found.push_back(run.first + step * stride + i);
        }
      }
    }
    return found;
  }
};

// --- one test ---------------------------------------------------------------------

class Case {
 public:
  // Puts golden tokens into a stream.
  template <typename T>
  void fill(hls::stream<T> &stream, const char *file) {
    const Bytes bytes = tokens<T>(file);
    for (std::size_t i = 0; i < bytes.size() / sizeof(T); ++i) stream.write(token_at<T>(bytes, i));
  }

  // Takes all tokens out of a stream and compares them.
  template <typename T>
  void compare(hls::stream<T> &stream, const char *file) {
    const Bytes bytes = tokens<T>(file);
    const std::size_t wanted = bytes.size() / sizeof(T);
    std::size_t count = 0;
    std::size_t wrong = 0;
    std::string first;
    for (; !stream.empty(); ++count) {
      const T got = stream.read();
      if (count >= wanted) continue;
      const T expected = token_at<T>(bytes, count);
      if (same(got, expected)) continue;
      if (wrong++ == 0) first = "token " + std::to_string(count) + difference(got, expected);
    }
    if (wrong != 0) differs(file, first, wrong, wanted);
    if (count != wanted) {
      fail(std::string(file) + ": " + std::to_string(count) + " tokens, expected " +
           std::to_string(wanted));
    }
    compared_ += count;
  }

  // Whether a stage has read all that it was given.
  template <typename T>
  void drained(hls::stream<T> &stream, const char *name) {
    std::size_t left = 0;
    for (; !stream.empty(); ++left) (void)stream.read();
    if (left != 0) fail(std::string(name) + ": " + std::to_string(left) + " tokens were not read");
  }

  // The image behind a port: exactly `bytes` bytes.
  template <typename T>
  const T *image(const char *file, std::size_t bytes) {
    const Bytes content = Project::get().read(file);
    if (content.size() != bytes) {
      throw std::runtime_error(std::string(file) + " has " + std::to_string(content.size()) +
                               " bytes, the port reads " + std::to_string(bytes));
    }
    return static_cast<const T *>(keep(content, bytes));
  }

  // The inputs of this run in a buffer of the port's size.
  template <typename T>
  const T *input(const char *file, std::size_t bytes) {
    const Bytes content = Project::get().read(file);
    if (content.size() > bytes) {
      throw std::runtime_error(std::string(file) + " is larger than its port");
    }
    return static_cast<const T *>(keep(content, bytes));
  }

  // An output buffer of the port's size.
  template <typename T = t2f::word>
  T *output(std::size_t bytes) {
    buffers_.emplace_back(new Buffer(bytes));
    return static_cast<T *>(static_cast<void *>(buffers_.back()->data()));
  }

  // A cache as a launch finds it: a file has the first rows of every step, `words` of `stride`.
  t2f::word *cache(const char *file, std::size_t bytes, int words, int stride) {
    t2f::word *memory = output(bytes);
    const Bytes content = tokens<t2f::word>(file);
    const std::size_t step = static_cast<std::size_t>(words) * sizeof(t2f::word);
    for (std::size_t at = 0; at * step < content.size(); ++at) {
      std::memcpy(static_cast<void *>(memory + at * stride), content.data() + at * step, step);
    }
    return memory;
  }

  // Compares a cache with these rows; the rest of it must be untouched.
  void compare_cache(const t2f::word *memory, std::size_t bytes, const char *file, int words,
                     int stride) {
    const t2f::word *wanted = cache(file, bytes, words, stride);
    const std::size_t all = bytes / sizeof(t2f::word);
    for (std::size_t i = 0; i < all; ++i) {
      if (same(memory[i], wanted[i])) continue;
      return fail(std::string(file) + ": word " + std::to_string(i) + difference(memory[i], wanted[i]));
    }
    compared_ += all;
  }

  // Compares an output buffer; what lies behind the golden words must be untouched.
  template <typename T>
  void compare_memory(const T *memory, std::size_t bytes, const char *file) {
    const Bytes content = tokens<T>(file);
    const std::size_t wanted = content.size() / sizeof(T);
    std::size_t wrong = 0;
    std::string first;
    for (std::size_t i = 0; i < wanted; ++i) {
      const T expected = token_at<T>(content, i);
      if (same(memory[i], expected)) continue;
      if (wrong++ == 0) first = "word " + std::to_string(i) + difference(memory[i], expected);
    }
    if (wrong != 0) differs(file, first, wrong, wanted);
    for (std::size_t i = content.size(); i < bytes; ++i) {
      if (reinterpret_cast<const unsigned char *>(memory)[i] == Buffer::unwritten()) continue;
      return fail(std::string(file) + ": byte " + std::to_string(i) + " behind it was written");
    }
    compared_ += wanted;
  }

  // Words of an image in the order in which they go over a stream: one stage's parameters, what a
  // link carries, weights that are read again for every tile.
  void words(hls::stream<t2f::word> &stream, const char *file, std::size_t bytes,
             const Words &order) {
    const t2f::word *image_words = image<t2f::word>(file, bytes);
    for (int i : order.indices()) stream.write(image_words[i]);
  }

  // The same taken out of a stream and compared.
  void compare_words(hls::stream<t2f::word> &stream, const char *file, std::size_t bytes,
                     const Words &order) {
    const t2f::word *image_words = image<t2f::word>(file, bytes);
    const std::vector<int> indices = order.indices();
    std::size_t count = 0;
    std::size_t wrong = 0;
    std::string first;
    for (; count < indices.size() && !stream.empty(); ++count) {
      const t2f::word got = stream.read();
      const t2f::word &expected = image_words[indices[count]];
      if (same(got, expected)) continue;
      if (wrong++ == 0) first = "word " + std::to_string(count) + difference(got, expected);
    }
    if (wrong != 0) differs(file, first, wrong, indices.size());
    if (count != indices.size()) {
      fail(std::string(file) + ": " + std::to_string(count) + " words, expected " +
           std::to_string(indices.size()));
    }
    compared_ += count;
  }

  void fail(const std::string &text) { failures_.push_back(text); }
  const std::vector<std::string> &failures() const { return failures_; }
  std::size_t compared() const { return compared_; }

 private:
  template <typename T>
  Bytes tokens(const char *file) {
    Bytes bytes = Project::get().read(file);
    if (bytes.size() % sizeof(T) != 0) {
      throw std::runtime_error(std::string(file) + " does not hold whole tokens");
    }
    return bytes;
  }

  const void *keep(const Bytes &content, std::size_t bytes) {
    buffers_.emplace_back(new Buffer(bytes));
    Buffer &buffer = *buffers_.back();
    std::fill(buffer.data(), buffer.data() + bytes, static_cast<unsigned char>(0));
    std::copy(content.begin(), content.end(), buffer.data());
    return buffer.data();
  }

  void differs(const char *file, const std::string &first, std::size_t wrong, std::size_t all) {
    fail(std::string(file) + ": first difference at " + first + " (" + std::to_string(wrong) +
         " of " + std::to_string(all) + " differ)");
  }

  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::vector<std::string> failures_;
  std::size_t compared_ = 0;
};

// --- the list of tests ------------------------------------------------------------

struct Test {
  const char *kind;  // "kernel", "stage" or "design"
  const char *name;
  void (*run)(Case &);
};

inline std::map<int, std::vector<Test>> &all_tests() {
  static std::map<int, std::vector<Test>> tests;
  return tests;
}

// Adds the tests of one source file when the program starts; `order` is its place.
struct Registration {
  Registration(int order, const Test *tests, std::size_t count) {
    all_tests()[order].assign(tests, tests + count);
  }
};

// Runs one test and prints its line.
inline bool passes(const Test &test) {
  Case one;
  try {
    test.run(one);
  } catch (const std::exception &error) {
    one.fail(error.what());
  }
  if (one.failures().empty() && one.compared() == 0) one.fail("nothing was compared");
  std::printf("%-6s %-44s ", test.kind, test.name);
  if (one.failures().empty()) {
    std::printf("ok    %zu tokens\n", one.compared());
  } else {
    std::printf("FAIL  %s\n", one.failures().front().c_str());
  }
  for (std::size_t i = 1; i < one.failures().size(); ++i) {
    std::printf("%-51s       %s\n", "", one.failures()[i].c_str());
  }
  std::fflush(stdout);
  return one.failures().empty();
}

}  // namespace bench

#endif
