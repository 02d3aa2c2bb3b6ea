"""What things cost, each against its usual alternative, in pairs within one run: `make bench`.

Only ratios mean something on another machine.
"""
