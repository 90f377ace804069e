"""The store of ``tests/store``, whose trials the tables are made of."""

from tests.store.conftest import lab

__all__ = ["lab"]
