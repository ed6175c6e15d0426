// SPDX-License-Identifier: Apache-2.0
//
// Member functions of Scheduler for a card, whose kernels are launched one by one and again and
// again. Included by t2f_sim.hpp.
//
// The functional run only: the clocks of a timed run begin together.
#ifndef T2F_SIM_LAUNCH_HPP
#define T2F_SIM_LAUNCH_HPP

#include "t2f_sim.hpp"

namespace t2f::sim {

T2F_SIM_BODY void Scheduler::launch(const std::string &name, std::function<void()> body) {
#ifdef T2F_TIMED
  throw std::logic_error("kernels of a timed run start together: " + name);
#endif
  Process *kernel = nullptr;
  for (Process *one : kernels_) {
    if (one->name == name) kernel = one;
  }
  if (kernel == nullptr) kernel = add(nullptr, name);
  if (kernel->alive) throw std::logic_error("kernel " + name + " still runs");
  if (stopping_) throw std::logic_error("kernel " + name + " cannot start: an earlier one failed");
  kernel->body = std::move(body);
  start(kernel);
  push_ready(kernel);
}

T2F_SIM_BODY Status Scheduler::advance() {
  Scope scope(*this);
  const GuardWatch watch(running_stack, this, process_overflow, fenced);
  started_ = active_ = true;
  adopt_thread(main_);
  if (!stopping_) go_on_in(pop_ready());
  if (current_ != nullptr) switch_context(main_, current_->context);
  if (stopping_ && alive_ != 0) unwind();
  active_ = false;

  Status status;
  status.ok = errors_.empty();
  for (const std::string &error : errors_) {
    status.message += (status.message.empty() ? "" : "\n") + error;
  }
  return status;
}

T2F_SIM_BODY bool Scheduler::busy(const std::string &name) const {
  for (const Process *kernel : kernels_) {
    if (kernel->name == name) return kernel->alive;
  }
  return false;
}

T2F_SIM_BODY std::string Scheduler::waits() const {
  return Report(processes_).text("nothing goes on");
}

T2F_SIM_BODY void Scheduler::stop() {
  fail("given up");
  advance();
}

// Called by the handler of the fault: nothing here may allocate.
T2F_SIM_BODY bool Scheduler::fenced(void *scheduler, std::uintptr_t at) {
  auto *me = static_cast<Scheduler *>(scheduler);
  for (const Fence &fence : me->fences_) {
    if (at < fence.first || at - fence.first >= fence.bytes) continue;
    me->touched_ = &fence;
    return true;
  }
  return false;
}

}  // namespace t2f::sim

#endif
