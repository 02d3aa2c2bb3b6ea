"""The comparison: reads run folders only, needs neither torch nor Weights & Biases."""
