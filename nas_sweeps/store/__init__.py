"""What a store holds, as files: its layout, leases, attempts, results; published atomically.

It is light: neither torch nor pandas is imported. The tables are in ``nas_sweeps.tables``.
"""

from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import Result, State
from nas_sweeps.trial import Origin

__all__ = ["Origin", "Result", "State", "Store"]
