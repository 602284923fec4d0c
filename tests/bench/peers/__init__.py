"""The same training step through lorakiln and through other trainers' checkouts, side by side."""
