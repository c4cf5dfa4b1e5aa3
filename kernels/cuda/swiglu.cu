// The gated activation silu(gate) * up: one thread for each output element. A row of gate_up is [gate | up].

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

KERNEL(swiglu, (256), const float* __restrict__ gate_up, float* __restrict__ out, u64 width, u64 len) {
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= len) return;
  u64 gate = i + i / width * width;
  out[i] = gate_up[gate] / (1.0f + expf(-gate_up[gate])) * gate_up[gate + width];
}

KERNEL(swiglu_backward, (256), const float* __restrict__ gate_up, const float* __restrict__ d_out,
       float* __restrict__ d_gate_up, u64 width, u64 len) {
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= len) return;
  u64 gate = i + i / width * width, up = gate + width;
  float s = sigmoid(gate_up[gate]);
  d_gate_up[up] = d_out[i] * (gate_up[gate] * s);
  d_gate_up[gate] = d_out[i] * gate_up[up] * (s * (1.0f + gate_up[gate] * (1.0f - s)));
}
