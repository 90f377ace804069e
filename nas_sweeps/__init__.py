"""Neural-architecture-search sweeps."""
