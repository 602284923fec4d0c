"""FLUX's real step at full size on fake tensors: counted in seconds on a CPU."""
