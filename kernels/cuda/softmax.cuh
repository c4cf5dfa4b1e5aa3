// Rows of logits as 16-byte vectors, and the sums of their softmax. Comes before the loss kernels.
//
//   BF16      logits are bf16, otherwise f32
//   ALIGNED   every row begins at a multiple of 16 bytes; otherwise the same vectors are read by element
//   BLOCK   threads of a block
//
// A logit has the exponent t = (x - shift) * base2 - offset and the probability 2^t / sum 2^t. Nearly always
// the shift is 0 and the offset an integer: one fused multiply-add finds t, and moving a sum to another
// offset multiplies it by an exact power of two. Where logits are so large that t would lose its digits, the
// shift is the row's maximum and the offset 0.
#if BF16
typedef bf16 Logit;
#define WIDTH 8
#else
typedef float Logit;
#define WIDTH 4
#endif

// How logits become exponents and exponents nats; as Scale in kernels/src/cuda/ops/rows.rs.
struct Scale {
  double nats;  // in a unit of t
  double inverse_temperature;
  float base2;
  u32 padding;
};

// Integer offsets end here, where an f32 still tells halves apart.
#define FARTHEST 4194304.0f
// 2^t is 0 from here on, and t 2^t must not be 0 times infinity.
#define LOWEST -160.0f

DEVICE float element(uint4 v, int i) {
  const u32 words[4] = {v.x, v.y, v.z, v.w};
#if BF16
  return i & 1 ? widen_high(words[i / 2]) : widen_low(words[i / 2]);
#else
  return __uint_as_float(words[i]);
#endif
}

DEVICE uint4 pack(const float (&x)[WIDTH]) {
#if BF16
  return make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]),
                    pack_bf16(x[6], x[7]));
#else
  return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                    __float_as_uint(x[3]));
#endif
}

// Where an element that is not known to the compiler lies: an array would go to memory.
struct Place {
  u32 word, half;
  DEVICE explicit Place(u32 i) : word(BF16 ? i / 2 : i), half(BF16 ? i % 2 : 0) {}
};

DEVICE float element_at(uint4 v, Place at) {
  const u32 word = at.word == 0 ? v.x : at.word == 1 ? v.y : at.word == 2 ? v.z : v.w;
#if BF16
  return at.half ? widen_high(word) : widen_low(word);
#else
  return __uint_as_float(word);
#endif
}

DEVICE void replace(u32& word, u32 half, float x) {
#if BF16
  const u32 bits = pack_bf16(x, 0.0f) & 0xffffu;
  word = half ? (word & 0x0000ffffu) | bits << 16 : (word & 0xffff0000u) | bits;
#else
  word = __float_as_uint(x);
#endif
}

DEVICE void set_element(uint4& v, Place at, float x) {
  if (at.word == 0) replace(v.x, at.half, x);
  if (at.word == 1) replace(v.y, at.half, x);
  if (at.word == 2) replace(v.z, at.half, x);
  if (at.word == 3) replace(v.w, at.half, x);
}

DEVICE uint4 nothing() {
  const u32 word = BF16 ? 0xff80ff80u : 0xff800000u;
  return make_uint4(word, word, word, word);
}

// The first `count` elements of a vector, by element; the others are -inf and not read.
DEVICE uint4 load_elements(const Logit* from, u32 count) {
  float x[WIDTH];
#pragma unroll
  for (int i = 0; i < WIDTH; i++) x[i] = i < count ? widen(from[i]) : NEGATIVE_INFINITY;
  return pack(x);
}

DEVICE void store_elements(Logit* to, uint4 v, u32 count) {
#pragma unroll
  for (int i = 0; i < WIDTH; i++)
    if (i < count) store(to + i, element(v, i));
}

// A whole vector; CONSTANT: nobody writes the row while the kernel runs.
template <bool CONSTANT>
DEVICE uint4 load_vector(const Logit* row, u32 index) {
  const Logit* from = row + (u64)index * WIDTH;
#if ALIGNED
  return CONSTANT ? load_constant((const uint4*)from) : load_once((const uint4*)from);
#else
  return load_elements(from, WIDTH);
#endif
}

DEVICE void store_vector(Logit* row, u32 index, uint4 v) {
  Logit* to = row + (u64)index * WIDTH;
#if ALIGNED
  store_streaming((uint4*)to, v);
#else
  store_elements(to, v, WIDTH);
#endif
}

// The largest element; NaN is passed over.
DEVICE float largest(uint4 v) {
  float top = element(v, 0);
#pragma unroll
  for (int i = 1; i < WIDTH; i++) top = fmaxf(top, element(v, i));
  return top != top ? NEGATIVE_INFINITY : top;
}

// Where t is measured from.
struct Frame {
  float shift, offset;
};

DEVICE float exponent(float x, Frame frame, float base2) {
  return fmaf(x - frame.shift, base2, -frame.offset);
}

DEVICE float offset_below(float top, float base2) {
  return fminf(fmaxf(ceilf(top * base2), -FARTHEST), FARTHEST);
}

// Sums of 2^t and of t 2^t, over some logits and an offset.
struct Sums {
  float offset, plain, weighted;
};

DEVICE Sums no_sums() {
  Sums sums = {-FARTHEST, 0.0f, 0.0f};
  return sums;
}

template <bool WEIGHTED>
DEVICE void add(Sums& sums, float t) {
  const float power = ex2(t);
  sums.plain += power;
  if (WEIGHTED) sums.weighted = fmaf(power, fmaxf(t, LOWEST), sums.weighted);
}

template <bool WEIGHTED>
DEVICE void add_vector(Sums& sums, uint4 v, float base2) {
#pragma unroll
  for (int i = 0; i < WIDTH; i++) add<WEIGHTED>(sums, fmaf(element(v, i), base2, -sums.offset));
}

template <bool WEIGHTED>
DEVICE void add_framed(Sums& sums, uint4 v, Frame frame, float base2) {
#pragma unroll
  for (int i = 0; i < WIDTH; i++) add<WEIGHTED>(sums, exponent(element(v, i), frame, base2));
}

// The sums of all lanes, in every lane.
DEVICE Sums merge_warp(Sums sums) {
  const float offset = warp_max(sums.offset), moved = sums.offset - offset, scale = ex2(moved);
  sums.offset = offset;
  sums.weighted = warp_sum(scale * fmaf(sums.plain, moved, sums.weighted));
  sums.plain = warp_sum(scale * sums.plain);
  return sums;
}

// The sums of all threads, in every lane of warp 0.
DEVICE Sums merge_block(Sums sums) {
  SHARED(Sums, parts, [BLOCK / 32]);
  sums = merge_warp(sums);
  if (lane_index() == 0) parts[warp_index()] = sums;
  __syncthreads();
  if (warp_index() == 0) sums = merge_warp(lane_index() < BLOCK / 32 ? parts[lane_index()] : no_sums());
  return sums;
}

// What is known of a row after it was read.
struct Softmax {
  Frame frame;
  float plain, weighted;
};

// Brings the threads' sums of a row together, in every thread. `visit(v, index)` sees each vector before it
// is added.
//
// Offsets were chosen before the row was known. Where that left the sums out of range, because logits rise by
// 2^6 and more or lie beyond FARTHEST, the row is read again around its maximum.
template <bool CONSTANT, bool WEIGHTED, class Visit>
DEVICE Softmax finish_row(const Logit* row, u32 vocab, float base2, Sums sums, Visit visit) {
  SHARED(Softmax, result, [1]);
  sums = merge_block(sums);
  if (threadIdx.x == 0) *result = {{0.0f, sums.offset}, sums.plain, sums.weighted};
  __syncthreads();
  const Softmax softmax = *result;
  if (softmax.plain > 1e-6f && softmax.plain < 1e30f) return softmax;

  const u32 whole = vocab / WIDTH, rest = vocab % WIDTH;
  const auto vector = [&](u32 i) {
    return visit(i < whole ? load_vector<CONSTANT>(row, i) : load_elements(row + (u64)i * WIDTH, rest), i);
  };
  const u32 vectors = whole + (rest > 0);
  float top = NEGATIVE_INFINITY;
  for (u32 i = threadIdx.x; i < vectors; i += BLOCK) top = fmaxf(top, largest(vector(i)));
  top = block_max<BLOCK>(top);
  if (top == NEGATIVE_INFINITY) return softmax;
  const Frame frame = {top, 0.0f};
  sums = {0.0f, 0.0f, 0.0f};
  for (u32 i = threadIdx.x; i < vectors; i += BLOCK) add_framed<WEIGHTED>(sums, vector(i), frame, base2);
  const float plain = block_sum<BLOCK>(sums.plain);
  return {frame, plain, block_sum<BLOCK>(sums.weighted)};
}

// Reads a row once and leaves its sums in every thread.
template <bool CONSTANT, bool WEIGHTED, class Visit>
DEVICE Softmax read_row(const Logit* row, u32 vocab, float base2, Visit visit) {
  const u32 whole = vocab / WIDTH, rest = vocab % WIDTH;
  Sums sums = no_sums();
  bool found = false;
  u32 i = threadIdx.x;
  // The first vector that holds a number sets this thread's offset.
  for (; i < whole && !found; i += BLOCK) {
    const uint4 v = visit(load_vector<CONSTANT>(row, i), i);
    const float top = largest(v);
    sums.offset = offset_below(top, base2);
    add_vector<WEIGHTED>(sums, v, base2);
    found = top > NEGATIVE_INFINITY;
  }
  Sums other = {sums.offset, 0.0f, 0.0f};
  for (; i + 3 * BLOCK < whole; i += 4 * BLOCK) {
    const uint4 a = load_vector<CONSTANT>(row, i), b = load_vector<CONSTANT>(row, i + BLOCK);
    const uint4 c = load_vector<CONSTANT>(row, i + 2 * BLOCK), d = load_vector<CONSTANT>(row, i + 3 * BLOCK);
    add_vector<WEIGHTED>(sums, visit(a, i), base2);
    add_vector<WEIGHTED>(other, visit(b, i + BLOCK), base2);
    add_vector<WEIGHTED>(sums, visit(c, i + 2 * BLOCK), base2);
    add_vector<WEIGHTED>(other, visit(d, i + 3 * BLOCK), base2);
  }
  for (; i < whole; i += BLOCK) add_vector<WEIGHTED>(other, visit(load_vector<CONSTANT>(row, i), i), base2);
  sums.plain += other.plain;
  sums.weighted += other.weighted;
  if (rest && threadIdx.x == whole % BLOCK) {
    const uint4 v = visit(load_elements(row + (u64)whole * WIDTH, rest), whole);
    if (!found) sums.offset = offset_below(largest(v), base2);
    add_vector<WEIGHTED>(sums, v, base2);
  }
  return finish_row<CONSTANT, WEIGHTED>(row, vocab, base2, sums, visit);
}

// The scalar side of a row's softmax, in f64.
struct Distribution {
  double origin, log2_sum, nats, base2, entropy;

  DEVICE double logprob(float x) const {
    const double l = (x * base2 - origin - log2_sum) * nats;
    return l > 0.0 ? 0.0 : l;
  }
  DEVICE double lse() const { return (origin + log2_sum) * nats; }
};

DEVICE Distribution distribution(Softmax softmax, const Scale& scale) {
  const double log2_sum = log2((double)softmax.plain);
  const double entropy = (log2_sum - (double)softmax.weighted / softmax.plain) * scale.nats;
  const double origin = (double)softmax.frame.shift * scale.base2 + softmax.frame.offset;
  return {origin, log2_sum, scale.nats, scale.base2, entropy < 0.0 ? 0.0 : entropy};
}
