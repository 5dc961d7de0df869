"""Bind any DAG: order does not matter, cycles are found, and all edges arrive."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.client import binding, dag
from jobmon.client.api import Tool
from jobmon.client.node import DIGEST_BYTES, digest_of, digest_of_many
from jobmon.core.exceptions import CyclicGraphError

if TYPE_CHECKING:
    import random

TEMPLATE = Tool("t").get_task_template("tmpl", "{n}", ["n"])
SIZE_MAX = 12
EDGES = st.sets(st.tuples(st.integers(0, SIZE_MAX - 1), st.integers(0, SIZE_MAX - 1)), max_size=40)


def _tasks(edges):
    tasks = [TEMPLATE.create_task(n=n, name=f"task{n}") for n in range(SIZE_MAX)]
    for before, after in edges:
        tasks[after].add_upstream(tasks[before])
    return tasks


def _acyclic(edges):
    return {(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]}


@given(EDGES, st.randoms(use_true_random=False))
def test_the_hash_of_a_dag_does_not_depend_on_order(edges, order: random.Random):
    one, other = _tasks(sorted(_acyclic(edges))), _tasks(sorted(_acyclic(edges), reverse=True))
    order.shuffle(other)
    assert dag.edge_sets(one).dag_hash == dag.edge_sets(other).dag_hash
    assert dag.task_hash(one) == dag.task_hash(other)


@given(EDGES, EDGES)
def test_other_edges_are_another_dag(edges, others):
    same = _acyclic(edges) == _acyclic(others)
    assert (dag.edge_sets(_tasks(_acyclic(edges))).dag_hash == dag.edge_sets(_tasks(_acyclic(others))).dag_hash) == same


def _has_cycle(edges) -> bool:
    left = set(range(SIZE_MAX))
    while ready := {n for n in left if not any(after == n and before in left for before, after in edges)}:
        left -= ready
    return bool(left)


@given(EDGES)
def test_cycles_are_found_and_printed(edges):
    tasks = _tasks(edges)
    if not _has_cycle(edges):
        dag.check_acyclic(tasks)
        return
    with pytest.raises(CyclicGraphError) as caught:
        dag.check_acyclic(tasks)
    names = str(caught.value).rstrip(".").split(": ")[1].split(" -> ")
    numbers = [int(name.removeprefix("task")) for name in names]
    assert numbers[0] == numbers[-1]
    assert set(itertools.pairwise(numbers)) <= edges


@given(EDGES, st.integers(1, 9))
def test_chunks_hold_every_edge_once(edges, chunk_max):
    edges = _acyclic(edges)
    tasks = _tasks(edges)
    for number, task in enumerate(tasks):
        task.node_id = number
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binding, "EDGES_PER_CHUNK_MAX", chunk_max)
        chunks = list(binding._edge_chunks(dag.edge_sets(tasks)))
    sets: dict[int, list[int]] = {}
    found = []
    for numbers, upstreams, members in chunks:
        assert sum(map(len, upstreams)) <= chunk_max
        for number, nodes in zip(numbers, upstreams, strict=True):
            sets.setdefault(number, []).extend(nodes)
        found += [(before, task.node_id) for task, number in members for before in sets[number]]
    assert sorted(found) == sorted(edges)


@given(st.lists(st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES), unique=True))
def test_a_digest_in_portions_is_the_digest(digests):
    assert digest_of_many(iter(digests)) == digest_of(digests)
