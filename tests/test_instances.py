"""The columnar table of nuclei."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.geometry import Box
from slidebatch.instances import SCORE_MAX, Instances, concatenate, from_masks, mask_bytes, none, offsets
from tests.support.random_nuclei import crowds, nuclei

quick = settings(deadline=None, max_examples=60)
TYPES = {
    "box": np.int32,
    "score": np.uint16,
    "member": np.uint8,
    "votes": np.uint8,
    "cut": np.uint8,
    "offset": np.int64,
    "bits": np.uint8,
}


def check(table: Instances) -> None:
    """The columns fit together and have their types."""
    assert {n: a.dtype.type for n, a in table.arrays().items()} == TYPES
    assert table.offset.tolist() == offsets(table.box).tolist()
    assert table.offset[-1] == len(table.bits)
    assert {len(a) for n, a in table.arrays().items() if n not in ("offset", "bits")} == {len(table)}


def same(a: Instances, b: Instances) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.arrays().values(), b.arrays().values(), strict=True))


@quick
@given(
    st.lists(st.tuples(st.integers(-9, 99), st.integers(1, 13), st.integers(1, 13)), max_size=8),
    st.integers(0, 99),
)
def test_masks_come_back(rows: list[tuple[int, int, int]], seed: int) -> None:
    """What goes in as boxes and bool masks comes out the same, row by row."""
    random = np.random.default_rng(seed)
    boxes = [Box(y, -y, y + h, w - y) for y, h, w in rows]
    masks = [random.random(b.shape) < 0.5 for b in boxes]
    table = from_masks(boxes, masks)
    check(table)
    assert [table.at(i) for i in range(len(table))] == boxes
    assert all((table.mask(i) == masks[i]).all() for i in range(len(table)))
    assert (table.score == SCORE_MAX).all()


@quick
@given(nuclei(), st.data())
def test_take_gives_the_rows_asked_for(table: Instances, data: st.DataObject) -> None:
    """Row k of the taken table is row rows[k] of the old one in every column, repeated ones too."""
    rows = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=12)) if len(table) else []
    taken = table.take(rows)
    check(taken)
    assert len(taken) == len(rows)
    for k, row in enumerate(rows):
        assert (taken.at(k), taken.score[k], taken.member[k]) == (
            table.at(row),
            table.score[row],
            table.member[row],
        )
        assert (taken.mask(k) == table.mask(row)).all()


@quick
@given(nuclei(), st.data())
def test_a_boolean_mask_takes_its_true_rows(table: Instances, data: st.DataObject) -> None:
    """Taking by a boolean mask is taking by the indices where it is true."""
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table))), bool)
    assert same(table.take(wanted), table.take(np.flatnonzero(wanted)))


@quick
@given(st.lists(st.one_of(nuclei(), crowds()), max_size=4))
def test_concatenating_and_taking_apart_is_nothing(tables: list[Instances]) -> None:
    """The parts of a concatenated table are the tables it was made of, also where some have no rows."""
    whole = concatenate(tables)
    check(whole)
    ends = np.cumsum([0] + [len(t) for t in tables])
    for start, end, table in zip(ends[:-1], ends[1:], tables, strict=True):
        assert same(whole.take(np.arange(start, end)), table)


def test_no_rows() -> None:
    """A table without rows has its types, and taking nothing from one or joining none gives it again."""
    check(none())
    assert len(none()) == 0
    assert same(none().take([]), none())
    assert same(none().take(np.zeros(0, bool)), none())
    assert same(concatenate([]), none())


def test_a_mask_takes_whole_bytes() -> None:
    """A mask of h x w pixels takes h * w / 8 bytes, rounded up, even where that is more than an int32."""
    box = np.array([[0, 0, 20, 20], [0, 0, 3, 3], [0, 0, 1, 1], [0, 0, 100_000, 100_000]], np.int32)
    assert mask_bytes(box).tolist() == [50, 2, 1, 1_250_000_000]
