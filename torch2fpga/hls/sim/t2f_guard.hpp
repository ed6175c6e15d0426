// SPDX-License-Identifier: Apache-2.0
//
// Stack overflow of a fiber as an error message instead of a crash: every fiber's stack
// ends in a guard page; a fault there names the process and ends the run.
//
// The handler runs on a stack of its own and changes where the interrupted code goes
// on: on another spare stack, in a function that leaves the fiber for good. Its frames
// are not unwound (there is no stack to do it on), so its mapping is kept.
#ifndef T2F_SIM_GUARD_HPP
#define T2F_SIM_GUARD_HPP

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <ucontext.h>
#include <unistd.h>

#include "t2f_fiber.hpp"

#if defined(__linux__) && !defined(T2F_FIBER_ASAN) && (defined(__x86_64__) || defined(__aarch64__))
#define T2F_GUARD 1
#endif

namespace t2f::sim {

// While it lives, faults on the guard page of the running fiber's stack call `rescue`,
// which must not return. Other faults go to whoever handled them before.
class GuardWatch {
 public:
  // `stack` gives the stack that runs now, or null outside of fibers.
  using Running = const Stack *(*)(void *);
  // `fenced`, if given, says of other addresses that the running fiber touches whether they are to be
  // treated in the same way.
  using Fenced = bool (*)(void *, std::uintptr_t);
  GuardWatch(Running running, void *subject, void (*rescue)(), Fenced fenced = nullptr)
      : running_(running), subject_(subject), rescue_(rescue), fenced_(fenced) {
#ifdef T2F_GUARD
    outer_ = watch_;
    watch_ = this;
    stack_t mine{};
    mine.ss_sp = handler_stack_.data();
    mine.ss_size = handler_stack_.size();
    sigaltstack(&mine, &old_stack_);
    struct sigaction action {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &old_segv_);
    sigaction(SIGBUS, &action, &old_bus_);
#endif
  }
  GuardWatch(const GuardWatch &) = delete;
  GuardWatch &operator=(const GuardWatch &) = delete;
  ~GuardWatch() {
#ifdef T2F_GUARD
    sigaction(SIGSEGV, &old_segv_, nullptr);
    sigaction(SIGBUS, &old_bus_, nullptr);
    sigaltstack(&old_stack_, nullptr);
    watch_ = outer_;
#endif
  }

 private:
#ifdef T2F_GUARD
  static void handle(int signal, siginfo_t *info, void *context) {
    GuardWatch *watch = watch_;
    const Stack *stack = watch == nullptr ? nullptr : watch->running_(watch->subject_);
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
    const auto base = stack == nullptr ? 0 : reinterpret_cast<std::uintptr_t>(stack->base);
    const bool guard = stack != nullptr && at < base && at >= base - page;
    const bool fence = stack != nullptr && watch->fenced_ != nullptr && watch->fenced_(watch->subject_, at);
    if (guard || fence) {
      auto *user = static_cast<ucontext_t *>(context);
      const auto top = reinterpret_cast<std::uintptr_t>(watch->rescue_stack_.data() +
                                                        watch->rescue_stack_.size()) &
                       ~std::uintptr_t{63};
      const auto go_on = reinterpret_cast<std::uintptr_t>(watch->rescue_);
#if defined(__x86_64__)
      user->uc_mcontext.gregs[REG_RSP] = static_cast<greg_t>(top - 8);  // as after a call
      user->uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(go_on);
#else
      user->uc_mcontext.sp = top;
      user->uc_mcontext.pc = go_on;
#endif
      return;
    }
    // Not ours: the handler of before sees the fault when the instruction is repeated.
    if (watch != nullptr) {
      sigaction(SIGSEGV, &watch->old_segv_, nullptr);
      sigaction(SIGBUS, &watch->old_bus_, nullptr);
    } else {
      std::signal(signal, SIG_DFL);
    }
  }

  __attribute__((visibility("hidden"))) static inline thread_local GuardWatch *watch_ = nullptr;
  GuardWatch *outer_ = nullptr;
  std::vector<unsigned char> handler_stack_ = std::vector<unsigned char>(64 << 10);
  std::vector<unsigned char> rescue_stack_ = std::vector<unsigned char>(256 << 10);
  stack_t old_stack_{};
  struct sigaction old_segv_ {};
  struct sigaction old_bus_ {};
#endif
  Running running_;
  void *subject_;
  void (*rescue_)();
  Fenced fenced_;
};

}  // namespace t2f::sim

#endif
