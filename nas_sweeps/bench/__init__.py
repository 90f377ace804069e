"""How fast and how small a step is, against the plain form of the same computation.

``python -m nas_sweeps.bench --help`` says what can be chosen; ``command.bench`` is the same as a
typer command. Nothing here asserts a time: the numbers are printed, and written as Parquet where
asked for.
"""
