"""The search and retrain loops, losses and metrics."""
