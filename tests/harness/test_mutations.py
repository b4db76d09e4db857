"""The mutations of the fault harness: each has a line to change, and leaves Python that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.faults import FAULTS
from tests.faults.mutation import Mutation
from tests.faults.mutations import MUTATIONS
from tests.support.processes import REPOSITORY


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_mutation_changes_a_line_that_is_there(mutation: Mutation, tmp_path: Path) -> None:
    source = (REPOSITORY / "pgfanout" / mutation.module).read_text(encoding="utf-8")
    copy = tmp_path / mutation.module
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(source, encoding="utf-8")
    mutation.apply(tmp_path)
    mutated = copy.read_text(encoding="utf-8")
    assert mutated != source
    if mutation.module.endswith(".py"):
        compile(mutated, mutation.module, "exec")
    assert set(mutation.faults) <= set(FAULTS)
