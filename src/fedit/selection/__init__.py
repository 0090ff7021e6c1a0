"""Who takes part in a round, and with what weight."""
