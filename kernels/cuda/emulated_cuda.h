// CUDA C++'s own names, as far as our sources use them, and how the host calls a kernel.
#pragma once

#define __device__
#define __forceinline__ inline
#define __align__(bytes) alignas(bytes)

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define threadIdx (emulation::current()->thread)
#define blockIdx (emulation::current()->block->index)
#define blockDim (emulation::Index{emulation::current()->run->launch.block})
#define gridDim (emulation::Index{emulation::current()->run->launch.grid})

inline void __syncthreads() { emulation::barrier(); }
inline int __syncthreads_count(int predicate) { return emulation::barrier_count(predicate); }
inline void __syncwarp(unsigned mask = ~0u) { emulation::shuffle(mask, 0, 0); }
template <class T> T __shfl_sync(unsigned mask, T value, int lane) {
  return emulation::shuffle(mask, value, lane & 31);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int offset) {
  return emulation::shuffle(mask, value, emulation::current()->lane ^ offset);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned offset) {
  return emulation::shuffle(mask, value, emulation::current()->lane + offset);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned offset) {
  return emulation::shuffle(mask, value, emulation::current()->lane - offset);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return (unsigned)emulation::meet(mask, predicate != 0, emulation::BALLOT);
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz((unsigned)bits) : 32; }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T> T atomicAdd(T* at, T value) { return std::exchange(*at, *at + value); }
template <class T> T atomicOr(T* at, T value) { return std::exchange(*at, *at | value); }
template <class T> T __ldg(const T* from) { return *from; }
[[noreturn]] inline void __trap() { emulation::fail("__trap"); }
using std::max;
using std::min;

namespace emulation {

// How the host describes an argument: its kind, and the bytes of it or of what it points to.
enum Kind : uint32_t { VALUE = 0, FLOAT = 1, READ = 2, WRITE = 3 };
struct Argument { const void* value; uint32_t kind, bytes; };

template <class P> bool matches(const Argument& argument) {
  if constexpr (std::is_pointer_v<P>) {
    using To = std::remove_pointer_t<P>;
    if (argument.kind != (std::is_const_v<To> ? READ : WRITE)) return false;
    if constexpr (std::is_void_v<To>) return true;
    else return sizeof(To) == argument.bytes || sizeof(To) == 16; // vectors of anything
  } else {
    return argument.kind == (std::is_floating_point_v<P> ? FLOAT : VALUE) && sizeof(P) == argument.bytes;
  }
}

template <class... P, size_t... I>
void launch_with(char* error, const Launch& request, unsigned bound, void (*kernel)(P...),
                 const Argument* arguments, size_t count, std::index_sequence<I...>) {
  error[0] = 0;
  bool right[] = {true, (I < count && matches<P>(arguments[I]))...};
  size_t wrong = std::find(right + 1, right + 1 + sizeof...(P), false) - (right + 1);
  if (count != sizeof...(P)) return note(error, "takes %zu arguments and got %zu", sizeof...(P), count);
  if (wrong < count) return note(error, "argument %zu is of another kind", wrong);
  if (request.block > bound)
    return note(error, "is bound to %u threads a block and got %u", bound, request.block);
  launch_into(error, request, kernel, *(const std::remove_cv_t<P>*)arguments[I].value...);
}

// `error` has MESSAGE_BYTES and stays empty if all is well.
template <class... P>
void launch_described(char* error, const Launch* request, unsigned bound, void (*kernel)(P...),
                      const Argument* arguments, size_t count) {
  launch_with(error, *request, bound, kernel, arguments, count, std::index_sequence_for<P...>());
}

constexpr unsigned bound_of(unsigned threads, unsigned = 0) { return threads; }

}  // namespace emulation
