"""The wallet: money on chains."""
