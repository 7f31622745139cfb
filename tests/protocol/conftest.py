"""Hypothesis on a machine that is busy with other tests: no clock decides whether a test passes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("pincex", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pincex")
