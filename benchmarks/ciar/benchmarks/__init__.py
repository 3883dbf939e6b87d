"""What the system costs and gains, measured over real processes and a real connection."""
