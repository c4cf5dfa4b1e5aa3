// Copies rows between places that lists name; without a list, row i is in place i. One block per row.
//
//   WORD   what is copied at once: uint4, u32 or bf16. Rows have `width` of them.

KERNEL(copy_rows, (256), const WORD* from, const u32* from_rows, WORD* to, const u32* to_rows, u32 width) {
  const u64 source = from_rows ? from_rows[blockIdx.x] : blockIdx.x;
  const u64 target = to_rows ? to_rows[blockIdx.x] : blockIdx.x;
  for (u32 i = threadIdx.x; i < width; i += 256) to[target * width + i] = from[source * width + i];
}
