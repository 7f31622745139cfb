"""Fiat: bank money, in and out."""
