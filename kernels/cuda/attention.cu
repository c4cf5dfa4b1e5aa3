// Causal grouped-query attention: over ragged sequences, over a paged pool, and the gradient of the first.
//
// A block keeps the rows it answers for (`own`) in shared memory and streams others past them:
//   attention, paged_*    own = queries         stream = keys, values     online softmax in base 2
//   attention_d_queries   own = queries, d_out  stream = keys, values     probabilities from the saved lse
//   attention_d_keys      own = keys, values    stream = queries, d_out   the same; keys and values at once
// One block sums a row, in the order of the row's own sequence: no atomics, nothing depends on the batch.
// Query heads that share a key-value head are rows of one tile: row r is head r % group of token r / group.
//
// DIM is the width of a head rounded up to 32, 64, 128 or 256; what is missing is zeros. The method is that
// of Dao et al. 2022; a few rows over many keys are split over blocks and merged as in Dao et al. 2023.

#define PITCH (DIM + 4)  // an odd number of 16-byte words: 8 consecutive rows lie in different banks
#define STREAM 32
#define WEIGHT_PITCH (STREAM + 4)
#define THREADS 128
#define ACROSS 8  // neighbouring threads share a row and take every 8th column of it
#define DOWN (THREADS / ACROSS)
#define COLUMNS (DIM / 4 / ACROSS)  // columns of four floats that a thread sums
#define ROWS (DIM > 128 ? 2 : 4)    // rows of a thread in a full tile; 1 where there are few queries
#define WHOLE 0xffffffffu

// What one block works on, as kernels/src/cuda/ops/attention.rs writes it.
struct Item {
  u32 row;       // first of the sequence's tokens in this call
  u32 tokens;    // and their number
  u32 past;      // keys before them
  u32 table;     // where the sequence's block numbers start
  u32 first;     // first own row
  u32 from, to;  // keys, or parts to merge
  u32 part;      // where the result goes that others will join, or WHOLE
};

struct Heads {
  u32 heads, kv_heads, dim;
  u32 aligned;  // every row starts at a multiple of 16 bytes, and dim is a multiple of 4
  DEVICE u32 group() const { return heads / kv_heads; }
  DEVICE u64 qk_row() const { return (u64)(heads + kv_heads) * dim; }
  DEVICE u64 qkv_row() const { return (u64)(heads + 2 * kv_heads) * dim; }
  DEVICE u64 out_row() const { return (u64)heads * dim; }
};

// An item and the key-value head of a block; the grid is items x kv_heads.
struct Work : Item {
  Heads h;
  u32 kv, group, end;
  DEVICE Work(const uint4* items, Heads h) : h(h) {
    const uint4 a = items[blockIdx.x / h.kv_heads * 2], b = items[blockIdx.x / h.kv_heads * 2 + 1];
    row = a.x, tokens = a.y, past = a.z, table = a.w;
    first = b.x, from = b.y, to = b.z, part = b.w;
    kv = blockIdx.x % h.kv_heads;
    group = h.group();
    end = tokens * group;
  }
  // Where query row r begins in a matrix whose rows start with the heads, `stride` apart.
  DEVICE u64 query(u32 r, u64 stride) const {
    return (row + r / group) * stride + (u64)(kv * group + r % group) * h.dim;
  }
  // Of query row r, in a matrix [tokens, heads].
  DEVICE u64 statistic(u32 r) const { return (u64)(row + r / group) * h.heads + kv * group + r % group; }
  DEVICE u64 key(u32 t) const { return (row + t) * h.qk_row() + (u64)(h.heads + kv) * h.dim; }
  DEVICE u64 value(u32 t) const { return (row + t) * h.qkv_row() + (u64)(h.heads + h.kv_heads + kv) * h.dim; }
};

DEVICE u32 across() { return threadIdx.x % ACROSS; }
DEVICE u32 down() { return threadIdx.x / ACROSS; }

DEVICE float row_max(float x) {
#pragma unroll
  for (int offset = ACROSS / 2; offset; offset /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
  return x;
}
DEVICE float row_sum(float x) {
#pragma unroll
  for (int offset = ACROSS / 2; offset; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
  return x;
}

DEVICE float4 shared_four(const float* from) { return load_four(from, 4, true); }
DEVICE float4 zeros() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }
// sum + a . b
DEVICE float dot_four(float sum, float4 a, float4 b) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}
DEVICE void add_scaled(float4& sum, float scale, float4 x) {
  sum.x = fmaf(scale, x.x, sum.x), sum.y = fmaf(scale, x.y, sum.y);
  sum.z = fmaf(scale, x.z, sum.z), sum.w = fmaf(scale, x.w, sum.w);
}

// Fills `count` rows of a tile; `row` says where row r lies, null for zeros.
template <class Row> DEVICE void load_tile(float* tile, u32 count, Heads h, Row row) {
  if (h.aligned) {
#pragma unroll 4
    for (u32 at = threadIdx.x; at < count * (DIM / 4); at += THREADS) {
      const u32 r = at / (DIM / 4), column = at % (DIM / 4) * 4;
      const float* x = column < h.dim ? row(r) : nullptr;
      store_four(tile + r * PITCH + column, 4, true, x ? load_four(x + column, 4, true) : zeros());
    }
  } else {
#pragma unroll 1
    for (u32 at = threadIdx.x; at < count * DIM; at += THREADS) {
      const u32 r = at / DIM, column = at % DIM;
      const float* x = column < h.dim ? row(r) : nullptr;
      tile[r * PITCH + column] = x ? x[column] : 0.0f;
    }
  }
}

// out[i][j] = own row (down + DOWN i) . stream row (across + ACROSS j).
template <int N> DEVICE void products(const float* own, const float* stream, float (&out)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) out[i][j] = 0.0f;
#pragma unroll 4
  for (int column = 0; column < DIM; column += 4) {
    float4 a[N], b[4];
#pragma unroll
    for (int i = 0; i < N; i++) a[i] = shared_four(own + (down() + DOWN * i) * PITCH + column);
#pragma unroll
    for (int j = 0; j < 4; j++) b[j] = shared_four(stream + (across() + ACROSS * j) * PITCH + column);
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) out[i][j] = dot_four(out[i][j], a[i], b[j]);
  }
}

// sums[i][c] += sum over the stream of w[row][n] stream[n][columns of c]. Every thread brings the weights of
// its products; those of a row meet in `weights`, within one warp.
template <int N>
DEVICE void accumulate(float* weights, const float (&w)[N][4], const float* stream,
                       float4 (&sums)[N][COLUMNS]) {
  __syncwarp();
#pragma unroll
  for (int i = 0; i < N; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) weights[(down() + DOWN * i) * WEIGHT_PITCH + across() + ACROSS * j] = w[i][j];
  __syncwarp();
#pragma unroll 1
  for (int n = 0; n < STREAM; n += 4) {
    float4 four[N];
#pragma unroll
    for (int i = 0; i < N; i++) four[i] = shared_four(weights + (down() + DOWN * i) * WEIGHT_PITCH + n);
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        const float4 x = shared_four(stream + (n + m) * PITCH + 4 * (across() + ACROSS * c));
#pragma unroll
        for (int i = 0; i < N; i++)
          add_scaled(sums[i][c], m == 0 ? four[i].x : m == 1 ? four[i].y : m == 2 ? four[i].z : four[i].w, x);
      }
  }
}

template <int N> DEVICE void clear(float4 (&sums)[N][COLUMNS]) {
#pragma unroll
  for (int i = 0; i < N; i++)
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) sums[i][c] = zeros();
}

// A thread's columns of one row, times `scale`.
DEVICE void store_row(float* row, u32 dim, bool aligned, const float4 (&sums)[COLUMNS], float scale) {
#pragma unroll
  for (int c = 0; c < COLUMNS; c++) {
    const u32 column = 4 * (across() + ACROSS * c);
    const float4 v = sums[c];
    if (column < dim)
      store_four(row + column, dim - column, aligned,
                 make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale));
  }
}

// Parts of results: rows of the tile, each its sums, its largest exponent and its mass.
template <int N> DEVICE u64 part_row(const Work& w, u32 part, u32 r) {
  return (((u64)part * w.h.kv_heads + w.kv) * (N * DOWN) + r) * PITCH;
}

// Attention of the tile's queries over keys [from, to). A product times `scale` is an exponent of 2.
template <int N, class Key, class Value>
DEVICE void forward(const Work& w, const float* qk, Key key, Value value, float* out, float* lse,
                    float* parts, float scale) {
  DYNAMIC_SHARED(float, queries);
  float* const keys = queries + N * DOWN * PITCH;
  float* const values = keys + STREAM * PITCH;
  float* const weights = values + STREAM * PITCH;
  load_tile(queries, N * DOWN, w.h, [&](u32 r) -> const float* {
    return w.first + r < w.end ? qk + w.query(w.first + r, w.h.qk_row()) : nullptr;
  });
  u32 seen[N];
  float peak[N], mass[N];
  float4 sums[N][COLUMNS];
  clear(sums);
#pragma unroll
  for (int i = 0; i < N; i++) {
    seen[i] = min(w.past + (w.first + down() + DOWN * i) / w.group + 1, w.to);
    peak[i] = NEGATIVE_INFINITY;
    mass[i] = 0.0f;
  }
  for (u32 from = w.from; from < w.to; from += STREAM) {
    __syncthreads();
    load_tile(keys, STREAM, w.h, [&](u32 r) { return from + r < w.to ? key(from + r) : nullptr; });
    load_tile(values, STREAM, w.h, [&](u32 r) { return from + r < w.to ? value(from + r) : nullptr; });
    __syncthreads();
    float p[N][4];
    products(queries, keys, p);
#pragma unroll
    for (int i = 0; i < N; i++) {
      float high = NEGATIVE_INFINITY;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        p[i][j] = from + across() + ACROSS * j < seen[i] ? p[i][j] * scale : NEGATIVE_INFINITY;
        high = fmaxf(high, p[i][j]);
      }
      high = fmaxf(peak[i], row_max(high));
      // Without a key so far any finite offset does: every weight is 0.
      const float offset = high > NEGATIVE_INFINITY ? high : 0.0f;
      const float fade = ex2(peak[i] - offset);
      peak[i] = high;
      mass[i] *= fade;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        p[i][j] = ex2(p[i][j] - offset);
        mass[i] += p[i][j];
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        sums[i][c].x *= fade, sums[i][c].y *= fade;
        sums[i][c].z *= fade, sums[i][c].w *= fade;
      }
    }
    accumulate(weights, p, values, sums);
  }
#pragma unroll
  for (int i = 0; i < N; i++) {
    const float total = row_sum(mass[i]);
    const u32 tile_row = down() + DOWN * i, r = w.first + tile_row;
    if (r >= w.end) continue;
    if (w.part == WHOLE) {
      store_row(out + w.query(r, w.h.out_row()), w.h.dim, w.h.aligned, sums[i], 1.0f / total);
      if (lse && across() == 0) lse[w.statistic(r)] = (peak[i] + lg2(total)) * LN_2;
    } else {
      float* part = parts + part_row<N>(w, w.part, tile_row);
      store_row(part, DIM, true, sums[i], 1.0f);
      if (across() == 0) part[DIM] = peak[i], part[DIM + 1] = total;
    }
  }
}

KERNEL(attention, (THREADS, 2), const uint4* items, const float* qk, const float* qkv, float* out, float* lse,
       Heads heads, float scale) {
  const Work w(items, heads);
  forward<ROWS>(
      w, qk, [&](u32 t) { return qk + w.key(t); }, [&](u32 t) { return qkv + w.value(t); }, out, lse, nullptr,
      scale);
}

// A pool is [blocks, 2, kv_heads, block_size, dim]; see `PagedShape`.
template <int N>
DEVICE void paged(const uint4* items, const u32* tables, const float* qk, const float* pool, float* out,
                  float* parts, Heads h, u32 block_size, float scale) {
  const Work w(items, h);
  const u64 part_len = (u64)h.kv_heads * block_size * h.dim;
  const float* const mine = pool + (u64)w.kv * block_size * h.dim;
  const auto key = [&](u32 t) {
    const u32 page = t / block_size;
    return mine + tables[w.table + page] * (2 * part_len) + (u64)(t - page * block_size) * h.dim;
  };
  forward<N>(w, qk, key, [&](u32 t) { return key(t) + part_len; }, out, nullptr, parts, scale);
}

KERNEL(paged_prefill, (THREADS, 2), const uint4* items, const u32* tables, const float* qk, const float* pool,
       float* out, float* parts, Heads heads, u32 block_size, float scale) {
  paged<ROWS>(items, tables, qk, pool, out, parts, heads, block_size, scale);
}

KERNEL(paged_decode, (THREADS, 4), const uint4* items, const u32* tables, const float* qk, const float* pool,
       float* out, float* parts, Heads heads, u32 block_size, float scale) {
  paged<1>(items, tables, qk, pool, out, parts, heads, block_size, scale);
}

// Joins parts [from, to) of a tile whose keys were split over blocks.
template <int N> DEVICE void merge(const uint4* items, const float* parts, float* out, Heads h) {
  const Work w(items, h);
#pragma unroll 1
  for (int i = 0; i < N; i++) {
    const u32 tile_row = down() + DOWN * i, r = w.first + tile_row;
    if (r >= w.end) continue;
    float peak = NEGATIVE_INFINITY, mass = 0.0f;
    for (u32 part = w.from; part < w.to; part++)
      peak = fmaxf(peak, parts[part_row<N>(w, part, tile_row) + DIM]);
    float4 sums[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) sums[c] = zeros();
    for (u32 part = w.from; part < w.to; part++) {
      const float* const x = parts + part_row<N>(w, part, tile_row);
      const float fade = ex2(x[DIM] - peak);
      mass = fmaf(fade, x[DIM + 1], mass);
#pragma unroll
      for (int c = 0; c < COLUMNS; c++)
        add_scaled(sums[c], fade, load_four(x + 4 * (across() + ACROSS * c), 4, true));
    }
    store_row(out + w.query(r, h.out_row()), h.dim, h.aligned, sums, 1.0f / mass);
  }
}

KERNEL(merge_prefill, (THREADS), const uint4* items, const float* parts, float* out, Heads heads) {
  merge<ROWS>(items, parts, out, heads);
}

KERNEL(merge_decode, (THREADS), const uint4* items, const float* parts, float* out, Heads heads) {
  merge<1>(items, parts, out, heads);
}

// deltas[row] = out[row] . d_out[row], rows of one head; STREAM of them a block. Summed in the order of
// `products`: the gradient of a token that sees itself alone is exactly 0.
KERNEL(attention_deltas, (THREADS), const float* out, const float* d_out, float* deltas, Heads heads,
       u64 rows) {
  DYNAMIC_SHARED(float, outs);
  float* const d_outs = outs + STREAM * PITCH;
  const u64 first = (u64)blockIdx.x * STREAM;
  const auto place = [&](const float* x, u32 r) {
    return first + r < rows ? x + (first + r) * heads.dim : nullptr;
  };
  load_tile(outs, STREAM, heads, [&](u32 r) { return place(out, r); });
  load_tile(d_outs, STREAM, heads, [&](u32 r) { return place(d_out, r); });
  __syncthreads();
  if (threadIdx.x >= STREAM || first + threadIdx.x >= rows) return;
  float sum = 0.0f;
#pragma unroll 4
  for (int column = 0; column < DIM; column += 4)
    sum = dot_four(sum, shared_four(outs + threadIdx.x * PITCH + column),
                   shared_four(d_outs + threadIdx.x * PITCH + column));
  deltas[first + threadIdx.x] = sum;
}

// Writes the query part of d_qk.
KERNEL(attention_d_queries, (THREADS, 2), const uint4* items, const float* qk, const float* qkv,
       const float* lse, const float* d_out, const float* deltas, float* d_qk, Heads heads, float scale) {
  const Work w(items, heads);
  DYNAMIC_SHARED(float, queries);
  float* const d_outs = queries + ROWS * DOWN * PITCH;
  float* const keys = d_outs + ROWS * DOWN * PITCH;
  float* const values = keys + STREAM * PITCH;
  float* const weights = values + STREAM * PITCH;
  const auto own = [&](const float* x, u64 stride, u32 r) {
    return w.first + r < w.end ? x + w.query(w.first + r, stride) : nullptr;
  };
  load_tile(queries, ROWS * DOWN, w.h, [&](u32 r) { return own(qk, w.h.qk_row(), r); });
  load_tile(d_outs, ROWS * DOWN, w.h, [&](u32 r) { return own(d_out, w.h.out_row(), r); });
  u32 seen[ROWS];
  float offset[ROWS], delta[ROWS];
  float4 sums[ROWS][COLUMNS];
  clear(sums);
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    const u32 r = w.first + down() + DOWN * i;
    seen[i] = r < w.end ? r / w.group + 1 : 0;
    offset[i] = r < w.end ? lse[w.statistic(r)] * LOG2_E : 0.0f;
    delta[i] = r < w.end ? deltas[w.statistic(r)] : 0.0f;
  }
  for (u32 from = w.from; from < w.to; from += STREAM) {
    __syncthreads();
    load_tile(keys, STREAM, w.h, [&](u32 r) { return from + r < w.to ? qk + w.key(from + r) : nullptr; });
    load_tile(values, STREAM, w.h,
              [&](u32 r) { return from + r < w.to ? qkv + w.value(from + r) : nullptr; });
    __syncthreads();
    float p[ROWS][4], d[ROWS][4];
    products(queries, keys, p);
    products(d_outs, values, d);
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float probability = ex2(fmaf(p[i][j], scale, -offset[i]));
        const float slope = probability * (d[i][j] - delta[i]) * (scale * LN_2);
        d[i][j] = from + across() + ACROSS * j < seen[i] ? slope : 0.0f;
      }
    accumulate(weights, d, keys, sums);
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    const u32 r = w.first + down() + DOWN * i;
    if (r < w.end) store_row(d_qk + w.query(r, w.h.qk_row()), w.h.dim, w.h.aligned, sums[i], 1.0f);
  }
}

// Own rows are keys from `first` on. Writes the key part of d_qk and the value part of d_qkv.
KERNEL(attention_d_keys, (THREADS, 2), const uint4* items, const float* qk, const float* qkv,
       const float* lse, const float* d_out, const float* deltas, float* d_qk, float* d_qkv, Heads heads,
       float scale) {
  const Work w(items, heads);
  DYNAMIC_SHARED(float, keys);
  float* const values = keys + ROWS * DOWN * PITCH;
  float* const queries = values + ROWS * DOWN * PITCH;
  float* const d_outs = queries + STREAM * PITCH;
  float* const weights = d_outs + STREAM * PITCH;
  SHARED(float, offsets, [STREAM]);
  SHARED(float, stream_deltas, [STREAM]);
  SHARED(u32, stream_tokens, [STREAM]);
  load_tile(keys, ROWS * DOWN, w.h,
            [&](u32 r) { return w.first + r < w.tokens ? qk + w.key(w.first + r) : nullptr; });
  load_tile(values, ROWS * DOWN, w.h,
            [&](u32 r) { return w.first + r < w.tokens ? qkv + w.value(w.first + r) : nullptr; });
  float4 d_keys[ROWS][COLUMNS], d_values[ROWS][COLUMNS];
  clear(d_keys);
  clear(d_values);
  // Earlier queries see none of these keys.
  for (u32 from = w.first * w.group; from < w.end; from += STREAM) {
    const auto other = [&](const float* x, u64 stride, u32 r) {
      return from + r < w.end ? x + w.query(from + r, stride) : nullptr;
    };
    __syncthreads();
    load_tile(queries, STREAM, w.h, [&](u32 r) { return other(qk, w.h.qk_row(), r); });
    load_tile(d_outs, STREAM, w.h, [&](u32 r) { return other(d_out, w.h.out_row(), r); });
    if (threadIdx.x < STREAM) {
      const u32 r = from + threadIdx.x;
      offsets[threadIdx.x] = r < w.end ? lse[w.statistic(r)] * LOG2_E : 0.0f;
      stream_deltas[threadIdx.x] = r < w.end ? deltas[w.statistic(r)] : 0.0f;
      stream_tokens[threadIdx.x] = r < w.end ? r / w.group + 1 : 0;  // keys it sees
    }
    __syncthreads();
    float p[ROWS][4], d[ROWS][4];
    products(keys, queries, p);
    products(values, d_outs, d);
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const u32 column = across() + ACROSS * j;
        const bool visible = w.first + down() + DOWN * i < stream_tokens[column];
        p[i][j] = visible ? ex2(fmaf(p[i][j], scale, -offsets[column])) : 0.0f;
        d[i][j] = visible ? p[i][j] * (d[i][j] - stream_deltas[column]) * (scale * LN_2) : 0.0f;
      }
    accumulate(weights, p, d_outs, d_values);
    accumulate(weights, d, queries, d_keys);
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    const u32 t = w.first + down() + DOWN * i;
    if (t >= w.tokens) continue;
    store_row(d_qk + w.key(t), w.h.dim, w.h.aligned, d_keys[i], 1.0f);
    store_row(d_qkv + w.value(t), w.h.dim, w.h.aligned, d_values[i], 1.0f);
  }
}
