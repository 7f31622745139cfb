"""What every service embeds to take part in transactions."""
