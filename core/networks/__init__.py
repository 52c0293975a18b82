"""Neural networks with the key layouts of published checkpoints, and the loading of weights."""
