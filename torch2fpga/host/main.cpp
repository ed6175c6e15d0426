// SPDX-License-Identifier: Apache-2.0
// Host program of a design; see --help and host/README.md.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "bench.hpp"
#include "card.hpp"
#include "failure.hpp"
#include "files.hpp"
#include "inference.hpp"
#include "json.hpp"
#include "launch.hpp"
#include "options.hpp"
#include "serve.hpp"
#include "session.hpp"
#include "verify.hpp"
#include "watchdog.hpp"

namespace host {
namespace {

// Tokens as they go to standard output, a line a launch. A request that is repeated after a device
// error does not print again what is printed already.
class Printer {
 public:
  void begin() { seen_ = 0; }

  void take(const std::int32_t *tokens, int count) {
    std::string line;
    for (int i = 0; i < count; ++i, ++seen_) {
      if (seen_ < tokens_.size()) {
        if (tokens_[seen_] == tokens[i]) continue;
        throw Failure("repeated, the token at " + std::to_string(seen_) + " is " +
                      std::to_string(tokens[i]) + ", it was " + std::to_string(tokens_[seen_]));
      }
      tokens_.push_back(tokens[i]);
      line += (line.empty() ? "" : " ") + std::to_string(tokens[i]);
    }
    if (line.empty()) return;
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

  const std::vector<int> &tokens() const { return tokens_; }

 private:
  std::vector<int> tokens_;
  std::size_t seen_ = 0;
};

void write_json(const Options &options, const std::string &text) {
  if (!options.json.empty()) write_file(options.json, text.data(), text.size());
}

int report(const Options &options, const Verdict &verdict, const Card &card) {
  std::string lines;
  for (const std::string &line : verdict.differences) {
    std::fprintf(stderr, "%s\n", line.c_str());
    lines += (lines.empty() ? "" : ", ") + quoted(line);
  }
  Json json;
  json.add("action", "verify").add("design", design().name).add("xclbin", card.xclbin());
  json.add("equal", verdict.equal()).add("compared_bytes", verdict.compared);
  json.raw("differences", "[" + lines + "]");
  write_json(options, json.text());
  std::printf("verify: %s, %zu bytes of outputs and caches compared\n",
              verdict.equal() ? "equal" : "DIFFERS", verdict.compared);
  return verdict.equal() ? 0 : 1;
}

int run_generation(const Options &options, Memory &memory, Launcher &launcher, Printer &printer) {
  const Request asked = request(options, options.prompt);
  Session session(memory, launcher);
  printer.begin();
  generate(session, asked,
           [&](const std::int32_t *tokens, int count) { printer.take(tokens, count); });
  Json json;
  json.add("action", "generate").add("design", design().name);
  json.raw("prompt", list(asked.prompt)).raw("tokens", list(printer.tokens()));
  write_json(options, json.text());
  return 0;
}

// What needs a device. Throws DeviceError where another try may help.
int attempt(const Options &options, const Project &project, Watchdog &watchdog, Printer &printer) {
  const Card card(options);
  Memory memory(card, project);
  if (options.action == Action::bench) {
    const bool generates = design().generation.turns > 0;
    const std::string text =
        (generates ? bench_generation : bench_inference)(options, project, card, memory, watchdog);
    write_json(options, text);
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  if (options.action == Action::infer) {
    const Inputs inputs(options, launch_size(options));
    Pipeline pipeline(card, memory, watchdog, options.timeout_ms);
    const std::size_t launches = infer(options, pipeline, inputs);
    std::printf("%zu launches\n", launches);
    Json json;
    json.add("action", "infer").add("design", design().name).add("launches", launches);
    write_json(options, json.text());
    return 0;
  }
  Launcher launcher(card, memory, watchdog, options.timeout_ms);
  if (options.action == Action::verify) return report(options, verify(project, memory, launcher), card);
  if (options.action == Action::serve) return serve(memory, launcher);
  return run_generation(options, memory, launcher, printer);
}

// Wrong requests are refused before a card is touched.
void check_request(const Options &options, const Project &project) {
  if (options.action == Action::generate) request(options, options.prompt);
  if (options.action == Action::infer) Inputs(options, launch_size(options));
  if (options.action == Action::bench && design().generation.turns > 0) {
    request(options, options.prompt.empty() ? golden_prompt(project) : options.prompt);
  }
}

int run(const Options &options) {
  if (options.action == Action::help) return std::fputs(help_text().c_str(), stdout) < 0 ? 1 : 0;
  if (options.action == Action::list) return std::fputs(list_text().c_str(), stdout) < 0 ? 1 : 0;
  const Project project(options.project);
  project.check_manifest();
  if (options.action == Action::check) {
    project.check();
    std::printf("manifest, weights and golden vectors are those of %s\n", design().name);
    return 0;
  }
  check_request(options, project);
  Watchdog watchdog;
  Printer printer;
  try {
    return attempt(options, project, watchdog, printer);
  } catch (const DeviceError &error) {
    watchdog.disarm();
    if (!options.recover) throw;
    std::fprintf(stderr, "host: %s\nhost: opening the device anew, the request is repeated once\n",
                 error.what());
  }
  return attempt(options, project, watchdog, printer);
}

}  // namespace
}  // namespace host

int main(int count, char **arguments) {
  try {
    return host::run(host::parse(count, arguments));
  } catch (const host::Usage &usage) {
    std::fprintf(stderr, "host: %s\n", usage.what());
    return 2;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "host: %s\n", error.what());
    return 1;
  }
}
