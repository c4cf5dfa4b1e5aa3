// Puts each token's key and value into its slot of a paged pool, [blocks, 2, kv_heads, block_size, dim].

// A block stores one token.
KERNEL(paged_store, (256), const u32* slots, const float* qk, const float* qkv, float* pool, u32 heads,
       u32 kv_heads, u32 dim, u32 block_size, u32 aligned) {
  const u64 token = blockIdx.x;
  const u32 block = slots[token] / block_size, offset = slots[token] % block_size;
  const float* const keys = qk + (token * (heads + kv_heads) + heads) * dim;
  const float* const values = qkv + (token * (heads + 2 * kv_heads) + heads + kv_heads) * dim;
  const u32 fours = (dim + 3) / 4;
  for (u32 at = threadIdx.x; at < 2 * kv_heads * fours; at += blockDim.x) {
    const u32 head = at / fours, column = at % fours * 4;  // keys first, then values
    const float* const from = head < kv_heads ? keys + head * dim : values + (head - kv_heads) * dim;
    float* const to = pool + (((u64)block * 2 * kv_heads + head) * block_size + offset) * dim;
    store_four(to + column, dim - column, aligned, load_four(from + column, dim - column, aligned));
  }
}
