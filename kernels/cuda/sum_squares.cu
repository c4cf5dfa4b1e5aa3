// Sums of squares in double, one for each chunk of 2^15 elements, in an order that only the index decides.
#define CHUNK (1u << 15)

KERNEL(sum_squares, (256), const float* __restrict__ x, u32* __restrict__ sums, u64 len) {
  u64 start = (u64)blockIdx.x * CHUNK, end = start + CHUNK < len ? start + CHUNK : len;
  double sum = 0.0;
  for (u64 i = start + threadIdx.x; i < end; i += 256) sum += (double)x[i] * (double)x[i];
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) ((double*)sums)[blockIdx.x] = sum;
}
