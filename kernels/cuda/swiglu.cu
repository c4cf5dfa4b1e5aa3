// The gated activation silu(gate) * up (Shazeer 2020). A row of gate_up is [gate | up]; a thread has four
// columns of a row, and the grid is rows x tiles of a row.

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

DEVICE float gated(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

KERNEL(swiglu, (256), const float* gate_up, float* out, u32 width, u32 tiles, u32 aligned) {
  const u64 row = blockIdx.x / tiles;
  const u32 column = 4 * (blockIdx.x % tiles * blockDim.x + threadIdx.x);
  if (column >= width) return;
  const u32 left = width - column;
  const float* const from = gate_up + row * 2 * width + column;
  const float4 gate = load_four(from, left, aligned), up = load_four(from + width, left, aligned);
  store_four(out + row * width + column, left, aligned,
             make_float4(gated(gate.x, up.x), gated(gate.y, up.y), gated(gate.z, up.z), gated(gate.w, up.w)));
}

DEVICE void gated_backward(float& gate, float& up, float d) {
  const float s = sigmoid(gate), silu = gate * s;
  gate = d * up * (s * (1.0f + gate * (1.0f - s)));
  up = d * silu;
}

KERNEL(swiglu_backward, (256), const float* gate_up, const float* d_out, float* d_gate_up, u32 width,
       u32 tiles, u32 aligned) {
  const u64 row = blockIdx.x / tiles;
  const u32 column = 4 * (blockIdx.x % tiles * blockDim.x + threadIdx.x);
  if (column >= width) return;
  const u32 left = width - column;
  const u64 place = row * 2 * width + column;
  float4 gate = load_four(gate_up + place, left, aligned),
         up = load_four(gate_up + place + width, left, aligned);
  const float4 d = load_four(d_out + row * width + column, left, aligned);
  gated_backward(gate.x, up.x, d.x);
  gated_backward(gate.y, up.y, d.y);
  gated_backward(gate.z, up.z, d.z);
  gated_backward(gate.w, up.w, d.w);
  store_four(d_gate_up + place, left, aligned, gate);
  store_four(d_gate_up + place + width, left, aligned, up);
}
