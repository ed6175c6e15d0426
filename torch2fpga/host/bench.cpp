// SPDX-License-Identifier: Apache-2.0
#include "bench.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "json.hpp"
#include "power.hpp"
#include "session.hpp"

namespace host {
namespace {

using Clock = std::chrono::steady_clock;

double nanoseconds(Clock::duration passed) {
  return static_cast<double>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(passed).count());
}

// How long each launch took; the room is there from the beginning.
class Latencies {
 public:
  Latencies() { all_.reserve(std::size_t(1) << 20); }

  void add(std::int64_t ns) {
    if (all_.size() < all_.capacity()) all_.push_back(ns);
  }
  void clear() { all_.clear(); }

  std::string json() {
    std::sort(all_.begin(), all_.end());
    return "{\"min\": " + us(0.0) + ", \"median\": " + us(0.5) + ", \"p99\": " + us(0.99) +
           ", \"max\": " + us(1.0) + "}";
  }

 private:
  std::string us(double part) const {
    const double last = static_cast<double>(all_.size() - 1);
    // The rank from above: no figure is better than what was measured.
    const std::size_t at = static_cast<std::size_t>(part * last + 0.999999);
    return number(static_cast<double>(all_[std::min(at, all_.size() - 1)]) / 1e3);
  }

  std::vector<std::int64_t> all_;
};

// When a measurement is over.
class Span {
 public:
  explicit Span(const Options &options) : options_(options), begin_(Clock::now()) {}

  bool over(std::size_t launches) const {
    if (options_.launches > 0) return launches >= static_cast<std::size_t>(options_.launches);
    return nanoseconds(Clock::now() - begin_) >= options_.seconds * 1e9;
  }
  double ns() const { return nanoseconds(Clock::now() - begin_); }

 private:
  const Options &options_;
  Clock::time_point begin_;
};

void add_power(Json &json, const PowerMeter &meter) {
  if (meter.readings() == 0) {
    json.raw("power_w", "null").add("power_source", "not available");
    return;
  }
  json.add("power_w", meter.mean()).add("power_source", meter.source());
  json.add("power_readings", meter.readings());
}

Json head(const Card &card, const Memory &memory) {
  Json json;
  json.add("action", "bench").add("design", design().name).add("xclbin", card.xclbin());
  json.add("device_bytes", memory.bytes());
  return json;
}

void fill_golden(const Project &project, const Numbers &numbers, Memory &memory) {
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const Port &port = design().ports[i];
    if (!is_input(port)) continue;
    const Bytes golden = project.golden(port);
    const std::size_t bytes = launch_bytes(port, numbers);
    for (std::size_t at = 0; at < bytes; ++at) memory[i].data[at] = golden[at % golden.size()];
  }
}

}  // namespace

std::vector<int> golden_prompt(const Project &project) {
  const Port &port = design().ports[static_cast<std::size_t>(design().generation.ids)];
  const Bytes golden = project.golden(port);
  std::vector<int> ids(static_cast<std::size_t>(design().golden.seq));
  std::memcpy(ids.data(), golden.data(), std::min(golden.size(), ids.size() * 4));
  return ids;
}

std::string bench_inference(const Options &options, const Project &project, const Card &card,
                            Memory &memory, Watchdog &watchdog) {
  const Numbers numbers = launch_size(options);
  Pipeline pipeline(card, memory, watchdog, options.timeout_ms);
  const auto nothing = [](std::size_t, Memory &) {};
  const auto fill = [&](std::size_t, Memory &to) { fill_golden(project, numbers, to); };
  Latencies latencies;
  const auto lasted = [&](std::int64_t ns) { latencies.add(ns); };
  // Warm-up: both sets of buffers get their inputs, which stay.
  pipeline.run(numbers, [](std::size_t i) { return i < 4; }, fill, nothing, lasted);
  latencies.clear();
  const std::int64_t waited = pipeline.waited_ns();
  std::size_t launches = 0;
  PowerMeter meter(card.device(), options.root);
  const Span span(options);
  pipeline.run(
      numbers, [&](std::size_t i) { return i == 0 || !span.over(i); }, nothing,
      [&](std::size_t, Memory &) { ++launches; }, lasted);
  const double total = span.ns();
  meter.stop();
  const double own = total - static_cast<double>(pipeline.waited_ns() - waited);
  const double count = static_cast<double>(launches);
  Json json = head(card, memory);
  json.add("batch", numbers.batch).add("seq", numbers.seq).add("launches", launches);
  json.add("seconds", total / 1e9).raw("latency_us", latencies.json());
  json.add("launches_per_s", count / total * 1e9);
  json.add("sequences_per_s", count * numbers.batch / total * 1e9);
  json.add("host_us_per_launch", own / count / 1e3);
  add_power(json, meter);
  return json.text();
}

std::string bench_generation(const Options &options, const Project &project, const Card &card,
                             Memory &memory, Watchdog &watchdog) {
  const bool given = !options.prompt.empty();
  const Request asked = request(options, given ? options.prompt : golden_prompt(project));
  Launcher launcher(card, memory, watchdog, options.timeout_ms);
  Session session(memory, launcher);
  Latencies latencies;
  std::size_t tokens = 0;
  Clock::time_point before = Clock::now();
  const Tokens take = [&](const std::int32_t *, int count) {
    const Clock::time_point now = Clock::now();
    latencies.add(static_cast<std::int64_t>(nanoseconds(now - before)));
    before = now;
    tokens += static_cast<std::size_t>(count);
  };
  generate(session, asked, take);  // warm-up
  latencies.clear();
  tokens = 0;
  std::size_t texts = 0;
  const std::int64_t waited = launcher.waited_ns();
  const std::int64_t worked = cpu_ns() - launcher.waited_cpu_ns();
  const std::int64_t before_all = launcher.launches();
  PowerMeter meter(card.device(), options.root);
  const Span span(options);
  std::size_t launches = 0;
  do {
    before = Clock::now();
    generate(session, asked, take);
    ++texts;
    launches = static_cast<std::size_t>(launcher.launches() - before_all);
  } while (!span.over(launches));
  const double total = span.ns();
  meter.stop();
  const double waiting = static_cast<double>(launcher.waited_ns() - waited);
  const double own = static_cast<double>(cpu_ns() - launcher.waited_cpu_ns() - worked);
  const double count = static_cast<double>(tokens);
  Json json = head(card, memory);
  json.add("prompt_tokens", asked.prompt.size()).add("tokens", tokens).add("texts", texts);
  json.add("launches", launches).add("seconds", total / 1e9);
  json.raw("latency_us", latencies.json());
  json.add("tokens_per_s", count / total * 1e9);
  json.add("tokens_per_launch", count / static_cast<double>(launches));
  json.add("launches_per_token", static_cast<double>(launches) / count);
  json.add("wait_us_per_token", waiting / count / 1e3);
  json.add("host_us_per_token", (total - waiting) / count / 1e3);
  json.add("host_cpu_us_per_token", own / count / 1e3);
  add_power(json, meter);
  return json.text();
}

}  // namespace host
