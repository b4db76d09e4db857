"""All the faults there are."""

from __future__ import annotations

from . import clients, database, network, processes
from .fault import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "clients", "database", "network", "processes"]
