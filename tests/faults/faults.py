"""All the faults there are."""

from __future__ import annotations

from . import clients, database, log, lost_commits, network, processes, strangers, tenants
from .fault import FAULTS, Fault, drawable

__all__ = [
    "FAULTS",
    "Fault",
    "clients",
    "database",
    "drawable",
    "log",
    "lost_commits",
    "network",
    "processes",
    "strangers",
    "tenants",
]
