// The row loss and its gradient, and the gradients of log-probs: every logit is read once and its gradient
// written once, in place if `gradients` is `logits`.
//
//   CLUSTER, VECTORS   a cluster of CLUSTER blocks holds a row in registers, VECTORS vectors a thread (sm_90)
//   CANDIDATES         some rows may have candidates besides the taken token
//   VECTORS=0          one block reads the row twice: where there are no clusters, or the row is too long for
//   one
//
// The entries, tokens that the loss names, leave the row as it is read and -inf takes their places, so that
// what remains sums to the tail without cancellation. The thread that holds an entry's vector writes its
// gradient.

// The vectors of a row that a block holds: `count`, of which the first `whole` are whole and the others have
// `rest` elements.
struct Part {
  u32 first, count, whole, rest;
};

// What the threads of a block share about their row.
struct Plan {
  u64 begin;  // where the block's part begins, counted in logits
  Part part;
  u32 taken;      // the taken token's place among the entries
  u32 live, far;  // whether there is a gradient; whether the row must be summed again around its maximum
  Dense dense;
};

// Entries are found by a bit per vector of the block's part.
struct EntryMap {
  Entry* entries;
  u32 count;
  u32* bits;
  u32 first;

  DEVICE bool marks(u32 vector) const { return bits[vector / 32] >> vector % 32 & 1; }
  DEVICE bool has(int id, u32 vector) const { return id >= 0 && (u32)id / WIDTH - first == vector; }
};

// Without candidates a constant, which lets the compiler forget the loops over them.
DEVICE u32 k_of(const Terms& terms) { return CANDIDATES ? terms.k : 0; }

// Takes the entries out of a vector, leaving -inf, and keeps their logits.
DEVICE uint4 take_entries(const EntryMap& map, uint4 v, u32 vector) {
#pragma unroll 1
  for (u32 e = 0; e < map.count; e++) {
    const int id = map.entries[e].id;
    if (!map.has(id, vector)) continue;
    const Place at(id % WIDTH);
    map.entries[e].logit = element_at(v, at);
    set_element(v, at, NEGATIVE_INFINITY);
  }
  return v;
}

// The gradient of a vector of logits whose entries were taken out.
DEVICE uint4 gradient(const EntryMap& map, uint4 v, u32 vector, Dense dense, float base2) {
  float x[WIDTH];
#pragma unroll
  for (int i = 0; i < WIDTH; i++) {
    const float t = exponent(element(v, i), dense.frame, base2);
    x[i] = ex2(t) * fmaf(dense.b, fmaxf(t, LOWEST), dense.a);
  }
  v = pack(x);
  if (!map.marks(vector)) return v;
#pragma unroll 1
  for (u32 e = 0; e < map.count; e++) {
    const int id = map.entries[e].id;
    if (map.has(id, vector)) set_element(v, Place(id % WIDTH), (float)map.entries[e].value);
  }
  return v;
}

DEVICE void store_part(Logit* row, Part part, u32 vector, uint4 v) {
  if (vector < part.whole)
    store_vector(row, vector, v);
  else
    store_elements(row + (u64)vector * WIDTH, v, part.rest);
}

DEVICE void store_zeros(Logit* row, Part part) {
  for (u32 i = threadIdx.x; i < part.count; i += BLOCK) store_part(row, part, i, make_uint4(0, 0, 0, 0));
}

// Fills in the entries of row i and their map; every thread of the block calls it. An id that repeats counts
// once, and a candidate that weighs nothing not at all.
DEVICE void find_entries(const Terms& terms, const Inputs& inputs, const int* ids, u64 i, int target,
                         EntryMap& map, int* asked, u32 words, Plan* plan) {
  const u32 k = k_of(terms);
  for (u32 word = threadIdx.x; word < words; word += BLOCK) map.bits[word] = 0;
  for (u32 e = threadIdx.x; e < k; e += BLOCK) {
    const int id = ids[i * k + e];
    const bool counts =
        terms.candidates != CANDIDATES_POLICY || (id >= 0 && inputs.slot_weights[i * k + e] != 0.0f);
    asked[e] = counts ? id : -1;
  }
  if (threadIdx.x == 0) {
    map.entries[k] = {0.0, target, 0.0f};
    plan->taken = k;
  }
  __syncthreads();
  const auto mark = [&](int id) {
    const u32 vector = (u32)id / WIDTH - map.first;  // wraps to something large before the block's part
    if (vector < words * 32) atomicOr(&map.bits[vector / 32], 1u << vector % 32);
  };
  if (threadIdx.x == 0) mark(target);
  for (u32 e = threadIdx.x; e < k; e += BLOCK) {
    int id = asked[e];
    for (u32 before = 0; before < e && id >= 0; before++)
      if (asked[before] == id) id = -1;
    map.entries[e] = {0.0, id, 0.0f};
    if (id >= 0) mark(id);
    if (id >= 0 && id == target) {
      plan->taken = e;
      map.entries[k].id = -1;
    }
  }
  __syncthreads();
}

DEVICE bool is_active(const Terms& terms, const Inputs& inputs, u64 i, int target) {
  if (target < 0) return false;
  if (terms.token == TOKEN_GIVEN && inputs.importance && inputs.importance[i] != 0.0f) return true;
  return inputs.weights[i] != 0.0f;
}

// Where the entries lie in the launch's shared bytes: 20 for each slot and 16, then a bit for each vector.
DEVICE EntryMap entry_map(unsigned char* shared, u32 k, u32 first) {
  return {(Entry*)shared, k + 1, (u32*)(shared + (k + 1) * sizeof(Entry) + k * sizeof(int)), first};
}

#if VECTORS > 0
#if CLUSTER > 1
DEVICE void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}
#endif

// The sums of all blocks of the cluster, in every lane of warp 0.
DEVICE Sums merge_cluster(Sums sums) {
#if CLUSTER > 1
  SHARED(Sums, mine, [1]);
  sums = merge_block(sums);
  if (threadIdx.x == 0) *mine = sums;
  cluster_sync();
  if (warp_index() == 0)
    sums = merge_warp(lane_index() < CLUSTER ? load_remote(*mine, lane_index()) : no_sums());
  return sums;
#else
  return merge_block(sums);
#endif
}

DEVICE float max_of_cluster(float top) {
#if CLUSTER > 1
  SHARED(float, mine, [1]);
  top = block_max<BLOCK>(top);
  if (threadIdx.x == 0) *mine = top;
  cluster_sync();
  top = block_max<BLOCK>(lane_index() < CLUSTER ? load_remote(*mine, lane_index()) : NEGATIVE_INFINITY);
  return top;
#else
  return block_max<BLOCK>(top);
#endif
}
#endif

KERNEL(row_loss, (BLOCK, RESIDENT_BLOCKS), const Logit* logits, Logit* gradients, u64 stride, u32 vocab,
       Terms terms, const u32* rows, const int* targets, const int* ids, const float* weights,
       const float* old, const float* advantages, const float* importance, const float* reference,
       const float* slot_old, const float* slot_advantages, const float* slot_weights, Stat* stats,
       u32* live) {
  const Inputs inputs = {weights,   old,      advantages,      importance,
                         reference, slot_old, slot_advantages, slot_weights};
  DYNAMIC_SHARED(unsigned char, shared);
  SHARED(Plan, plan, [1]);
  const u32 slot = blockIdx.x / CLUSTER;
  const u64 i = rows ? rows[slot] : slot;
  const u32 vectors = (vocab + WIDTH - 1) / WIDTH;
#if CLUSTER > 1
  const u32 rank = cluster_rank(), share = (vectors + CLUSTER - 1) / CLUSTER;
#else
  const u32 rank = 0, share = vectors;
#endif
  const u32 first = min(rank * share, vectors), count = min(share, vectors - first);
  const Part part = {first, count, min(count, vocab / WIDTH - min(first, vocab / WIDTH)), vocab % WIDTH};
  const u64 begin = slot * stride + (u64)first * WIDTH;
  const Logit* row = logits + begin;
  Logit* to = gradients + begin;
  const int target = targets[i];
  if (!is_active(terms, inputs, i, target)) {
    store_zeros(to, part);
    if (rank == 0 && threadIdx.x == 0) {
      if (stats) stats[i] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0};
      if (live) live[slot] = 0;
    }
    return;
  }
  if (threadIdx.x == 0) {
    plan->begin = begin;
    plan->part = part;
  }
  EntryMap map = entry_map(shared, k_of(terms), part.first);
  int* const asked = (int*)(shared + (k_of(terms) + 1) * sizeof(Entry));
  const u32 words = (share + 31) / 32;
  const float base2 = terms.scale.base2;

#if VECTORS > 0
  uint4 held[VECTORS];
  uint4 last = nothing();
  if (part.count > part.whole) last = load_elements(row + (u64)part.whole * WIDTH, part.rest);
#pragma unroll
  for (int u = 0; u < VECTORS; u++) {
    const u32 v = threadIdx.x + u * BLOCK;
    held[u] = v < part.whole ? load_vector<false>(row, v) : v < part.count ? last : nothing();
  }
  find_entries(terms, inputs, ids, i, target, map, asked, words, plan);
  float top = NEGATIVE_INFINITY;
#pragma unroll
  for (int u = 0; u < VECTORS; u++) {
    const u32 v = threadIdx.x + u * BLOCK;
    if (v < part.count && map.marks(v)) held[u] = take_entries(map, held[u], v);
    top = fmaxf(top, largest(held[u]));
  }
  Frame frame = {0.0f, offset_below(top, base2)};
  for (bool again = false;; again = true) {
    Sums sums = {frame.offset, 0.0f, 0.0f};
#pragma unroll
    for (int u = 0; u < VECTORS; u++) add_framed<true>(sums, held[u], frame, base2);
    sums = merge_cluster(sums);
    if (warp_index() == 0) {
      const bool far = !again && fabsf(sums.offset) == FARTHEST;
      if (lane_index() == 0) plan->far = far;
      if (!far) {
#if CLUSTER > 1
        for (u32 e = lane_index(); e < map.count; e += 32) {
          const int id = map.entries[e].id;
          if (id >= 0) map.entries[e].logit = load_remote(map.entries[e].logit, (u32)id / WIDTH / share);
        }
        __syncwarp();
#endif
        const Softmax softmax = {{frame.shift, sums.offset}, sums.plain, sums.weighted};
        const Outcome outcome = row_terms(terms, inputs, i, softmax, map.entries, plan->taken);
        if (lane_index() == 0) {
          plan->dense = outcome.dense;
          plan->live = outcome.live;
          if (rank == 0 && stats) stats[i] = outcome.stat;
          if (rank == 0 && live) live[slot] = outcome.live;
        }
      }
    }
    __syncthreads();
    if (!plan->far) break;
    top = max_of_cluster(top);
    if (top > NEGATIVE_INFINITY) frame = {top, 0.0f};
  }
#if CLUSTER > 1
  cluster_arrive_relaxed();  // the others may still read what this block shares
#endif
  // Read again, so that they take no registers meanwhile.
  const Part mine = plan->part;
  Logit* const target_row = gradients + plan->begin;
  if (plan->live) {
    const Dense dense = plan->dense;
#pragma unroll
    for (int u = 0; u < VECTORS; u++) {
      const u32 v = threadIdx.x + u * BLOCK;
      if (v < mine.count) store_part(target_row, mine, v, gradient(map, held[u], v, dense, base2));
    }
  } else {
    store_zeros(target_row, mine);
  }
#if CLUSTER > 1
  cluster_wait();
#endif

#else
  find_entries(terms, inputs, ids, i, target, map, asked, words, plan);
  const auto without_entries = [&](uint4 v, u32 vector) {
    return map.marks(vector) ? take_entries(map, v, vector) : v;
  };
  const Softmax softmax = read_row<false, true>(row, vocab, base2, without_entries);
  if (warp_index() == 0) {
    const Outcome outcome = row_terms(terms, inputs, i, softmax, map.entries, plan->taken);
    if (lane_index() == 0) {
      plan->dense = outcome.dense;
      plan->live = outcome.live;
      if (stats) stats[i] = outcome.stat;
      if (live) live[slot] = outcome.live;
    }
  }
  __syncthreads();
  if (!plan->live) return store_zeros(to, part);
  const Dense dense = plan->dense;
  for (u32 v = threadIdx.x; v < part.whole; v += BLOCK)
    store_vector(to, v, gradient(map, load_vector<false>(row, v), v, dense, base2));
  if (part.rest && threadIdx.x == part.whole % BLOCK) {
    const uint4 v = load_elements(row + (u64)part.whole * WIDTH, part.rest);
    store_part(to, part, part.whole, gradient(map, v, part.whole, dense, base2));
  }
#endif
}
