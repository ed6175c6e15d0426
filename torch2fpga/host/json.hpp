// SPDX-License-Identifier: Apache-2.0
// JSON objects, member by member in the order in which they are added.
#ifndef HOST_JSON_HPP
#define HOST_JSON_HPP

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace host {

inline std::string quoted(const std::string &text) {
  std::string out = "\"";
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", byte);
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

inline std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

inline std::string list(const std::vector<int> &values) {
  std::string out;
  for (const int value : values) out += (out.empty() ? "" : ", ") + std::to_string(value);
  return "[" + out + "]";
}

class Json {
 public:
  Json &raw(const std::string &key, const std::string &value) {
    body_ += (body_.empty() ? "\n  " : ",\n  ") + quoted(key) + ": " + value;
    return *this;
  }
  Json &add(const std::string &key, const std::string &value) { return raw(key, quoted(value)); }
  Json &add(const std::string &key, const char *value) { return raw(key, quoted(value)); }
  Json &add(const std::string &key, double value) { return raw(key, number(value)); }
  Json &add(const std::string &key, bool value) { return raw(key, value ? "true" : "false"); }
  Json &add(const std::string &key, std::size_t value) { return raw(key, std::to_string(value)); }
  Json &add(const std::string &key, int value) { return raw(key, std::to_string(value)); }

  std::string text() const { return "{" + body_ + "\n}\n"; }

 private:
  std::string body_;
};

}  // namespace host

#endif
