"""Compare the runs of a sweep. Reads run folders only; needs neither torch nor Weights & Biases."""
