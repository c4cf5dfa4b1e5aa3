// One value in every element of a range.

template <class T> DEVICE void fill(T* to, T value, u64 len) {
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i < len) to[i] = value;
}

KERNEL(fill_2, (256), unsigned short* to, unsigned short value, u64 len) { fill(to, value, len); }
KERNEL(fill_4, (256), u32* to, u32 value, u64 len) { fill(to, value, len); }
