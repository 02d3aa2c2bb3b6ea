"""Large sets of pictures, decoded once into one memory-mapped array. Needs no torch."""
