// Log-prob of the taken token, log-sum-exp, entropy, log-probs of candidates and the most likely tokens of
// each row of logits: one block per row, every logit read once.
//
//   ENTROPY   the entropy is wanted
//   TOP       so are the most likely tokens, at most 64: see collect

#if TOP
#define TILE_VECTORS 4
#define TILE (TILE_VECTORS * BLOCK)
#define CAPACITY 4096

// The most likely tokens so far, as keys that are all different and fall as the order of tokens does: the
// logit, then the id, inverted. Whatever exceeds `floor` is collected; k keys at least are not below it.
struct Top {
  u64* keys;    // [CAPACITY], the first `count` in use
  u64* others;  // [CAPACITY / 4], as no thread looks after more than CAPACITY / BLOCK keys
  u64* maxima;  // [BLOCK]
  u32* count;
  u32* kept;
  u64* bound;
  u32 k;
  u64 floor;  // the same in every thread
};

#define LOWEST_KEY 0x007fffffffffffffull  // of -inf

DEVICE u64 key_of(float x, u32 id) {
  const u32 bits = __float_as_uint(x + 0.0f);  // the sum makes -0 a 0
  const u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (u64)ordered << 32 | (u32)~id;
}

DEVICE float logit_of(u64 key) {
  const u32 ordered = (u32)(key >> 32);
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

// The k-th largest of one key per thread; 0 where fewer threads have one.
DEVICE u64 kth_largest(Top& top, u64 own) {
  top.maxima[threadIdx.x] = own;
  __syncthreads();
  u32 larger = 0;
  for (u32 i = 0; i < BLOCK; i++) larger += top.maxima[i] > own || (top.maxima[i] == own && i < threadIdx.x);
  if (larger == top.k - 1) *top.bound = own;
  __syncthreads();
  return *top.bound;
}

// Leaves the k largest keys, in order, and raises the floor to the last of them.
DEVICE void compact(Top& top) {
  const u32 count = *top.count;
  u64 own = 0;
  for (u32 i = threadIdx.x; i < count; i += BLOCK) own = max(own, top.keys[i]);
  if (threadIdx.x == 0) *top.kept = 0;
  const u64 bound = kth_largest(top, own);
  for (u32 i = threadIdx.x; i < count; i += BLOCK)
    if (top.keys[i] >= bound) top.others[atomicAdd(top.kept, 1u)] = top.keys[i];
  __syncthreads();
  const u32 kept = *top.kept;
  for (u32 i = threadIdx.x; i < kept; i += BLOCK) {
    const u64 key = top.others[i];
    u32 larger = 0;
    for (u32 j = 0; j < kept; j++) larger += top.others[j] > key;
    if (larger < top.k) top.keys[larger] = key;
  }
  if (threadIdx.x == 0) *top.count = min(kept, top.k);
  __syncthreads();
  if (kept >= top.k) top.floor = max(top.floor, top.keys[top.k - 1]);
}

// Collects what belongs here from a tile. At most k threads hold keys above the floor once it is the k-th
// largest of the threads' maxima, which bounds what one tile adds whatever the order of its logits.
DEVICE void collect(Top& top, const uint4 (&tile)[TILE_VECTORS], u32 first, float largest_of_mine) {
  const float floor = logit_of(top.floor);
  const bool enters = largest_of_mine >= floor && largest_of_mine > NEGATIVE_INFINITY;
  const u32 count = *top.count;  // before anybody adds to it
  const int entering = __syncthreads_count(enters);
  if (entering == 0) return;
  u64 own = 0;
  if (enters) {
#pragma unroll
    for (int u = 0; u < TILE_VECTORS; u++)
#pragma unroll
      for (int i = 0; i < WIDTH; i++) {
        const float x = element(tile[u], i);
        if (x >= floor) own = max(own, key_of(x, (first + u * BLOCK) * WIDTH + i));
      }
  }
  if (entering > top.k) {
    const u64 bound = kth_largest(top, own);
    if (bound > top.floor) top.floor = bound - 1;
  }
  if (count + TILE_VECTORS * WIDTH * top.k > CAPACITY) compact(top);
  if (own > top.floor) {
#pragma unroll
    for (int u = 0; u < TILE_VECTORS; u++)
#pragma unroll
      for (int i = 0; i < WIDTH; i++) {
        const float x = element(tile[u], i);
        const u64 key = key_of(x, (first + u * BLOCK) * WIDTH + i);
        if (x == x && key > top.floor) top.keys[atomicAdd(top.count, 1u)] = key;
      }
  }
  __syncthreads();
}

// As read_row, and collects the most likely tokens.
DEVICE Softmax read_row_and_top(const Logit* row, u32 vocab, float base2, Top& top) {
  const u32 whole = vocab / WIDTH, rest = vocab % WIDTH;
  Sums sums = no_sums();
  bool found = false;
  for (u32 start = 0; start * WIDTH < vocab; start += TILE) {
    uint4 tile[TILE_VECTORS];
    const u32 first = start + threadIdx.x;
    float mine = NEGATIVE_INFINITY;
#pragma unroll
    for (int u = 0; u < TILE_VECTORS; u++) {
      const u32 i = first + u * BLOCK;
      tile[u] = i < whole ? load_vector<true>(row, i) : nothing();
      if (i == whole && rest) tile[u] = load_elements(row + (u64)whole * WIDTH, rest);
    }
#pragma unroll
    for (int u = 0; u < TILE_VECTORS; u++) mine = fmaxf(mine, largest(tile[u]));
    if (!found) sums.offset = offset_below(mine, base2);
    found = found || mine > NEGATIVE_INFINITY;
#pragma unroll
    for (int u = 0; u < TILE_VECTORS; u++) add_vector<ENTROPY>(sums, tile[u], base2);
    collect(top, tile, first, mine);
  }
  compact(top);
  return finish_row<true, ENTROPY>(row, vocab, base2, sums, [](uint4 v, u32) { return v; });
}
#endif

#if TOP
#define RESIDENT_BLOCKS 3
#else
#define RESIDENT_BLOCKS 6
#endif

KERNEL(logprob, (BLOCK, RESIDENT_BLOCKS), const Logit* logits, u64 stride, u32 vocab, Scale scale,
       const int* targets, const int* ids, u32 k, float* logprobs, float* lse, float* entropies,
       float* candidates, int* top_ids, float* top_logprobs, u32 top_k) {
  const u64 i = blockIdx.x;
  const Logit* row = logits + i * stride;
  const int target = targets[i];
  const float taken = target < 0 ? 0.0f : widen(row[target]);
#if TOP
  SHARED(u64, keys, [CAPACITY]);
  SHARED(u64, others, [CAPACITY / 4]);
  SHARED(u64, maxima, [BLOCK]);
  SHARED(u32, counters, [2]);
  SHARED(u64, bound, [1]);
  Top top = {keys, others, maxima, &counters[0], &counters[1], bound, top_k, LOWEST_KEY};
  if (threadIdx.x == 0) counters[0] = 0;
  __syncthreads();
  const Softmax softmax = read_row_and_top(row, vocab, scale.base2, top);
#else
  const Softmax softmax = read_row<true, ENTROPY>(row, vocab, scale.base2, [](uint4 v, u32) { return v; });
#endif
  if (threadIdx.x > 0 && threadIdx.x >= max(k, top_k)) return;
  const Distribution tokens = distribution(softmax, scale);
  if (threadIdx.x == 0) {
    logprobs[i] = target < 0 ? 0.0f : (float)tokens.logprob(taken);
    lse[i] = (float)tokens.lse();
    if (ENTROPY) entropies[i] = target < 0 ? 0.0f : (float)tokens.entropy;
  }
  for (u32 slot = threadIdx.x; slot < k; slot += BLOCK) {
    const int id = ids[i * k + slot];
    candidates[i * k + slot] = id < 0 ? 0.0f : (float)tokens.logprob(widen(row[id]));
  }
#if TOP
  for (u32 slot = threadIdx.x; slot < top_k; slot += BLOCK) {
    const bool filled = slot < counters[0];
    top_ids[i * top_k + slot] = filled ? (int)~(u32)keys[slot] : -1;
    top_logprobs[i * top_k + slot] = (float)tokens.logprob(filled ? logit_of(keys[slot]) : NEGATIVE_INFINITY);
  }
#endif
}
