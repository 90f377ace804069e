"""The cell search space: operations, supernet, genotype and evaluation network."""
