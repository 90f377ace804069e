"""What a person sees while a grid runs: one view, fed by the driver's events or by the store."""
