"""Trading: orders, placed and cancelled."""
