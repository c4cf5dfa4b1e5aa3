// Copies rows between places that lists name; without a list, row i is in place i. One block per row.
//
//   WORD   what is copied at once: uint4, u32 or bf16. Rows have `width` of them.

KERNEL(copy_rows, (256), const void* from, const u32* from_rows, void* to, const u32* to_rows, u32 width) {
  const WORD* source = (const WORD*)from + (from_rows ? from_rows[blockIdx.x] : blockIdx.x) * (u64)width;
  WORD* target = (WORD*)to + (to_rows ? to_rows[blockIdx.x] : blockIdx.x) * (u64)width;
  for (u32 i = threadIdx.x; i < width; i += 256) target[i] = source[i];
}
