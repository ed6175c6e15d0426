// SPDX-License-Identifier: Apache-2.0
//
// Member functions of Scheduler and Channel. Included by t2f_sim.hpp.
#ifndef T2F_SIM_SIM_IMPL_HPP
#define T2F_SIM_SIM_IMPL_HPP

#include <algorithm>
#ifdef T2F_TIMED
#include <mutex>
#endif

#include "t2f_sim.hpp"

namespace t2f::sim {

// --- processes ------------------------------------------------------------------

T2F_SIM_BODY Process *Scheduler::add(Process *parent, std::string name) {
  processes_.push_back(std::make_unique<Process>());
  Process *process = processes_.back().get();
  process->path = parent == nullptr ? name : parent->path + "/" + name;
  process->name = std::move(name);
  process->parent = parent;
  process->level = parent == nullptr ? 0 : parent->level + 1;
  (parent == nullptr ? kernels_ : parent->children).push_back(process);
#ifdef T2F_TIMED
  process->clock.owner_ = process;
  process->clock.scheduler_ = this;
  process->clock.limit_ = timing.cycle_limit;
#endif
  return process;
}

// The child of that name, numbered when its region already has one.
T2F_SIM_BODY Process *Scheduler::child(Process *parent, const char *name) {
  std::string unique = name;
  for (unsigned number = 2;; ++number) {
    Process *found = nullptr;
    for (Process *one : parent->children) {
      if (one->name == unique) found = one;
    }
    if (found == nullptr) found = add(parent, unique);
    if (!found->alive && found->region != parent->open_region) {
      found->region = parent->open_region;
      return found;
    }
    unique = std::string(name) + "#" + std::to_string(number);
  }
}

T2F_SIM_BODY void process_entry() {
  entered();
  running->run_process();
}

T2F_SIM_BODY void Scheduler::start(Process *process) {
  process->stack = stacks_.take();
  prepare(process->context, process->stack, process_entry);
  process->alive = true;
  ++alive_;
}

// The child runs first, up to its first wait: its arguments are evaluated while
// the statement that names them is the current one.
T2F_SIM_BODY void Scheduler::spawn(const char *name, std::function<void()> body,
                             std::vector<const void *> refers_to) {
  if (stopping_) throw Cancelled{};
  Process *me = current_;
  Process *process = child(me, name);
  process->body = std::move(body);
  process->refers_to = std::move(refers_to);
  start(process);
  ++me->live_children;
  push_ready(me);
  go_on_in(process);
  switch_context(me->context, process->context);
  if (stopping_) throw Cancelled{};
}

T2F_SIM_BODY void Scheduler::join_children() {
  Process *me = current_;
  while (me->live_children != 0) {
    me->joining = true;
    suspend();
    me->joining = false;
  }
#ifdef T2F_TIMED
  for (const Process *one : me->children) {
    if (one->clock.now > me->clock.now) me->clock.now = one->clock.now;
  }
#endif
  ++me->open_region;
  me->unnamed = 0;  // the same streams get the same names when it is entered again
}

T2F_SIM_BODY void Scheduler::run_process() {
  Process *me = current_;
  try {
    if (stopping_) throw Cancelled{};  // the run failed before its turn came
    run_body(me);
  } catch (const Cancelled &) {
  } catch (const std::exception &error) {
    fail("process " + me->path + ": " + error.what());
  } catch (...) {
    fail("process " + me->path + ": unknown exception");
  }
  finish(me);
  leave(true);
  std::terminate();  // a finished process is never switched to
}

#ifdef T2F_TIMED
// A process of a kernel starts its next launch when it is through with the last one
// (ap_ctrl_chain); a kernel as a whole is called once, and a process of a region further
// inside once for each launch of the process around it.
T2F_SIM_BODY void Scheduler::run_body(Process *me) {
  Clock &clock = me->clock;
  if (me->parent != nullptr && clock.now < me->parent->clock.now) clock.now = me->parent->clock.now;
  const unsigned launches = me->level == 1 ? timing.launches : 1;
  for (unsigned launch = 0; launch < launches; ++launch) {
    me->begins.push_back(clock.now);
    me->body();
    clock.leave();
    join_children();
    me->ends.push_back(clock.now);
  }
}
#else
T2F_SIM_BODY void Scheduler::run_body(Process *me) {
  me->body();
  join_children();
}
#endif

// The running fiber hit the guard page; this runs on a spare stack.
T2F_SIM_BODY void process_overflow() { running->overflow(); }

T2F_SIM_BODY void Scheduler::overflow() {
  Process *me = current_;
  fail("process " + me->path + ": " +
       (touched_ != nullptr
            ? touched_->what
            : "stack overflow (its guard page was hit): its arrays need more than " +
                  std::to_string(me->stack.size >> 20) +
                  " MiB; compile with a larger T2F_FIBER_STACK, in bytes"));
  me->alive = false;
  --alive_;
  Context lost;  // the fiber's frames stay where they are and are never run again
  go_on_in(nullptr);
  switch_context(lost, main_, true);
  std::terminate();
}

T2F_SIM_BODY const Stack *Scheduler::running_stack(void *scheduler) {
  const Process *me = static_cast<Scheduler *>(scheduler)->current_;
  return me == nullptr ? nullptr : &me->stack;
}

T2F_SIM_BODY void Scheduler::finish(Process *process) {
  process->body = nullptr;
  process->alive = false;
  process->waits_on = nullptr;
  --alive_;
  ++progress_retired_;
  stacks_.give(process->stack);
  Process *parent = process->parent;
  if (parent != nullptr && --parent->live_children == 0 && parent->joining) push_ready(parent);
}

// --- switching ------------------------------------------------------------------

T2F_SIM_BODY void Scheduler::push_ready(Process *process) {
  process->next_ready = nullptr;
  (first_ready_ == nullptr ? first_ready_ : last_ready_->next_ready) = process;
  last_ready_ = process;
}

T2F_SIM_BODY Process *Scheduler::pop_ready() {
  Process *process = first_ready_;
  if (process != nullptr) first_ready_ = process->next_ready;
  return process;
}

// Goes on in the next ready process, or in run() when there is none.
T2F_SIM_BODY void Scheduler::leave(bool last) {
  Process *me = current_;
  Process *next = stopping_ ? nullptr : pop_ready();
  if (next == me) return;
  go_on_in(next);
  switch_context(me->context, next == nullptr ? main_ : next->context, last);
}

T2F_SIM_BODY void Scheduler::go_on_in(Process *process) {
  current_ = process;
#ifdef T2F_TIMED
  active = process;
#endif
}

T2F_SIM_BODY void Scheduler::suspend() {
  if (!stopping_) leave();
  if (stopping_) throw Cancelled{};
}

// Returns when the peer has woken the caller. Throws without another look at the
// channel, which may be gone by then.
T2F_SIM_BODY void Scheduler::block(const Channel &channel, Side side) {
  Process *me = current_;
  me->waits_on = &channel;
  me->waits_to = side;
  suspend();
  me->waits_on = nullptr;
}

// A failing try of a non-blocking access. Processes that only poll would spin for
// ever where blocked ones deadlock, so a long run of polls without any transfer in
// the whole design counts as one.
T2F_SIM_BODY void Scheduler::poll(const Channel &channel, Side side) {
  Process *me = current_;
  me->waits_on = &channel;
  me->waits_to = side;
  if (++idle_polls_ >= poll_limit) {
    idle_polls_ = 0;
    const std::uint64_t seen = progress();
    if (seen == progress_seen_) fail_deadlock("deadlock of polling processes");
    progress_seen_ = seen;
  }
  if (!stopping_) push_ready(me);
  suspend();
  me->waits_on = nullptr;
}

T2F_SIM_BODY std::uint64_t Scheduler::progress() const {
  std::uint64_t sum = progress_retired_;
  for (const Channel *c = channels_; c != nullptr; c = c->next_) sum += c->written_ + c->read_;
  return sum;
}

// --- the run --------------------------------------------------------------------

T2F_SIM_BODY Status Scheduler::run() {
  if (started_) throw std::logic_error("a scheduler runs once");
  Scope scope(*this);
#ifdef T2F_TIMED
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
#endif
  const GuardWatch watch(running_stack, this, process_overflow);
  started_ = active_ = true;
  adopt_thread(main_);
  for (Process *kernel : kernels_) {
    start(kernel);
    push_ready(kernel);
  }
  go_on_in(pop_ready());
  if (current_ != nullptr) switch_context(main_, current_->context);
  if (!stopping_ && alive_ != 0) fail_deadlock("deadlock");
  if (alive_ != 0) unwind();
  for (Channel *c = channels_; c != nullptr; c = c->next_) account(*c);
  active_ = false;

  Status status;
  status.ok = errors_.empty();
  for (const std::string &error : errors_) {
    status.message += (status.message.empty() ? "" : "\n") + error;
  }
  return status;
}

// The first failure is the one to report; what follows from it is noise.
T2F_SIM_BODY void Scheduler::fail(std::string message) {
  if (stopping_) return;
  stopping_ = true;
  errors_.assign(1, std::move(message));
}

T2F_SIM_BODY void Scheduler::fail_deadlock(const char *headline) {
  if (stopping_) return;
  const Report report(processes_);
  deadlock_ = report.json();
  fail(report.text(headline));
}

// Unwinds every suspended process, children before the parents whose locals they use.
T2F_SIM_BODY void Scheduler::unwind() {
  for (std::size_t i = processes_.size(); i-- > 0;) {
    Process *process = processes_[i].get();
    if (!process->alive) continue;
    go_on_in(process);
    switch_context(main_, process->context);
  }
}

// --- streams --------------------------------------------------------------------

T2F_SIM_BODY void Scheduler::attach(Channel &channel, const char *name, std::size_t token_size) {
  const std::string &prefix = current_ == nullptr ? prefix_ : current_->path;
  std::string key = prefix.empty() ? "" : prefix + "/";
  unsigned &unnamed = current_ == nullptr ? unnamed_ : current_->unnamed;
  key += name != nullptr ? std::string(name) : "unnamed#" + std::to_string(++unnamed);
  if (name != nullptr && token_size != 0) channel.tap_ = recorder_.open(key, token_size);
  channel.key_ = std::move(key);
  channel.scheduler_ = this;
  channel.current_ = &current_;
  channel.maker_ = current_;
#ifdef T2F_TIMED
  const auto depth = timing.fifo_depths.find(channel.key_);
  if (depth != timing.fifo_depths.end()) channel.depth_ = depth->second;
  const auto wires = timing.latencies.find(channel.key_);
  if (wires != timing.latencies.end()) channel.latency_ = wires->second;
#endif
  channel.next_ = channels_;
  if (channels_ != nullptr) channels_->previous_ = &channel;
  channels_ = &channel;
}

// A stream is destroyed.
T2F_SIM_BODY void Scheduler::retire(Channel &channel) {
  if (!active_) return;
  progress_retired_ += channel.written_ + channel.read_;
  const Process *maker = channel.maker_;
  if (!stopping_ && maker != nullptr && maker == current_ && maker->live_children != 0) {
    fail("process " + maker->path + ": stream " + channel.key_ +
         " was destroyed while processes of its region run (T2F_DATAFLOW_END is missing)");
  }
  account(channel);
}

T2F_SIM_BODY void Scheduler::account(const Channel &channel) {
  if (!stopping_ && channel.fill() != 0) {
    const auto known = [](const Process *process) { return process == nullptr ? "nobody yet" : process->path; };
    errors_.push_back("stream " + channel.key_ + ": " + std::to_string(channel.fill()) +
                      " tokens were never read (written by " + known(channel.writer_) + ", read by " +
                      known(channel.reader_) + "): the two disagree on how many there are");
  }
  StreamUse &use = uses_[channel.key_];
#ifdef T2F_TIMED
  // Writes behind the last known read are not counted yet: nothing leaves after them.
  if (channel.counted_ < channel.written_) use.high_water = std::max(use.high_water, channel.fill());
#endif
  use.depth = channel.depth_;
  use.high_water = std::max(use.high_water, channel.high_water_);
  use.written += channel.written_;
  use.read += channel.read_;
  if (channel.writer_ != nullptr) use.writer = channel.writer_->path;
  if (channel.reader_ != nullptr) use.reader = channel.reader_->path;
#ifdef T2F_TIMED
  use.stalled_reads += channel.stalled_reads_;
  use.stalled_writes += channel.stalled_writes_;
#endif
}

T2F_SIM_BODY Channel::Channel(std::uint64_t depth, const char *name, std::size_t token_size)
    : depth_(depth) {
  if (running != nullptr) {
    running->attach(*this, name, token_size);
  } else {
    key_ = name != nullptr ? name : "unnamed";
  }
}

T2F_SIM_BODY Channel::~Channel() {
  if (scheduler_ == nullptr) return;
  scheduler_->retire(*this);
  detach();
}

T2F_SIM_BODY void Channel::detach() {
  (previous_ == nullptr ? scheduler_->channels_ : previous_->next_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
  previous_ = next_ = nullptr;
  scheduler_ = nullptr;
  current_ = &nobody;
  writer_ = reader_ = waiting_writer_ = waiting_reader_ = maker_ = nullptr;
  tap_ = nullptr;
  write_limit_ = read_floor_ = 0;  // the next access takes the slow path
}

T2F_SIM_BODY bool Channel::acquire_write(std::uint64_t ring) {
  if (*current_ == nullptr) {
    write_limit_ = ring;
    return fill() >= ring;
  }
  if (writer_ != *current_) claim(writer_, Side::write);
#ifdef T2F_TIMED
  // The iteration's reads are behind it: their slots are free while it waits.
  if (fill() >= depth_) writer_clock_->end_reads();
#endif
  while (fill() >= depth_) wait(Side::write);
  if (waiting_reader_ != nullptr) {
    scheduler_->push_ready(waiting_reader_);
    waiting_reader_ = nullptr;
  }
  ring_grown(ring);
  return fill() >= ring;
}

T2F_SIM_BODY void Channel::acquire_read() {
  if (*current_ == nullptr) {
    if (fill() == 0) throw std::runtime_error("read of the empty stream " + key_);
    return;
  }
  if (reader_ != *current_) claim(reader_, Side::read);
  while (fill() == 0) wait(Side::read);
#ifndef T2F_TIMED
  if (waiting_writer_ != nullptr) {
    scheduler_->push_ready(waiting_writer_);
    waiting_writer_ = nullptr;
  }
#endif
  read_floor_ = 0;
}

// Waits for the peer, whose next transfer is sent down the slow path to find that out.
T2F_SIM_BODY void Channel::wait(Side side) {
  if (side == Side::read) {
    waiting_reader_ = *current_;
    write_limit_ = 0;
  } else {
    waiting_writer_ = *current_;
#ifndef T2F_TIMED
    read_floor_ = always;  // in the timed run the reader's release of the slot wakes it
#endif
  }
  scheduler_->block(*this, side);
}

T2F_SIM_BODY bool Channel::retry(Side side) const {
  if (*current_ == nullptr) return false;
  scheduler_->poll(*this, side);
  return side == Side::read ? written_ != first_live() : fill() < depth_;
}

T2F_SIM_BODY void Channel::claim(Process *&owner, Side side) {
  Process *me = *current_;
  if (owner != nullptr && !same_user(owner, me)) {
    throw std::runtime_error("stream " + key_ + " has two " +
                             (side == Side::read ? "readers: " : "writers: ") + owner->path +
                             " and " + me->path);
  }
  owner = me;
#ifdef T2F_TIMED
  (side == Side::read ? reader_clock_ : writer_clock_) = &me->clock;
#endif
  if (depth_ == 0 && writer_ != nullptr && reader_ != nullptr) {
    throw std::runtime_error("stream " + key_ + ", written by " + writer_->path + " and read by " +
                             reader_->path + ", has depth 0: a FIFO holds at least one token");
  }
}

}  // namespace t2f::sim

#ifdef T2F_TIMED
#include "t2f_clock_impl.hpp"
#endif

#endif
