// Rounds numbers to bf16, to nearest with ties to even, or widens them.
//
//   FROM, TO   their types: float or bf16

KERNEL(convert, (256), const FROM* from, TO* to, u64 len) {
  const u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i < len) store(to + i, widen(from[i]));
}
