// RMS normalisation (Zhang & Sennrich 2019) of rows, and sums over rows for the gradients of weights.
//
// BLOCK, the threads of a block, follows from the width of a row: a row is one block's, and its sum has one
// order.

// The sum of squares of a row, for every thread.
DEVICE float row_squares(const float* x, u32 width, bool aligned) {
  float sum = 0.0f;
  for (u32 column = 4 * threadIdx.x; column < width; column += 4 * BLOCK) {
    const float4 v = load_four(x + column, width - column, aligned);
    sum = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
  }
  return block_sum<BLOCK>(sum);
}

KERNEL(rms_norm, (BLOCK), const float* x, const float* weight, float* out, float eps, u32 width, u32 aligned) {
  x += (u64)blockIdx.x * width;
  out += (u64)blockIdx.x * width;
  const float scale = 1.0f / sqrtf(row_squares(x, width, aligned) / width + eps);
  for (u32 column = 4 * threadIdx.x; column < width; column += 4 * BLOCK) {
    const u32 left = width - column;
    const float4 v = load_four(x + column, left, aligned), w = load_four(weight + column, left, aligned);
    store_four(out + column, left, aligned,
               make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w));
  }
}

// A block takes `rows_per_block` rows, adds to their d_x, and leaves its share of the weight's gradient in a
// row of `partial`. The share lies in shared memory, where each thread owns its columns.
KERNEL(rms_norm_backward, (BLOCK), const float* x, const float* weight, const float* d_out, float* d_x,
       float* partial, float eps, u32 rows, u32 rows_per_block, u32 width, u32 aligned) {
  DYNAMIC_SHARED(float, d_weight);
  for (u32 column = 4 * threadIdx.x; column < width; column += 4 * BLOCK)
    store_four(d_weight + column, 4, true, make_float4(0.0f, 0.0f, 0.0f, 0.0f));
  const u32 first = blockIdx.x * rows_per_block;
  for (u32 row = first; row < min(first + rows_per_block, rows); row++) {
    const u64 start = (u64)row * width;
    const float scale = 1.0f / sqrtf(row_squares(x + start, width, aligned) / width + eps);
    float along = 0.0f;
    for (u32 column = 4 * threadIdx.x; column < width; column += 4 * BLOCK) {
      const u32 left = width - column;
      const float4 v = load_four(x + start + column, left, aligned);
      const float4 g = load_four(d_out + start + column, left, aligned);
      const float4 w = load_four(weight + column, left, aligned);
      float4 sum = load_four(d_weight + column, 4, true);
      sum.x += g.x * v.x * scale, sum.y += g.y * v.y * scale;
      sum.z += g.z * v.z * scale, sum.w += g.w * v.w * scale;
      store_four(d_weight + column, 4, true, sum);
      along = fmaf(g.w * w.w, v.w, fmaf(g.z * w.z, v.z, fmaf(g.y * w.y, v.y, fmaf(g.x * w.x, v.x, along))));
    }
    along = block_sum<BLOCK>(along) * scale * scale * scale / width;
    for (u32 column = 4 * threadIdx.x; column < width; column += 4 * BLOCK) {
      const u32 left = width - column;
      const float4 v = load_four(x + start + column, left, aligned);
      const float4 g = load_four(d_out + start + column, left, aligned);
      const float4 w = load_four(weight + column, left, aligned);
      float4 d = load_four(d_x + start + column, left, aligned);
      d.x += g.x * w.x * scale - v.x * along, d.y += g.y * w.y * scale - v.y * along;
      d.z += g.z * w.z * scale - v.z * along, d.w += g.w * w.w * scale - v.w * along;
      store_four(d_x + start + column, left, aligned, d);
    }
  }
  for (u32 column = 4 * threadIdx.x; column < width; column += 4 * BLOCK)
    store_four(partial + (u64)blockIdx.x * width + column, width - column, aligned,
               load_four(d_weight + column, 4, true));
}
