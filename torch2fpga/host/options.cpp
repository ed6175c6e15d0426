// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <functional>

#include "failure.hpp"
#include "tables.hpp"

namespace host {
namespace {

using Problems = std::vector<std::string>;

class Reader {
 public:
  Reader(const std::string &name, const std::string &text, Problems &problems)
      : name_(name), text_(text), problems_(problems) {}

  int whole(long low, long high) const {
    char *end = nullptr;
    errno = 0;
    const long value = std::strtol(text_.c_str(), &end, 10);
    if (errno == 0 && !text_.empty() && *end == '\0' && value >= low && value <= high) {
      return static_cast<int>(value);
    }
    wrong("a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    return static_cast<int>(low);
  }

  std::uint64_t large() const {
    char *end = nullptr;
    errno = 0;
    const unsigned long long value = std::strtoull(text_.c_str(), &end, 10);
    const bool digits = text_.find_first_not_of("0123456789") == std::string::npos;
    if (errno != 0 || text_.empty() || !digits) wrong("a whole number from 0 to 2^64 - 1");
    return value;
  }

  double real() const {
    char *end = nullptr;
    const double value = std::strtod(text_.c_str(), &end);
    if (!text_.empty() && *end == '\0' && std::isfinite(value) && value > 0) return value;
    wrong("a finite number above 0");
    return 1.0;
  }

  std::vector<int> numbers() const {
    std::vector<int> found;
    for (std::size_t at = 0; at <= text_.size();) {
      const std::size_t comma = std::min(text_.find(',', at), text_.size());
      const Reader one(name_, text_.substr(at, comma - at), problems_);
      found.push_back(one.whole(0, 2147483647L));
      at = comma + 1;
    }
    return found;
  }

  // NAME=FILE
  void pair(std::map<std::string, std::string> &into, bool outputs) const {
    const std::size_t sign = text_.find('=');
    const std::string port = text_.substr(0, sign);
    std::string known;
    for (const Port &candidate : design().ports) {
      if (!(outputs ? is_output(candidate) : is_input(candidate))) continue;
      known += (known.empty() ? "" : ", ") + std::string(candidate.name);
      if (port == candidate.name && sign != std::string::npos && sign + 1 < text_.size()) {
        if (!into.emplace(port, text_.substr(sign + 1)).second) wrong("each port once");
        return;
      }
    }
    wrong("PORT=FILE with a port of this design (" + known + ")");
  }

 private:
  void wrong(const std::string &expected) const {
    problems_.push_back(name_ + " is \"" + text_ + "\", expected " + expected);
  }

  std::string name_;
  std::string text_;
  Problems &problems_;
};

using Take = std::function<void(Options &, const Reader &, const std::string &)>;

const std::map<std::string, Action> &flags() {
  static const std::map<std::string, Action> found = {
      {"--help", Action::help},   {"-h", Action::help},         {"--list", Action::list},
      {"--check", Action::check}, {"--verify", Action::verify}, {"--bench", Action::bench},
      {"--serve", Action::serve}};
  return found;
}

const std::map<std::string, Take> &values() {
  const long most = 2147483647L;
  using O = Options;
  using R = Reader;
  using S = std::string;
  static const std::map<std::string, Take> found = {
      {"--project", [](O &o, const R &, const S &t) { o.project = t; }},
      {"--xclbin", [](O &o, const R &, const S &t) { o.xclbin = t; }},
      {"--device", [](O &o, const R &, const S &t) { o.device = t; }},
      {"--root", [](O &o, const R &, const S &t) { o.root = t; }},
      {"--json", [](O &o, const R &, const S &t) { o.json = t; }},
      {"--timeout-ms", [](O &o, const R &r, const S &) { o.timeout_ms = r.whole(1, 86400000); }},
      {"--prompt-ids", [](O &o, const R &r, const S &) { o.prompt = r.numbers(); }},
      {"--eos", [](O &o, const R &r, const S &) { o.ends = r.numbers(); }},
      {"--tokens", [=](O &o, const R &r, const S &) { o.tokens = r.whole(1, most); }},
      {"--tokens-per-launch", [=](O &o, const R &r, const S &) { o.step = r.whole(1, most); }},
      {"--top-k", [](O &o, const R &r, const S &) { o.top_k = r.whole(1, 64); }},
      {"--temperature", [](O &o, const R &r, const S &) { o.temperature = r.real(); }},
      {"--seed", [](O &o, const R &r, const S &) { o.seed = r.large(); }},
      {"--input", [](O &o, const R &r, const S &) { r.pair(o.inputs, false); }},
      {"--output", [](O &o, const R &r, const S &) { r.pair(o.outputs, true); }},
      {"--batch", [](O &o, const R &r, const S &) { o.batch = r.whole(1, design().max_batch); }},
      {"--seq",
       [](O &o, const R &r, const S &) { o.seq = r.whole(design().min_seq, design().max_seq); }},
      {"--launches", [=](O &o, const R &r, const S &) { o.launches = r.whole(1, most); }},
      {"--seconds", [](O &o, const R &r, const S &) { o.seconds = r.real(); }}};
  return found;
}

void check_device(const std::string &device, Problems &problems) {
  const bool index = device.find_first_not_of("0123456789") == std::string::npos;
  const bool address = device.find_first_not_of("0123456789abcdefABCDEF:.") == std::string::npos &&
                       device.find(':') != std::string::npos;
  if (!device.empty() && (address || (index && device.size() < 5))) return;
  problems.push_back("--device is \"" + device + "\", expected an index (0) or an address (0000:3b:00.1)");
}

// What fits an action; names the options that belong to another one.
void check_action(Options &options, const std::map<std::string, int> &given, Problems &problems) {
  const bool generates = design().generation.turns > 0;
  const auto has = [&](const char *name) { return given.count(name) != 0; };
  const bool prompted = has("--prompt-ids");
  const bool fed = has("--input") || has("--output");
  if (options.action == Action::none && prompted) options.action = Action::generate;
  if (options.action == Action::none && fed) options.action = Action::infer;
  if (options.action == Action::none) {
    problems.push_back(std::string("nothing to do: give --verify, --bench, ") +
                       (generates ? "--prompt-ids" : "--input and --output") + " or --help");
  }
  if (!generates) {
    for (const char *name : {"--prompt-ids", "--eos", "--tokens", "--tokens-per-launch", "--top-k",
                             "--temperature", "--seed"}) {
      if (has(name)) problems.push_back(std::string(name) + ": this design generates no tokens");
    }
  }
  if (generates && fed) {
    problems.push_back("--input, --output: this design generates tokens, give --prompt-ids");
  }
  const bool sized = has("--batch") || has("--seq");
  if (generates && sized) problems.push_back("--batch, --seq: this design generates tokens");
  if (options.action != Action::infer && fed && !generates) {
    problems.push_back("--input, --output: not together with another action");
  }
  if (prompted && options.action != Action::generate && options.action != Action::bench) {
    problems.push_back("--prompt-ids: not together with another action than --bench");
  }
  if (options.recover && options.action == Action::serve) {
    problems.push_back("--recover: not with --serve, whose client asks again");
  }
}

}  // namespace

Options parse(int count, const char *const *arguments) {
  Options options;
  Problems problems;
  std::map<std::string, int> given;
  for (int i = 1; i < count; ++i) {
    std::string name = arguments[i];
    const auto flag = flags().find(name);
    if (flag != flags().end()) {
      if (options.action != Action::none && options.action != flag->second) {
        problems.push_back(name + ": one action at a time");
      }
      options.action = flag->second;
      continue;
    }
    if (name == "--recover") {
      options.recover = true;
      continue;
    }
    std::string value;
    const std::size_t sign = name.find('=');
    const bool attached = sign != std::string::npos && name.compare(0, 2, "--") == 0;
    if (attached) {
      value = name.substr(sign + 1);
      name = name.substr(0, sign);
    }
    const auto take = values().find(name);
    if (take == values().end()) {
      problems.push_back("unknown option " + name);
      continue;
    }
    if (!attached && i + 1 == count) {
      problems.push_back(name + " needs a value");
      continue;
    }
    if (!attached) value = arguments[++i];
    ++given[name];
    take->second(options, Reader(name, value, problems), value);
  }
  if (options.action == Action::help) return options;
  check_device(options.device, problems);
  check_action(options, given, problems);
  if (!problems.empty()) throw Usage(joined(problems) + "\n  see --help");
  return options;
}

}  // namespace host
