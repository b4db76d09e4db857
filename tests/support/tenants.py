"""Strategies for tenants: of every kind, and such as are nearly another one."""

from __future__ import annotations

import uuid

from hypothesis import strategies as st

from pgfanout import TenantId
from pgfanout.topic import TENANT_LIMIT

__all__ = ["near_misses", "tenant_texts", "tenants"]


def tenant_texts() -> st.SearchStrategy[str]:
    """Return texts that are valid tenants: quotes, backslashes, other scripts and UUIDs in any case among them."""
    anything = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=TENANT_LIMIT)
    likely = st.text("aA1-'\"\\ %é{", min_size=1, max_size=8)
    short = (anything | likely).filter(lambda text: len(text.encode()) <= TENANT_LIMIT)
    spelled = st.sampled_from([str.upper, str.lower, str.title])
    return short | st.builds(lambda spell, tenant: spell(str(tenant)), spelled, st.uuids())


def tenants() -> st.SearchStrategy[TenantId]:
    """Return valid tenants of every kind."""
    return st.none() | st.integers(-(10**20), 10**20) | st.integers(0, 3) | st.uuids() | tenant_texts()


def near_misses() -> st.SearchStrategy[str]:
    """Return texts around the rule's edges, valid and not: UUIDs with one character changed, lengths around the limit,
    control characters."""
    changed = st.builds(
        lambda tenant, at, to: str(tenant)[:at] + to + str(tenant)[at + 1 :],
        st.uuids() | st.just(uuid.UUID(int=0)),
        st.integers(0, 36),
        st.sampled_from(["", "-", "g", "G", "A", "１", "\n", " ", "_", "0"]),
    )
    long = st.builds(
        lambda text, size: text * size, st.sampled_from(["x", "é", "€", "\U0001f600"]), st.integers(14, 66)
    )
    control = st.text(st.characters(categories=["Cc"], include_characters="a \xa0"), min_size=0, max_size=4)
    return changed | long | control | tenant_texts() | st.text(max_size=70)
