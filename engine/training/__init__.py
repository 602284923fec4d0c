"""What a step is made of: objective, optimizer, schedule, checkpoints, sampling."""
