// Comes before every kernel source, textually: types, memory access, warp, block and cluster primitives.
//
// All inline PTX is here, each piece beside its portable twin under OPENCLAW_EMULATED. Sources have no headers
// and are compiled with --fmad=false: a result is what the source says, whichever specialisation computed it,
// so a fused multiply-add is written fmaf. Division and sqrtf round correctly; a NaN is compared with x != x.
//
//   KERNEL(name, (threads), parameters...) { body }          also (threads, blocks per multiprocessor)
//   SHARED(float, parts, [32]);                              a static shared array
//   DYNAMIC_SHARED(uint4, rows);                             a pointer to the launch's shared bytes
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__
#define ALL_LANES 0xffffffffu
#define NEGATIVE_INFINITY __uint_as_float(0xff800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fffffffu)
#define LOG2_E 1.4426950408889634f
#define LN_2 0.69314718055994531f

#ifdef OPENCLAW_EMULATED
#define KERNEL(name, bounds, ...) KERNEL_NAMED(name, bounds, __VA_ARGS__)
#define KERNEL_NAMED(name, bounds, ...)                                                              \
  static void name(__VA_ARGS__);                                                                     \
  extern "C" __attribute__((visibility("default"))) void launch_##name(                              \
      char* error, const emulation::Launch* launch, const emulation::Argument* arguments,            \
      size_t count) {                                                                                \
    emulation::launch_described(error, launch, emulation::bound_of bounds, name, arguments, count);  \
  }                                                                                                  \
  static void name(__VA_ARGS__)
#define SHARED(type, name, dims)                                  \
  typedef type name##_type dims;                                  \
  static const emulation::Slot name##_slot(sizeof(name##_type));  \
  name##_type& name = *(name##_type*)emulation::shared(name##_slot)
#define DYNAMIC_SHARED(type, name) type* const name = (type*)emulation::dynamic_shared()
#else
#define KERNEL(name, bounds, ...) extern "C" __global__ void __launch_bounds__ bounds name(__VA_ARGS__)
#define SHARED(type, name, dims) __shared__ type name dims
#define DYNAMIC_SHARED(type, name) type* const name = (type*)dynamic_shared_memory
extern __shared__ uint4 dynamic_shared_memory[];
#endif

DEVICE u32 lane_index() { return threadIdx.x & 31; }
DEVICE u32 warp_index() { return threadIdx.x >> 5; }

// ---- numbers

// 2^t, within 2 ulp; 0 below 2^-126 and at -inf.
DEVICE float ex2(float t) {
#ifdef OPENCLAW_EMULATED
  return t < -126.0f ? 0.0f : exp2f(t);
#else
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t));
  return power;
#endif
}

// log2 x, within 1 ulp. Not the approximation: it has no correct digit near 1, and a row takes one logarithm.
DEVICE float lg2(float x) { return log2f(x); }

DEVICE float widen(float x) { return x; }
DEVICE float widen(bf16 x) { return __uint_as_float((u32)x << 16); }
// The two numbers of a packed pair.
DEVICE float widen_low(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float widen_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// Rounds to nearest, ties to even; `low` goes to the lower address.
DEVICE u32 pack_bf16(float low, float high) {
#ifdef OPENCLAW_EMULATED
  auto round = [](float x) -> u32 {
    u32 bits = __float_as_uint(x);
    return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  };
  return round(high) << 16 | round(low);
#else
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

DEVICE void store(float* to, float x) { *to = x; }
DEVICE void store(bf16* to, float x) { *to = (bf16)(pack_bf16(x, 0.0f) & 0xffffu); }

// ---- 16-byte memory access; addresses are multiples of 16

// What nobody writes while the kernel runs, read once: through the read-only path, not kept in L1.
DEVICE uint4 load_constant(const uint4* from) {
#ifdef OPENCLAW_EMULATED
  emulation::aligned(from);
  return *from;
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
#endif
}

// Read once, and perhaps overwritten by this kernel (in place).
DEVICE uint4 load_once(const uint4* from) {
#ifdef OPENCLAW_EMULATED
  emulation::aligned(from);
  return *from;
#else
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
#endif
}

// Written once and not read again soon.
DEVICE void store_streaming(uint4* to, uint4 v) {
#ifdef OPENCLAW_EMULATED
  emulation::aligned(to);
  *to = v;
#else
  asm volatile("st.global.cs.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
#endif
}

// Four floats where only `left` remain, the others 0; `aligned` says that a whole four lies at a multiple of 16.
DEVICE float4 load_four(const float* from, u32 left, bool aligned) {
  if (left >= 4 && aligned) {
#ifdef OPENCLAW_EMULATED
    emulation::aligned(from);
#endif
    return *(const float4*)from;
  }
  return make_float4(left > 0 ? from[0] : 0.0f, left > 1 ? from[1] : 0.0f, left > 2 ? from[2] : 0.0f,
                     left > 3 ? from[3] : 0.0f);
}

DEVICE void store_four(float* to, u32 left, bool aligned, float4 v) {
  if (left >= 4 && aligned) {
#ifdef OPENCLAW_EMULATED
    emulation::aligned(to);
#endif
    *(float4*)to = v;
    return;
  }
  if (left > 0) to[0] = v.x;
  if (left > 1) to[1] = v.y;
  if (left > 2) to[2] = v.z;
  if (left > 3) to[3] = v.w;
}

// ---- warps and blocks: butterflies, so that every lane ends with the same bits

template <class T> DEVICE T warp_sum(T value) {
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) value += __shfl_xor_sync(ALL_LANES, value, offset);
  return value;
}

DEVICE float warp_max(float value) {
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, offset));
  return value;
}

// The sum over a block of THREADS (a multiple of 32), for every thread, in an order that only THREADS decides.
template <int THREADS, class T> DEVICE T block_sum(T value) {
  SHARED(T, parts, [32]);
  value = warp_sum(value);
  if (lane_index() == 0) parts[warp_index()] = value;
  __syncthreads();
  value = warp_sum(lane_index() < THREADS / 32 ? parts[lane_index()] : T(0));
  __syncthreads();  // the next call writes `parts`
  return value;
}

template <int THREADS> DEVICE float block_max(float value) {
  SHARED(float, parts, [32]);
  value = warp_max(value);
  if (lane_index() == 0) parts[warp_index()] = value;
  __syncthreads();
  value = warp_max(lane_index() < THREADS / 32 ? parts[lane_index()] : NEGATIVE_INFINITY);
  __syncthreads();
  return value;
}

// ---- clusters (sm_90 and later): blocks that run together and read each other's shared memory

#if __CUDA_ARCH__ >= 900
DEVICE u32 cluster_rank() {
#ifdef OPENCLAW_EMULATED
  return emulation::current()->block->rank;
#else
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#endif
}

// What this thread wrote before is seen by whoever waits.
DEVICE void cluster_arrive() {
#ifdef OPENCLAW_EMULATED
  emulation::cluster_arrive();
#else
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

// Promises nothing about memory: for a block that stays until its peers have read it.
DEVICE void cluster_arrive_relaxed() {
#ifdef OPENCLAW_EMULATED
  emulation::cluster_arrive();
#else
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}

DEVICE void cluster_wait() {
#ifdef OPENCLAW_EMULATED
  emulation::cluster_wait();
#else
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// A shared variable as the block `rank` of this cluster has it.
template <class T> DEVICE T load_remote(const T& mine, u32 rank) {
#ifdef OPENCLAW_EMULATED
  return *(const T*)emulation::remote(&mine, rank);
#else
  static_assert(sizeof(T) % 4 == 0, "whole words");
  union {
    u32 words[sizeof(T) / 4];
    T value;
  } copy;
  u32 address, own = (u32)__cvta_generic_to_shared(&mine);
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(own), "r"(rank));
#pragma unroll
  for (u32 i = 0; i < sizeof(T) / 4; i++)
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(copy.words[i]) : "r"(address + 4 * i) : "memory");
  return copy.value;
#endif
}
#endif
