"""Contains diffusion: the model protocol, schedules, samplers, guidance, distillation."""
