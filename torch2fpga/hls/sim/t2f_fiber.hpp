// SPDX-License-Identifier: Apache-2.0
//
// Stacks and context switches for cooperative fibers.
//
// A switch is a handful of instructions, because it happens once per block of
// tokens: swapcontext() would make a system call for the signal mask each time,
// which costs more than everything else a hop does. mxcsr and the x87 control word
// are not saved; no stage changes them.
#ifndef T2F_SIM_FIBER_HPP
#define T2F_SIM_FIBER_HPP

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#if !defined(T2F_FIBER_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define T2F_FIBER_UCONTEXT 1
#endif
#ifdef T2F_FIBER_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define T2F_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define T2F_FIBER_ASAN 1
#endif
#endif
#ifdef T2F_FIBER_ASAN
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Bytes of address space per fiber. Stages keep their arrays as locals, so it is
// large; only pages that are touched take memory.
#ifndef T2F_FIBER_STACK
#define T2F_FIBER_STACK (std::size_t{64} << 20)
#endif

// Interprocedural register allocation would let a caller keep values in registers
// that it believes the switch leaves alone.
#if defined(__GNUC__) && !defined(__clang__)
#define T2F_NO_IPA __attribute__((noipa))
#else
#define T2F_NO_IPA __attribute__((noinline))
#endif

namespace t2f::sim {

// One mapped stack: a guard page at the low end, then the usable bytes.
struct Stack {
  unsigned char *base = nullptr;  // first usable byte, above the guard page
  std::size_t size = 0;
};

// Stacks that are free for the next fiber, all of one size.
class StackPool {
 public:
  StackPool() = default;
  StackPool(const StackPool &) = delete;
  StackPool &operator=(const StackPool &) = delete;
  ~StackPool() {
    for (const Stack &stack : free_) {
      clear_shadow(stack);
      munmap(stack.base - page(), stack.size + page());
    }
  }

  Stack take() {
    if (free_.empty()) return map();
    const Stack stack = free_.back();
    free_.pop_back();
    clear_shadow(stack);
    return stack;
  }

  // May be called by the fiber that still runs on the stack: nothing takes it
  // before that fiber has switched away for the last time.
  void give(const Stack &stack) { free_.push_back(stack); }

 private:
  static std::size_t page() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

  // A fiber never returns from its entry frame, so the red zones of its last frames
  // would trip up the next user of the addresses.
  static void clear_shadow(const Stack &stack) {
#ifdef T2F_FIBER_ASAN
    __asan_unpoison_memory_region(stack.base, stack.size);
#else
    static_cast<void>(stack);
#endif
  }

  static Stack map() {
    const std::size_t size = (std::size_t{T2F_FIBER_STACK} + page() - 1) / page() * page();
    void *at = mmap(nullptr, size + page(), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    if (mprotect(at, page(), PROT_NONE) != 0) {
      munmap(at, size + page());
      throw std::bad_alloc();
    }
    return Stack{static_cast<unsigned char *>(at) + page(), size};
  }

  std::vector<Stack> free_;
};

// Where a fiber that does not run will go on.
struct Context {
#ifdef T2F_FIBER_UCONTEXT
  ucontext_t user{};
#else
  void *sp = nullptr;
#endif
#ifdef T2F_FIBER_ASAN
  void *fake_stack = nullptr;
  const void *bottom = nullptr;
  std::size_t size = 0;
#endif
};

#ifndef T2F_FIBER_UCONTEXT
#if defined(__x86_64__)
// Saves the address to go on at, rbx and rbp below the red zone; everything else is
// declared clobbered, so the compiler saves what it must.
T2F_NO_IPA inline void switch_stack(void **save, void *to) {
  asm volatile(
      "leaq -128(%%rsp), %%rsp\n\t"
      "pushq %%rbp\n\t"
      "pushq %%rbx\n\t"
      "leaq 1f(%%rip), %%rax\n\t"
      "pushq %%rax\n\t"
      "movq %%rsp, (%%rdi)\n\t"
      "movq %%rsi, %%rsp\n\t"
      "popq %%rax\n\t"
      "jmpq *%%rax\n"
      "1:\n\t"
      "popq %%rbx\n\t"
      "popq %%rbp\n\t"
      "leaq 128(%%rsp), %%rsp"
      : "+D"(save), "+S"(to)
      :
      : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
        "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
        "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
}
#else
// The same for AArch64 (which has no red zone): the address to go on at and x29.
T2F_NO_IPA inline void switch_stack(void **save, void *to) {
  register void **x0 asm("x0") = save;
  register void *x1 asm("x1") = to;
  asm volatile(
      "adr x9, 1f\n\t"
      "stp x29, x9, [sp, #-16]!\n\t"
      "mov x10, sp\n\t"
      "str x10, [x0]\n\t"
      "mov sp, x1\n\t"
      "ldp x29, x9, [sp], #16\n\t"
      "mov x30, xzr\n\t"
      "br x9\n"
      "1:\n\t"
      "hint #36"
      : "+r"(x0), "+r"(x1)
      :
      : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
        "x16", "x17", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30",
        "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
        "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
        "v27", "v28", "v29", "v30", "v31", "cc", "memory");
}
#endif
#endif

// Makes `context` start `entry` on `stack` at the first switch to it. `entry` must
// never return.
inline void prepare(Context &context, const Stack &stack, void (*entry)()) {
#ifdef T2F_FIBER_ASAN
  context.fake_stack = nullptr;
  context.bottom = stack.base;
  context.size = stack.size;
#endif
#if defined(T2F_FIBER_UCONTEXT)
  getcontext(&context.user);
  context.user.uc_stack.ss_sp = stack.base;
  context.user.uc_stack.ss_size = stack.size;
  context.user.uc_link = nullptr;
  makecontext(&context.user, entry, 0);
#else
  auto *top = reinterpret_cast<std::uintptr_t *>(stack.base + stack.size);
#if defined(__x86_64__)
  // As after a call: a return address (null, where backtraces end) at 8 modulo 16;
  // below it what the switch pops and jumps to.
  *--top = 0;
  *--top = 0;
  *--top = 0;
  *--top = reinterpret_cast<std::uintptr_t>(entry);
#else
  *--top = reinterpret_cast<std::uintptr_t>(entry);  // x9, the address to go on at
  *--top = 0;                                        // x29
#endif
  context.sp = top;
#endif
}

// Leaves `from` and goes on in `to`. `last` says that `from` will not run again.
inline void switch_context(Context &from, Context &to, bool last = false) {
#ifdef T2F_FIBER_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.bottom, to.size);
#else
  static_cast<void>(last);
#endif
#ifdef T2F_FIBER_UCONTEXT
  swapcontext(&from.user, &to.user);
#else
  switch_stack(&from.sp, to.sp);
#endif
#ifdef T2F_FIBER_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// First thing in a fiber's entry function.
inline void entered() {
#ifdef T2F_FIBER_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

// Notes the bounds of the calling thread's own stack, for switches back to it.
inline void adopt_thread(Context &context) {
#ifdef T2F_FIBER_ASAN
  pthread_attr_t attributes;
  void *bottom = nullptr;
  std::size_t size = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &size);
  pthread_attr_destroy(&attributes);
  context.bottom = bottom;
  context.size = size;
#else
  static_cast<void>(context);
#endif
}

}  // namespace t2f::sim

#endif
