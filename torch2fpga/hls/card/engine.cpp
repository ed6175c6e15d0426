// SPDX-License-Identifier: Apache-2.0
#include "engine.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <iostream>
#include <thread>

#include "calls.hpp"

namespace t2f_card {

namespace {

// Numbers of a launch in the order in which designs take them (emit/turns.py).
const char *const sizes[] = {"batch", "seq", "past", "turns"};

template <typename F>
void find(void *handle, const char *name, F &function, std::string &missing) {
  function = reinterpret_cast<F>(dlsym(handle, name));
  if (function == nullptr) missing += std::string(" ") + name;
}

}  // namespace

Library::Library(const std::string &path) {
  void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) throw Refused("T2F_CARD_LIBRARY: " + std::string(dlerror()));
  std::string missing;
  find(handle, "t2f_card_describe", describe, missing);
  find(handle, "t2f_card_new", make, missing);
  find(handle, "t2f_card_free", drop, missing);
  find(handle, "t2f_card_start", start, missing);
  find(handle, "t2f_card_advance", advance, missing);
  find(handle, "t2f_card_busy", busy, missing);
  find(handle, "t2f_card_waits", waits, missing);
  if (!missing.empty()) throw Refused("T2F_CARD_LIBRARY: " + path + " lacks" + missing);
}

Engine::Engine(const std::string &library, std::unique_ptr<Timed> timed, Faults &faults, Log &log)
    : library_(library),
      design_(library_.describe()),
      timed_(std::move(timed)),
      faults_(faults),
      log_(log),
      queues_(static_cast<std::size_t>(design_->count)),
      counts_(static_cast<std::size_t>(design_->count)) {
  // Never joined: the card runs as long as the program.
  std::thread([this] { work(); }).detach();
}

int Engine::kernel(const std::string &name) const {
  for (int i = 0; i < design_->count; ++i) {
    if (name == design_->kernels[i].name) return i;
  }
  return -1;
}

// --- what the host calls --------------------------------------------------------

bool Engine::start(const std::shared_ptr<Launch> &launch) {
  bool reset_now = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto kernel = static_cast<std::size_t>(launch->kernel);
    const char *name = design_->kernels[launch->kernel].name;
    launch->count = ++counts_[kernel];
    launch->flips = flips(*launch);
    if (const Fault *fault = faults_.start(name, launch->count)) {
      log_.write(
          Log::Line("fault").add("fault", fault->text).add("kernel", name).add("launch", launch->count));
      launch->hangs = fault->kind == "hang";
      if (fault->kind == "timeout") launch->delay_ms = fault->ms;
      reset_now = fault->kind == "reset";
    }
    launch->begin = Time::now();
    queues_[kernel].push_back(launch);
  }
  work_.notify_one();
  return reset_now;
}

// What faults change in the launch's buffers.
std::vector<Flip> Engine::flips(const Launch &launch) {
  std::vector<Flip> found;
  std::size_t buffer = 0;
  const t2f_card_kernel &kernel = design_->kernels[launch.kernel];
  for (int i = 0; i < kernel.count; ++i) {
    if (kernel.arguments[i].kind != T2F_CARD_MEMORY) continue;
    const t2f_card_memory &memory = launch.memory[buffer++];
    for (const Fault *fault : faults_.memory(kernel.arguments[i].name, launch.count)) {
      if (fault->bit / 8 >= memory.bytes) {
        throw Refused("T2F_CARD_FAULTS: " + fault->text + ": this buffer has " +
                      std::to_string(memory.bytes) + " bytes");
      }
      found.push_back({fault, static_cast<unsigned char *>(memory.data) + fault->bit / 8});
    }
  }
  return found;
}

State Engine::state(const Launch &launch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return launch.state;
}

bool Engine::wait(Launch &launch, std::chrono::milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto over = [&] { return launch.state != State::queued && launch.state != State::running; };
  if (timeout.count() <= 0) {
    changed_.wait(lock, over);
    return true;
  }
  if (changed_.wait_for(lock, timeout, over)) return true;
  launch.given_up = true;
  if (log_.on()) {
    const std::string waits = report(lock);
    log_.write(Log::Line("timeout")
                   .add("kernel", design_->kernels[launch.kernel].name)
                   .add("launch", launch.count)
                   .add("ms", static_cast<std::uint64_t>(timeout.count()))
                   .add("waits", waits));
  }
  return false;
}

// Who waits for what, from the thread that may look; an own text where that is computing.
std::string Engine::report(std::unique_lock<std::mutex> &lock) {
  asked_ = true;
  report_.clear();
  work_.notify_one();
  changed_.wait_for(lock, std::chrono::milliseconds(500), [&] { return !asked_; });
  if (asked_) return "the kernels still compute";
  return report_;
}

void Engine::abort(Launch &launch) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (launch.state != State::queued && launch.state != State::running) return;
    auto &queue = queues_[static_cast<std::size_t>(launch.kernel)];
    const bool runs = launch.state == State::running;
    launch.given_up = true;
    launch.state = State::aborted;
    // What runs stays in the queue: the kernel goes on, as a card's does.
    for (auto at = queue.begin(); !runs && at != queue.end(); ++at) {
      if (at->get() != &launch) continue;
      queue.erase(at);
      break;
    }
  }
  changed_.notify_all();
}

bool Engine::stuck() {
  const std::lock_guard<std::mutex> lock(mutex_);
  bool found = failed_;
  for (const auto &queue : queues_) {
    for (const auto &launch : queue) found = found || launch->given_up || launch->hangs;
  }
  return found;
}

void Engine::reset(const char *why) {
  std::unique_lock<std::mutex> lock(mutex_);
  log_.write(Log::Line("reset").add("why", why));
  for (auto &queue : queues_) {
    for (const auto &launch : queue) {
      if (launch->state == State::queued || launch->state == State::running) launch->state = State::aborted;
    }
  }
  drop_ = true;
  work_.notify_one();
  changed_.notify_all();
  changed_.wait(lock, [&] { return !drop_; });
}

// --- the thread -----------------------------------------------------------------

// One launch of each kernel, for the timed build.
bool Engine::complete_set() const {
  return std::all_of(queues_.begin(), queues_.end(), [](const auto &queue) {
    return !queue.empty() && queue.front()->state == State::queued && !queue.front()->hangs;
  });
}

bool Engine::ready() const {
  if (drop_ || asked_ || advance_) return true;
  if (timed_ != nullptr) return complete_set();
  return std::any_of(queues_.begin(), queues_.end(), [](const auto &queue) {
    return !queue.empty() && queue.front()->state == State::queued;
  });
}

Time::time_point Engine::next_due() const {
  Time::time_point found = Time::time_point::max();
  for (const auto &queue : queues_) {
    if (!queue.empty() && queue.front()->through) found = std::min(found, queue.front()->due);
  }
  return found;
}

void Engine::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    const Time::time_point due = next_due();
    if (due == Time::time_point::max()) {
      work_.wait(lock, [&] { return ready(); });
    } else {
      work_.wait_until(lock, due, [&] { return ready(); });
    }
    if (drop_) {
      give_card_back();
      changed_.notify_all();
    }
    step(lock);
    if (asked_) {
      report_ = card_ != nullptr    ? library_.waits(card_)
                : timed_ != nullptr ? "the timed build waits until every kernel is started"
                                    : "no kernel has begun";
      asked_ = false;
      changed_.notify_all();
    }
  }
}

void Engine::give_card_back() {
  if (card_ != nullptr) library_.drop(card_);
  card_ = nullptr;
  for (auto &queue : queues_) {
    for (const auto &launch : queue) launch->held.clear();
    queue.clear();
  }
  drop_ = advance_ = failed_ = false;
}

// Begins what can, runs until nothing can go on, ends what is through.
void Engine::step(std::unique_lock<std::mutex> &lock) {
  if (timed_ != nullptr) {
    if (complete_set()) begin_timed(lock);
  } else {
    for (auto &queue : queues_) {
      if (!queue.empty() && queue.front()->state == State::queued) begin(*queue.front());
    }
  }
  std::string problem;
  if (advance_) {
    advance_ = false;
    lock.unlock();
    problem = library_.advance(card_);
    lock.lock();
  }
  collect(problem);
}

// Not when the host starts it: the launch before it may read the buffer then.
void Engine::flip(const Launch &launch) {
  for (const Flip &flip : launch.flips) {
    *flip.byte = static_cast<unsigned char>(*flip.byte ^ (1U << (flip.fault->bit % 8)));
    log_.write(Log::Line("fault")
                   .add("fault", flip.fault->text)
                   .add("kernel", design_->kernels[launch.kernel].name)
                   .add("launch", launch.count));
  }
}

void Engine::begin(Launch &launch) {
  launch.state = State::running;
  flip(launch);
  if (failed_ || launch.hangs) return;
  if (card_ == nullptr) card_ = library_.make();
  const std::string problem =
      library_.start(card_, launch.kernel, launch.memory.data(), launch.numbers.data());
  advance_ = advance_ || problem.empty();
  if (!problem.empty()) collect(problem);
}

void Engine::begin_timed(std::unique_lock<std::mutex> &lock) {
  const auto ports = static_cast<std::size_t>(design_->ports);
  std::vector<void *> memory(ports);
  std::vector<int> writes(ports);
  std::vector<int> numbers(4, 0);
  for (auto &queue : queues_) {
    Launch &launch = *queue.front();
    launch.state = State::running;
    flip(launch);
    auto given = launch.memory.begin();
    auto number = launch.numbers.begin();
    for (int i = 0; i < design_->kernels[launch.kernel].count; ++i) {
      const t2f_card_argument &a = design_->kernels[launch.kernel].arguments[i];
      if (a.kind == T2F_CARD_MEMORY) {
        memory[static_cast<std::size_t>(a.port)] = given++->data;
        writes[static_cast<std::size_t>(a.port)] = a.write;
      } else if (a.kind == T2F_CARD_NUMBER) {
        for (std::size_t n = 0; n < 4; ++n) {
          if (std::string(a.name) == sizes[n]) numbers[n] = *number;
        }
        ++number;
      }
    }
  }
  lock.unlock();
  const Timed::Result result = timed_->run(memory, writes, numbers);
  lock.lock();
  log_.write(Log::Line("timed")
                 .add("cycles", Timed::cycles(result.report))
                 .add("problem", result.problem));
  collect(result.problem);
  for (auto &queue : queues_) {
    if (queue.empty() || queue.front()->state != State::running) continue;
    queue.front()->through = true;
    queue.front()->due = Time::now() + std::chrono::milliseconds(queue.front()->delay_ms);
  }
}

void Engine::collect(const std::string &problem) {
  if (!problem.empty() && !failed_) {
    failed_ = true;
    log_.write(Log::Line("failed").add("text", problem));
    std::cerr << "emulated card: " << problem << "\n";
  }
  for (auto &queue : queues_) {
    if (queue.empty()) continue;
    const std::shared_ptr<Launch> launch = queue.front();
    if (launch->state == State::queued || launch->hangs) continue;
    if (failed_) {
      if (launch->state == State::running) end(*launch, State::error);
      leave(queue);
      continue;
    }
    const bool was = launch->through;
    if (timed_ == nullptr) {
      launch->through = card_ != nullptr && library_.busy(card_, launch->kernel) == 0;
    }
    if (!was && launch->through) launch->due = Time::now() + std::chrono::milliseconds(launch->delay_ms);
    if (!launch->through || Time::now() < launch->due) continue;
    if (launch->state == State::running) end(*launch, State::completed);
    leave(queue);
  }
}

// The kernel is free for its next launch.
void Engine::leave(std::deque<std::shared_ptr<Launch>> &queue) {
  queue.front()->held.clear();
  queue.pop_front();
  work_.notify_one();
}

void Engine::end(Launch &launch, State state) {
  launch.state = state;
  if (log_.on()) {
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(Time::now() - launch.begin);
    log_.write(Log::Line(state == State::completed ? "completed" : "error")
                   .add("kernel", design_->kernels[launch.kernel].name)
                   .add("launch", launch.count)
                   .add("us", static_cast<std::uint64_t>(us.count()))
                   .add("calls_ns", Call::total_ns()));
  }
  changed_.notify_all();
}

}  // namespace t2f_card
