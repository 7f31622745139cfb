"""Settlement: delivery versus payment."""
