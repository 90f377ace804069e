"""Where results live: layout, atomic publish, ledger, Parquet tables."""
