// SPDX-License-Identifier: Apache-2.0
//
// The emulated card's log (T2F_CARD_LOG): one JSON object a line, appended to.
#ifndef T2F_CARD_LOG_HPP
#define T2F_CARD_LOG_HPP

#include <cstdint>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <string>

namespace t2f_card {

class Log {
 public:
  // An empty path: no log. Throws std::runtime_error where the file cannot be written.
  explicit Log(const std::string &path) {
    if (path.empty()) return;
    file_ = std::fopen(path.c_str(), "ae");
    if (file_ == nullptr) throw std::runtime_error("T2F_CARD_LOG: cannot write to " + path);
  }
  Log(const Log &) = delete;
  Log &operator=(const Log &) = delete;

  bool on() const { return file_ != nullptr; }

  class Line {
   public:
    explicit Line(const char *event) : text_(std::string("{\"event\":\"") + event + "\"") {}
    Line &add(const char *key, const std::string &value) {
      text_ += head(key) + "\"";
      for (const char c : value) put(c);
      text_ += '"';
      return *this;
    }
    Line &add(const char *key, const char *value) { return add(key, std::string(value)); }
    Line &add(const char *key, std::uint64_t value) { return raw(key, std::to_string(value)); }
    Line &raw(const char *key, const std::string &value) {
      text_ += head(key) + value;
      return *this;
    }
    const std::string &text() const { return text_; }

   private:
    static std::string head(const char *key) { return std::string(",\"") + key + "\":"; }
    void put(char c) {
      static const char hex[] = "0123456789abcdef";
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20) {
        text_ += std::string("\\u00") + hex[byte >> 4] + hex[byte & 15];
        return;
      }
      if (c == '"' || c == '\\') text_ += '\\';
      text_ += c;
    }
    std::string text_;
  };

  void write(const Line &line) {
    if (file_ == nullptr) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    std::fputs((line.text() + "}\n").c_str(), file_);
    std::fflush(file_);
  }

 private:
  std::FILE *file_ = nullptr;
  std::mutex mutex_;
};

}  // namespace t2f_card

#endif
