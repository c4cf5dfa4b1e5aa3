// Runs kernels on the CPU: the part of CUDA C++ that our sources use, for g++ -std=c++20.
//
// A thread is a fiber, a warp 32 of them; one cluster runs at a time with all its blocks alive. Between
// barriers warps and lanes run in an order that a seed decides, shared memory starts as NaN, and these end a
// launch with a message: a barrier or warp operation that some thread never reaches, a write beside shared
// memory, a read of the shared memory of a block that has ended, a misaligned 16-byte access, an argument of
// the wrong kind.
//
// A source is tried by hand with
//   g++ -std=c++20 -O2 -ffp-contract=off -DOPENCLAW_EMULATED -D__CUDA_ARCH__=900 -Ikernels/cuda main.cpp
// where main.cpp includes this, "emulated_cuda.h", "prelude.cuh" and the source, and calls
//   const char* error = emulation::launch({grid, block, cluster, shared_bytes, seed}, kernel, arguments...);
#pragma once
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <type_traits>
#include <utility>
#if !defined(__x86_64__) && !defined(OPENCLAW_UCONTEXT)
#define OPENCLAW_UCONTEXT
#endif
#ifdef OPENCLAW_UCONTEXT
#include <ucontext.h>
#endif

namespace emulation {

constexpr unsigned WARP = 32, STACK_BYTES = 64 << 10, GUARD_BYTES = 64, MESSAGE_BYTES = 512;
constexpr unsigned DYNAMIC_BYTES = 256 << 10, STATIC_BYTES = 256 << 10, SLOTS = 256;
constexpr uint64_t CANARY = 0x5ca1ab1e0ddba11ull;

// What the host asks for; kernels/src/cuda/driver/emulated.rs has the same struct.
struct Launch { uint32_t grid, block, cluster, shared_bytes; uint64_t seed; };

struct Index { unsigned x; };
struct Warp;
struct Block;
struct Run;

struct Fiber {
#ifdef OPENCLAW_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer;
#endif
  Run* run;
  Block* block;
  Warp* warp;
  Index thread;
  unsigned lane, cluster_phase;
  unsigned char* stack;
  bool ended;
  const char* waits;           // at what, null when it does not
  uint64_t value, result;      // of a warp operation
  unsigned source, mask;       // lane to read, or BALLOT; lanes that take part
};

struct Warp { unsigned ready, present, meeting; Fiber* fibers; };

struct Block {
  Index index;
  unsigned rank, threads, arrived, alive;
  unsigned counting, counted, count;  // of __syncthreads_count
  unsigned char* shared;       // dynamic, then static
  Warp* warps;
};

// Everything a cluster needs; kept for the next launch of this many threads.
struct Arena {
  unsigned threads, blocks;
  unsigned char *stacks, *shared;
  Fiber* fibers;
  Warp* warps;
  Block* block;
  Arena* next;
};

struct Run {
  Launch launch;
  Arena* arena;
  void (*body)(const void* closure);
  const void* closure;
#ifdef OPENCLAW_UCONTEXT
  ucontext_t scheduler;
#else
  void* scheduler;
#endif
  unsigned cluster_arrived, cluster_phase, warps, alive;
  uint64_t random;
  char* error;                 // MESSAGE_BYTES, empty while all is well
};

// What the lowest bytes of a stack hold. Stacks are aligned to their size, so a thread finds itself by its
// stack: there is little room for thread-local variables in libraries that are opened late.
struct Bottom { Fiber* fiber; uint64_t canary; };

inline Fiber* current() {
  uintptr_t here = (uintptr_t)__builtin_frame_address(0);
  return ((Bottom*)(here & ~(uintptr_t)(STACK_BYTES - 1)))->fiber;
}

#ifndef OPENCLAW_UCONTEXT
// Saves the registers that a call must keep on the stack in use, and goes on where `load` was left.
asm(R"(
.text
.p2align 4
openclaw_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
extern "C" __attribute__((visibility("hidden"))) void openclaw_switch(void** save, void* load);
#endif

inline void resume(Fiber* fiber) {
#ifdef OPENCLAW_UCONTEXT
  swapcontext(&fiber->run->scheduler, &fiber->context);
#else
  openclaw_switch(&fiber->run->scheduler, fiber->stack_pointer);
#endif
}

inline void suspend() {
  Fiber* fiber = current();
#ifdef OPENCLAW_UCONTEXT
  swapcontext(&fiber->context, &fiber->run->scheduler);
#else
  openclaw_switch(&fiber->stack_pointer, fiber->run->scheduler);
#endif
}

// Says why the launch ends, unless that was said.
__attribute__((format(printf, 2, 3))) inline void note(char* error, const char* format, ...) {
  if (error[0]) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error, MESSAGE_BYTES, format, arguments);
  va_end(arguments);
}

// Ends the launch with a message about the thread that runs.
[[noreturn]] inline void fail(const char* what) {
  Fiber* fiber = current();
  note(fiber->run->error, "block %u, thread %u: %s", fiber->block->index.x, fiber->thread.x, what);
  for (;;) suspend();
}

inline unsigned random_below(Run* run, unsigned n) {
  run->random = run->random * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(((run->random >> 33) * n) >> 31);
}

inline void wait_at(const char* what) {
  Fiber* fiber = current();
  fiber->waits = what;
  suspend();
  fiber->waits = nullptr;
}

inline void wake(Fiber* fiber) { fiber->warp->ready |= 1u << fiber->lane; }

inline void barrier() {
  Fiber* self = current();
  Block* block = self->block;
  if (++block->arrived < block->threads) return wait_at("__syncthreads");
  block->arrived = 0;
  for (unsigned t = 0; t < block->threads; t++) {
    Fiber* fiber = &block->warps[t / WARP].fibers[t % WARP];
    if (fiber != self) wake(fiber);
  }
}

inline int barrier_count(bool predicate) {
  Block* block = current()->block;
  block->counting += predicate;
  if (++block->counted == block->threads) {
    block->count = block->counting;
    block->counting = block->counted = 0;
  }
  barrier();
  return (int)block->count;
}

inline unsigned cluster_threads(const Run* run) { return run->launch.cluster * run->launch.block; }

inline void cluster_arrive() {
  Fiber* fiber = current();
  Run* run = fiber->run;
  if (fiber->cluster_phase != run->cluster_phase) fail("arrives twice at a cluster barrier without a wait");
  fiber->cluster_phase++;
  if (++run->cluster_arrived < cluster_threads(run)) return;
  run->cluster_arrived = 0;
  run->cluster_phase++;
  for (unsigned t = 0; t < cluster_threads(run); t++) {
    Fiber* waiting = &run->arena->fibers[t];
    if (waiting->waits && !strcmp(waiting->waits, "a cluster barrier")) wake(waiting);
  }
}

inline void cluster_wait() {
  if (current()->cluster_phase != current()->run->cluster_phase) wait_at("a cluster barrier");
}

constexpr unsigned BALLOT = 64;

// A warp operation: every lane of `mask` brings a value and gets that of the lane `source`, or the ballot.
inline uint64_t meet(unsigned mask, uint64_t value, unsigned source) {
  Fiber* fiber = current();
  Warp* warp = fiber->warp;
  mask &= warp->present;
  if (!(mask >> fiber->lane & 1)) fail("takes part in a warp operation whose mask leaves it out");
  fiber->value = value;
  fiber->source = source;
  fiber->mask = mask;
  warp->meeting |= 1u << fiber->lane;
  if ((warp->meeting & mask) != mask) {
    wait_at("a warp operation");
    return fiber->result;
  }
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < WARP; lane++) {
    if (!(mask >> lane & 1)) continue;
    Fiber& other = warp->fibers[lane];
    if (other.mask != mask || (other.source == BALLOT) != (source == BALLOT))
      fail("meets lanes of its warp at another operation");
    ballot |= (unsigned)(other.value & 1) << lane;
  }
  for (unsigned lane = 0; lane < WARP; lane++) {
    if (!(mask >> lane & 1)) continue;
    Fiber& other = warp->fibers[lane];
    // What a lane outside the mask holds is undefined.
    bool defined = other.source < WARP && mask >> other.source & 1;
    other.result = other.source == BALLOT ? ballot : defined ? warp->fibers[other.source].value : ~0ull;
    if (&other != fiber) wake(&other);
  }
  warp->meeting &= ~mask;
  return fiber->result;
}

template <class T> T shuffle(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = meet(mask, bits, source < WARP ? source : current()->lane);
  memcpy(&value, &bits, sizeof value);
  return value;
}

// A static shared variable: its place after the dynamic shared memory of every block.
struct Slot {
  unsigned offset, bytes;
  explicit Slot(unsigned bytes);
};

inline std::atomic<unsigned> slots_end = DYNAMIC_BYTES, slots_count = 0;
inline const Slot* slots[SLOTS];
inline std::mutex slots_lock;

inline Slot::Slot(unsigned bytes) : offset(slots_end), bytes(bytes) {
  std::lock_guard lock(slots_lock);
  offset = slots_end;
  unsigned end = offset + (bytes + 15) / 16 * 16 + GUARD_BYTES;
  if (slots_count == SLOTS || end > DYNAMIC_BYTES + STATIC_BYTES) fail("too much static shared memory");
  slots[slots_count] = this;
  slots_end = end;
  slots_count++;
}

inline unsigned char* shared(const Slot& slot) { return current()->block->shared + slot.offset; }
inline unsigned char* dynamic_shared() { return current()->block->shared; }

// The same variable in the block `rank` of this cluster.
inline const void* remote(const void* mine, unsigned rank) {
  Fiber* fiber = current();
  if (rank >= fiber->run->launch.cluster) fail("reads the shared memory of a block outside its cluster");
  Block& peer = fiber->run->arena->block[rank];
  if (!peer.alive) fail("reads the shared memory of a block that has ended");
  return peer.shared + ((const unsigned char*)mine - fiber->block->shared);
}

inline void aligned(const void* address) {
  if ((uintptr_t)address % 16) fail("a 16-byte access at an address that is no multiple of 16");
}

inline bool untouched(const unsigned char* from, unsigned bytes) {
  return std::all_of(from, from + bytes, [](unsigned char byte) { return byte == 0xff; });
}

inline void check_guards(const Run* run, const Block& block) {
  if (!untouched(block.shared + run->launch.shared_bytes, GUARD_BYTES))
    note(run->error, "block %u: wrote beyond its %u bytes of dynamic shared memory", block.index.x,
         run->launch.shared_bytes);
  for (unsigned i = 0; i < slots_count; i++)
    if (!untouched(block.shared + slots[i]->offset + slots[i]->bytes, GUARD_BYTES))
      note(run->error, "block %u: wrote beyond a shared variable of %u bytes", block.index.x,
           slots[i]->bytes);
}

inline void enter() {
  Fiber* fiber = current();
  Run* run = fiber->run;
  run->body(run->closure);
  if (((Bottom*)fiber->stack)->canary != CANARY) fail("its stack overflowed");
  fiber->ended = true;
  run->alive--;
  if (--fiber->block->alive == 0) check_guards(run, *fiber->block);
  for (;;) suspend();
}

inline void start(Fiber* fiber) {
  unsigned char* stack = fiber->stack;
  *(Bottom*)stack = {fiber, CANARY};
#ifdef OPENCLAW_UCONTEXT
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = stack + sizeof(Bottom);
  fiber->context.uc_stack.ss_size = STACK_BYTES - sizeof(Bottom);
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, enter, 0);
#else
  // Six saved registers, where to go on, and no caller; 16-byte aligned as after a call.
  void** top = (void**)(stack + STACK_BYTES);
  std::fill(top - 8, top, nullptr);
  top[-2] = (void*)enter;
  fiber->stack_pointer = top - 8;
#endif
}

inline Arena* idle_arenas;
inline std::mutex arena_lock;

inline Arena* take_arena(unsigned blocks, unsigned threads) {
  {
    std::lock_guard lock(arena_lock);
    for (Arena** at = &idle_arenas; *at; at = &(*at)->next)
      if ((*at)->threads >= threads && (*at)->blocks >= blocks) {
        Arena* found = *at;
        *at = found->next;
        return found;
      }
  }
  size_t shared_bytes = (size_t)blocks * (DYNAMIC_BYTES + STATIC_BYTES);
  Arena* arena = new Arena{};
  arena->threads = threads;
  arena->blocks = blocks;
  // From malloc such sizes are pages that cost nothing until they are touched.
  arena->stacks = (unsigned char*)aligned_alloc(STACK_BYTES, (size_t)threads * STACK_BYTES);
  arena->shared = (unsigned char*)aligned_alloc(4096, shared_bytes);
  memset(arena->shared, 0xff, shared_bytes);
  arena->fibers = (Fiber*)calloc(threads, sizeof(Fiber));
  arena->warps = (Warp*)calloc(threads, sizeof(Warp));
  arena->block = (Block*)calloc(blocks, sizeof(Block));
  return arena;
}

inline void give_back(Arena* arena) {
  std::lock_guard lock(arena_lock);
  arena->next = idle_arenas;
  idle_arenas = arena;
}

inline void prepare_cluster(Run* run, unsigned first_block) {
  const Launch& launch = run->launch;
  Arena& arena = *run->arena;
  unsigned warps_per_block = (launch.block + WARP - 1) / WARP;
  run->cluster_arrived = run->cluster_phase = 0;
  run->warps = warps_per_block * launch.cluster;
  run->alive = launch.cluster * launch.block;
  for (unsigned rank = 0; rank < launch.cluster; rank++) {
    Block& block = arena.block[rank];
    unsigned char* shared = arena.shared + (size_t)rank * (DYNAMIC_BYTES + STATIC_BYTES);
    Warp* warps = arena.warps + rank * warps_per_block;
    block = {{first_block + rank}, rank, launch.block, 0, launch.block, 0, 0, 0, shared, warps};
    memset(shared, 0xff, launch.shared_bytes + GUARD_BYTES);
    memset(shared + DYNAMIC_BYTES, 0xff, slots_end - DYNAMIC_BYTES);
    Fiber* fibers = arena.fibers + rank * launch.block;
    for (unsigned w = 0; w < warps_per_block; w++) {
      unsigned lanes = std::min(WARP, launch.block - w * WARP);
      unsigned present = lanes == WARP ? ~0u : (1u << lanes) - 1;
      block.warps[w] = {present, present, 0, fibers + w * WARP};
    }
    for (unsigned t = 0; t < launch.block; t++) {
      Fiber& fiber = fibers[t];
      fiber.run = run;
      fiber.stack = arena.stacks + (size_t)(&fiber - arena.fibers) * STACK_BYTES;
      fiber.block = &block;
      fiber.warp = &block.warps[t / WARP];
      fiber.thread.x = t;
      fiber.lane = t % WARP;
      fiber.cluster_phase = 0;
      fiber.ended = false;
      fiber.waits = nullptr;
      start(&fiber);
    }
  }
}

inline void report_stall(const Run* run) {
  const Fiber *waiting = nullptr, *elsewhere = nullptr;
  for (unsigned t = 0; t < cluster_threads(run); t++) {
    const Fiber* fiber = &run->arena->fibers[t];
    if (!fiber->ended && !waiting) waiting = fiber;
  }
  for (unsigned t = 0; t < cluster_threads(run) && !elsewhere; t++) {
    const Fiber* fiber = &run->arena->fibers[t];
    if (fiber->ended || strcmp(fiber->waits, waiting->waits)) elsewhere = fiber;
  }
  const Fiber* other = elsewhere ? elsewhere : waiting;
  note(run->error, "block %u, thread %u waits at %s for ever: block %u, thread %u %s%s",
       waiting->block->index.x, waiting->thread.x, waiting->waits, other->block->index.x, other->thread.x,
       other->ended ? "has ended" : "waits at ", other->ended ? "" : other->waits);
}

inline void run_warp(Run* run, Warp& warp) {
  unsigned turn = random_below(run, WARP);
  while (warp.ready && !run->error[0]) {
    // The next ready lane at or after `turn`, around the end.
    unsigned turned = turn ? warp.ready >> turn | warp.ready << (WARP - turn) : warp.ready;
    unsigned lane = (turn + (unsigned)__builtin_ctz(turned)) % WARP;
    warp.ready &= ~(1u << lane);
    resume(&warp.fibers[lane]);
  }
}

inline void run_cluster(Run* run, unsigned first_block) {
  prepare_cluster(run, first_block);
  while (run->alive && !run->error[0]) {
    bool progress = false;
    // Some odd stride reaches every warp once when their number is rounded up to a power of two.
    unsigned around = 1;
    while (around < run->warps) around *= 2;
    unsigned begin = random_below(run, around), stride = 2 * random_below(run, around) + 1;
    for (unsigned i = 0; i < around && !run->error[0]; i++) {
      unsigned w = (begin + i * stride) % around;
      if (w >= run->warps || !run->arena->warps[w].ready) continue;
      progress = true;
      run_warp(run, run->arena->warps[w]);
    }
    if (!progress) report_stall(run);
  }
}

inline void run_all(const Launch& launch, void (*body)(const void*), const void* closure, char* error) {
  Run run = {};
  run.launch = launch;
  run.body = body;
  run.closure = closure;
  run.random = launch.seed * 0x9e3779b97f4a7c15ull + 1;
  run.error = error;
  error[0] = 0;
  if (!launch.block || !launch.cluster || launch.block > 1024 || launch.grid % launch.cluster)
    return note(error, "a grid of %u, clusters of %u and blocks of %u", launch.grid, launch.cluster,
                launch.block);
  if (launch.cluster > 16 || launch.shared_bytes + GUARD_BYTES > DYNAMIC_BYTES)
    return note(error, "clusters of %u with %u bytes of shared memory", launch.cluster, launch.shared_bytes);
  run.arena = take_arena(launch.cluster, launch.cluster * launch.block);
  unsigned clusters = launch.grid / launch.cluster;
  for (unsigned c = 0; c < clusters && !error[0]; c++)
    run_cluster(&run, (launch.seed & 1 ? clusters - 1 - c : c) * launch.cluster);
  give_back(run.arena);
}

template <class... P, class... A>
void launch_into(char* error, const Launch& launch, void (*kernel)(P...), A... arguments) {
  auto call = [&] { kernel(static_cast<P>(arguments)...); };
  run_all(launch, [](const void* closure) { (*(const decltype(call)*)closure)(); }, &call, error);
}

// For trying a kernel by hand: null, or the message of what went wrong.
template <class... P, class... A>
const char* launch(const Launch& launch, void (*kernel)(P...), A... arguments) {
  static char error[MESSAGE_BYTES];
  launch_into(error, launch, kernel, arguments...);
  return error[0] ? error : nullptr;
}

}  // namespace emulation
