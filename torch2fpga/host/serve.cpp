// SPDX-License-Identifier: Apache-2.0
#include "serve.hpp"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

#include "failure.hpp"

namespace host {
namespace {

// A line of standard input; false at its end. Longer ones than any request are cut.
bool read_line(std::string &line) {
  line.clear();
  for (int c = std::getchar(); c != EOF; c = std::getchar()) {
    if (c == '\n') return true;
    if (line.size() < 4096) line += static_cast<char>(c);
  }
  return false;
}

void answer(const char *word, std::string text) {
  for (char &c : text) {
    if (c == '\n') c = ' ';
  }
  std::printf("%s %s\n", word, text.c_str());
  std::fflush(stdout);
}

// Takes `bytes` of standard input that nobody needs.
bool skip(std::size_t bytes) {
  unsigned char piece[4096];
  while (bytes > 0) {
    const std::size_t step = bytes < sizeof piece ? bytes : sizeof piece;
    if (std::fread(piece, 1, step, stdin) != step) return false;
    bytes -= step;
  }
  return true;
}

// Reads the inputs of a launch; `problem` says what is wrong with them. False at the end of the input.
bool read_inputs(Memory &memory, const Numbers &numbers, const std::vector<std::size_t> &sizes,
                 std::string &problem) {
  std::size_t input = 0;
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const Port &port = design().ports[i];
    if (!is_input(port)) continue;
    const std::size_t size = sizes[input++];
    const bool fits = problem.empty() && size == launch_bytes(port, numbers);
    if (problem.empty() && !fits) {
      problem = std::string(port.name) + ": " + std::to_string(size) + " bytes, the launch takes " +
                std::to_string(launch_bytes(port, numbers));
    }
    if (!fits) {
      if (!skip(size)) return false;
      continue;
    }
    if (std::fread(memory[i].data, 1, size, stdin) != size) return false;
    problem = wrong_ids(port, reinterpret_cast<const std::int32_t *>(memory[i].data), size / 4);
  }
  return true;
}

void run(Memory &memory, Launcher &launcher, const Numbers &numbers) {
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const Port &port = design().ports[i];
    if (is_input(port)) memory[i].to_device(launch_bytes(port, numbers));
  }
  clear_sums(memory, numbers);
  launcher.start(numbers);
  launcher.wait();
  Bytes room;
  std::string sizes = "ok";
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const Port &port = design().ports[i];
    if (!is_output(port)) continue;
    if (port.role == Role::tokens) {
      fetch_twice(memory[i], launch_bytes(port, numbers), room);
    } else {
      memory[i].from_device(launch_bytes(port, numbers));
    }
    sizes += " " + std::to_string(launch_bytes(port, numbers));
  }
  check_sums(memory, numbers, launcher.launches());
  std::printf("%s\n", sizes.c_str());
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const Port &port = design().ports[i];
    if (is_output(port)) std::fwrite(memory[i].data, 1, launch_bytes(port, numbers), stdout);
  }
  std::fflush(stdout);
}

// A request line; empty, or what is wrong with it.
std::string parse_request(const std::string &line, Numbers &numbers, std::vector<std::size_t> &sizes) {
  std::istringstream words(line);
  std::string word;
  std::size_t inputs = 0;
  for (const Port &port : design().ports) inputs += is_input(port) ? 1 : 0;
  if (!(words >> word) || word != "run") return "unknown request; expected run or quit";
  if (!(words >> numbers.batch >> numbers.seq >> numbers.past >> numbers.turns)) {
    return "run takes four numbers and the sizes of the inputs";
  }
  for (std::size_t size = 0; words >> size;) sizes.push_back(size);
  if (sizes.size() == inputs) return "";
  return std::to_string(sizes.size()) + " sizes; the design has " + std::to_string(inputs) +
         " input ports";
}

}  // namespace

int serve(Memory &memory, Launcher &launcher) {
  answer("ready", design().name);
  for (std::string line; read_line(line) && line != "quit";) {
    Numbers numbers = {};
    std::vector<std::size_t> sizes;
    std::string problem = parse_request(line, numbers, sizes);
    if (!problem.empty()) {
      // What follows on such a line is not known: nothing behind it can be read.
      answer("failed", problem);
      return 1;
    }
    problem = refused(numbers);
    if (!read_inputs(memory, numbers, sizes, problem)) return 0;
    if (!problem.empty()) {
      answer("refused", problem);
      continue;
    }
    try {
      run(memory, launcher, numbers);
    } catch (const std::exception &error) {
      answer("failed", error.what());
      return 1;
    }
  }
  return 0;
}

}  // namespace host
