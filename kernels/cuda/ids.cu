// Where the ids that no vocabulary has are: each block looks through its share of the ids and names the
// first, in two words. With weights and targets only the rows that take part in a loss are looked at.

#define NONE 0xffffffffffffffffull

KERNEL(first_unknown_id, (256), const int* ids, u64 count, u32 k, u32 vocab, const float* weights,
       const int* targets, u32* first) {
  const u64 share = (count + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * share;
  const u64 end = min(begin + share, count);
  u64 mine = NONE;
  for (u64 i = begin + threadIdx.x; i < end; i += 256) {
    if (ids[i] < (int)vocab || (weights && (weights[i / k] == 0.0f || targets[i / k] < 0))) continue;
    mine = min(mine, i);
  }
  SHARED(u64, parts, [256]);
  parts[threadIdx.x] = mine;
  __syncthreads();
  for (u32 half = 128; half; half /= 2) {
    if (threadIdx.x < half) parts[threadIdx.x] = min(parts[threadIdx.x], parts[threadIdx.x + half]);
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    first[2 * blockIdx.x] = (u32)parts[0];
    first[2 * blockIdx.x + 1] = (u32)(parts[0] >> 32);
  }
}
