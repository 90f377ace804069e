"""Results as Parquet tables: their schemas, compaction, loading, summaries, SQL and export.

Names are imported when they are first asked for (see ``__init__.pyi``): pandas takes a second.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
