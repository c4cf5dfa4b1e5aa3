// Per-head RMS norm of queries and keys (Qwen3; other families have none), then rotary position embedding
// (Su et al. 2021, half-split).
//
// A head is shared by `lanes` neighbouring threads, a power of two: each holds four columns of the first half
// and the four of the second half that they turn with. Heads are at most 256 wide.

#define THREADS 256
#define TOKENS 16  // of a block of the backward

struct Head {
  float4 first, second;
};

DEVICE float dot_four(float4 a, float4 b) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, a.x * b.x)));
}
DEVICE float4 times(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
DEVICE float4 times(float4 a, float b) { return make_float4(a.x * b, a.y * b, a.z * b, a.w * b); }
DEVICE float4 plus(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
DEVICE float4 minus(float4 a, float4 b) { return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w); }

// The part of a head that this thread holds: `left` columns at most, from `column` in each half.
struct Part {
  u32 column, half, left;
  bool aligned;
  DEVICE Part(u32 lanes, u32 half, bool aligned)
      : column(threadIdx.x % lanes * 4),
        half(half),
        left(column < half ? half - column : 0),
        aligned(aligned) {}
  DEVICE float4 one(const float* x) const { return load_four(x + column, left, aligned); }
  DEVICE Head load(const float* head) const { return {one(head), one(head + half)}; }
  DEVICE void store(float* head, Head v) const {
    store_four(head + column, left, aligned, v.first);
    store_four(head + half + column, left, aligned, v.second);
  }
};

// The sum over the threads of a head.
DEVICE float head_sum(float x, u32 lanes) {
  for (u32 offset = lanes / 2; offset; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
  return x;
}

DEVICE float norm_scale(Head x, u32 lanes, u32 dim, float eps) {
  const float squares = head_sum(dot_four(x.first, x.first) + dot_four(x.second, x.second), lanes);
  return 1.0f / sqrtf(squares / dim + eps);
}

// A block takes THREADS / lanes heads of one token; the grid is tokens x blocks of a token.
KERNEL(qk_norm_rope, (THREADS), const float* qkv, const u32* positions, const float* cos, const float* sin,
       const float* q_weight, const float* k_weight, float* qk, u32 heads, u32 kv_heads, u32 dim, u32 lanes,
       u32 aligned, float eps, u32 normed) {
  const u32 all = heads + kv_heads, groups = THREADS / lanes, blocks = (all + groups - 1) / groups;
  const u64 token = blockIdx.x / blocks;
  const u32 head = blockIdx.x % blocks * groups + threadIdx.x / lanes;
  const Part part(lanes, dim / 2, aligned);
  const float4 none = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  Head x = {none, none};
  if (head < all) x = part.load(qkv + (token * (all + kv_heads) + head) * dim);
  const float scale = norm_scale(x, lanes, dim, eps);
  if (head >= all) return;
  const u64 turn = (u64)positions[token] * (dim / 2);
  const float4 c = part.one(cos + turn), s = part.one(sin + turn);
  float4 a = x.first, b = x.second;
  if (normed) {
    const Head weight = part.load(head < heads ? q_weight : k_weight);
    a = times(times(a, scale), weight.first);
    b = times(times(b, scale), weight.second);
  }
  part.store(qk + (token * all + head) * dim,
             {minus(times(a, c), times(b, s)), plus(times(b, c), times(a, s))});
}

// A block takes all heads of TOKENS tokens. Each group of threads sums the weights' gradients of its heads;
// the groups' sums are then added in order into row blockIdx.x of `partial`, [blocks, 2 (query, key), dim].
KERNEL(qk_norm_rope_backward, (THREADS), const float* qkv, const u32* positions, const float* cos,
       const float* sin, const float* q_weight, const float* k_weight, const float* d_qk, float* d_qkv,
       float* partial, u32 tokens, u32 heads, u32 kv_heads, u32 dim, u32 lanes, u32 aligned, float eps,
       u32 normed) {
  DYNAMIC_SHARED(float, sums);  // [groups, 2, dim]
  const u32 all = heads + kv_heads, groups = THREADS / lanes, group = threadIdx.x / lanes, half = dim / 2;
  const Part part(lanes, half, aligned);
  const float4 none = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  Head weights[2] = {{none, none}, {none, none}};
  if (normed) {
    weights[0] = part.load(q_weight);
    weights[1] = part.load(k_weight);
  }
  Head d_weights[2] = {{none, none}, {none, none}};
  const u32 first = blockIdx.x * TOKENS, end = min(first + TOKENS, tokens);
  // Every thread makes as many turns, because the sums need all lanes of a warp.
  for (u32 at = 0; at < (end - first) * all; at += groups) {
    const u32 which = at + group;
    const bool present = which < (end - first) * all;
    const u64 token = first + (present ? which / all : 0);
    const u32 head = present ? which % all : 0;
    const u64 row = (token * (all + kv_heads) + head) * dim, turn = (u64)positions[token] * half;
    const bool is_query = head < heads;
    const Head weight = is_query ? weights[0] : weights[1];
    const Head x = part.load(qkv + row), g = part.load(d_qk + (token * all + head) * dim);
    const float4 c = part.one(cos + turn), s = part.one(sin + turn);
    const Head d = {plus(times(g.first, c), times(g.second, s)),
                    minus(times(g.second, c), times(g.first, s))};
    const float scale = norm_scale(x, lanes, dim, eps);
    const Head share = {times(times(d.first, x.first), scale), times(times(d.second, x.second), scale)};
    const Head w = {times(d.first, weight.first), times(d.second, weight.second)};
    const float product = head_sum(dot_four(w.first, x.first) + dot_four(w.second, x.second), lanes);
    const float along = product * scale * scale * scale / dim;
    if (!present) continue;
    if (!normed) {
      part.store(d_qkv + row, d);
      continue;
    }
    part.store(d_qkv + row, {minus(times(w.first, scale), times(x.first, along)),
                             minus(times(w.second, scale), times(x.second, along))});
    if (is_query) {
      d_weights[0] = {plus(d_weights[0].first, share.first), plus(d_weights[0].second, share.second)};
    } else {
      d_weights[1] = {plus(d_weights[1].first, share.first), plus(d_weights[1].second, share.second)};
    }
  }
  if (!normed) return;
  part.store(sums + group * 2 * dim, d_weights[0]);
  part.store(sums + (group * 2 + 1) * dim, d_weights[1]);
  __syncthreads();
  for (u32 at = threadIdx.x; at < 2 * dim; at += THREADS) {
    float sum = 0.0f;
    for (u32 g = 0; g < groups; g++) sum += sums[g * 2 * dim + at];
    partial[(u64)blockIdx.x * 2 * dim + at] = sum;
  }
}
