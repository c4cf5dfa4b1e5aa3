"""The parts of `kernels/gpu-check`."""
