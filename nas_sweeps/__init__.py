"""Grids of neural-architecture searches on long-tailed image data.

    >>> import nas_sweeps as ns
    >>> grid = ns.load_grid("experiments/quickstart.yaml")
    >>> len(ns.plan(grid))
    12

``ns.run(grid, store)`` computes what is missing, ``ns.load(store)`` gives the tables as pandas
DataFrames. Importing this package imports neither torch nor ray nor pandas.
"""

import lazy_loader

__version__ = "0.1.0"

# The public names are listed in __init__.pyi and imported when they are first asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
