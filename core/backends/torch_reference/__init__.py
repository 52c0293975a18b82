"""Contains slow, readable reference kernels in torch: the oracle of the tests and the fallback."""
