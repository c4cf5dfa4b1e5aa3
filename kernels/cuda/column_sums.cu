// target[column] += the sum of a matrix's column: the second stage of a weight's gradient.
//
// A block takes 32 columns; thread row i adds rows i, i + DOWN, ... and the threads of a column are added in
// order.

#define DOWN 16

KERNEL(column_sums, (32 * DOWN), const float* matrix, float* target, u32 rows, u32 stride, u32 width) {
  SHARED(float, parts, [DOWN][33]);
  const u32 column = blockIdx.x * 32 + lane_index();
  float sum = 0.0f;
  if (column < width)
#pragma unroll 4
    for (u32 row = warp_index(); row < rows; row += DOWN) sum += matrix[(u64)row * stride + column];
  parts[warp_index()][lane_index()] = sum;
  __syncthreads();
  if (warp_index() != 0 || column >= width) return;
  sum = 0.0f;
#pragma unroll
  for (int i = 0; i < DOWN; i++) sum += parts[i][lane_index()];
  target[column] += sum;
}
