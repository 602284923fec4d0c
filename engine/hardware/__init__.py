"""What the machine has: GPU and host memory, read without torch."""
