// One AdamW step (Loshchilov & Hutter 2019) over a flat range. The corrections are the host's, in f64.

// c1 and c2 correct the moments' bias; decay is what weight decay leaves of a parameter.
struct Rates {
  float b1, b2, c1, c2, eps, decay, rate, grad_scale;
};

DEVICE void update(Rates r, float& p, float g, float& m, float& v) {
  g *= r.grad_scale;
  m = r.b1 * m + (1.0f - r.b1) * g;
  v = r.b2 * v + (1.0f - r.b2) * g * g;
  p = p * r.decay - r.rate * (m * r.c1 / (sqrtf(v * r.c2) + r.eps));
}

KERNEL(adamw, (256), float* params, const float* grads, float* first, float* second, u64 len, u32 aligned,
       Rates rates) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const u64 at = 4 * ((u64)blockIdx.x * 512 + i * 256 + threadIdx.x);
    if (at >= len) return;
    const u32 left = len - at < 4 ? (u32)(len - at) : 4;
    float4 p = load_four(params + at, left, aligned), m = load_four(first + at, left, aligned);
    float4 v = load_four(second + at, left, aligned);
    const float4 g = load_four(grads + at, left, aligned);
    update(rates, p.x, g.x, m.x, v.x);
    update(rates, p.y, g.y, m.y, v.y);
    update(rates, p.z, g.z, m.z, v.z);
    update(rates, p.w, g.w, m.w, v.w);
    store_four(params + at, left, aligned, p);
    store_four(first + at, left, aligned, m);
    store_four(second + at, left, aligned, v);
  }
}
