// Sums of squares in double, one for each chunk of 2^15 elements, in an order that only the index decides.

#define CHUNK (1u << 15)

KERNEL(sum_squares, (256), const float* x, u32* sums, u64 len, u32 aligned) {
  const u64 start = (u64)blockIdx.x * CHUNK, end = start + CHUNK < len ? start + CHUNK : len;
  double sum = 0.0;
#pragma unroll 4
  for (u64 at = start + 4 * threadIdx.x; at < end; at += 4 * 256) {
    const float4 v = load_four(x + at, end - at < 4 ? (u32)(end - at) : 4, aligned);
    sum += (double)v.x * v.x + (double)v.y * v.y + ((double)v.z * v.z + (double)v.w * v.w);
  }
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) ((double*)sums)[blockIdx.x] = sum;
}
