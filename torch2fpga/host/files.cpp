// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "failure.hpp"
#include "sha256.hpp"

namespace host {
namespace {

struct Close {
  void operator()(std::FILE *file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

std::string reason() { return std::strerror(errno); }

std::string advice(const char *name) {
  if (errno == ENOENT) return std::string(name) + " is missing";
  if (errno == EACCES) return std::string(name) + " may not be read by this user (permission denied)";
  return std::string(name) + " cannot be read: " + reason();
}

// SHA-256 of what comes in pieces; whole blocks are hashed where they lie.
class Digest {
 public:
  void add(const unsigned char *data, std::size_t bytes) {
    total_ += bytes;
    while (bytes > 0 && (rest_ > 0 || bytes < 64)) {
      block_[rest_++] = *data++;
      --bytes;
      if (rest_ == 64) hash_rest();
    }
    for (; bytes >= 64; data += 64, bytes -= 64) sum_.block(data);
    while (bytes-- > 0) block_[rest_++] = *data++;
  }

  std::string digits() {
    const unsigned long long bits = total_ * 8ull;
    append(0x80);
    while (rest_ != 56) append(0);
    for (int shift = 56; shift >= 0; shift -= 8) append(static_cast<unsigned char>(bits >> shift));
    return sum_.digits();
  }

 private:
  void append(unsigned char byte) {
    block_[rest_++] = byte;
    if (rest_ == 64) hash_rest();
  }
  void hash_rest() {
    sum_.block(block_);
    rest_ = 0;
  }

  bench::Sha256 sum_;
  unsigned char block_[64] = {};
  std::size_t rest_ = 0;
  unsigned long long total_ = 0;
};

}  // namespace

std::size_t launch_bytes(const Port &port, const Numbers &numbers) {
  if (port.role == Role::tokens) return static_cast<std::size_t>(numbers.turns) * 4;
  if (port.role == Role::sums) {
    const int turns = design().generation.turns > 0 ? numbers.turns : 1;
    return static_cast<std::size_t>(turns) * static_cast<std::size_t>(design().sum_stride) * 4;
  }
  if (port.row_bytes == 0) return port.bytes;
  const std::size_t unit = static_cast<std::size_t>(port.unit);
  const std::size_t rows = port.one_row ? 1 : static_cast<std::size_t>(numbers.seq);
  const std::size_t whole = (rows + unit - 1) / unit * unit;
  const std::size_t bytes = static_cast<std::size_t>(numbers.batch) * whole * port.row_bytes;
  return (bytes + 63) / 64 * 64;
}

Bytes read_file(const std::string &path) {
  File file(std::fopen(path.c_str(), "rb"));
  struct stat status;
  if (!file || fstat(fileno(file.get()), &status) != 0) throw Failure(advice(path.c_str()));
  if (!S_ISREG(status.st_mode)) throw Failure(path + " is no file");
  Bytes content(static_cast<std::size_t>(status.st_size));
  if (std::fread(content.data(), 1, content.size(), file.get()) != content.size()) {
    throw Failure(path + " cannot be read to its end");
  }
  return content;
}

void write_file(const std::string &path, const void *data, std::size_t bytes) {
  const std::string fresh = path + ".part" + std::to_string(getpid());
  std::FILE *file = std::fopen(fresh.c_str(), "wb");
  if (file == nullptr) throw Failure(path + " cannot be written: " + reason());
  const bool whole = std::fwrite(data, 1, bytes, file) == bytes;
  if (std::fclose(file) != 0 || !whole || std::rename(fresh.c_str(), path.c_str()) != 0) {
    const std::string why = reason();
    std::remove(fresh.c_str());
    throw Failure(path + " cannot be written: " + why);
  }
}

std::uint64_t quick_sum(const unsigned char *data, std::size_t bytes) {
  std::uint64_t sum = bytes;
  for (std::size_t at = 0; at < bytes; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data + at, std::min(bytes - at, sizeof word));
    // Both steps can be undone, so that no change of one word is lost.
    sum = (sum ^ word) * 0x9e3779b97f4a7c15ull;
    sum ^= sum >> 32;
  }
  return sum;
}

std::string Project::take(const char *name, std::size_t bytes, const char *sha256,
                          unsigned char *to) const {
  errno = 0;
  File file(std::fopen(path(name).c_str(), "rb"));
  struct stat status;
  if (!file || fstat(fileno(file.get()), &status) != 0) return advice(name);
  if (!S_ISREG(status.st_mode)) return std::string(name) + " is no file";
  const std::size_t found = static_cast<std::size_t>(status.st_size);
  if (found != bytes) {
    return std::string(name) + " has " + std::to_string(found) + " bytes, expected " +
           std::to_string(bytes) + (found < bytes ? ": it is cut off" : "");
  }
  Bytes piece(to == nullptr ? std::size_t(1) << 20 : 0);
  Digest digest;
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t step = std::min(std::size_t(1) << 20, bytes - done);
    unsigned char *where = to == nullptr ? piece.data() : to + done;
    if (std::fread(where, 1, step, file.get()) != step) {
      return std::string(name) + " cannot be read to its end";
    }
    digest.add(where, step);
    done += step;
  }
  const std::string digits = digest.digits();
  if (digits == sha256) return "";
  return std::string(name) + " has SHA-256 " + digits + ", expected " + sha256 +
         ": it belongs to another model or is damaged";
}

void Project::check_manifest() const {
  const std::string file = path("manifest.json");
  Bytes content;
  try {
    content = read_file(file);
  } catch (const Failure &failure) {
    throw Failure(std::string(failure.what()) + "; run this program in the folder of the project " +
                  design().name + ", or give it with --project DIR");
  }
  const std::string digits = bench::sha256(content);
  if (digits == design().manifest_sha256) return;
  throw Failure(file + " has SHA-256 " + digits + ", this program was built for " +
                design().manifest_sha256 +
                ": the folder holds another project or version; run `make host` there, and use its "
                "build/host/host");
}

void Project::read_images(const std::function<unsigned char *(std::size_t port)> &room) const {
  std::vector<std::string> problems;
  const std::vector<Port> &ports = design().ports;
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const Port &port = ports[i];
    if (port.file == nullptr) continue;
    const std::string problem = take(port.file, port.bytes, port.sha256, room(i));
    if (!problem.empty()) problems.push_back(problem);
  }
  if (!problems.empty()) throw Failure("weights of " + path("") + ":\n  " + joined(problems));
}

void Project::check() const {
  std::vector<std::string> problems;
  for (const Port &port : design().ports) {
    if (port.file != nullptr) problems.push_back(take(port.file, port.bytes, port.sha256, nullptr));
    const Golden &golden = port.golden;
    if (golden.file == nullptr) continue;
    problems.push_back(take(golden.file, golden.bytes, golden.sha256, nullptr));
  }
  std::vector<std::string> real;
  for (const std::string &problem : problems) {
    if (!problem.empty()) real.push_back(problem);
  }
  if (!real.empty()) throw Failure("files of " + path("") + ":\n  " + joined(real));
}

Bytes Project::golden(const Port &port) const {
  Bytes content(port.golden.bytes);
  const std::string problem =
      take(port.golden.file, port.golden.bytes, port.golden.sha256, content.data());
  if (!problem.empty()) throw Failure(problem);
  return content;
}

}  // namespace host
