"""ganbench from Python: make a run, use one, compare a sweep. `from ganbench import run, load, compare` leads here."""
