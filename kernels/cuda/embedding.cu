// Rows of a table by token id, and the sum of gradients into them.

// A block copies one row.
KERNEL(embedding, (256), const u32* ids, const float* table, float* out, u32 width, u32 aligned) {
  const float* const from = table + (u64)ids[blockIdx.x] * width;
  float* const to = out + (u64)blockIdx.x * width;
  for (u32 column = 4 * threadIdx.x; column < width; column += 4 * blockDim.x)
    store_four(to + column, width - column, aligned, load_four(from + column, width - column, aligned));
}

// The tokens of one id are order[starts[i]] .. order[starts[i + 1]], ascending: one thread adds them up for
// its four columns, in that order. The grid is distinct ids x tiles of a row.
KERNEL(embedding_backward, (256), const u32* starts, const u32* order, const u32* ids, const float* d_out,
       float* d_table, u32 width, u32 tiles, u32 aligned) {
  const u32 which = blockIdx.x / tiles, first = starts[which], end = starts[which + 1];
  const u32 column = 4 * (blockIdx.x % tiles * blockDim.x + threadIdx.x);
  if (column >= width) return;
  const u32 left = width - column;
  float* const to = d_table + (u64)ids[order[first]] * width + column;
  float4 sum = load_four(to, left, aligned);
#pragma unroll 4
  for (u32 i = first; i < end; i++) {
    const float4 x = load_four(d_out + (u64)order[i] * width + column, left, aligned);
    sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
  }
  store_four(to, left, aligned, sum);
}
