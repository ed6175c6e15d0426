// SPDX-License-Identifier: Apache-2.0
//
// Functional run of dataflow kernels: every process a fiber, every stream a bounded
// FIFO, one thread. The run is deterministic: data order does not depend on which
// ready process goes first, and neither does whether it deadlocks.
//
//   t2f::sim::Scheduler scheduler;
//   t2f::sim::Scheduler::Scope scope(scheduler);      // streams made here are bound
//   hls::stream<word, 32> link("link_ab");
//   scheduler.kernel("a", [&] { kernel_a(in, link); });
//   scheduler.kernel("b", [&] { kernel_b(link, out); });
//   t2f::sim::Status status = scheduler.run();
//
// Handlers must not block: code that reads or writes a stream inside a catch block
// would mix up the exception state of two fibers.
#ifndef T2F_SIM_SIM_HPP
#define T2F_SIM_SIM_HPP

#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// Bodies that no inner loop needs are inline, or, with T2F_SIM_APART, compiled once: in the one
// translation unit that defines T2F_SIM_BODIES.
#ifdef T2F_SIM_BODIES
#define T2F_SIM_BODY
#else
#define T2F_SIM_BODY inline
#endif

#include "t2f_channel.hpp"
#include "t2f_fiber.hpp"
#include "t2f_guard.hpp"
#include "t2f_process.hpp"
#include "t2f_recorder.hpp"
#include "t2f_report.hpp"

namespace t2f::sim {

#ifdef T2F_TIMED
// What a timed run is told; everything in cycles where not said otherwise.
struct Timing {
  // "process file:line" -> pipeline depth of that loop; others get the default.
  std::map<std::string, Cycle> depths;
  Cycle default_depth = 8;
  unsigned depth_percent = 100;                  // of all depths
  std::map<std::string, std::uint64_t> fifo_depths;  // stream -> depth instead of the declared one
  std::map<std::string, Cycle> latencies;        // stream -> cycles on the way
  std::vector<MemoryPort> ports;
  Cycle cycle_limit = Cycle{1} << 40;
  unsigned launches = 1;                         // back to back
};
#endif

struct Status {
  bool ok = true;
  std::string message;  // empty, or what went wrong, several lines
};

// The scheduler that streams and processes made on this thread belong to. Hidden,
// so that two designs loaded as shared libraries into one program never share it.
__attribute__((visibility("hidden"))) inline thread_local Scheduler *running = nullptr;

class Scheduler {
 public:
  Scheduler() = default;
  Scheduler(const Scheduler &) = delete;
  Scheduler &operator=(const Scheduler &) = delete;
  // Streams that live on become plain unbounded ones.
  ~Scheduler() {
    while (channels_ != nullptr) channels_->detach();
  }

  // While it lives, streams constructed on this thread belong to the scheduler. For
  // the streams that join kernels, which the caller of run() makes.
  class Scope {
   public:
    explicit Scope(Scheduler &scheduler, std::string prefix = "link")
        : scheduler_(scheduler), outer_(running), outer_prefix_(std::move(prefix)) {
      std::swap(scheduler_.prefix_, outer_prefix_);
      running = &scheduler;
    }
    Scope(const Scope &) = delete;
    Scope &operator=(const Scope &) = delete;
    ~Scope() {
      running = outer_;
      std::swap(scheduler_.prefix_, outer_prefix_);
    }

   private:
    Scheduler &scheduler_;
    Scheduler *outer_;
    std::string outer_prefix_;
  };

  // A kernel for run() to start. Names are unique.
  void kernel(std::string name, std::function<void()> body) {
    for (const Process *other : kernels_) {
      if (other->name == name) throw std::invalid_argument("two kernels are named " + name);
    }
    add(nullptr, std::move(name))->body = std::move(body);
  }

  // Runs all kernels until they are done, or until nothing can go on. Once only.
  Status run();

  // For a card, whose kernels start one by one (t2f_launch.hpp), instead of kernel() and run().
  // A kernel that is through may be launched again; one that still runs must not.
  void launch(const std::string &name, std::function<void()> body);
  // Runs until nothing can go on: all that were launched are through, or wait for others to be. May
  // be called again when more were. Streams that join kernels keep what is in them. After a failure
  // (its message) nothing goes on any more.
  Status advance();
  bool busy(const std::string &name) const;  // launched, and not through
  std::string waits() const;                 // who waits for what
  void stop();                               // gives up what still runs; to be called on the same thread
  // A process that touches the bytes from `first` on fails, with this text, instead of crashing the
  // program. They must be in pages that nobody may touch.
  void fence(const void *first, std::size_t bytes, std::string what) {
    fences_.push_back({reinterpret_cast<std::uintptr_t>(first), bytes, std::move(what)});
  }
  void clear_fences() { fences_.clear(); }

  Recorder &recorder() { return recorder_; }

  // `bytes` at `writer` are the same memory as at `reader`: what is written there can be read from
  // T2F_WRITTEN(writer) on, and not before.
  void share(void *writer, void *reader, std::size_t bytes) {
    shared_.push_back({static_cast<char *>(writer), static_cast<char *>(reader), bytes});
  }

  void written(const void *writer) {
    for (const Shared &memory : shared_) {
      if (memory.writer == writer) std::memcpy(memory.reader, memory.writer, memory.bytes);
    }
  }

  // How each stream of the run was used; streams made again under the same key, as
  // in a region entered several times, are taken together.
  const std::map<std::string, StreamUse> &streams() const { return uses_; }

#ifdef T2F_TIMED
  Timing timing;         // to be set before the streams are made
  Cycle cycles() const;  // when the last process was through
#endif

 private:
  friend class Channel;
  friend void process_entry();
  friend void process_overflow();
  template <typename Body>
  friend void process(const char *name, Body &&body);
  friend void join();

#ifdef T2F_TIMED
  friend class Clock;
  friend class TimedReport;
  Cycle depth_of(const Process &process, const Site &site) const;
  MemoryPort *port_of(const void *address);
#endif

  static constexpr std::uint64_t poll_limit = std::uint64_t{1} << 20;

  Process *add(Process *parent, std::string name);
  Process *child(Process *parent, const char *name);
  void start(Process *process);
  void spawn(const char *name, std::function<void()> body, std::vector<const void *> refers_to);
  void join_children();
  [[noreturn]] void run_process();
  [[noreturn]] void overflow();
  static const Stack *running_stack(void *scheduler);
  static bool fenced(void *scheduler, std::uintptr_t at);
  void run_body(Process *me);
  void go_on_in(Process *process);
  void finish(Process *process);

  void push_ready(Process *process);
  Process *pop_ready();
  void leave(bool last = false);
  void suspend();
  void block(const Channel &channel, Side side);
  void poll(const Channel &channel, Side side);
  std::uint64_t progress() const;

  void fail(std::string message);
  void fail_deadlock(const char *headline);
  void unwind();

  void attach(Channel &channel, const char *name, std::size_t token_size);
  void retire(Channel &channel);
  void account(const Channel &channel);

  Process *current_ = nullptr;  // null outside of fibers
  Process *first_ready_ = nullptr;
  Process *last_ready_ = nullptr;
  bool started_ = false;
  bool active_ = false;    // inside run()
  bool stopping_ = false;  // no process may go on, only unwind
  std::size_t alive_ = 0;
  std::uint64_t idle_polls_ = 0;
  std::uint64_t progress_seen_ = 0;
  std::uint64_t progress_retired_ = 0;  // of streams that are gone, and of processes
  unsigned unnamed_ = 0;  // streams without a name made outside of processes
  Context main_;
  StackPool stacks_;
  std::vector<std::unique_ptr<Process>> processes_;  // parents before their children
  std::vector<Process *> kernels_;
  Channel *channels_ = nullptr;  // live ones
  std::string prefix_;
  std::vector<std::string> errors_;
  std::string deadlock_;  // the waits as JSON; empty when there was none
  struct Shared {
    char *writer;
    char *reader;
    std::size_t bytes;
  };
  std::vector<Shared> shared_;
  struct Fence {
    std::uintptr_t first;
    std::size_t bytes;
    std::string what;
  };
  std::vector<Fence> fences_;
  const Fence *touched_ = nullptr;  // by the running process
  Recorder recorder_;
  std::map<std::string, StreamUse> uses_;
};

// --- what dataflow.hpp calls --------------------------------------------------

// What a closure refers to, as far as it keeps that as plain pointers (g++ and clang do for
// captures by reference). Deadlock reports name the other side of a stream from it that was
// not used yet.
template <typename Body>
std::vector<const void *> captured(const Body &body) {
  std::vector<const void *> found(sizeof(Body) / sizeof(const void *));
  if (!found.empty()) std::memcpy(found.data(), &body, found.size() * sizeof(const void *));
  return found;
}

// Starts a process of the region that the caller is in.
template <typename Body>
void process(const char *name, Body &&body) {
  Scheduler *scheduler = running;
  if (scheduler == nullptr || scheduler->current_ == nullptr) {
    body();  // a plain sequential run
  } else {
    std::vector<const void *> refers_to = captured(body);
    scheduler->spawn(name, std::forward<Body>(body), std::move(refers_to));
  }
}

// Waits until all processes of the region are done.
inline void join() {
  Scheduler *scheduler = running;
  if (scheduler != nullptr && scheduler->current_ != nullptr) scheduler->join_children();
}

// All that a process wrote to a memory is there for its readers.
inline void written(const void *memory) {
  if (running != nullptr) running->written(memory);
}

// One iteration of a pipelined loop. The functional run has no clock.
inline void tick(unsigned) {}

}  // namespace t2f::sim

#ifdef T2F_TIMED
#include "t2f_clock_inline.hpp"
#endif
#if !defined(T2F_SIM_APART) || defined(T2F_SIM_BODIES)
#include "t2f_sim_impl.hpp"
#include "t2f_launch.hpp"
#endif

#endif
