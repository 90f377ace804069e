"""What people look at: plans, status and result tables in the terminal."""
