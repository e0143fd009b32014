"""Copies across a table: equal to comparing each with each, whatever the order, and settled once and for all."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import duplicates, hamming
from curation.dedup.duplicates import Duplicates, columns_of, find_duplicates

SCHEMA = pa.schema([
    ("clip_id", pa.string()),
    ("type", pa.string()),
    ("source_id", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("area_px", pa.int64()),
    ("duration_s", pa.float64()),
    ("temporal_hash", pa.list_(pa.int64())),
    ("embedding", pa.list_(pa.float16(), 4)),
    ("aesthetic", pa.float64()),
])
BLOCKS = [(word, low, length) for word in range(8) for low, length in ((0, 22), (22, 21), (43, 21))]


def clip(name, **values):
    """A row that is like no other."""
    own = {"clip_id": name, "type": "video", "source_id": f"content of {name}", "start_s": 0.0, "end_s": 4.0}
    return {**dict.fromkeys(SCHEMA.names), **own, "area_px": 1000, "duration_s": 4.0, **values}


def table_of(rows):
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def copies(rows, standing=None, **how):
    """Return {clip_id: the kept clip's} of the rows that are copies."""
    mask = np.ones(len(rows), bool) if standing is None else np.array(standing)
    found = find_duplicates(table_of(rows), mask, Duplicates(**how)).to_pylist()
    return {row["clip_id"]: kept for row, kept in zip(rows, found, strict=True) if kept is not None}


def words(seed):
    """A hash of random bits."""
    return np.random.default_rng(seed).integers(-(2**63), 2**63, 12, endpoint=False).tolist()


def flipped(values, bits):
    """The hash with some of its 768 bits flipped."""
    changed = np.array(values).view(np.uint64)
    for bit in bits:
        changed[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return changed.view(np.int64).tolist()


# -- the rule, told once more in plain Python, each with each


def blocks(values):
    return [(values[word] % 2**64) >> low & (1 << length) - 1 for word, low, length in BLOCKS]


def are_copies(a, b, how):
    if a["type"] != b["type"]:
        return False
    if a["source_id"] is not None and all(a[c] == b[c] for c in ("source_id", "start_s", "end_s")):
        return True
    x, y = a["temporal_hash"], b["temporal_hash"]
    if x and y:
        apart = [((p ^ q) % 2**64).bit_count() for p, q in zip(x, y, strict=True)]
        shared = any(p and q and (p ^ q).bit_count() <= 1 for p, q in zip(blocks(x), blocks(y), strict=True))
        if x == y or (shared and sum(apart[:8]) <= how.picture_bits and sum(apart[8:]) <= how.motion_bits):
            return True
    if how.cosine is not None and a["embedding"] and b["embedding"]:
        p, q = (np.array(row["embedding"], np.float64) for row in (a, b))
        return bool(p.any() and q.any() and (p @ q) / np.linalg.norm(p) / np.linalg.norm(q) >= how.cosine)
    return False


def worth(row, how):
    def last_if_missing(value):
        return (1, 0) if value is None or value != value else (0, -value)

    names = [*([how.best] if how.best else []), "area_px", "duration_s"]
    return [last_if_missing(row[name]) for name in names], row["clip_id"]


def each_with_each(rows, how):
    kept, found = [], {}
    for row in sorted(rows, key=lambda row: worth(row, how)):
        owner = next((k for k in kept if are_copies(row, k, how)), None)
        if owner is None:
            kept.append(row)
        else:
            found[row["clip_id"]] = owner["clip_id"]
    return found


def drawn_rows(seed, count):
    """Rows of few contents, hashes and directions, so that many are copies of several others in several ways."""
    rng = np.random.default_rng(seed)
    hashes, directions = [words(seed + i) for i in range(3)], rng.standard_normal((4, 4))
    rows = []
    for i in range(count):
        still = rng.random() < 0.3
        values = {
            "type": "image" if still else "video",
            "source_id": None if rng.random() < 0.1 else f"s{rng.integers(count)}",
            "area_px": int(rng.integers(1, 3)),
            "duration_s": None if still else float(rng.integers(3, 5)),
            "start_s": None if still else float(rng.integers(2)),
            "end_s": None if still else 5.0,
            "aesthetic": [None, float("nan"), 1.0, float(rng.random())][rng.integers(4)],
        }
        if rng.random() < 0.9:
            values["temporal_hash"] = flipped(hashes[rng.integers(3)], rng.integers(0, 768, rng.integers(0, 75)))
        if rng.random() < 0.9:
            near = directions[rng.integers(4)] + rng.standard_normal(4) * rng.choice([0, 0.05, 0.2])
            values["embedding"] = (near * (rng.random() > 0.1)).astype(np.float16).tolist()
        rows.append(clip(f"clip-{rng.integers(10**6):06d}-{i}", **values))
    return rows


many = st.builds(drawn_rows, st.integers(0, 10**6), st.integers(0, 24))
rules = st.builds(
    Duplicates,
    best=st.sampled_from([None, "aesthetic", "area_px"]),
    picture_bits=st.sampled_from([0, 20, 64, 80]),
    motion_bits=st.sampled_from([5, 40]),
    cosine=st.sampled_from([None, 0.9, 0.993]),
)


def found_in(rows, how):
    found = find_duplicates(table_of(rows), np.ones(len(rows), bool), how).to_pylist()
    return {row["clip_id"]: kept for row, kept in zip(rows, found, strict=True) if kept is not None}


@settings(deadline=None, max_examples=60)
@given(many, rules)
def test_what_is_found_equals_comparing_each_with_each(rows, how):
    assert found_in(rows, how) == each_with_each(rows, how)


@pytest.mark.parametrize(
    ("bound", "value"), [("CROWDED", -1), ("SMALL", 7), ("CHUNK_PAIRS", 64), ("TABULATED", 0), ("CROWDED and SMALL", 0)]
)
def test_however_the_work_is_divided_it_comes_to_the_same(bound, value, monkeypatch):
    rows = drawn_rows(0, 500)
    how = Duplicates(best="aesthetic", picture_bits=30, cosine=0.999)
    expected = found_in(rows, how)
    assert 100 < len(expected) < 400
    for name, part in {"CROWDED": -1, "SMALL": 7}.items() if "and" in bound else [(bound, value)]:
        monkeypatch.setattr(hamming if name in {"CHUNK_PAIRS", "TABULATED"} else duplicates, name, part)
    assert found_in(rows, how) == expected


@settings(deadline=None, max_examples=30)
@given(many, rules, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows, how, random):
    shuffled = random.sample(rows, len(rows))
    assert found_in(shuffled, how) == found_in(rows, how)


@settings(deadline=None, max_examples=30)
@given(many, rules)
def test_without_the_copies_nothing_more_is_a_copy(rows, how):
    found = found_in(rows, how)
    kept = [row for row in rows if row["clip_id"] not in found]
    assert set(found.values()) <= {row["clip_id"] for row in kept}
    assert found_in(kept, how) == {}


# -- what counts as a copy


def test_one_span_of_one_content_under_two_paths_is_a_copy_and_its_other_spans_are_not():
    rows = [
        clip("a", source_id="same", start_s=0.0, end_s=5.0),
        clip("b", source_id="same", start_s=0.0, end_s=5.0),
        clip("c", source_id="same", start_s=5.0, end_s=10.0),
        clip("d", source_id="other", start_s=0.0, end_s=5.0),
        clip("still a", type="image", source_id="still", start_s=None, end_s=None, duration_s=None),
        clip("still b", type="image", source_id="still", start_s=None, end_s=None, duration_s=None),
    ]
    assert copies(rows) == {"b": "a", "still b": "still a"}


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.sets(st.integers(0, 511), max_size=47), st.sets(st.integers(512, 767), max_size=36))
def test_no_copy_of_up_to_47_differing_bits_is_missed_wherever_they_are(seed, pictures, motion):
    one = words(seed)
    rows = [clip("a", temporal_hash=one), clip("b", temporal_hash=flipped(one, pictures | motion))]
    assert copies(rows) == {"b": "a"}


def test_of_copies_that_differ_in_64_bits_anywhere_next_to_none_is_missed():
    rng = np.random.default_rng(0)
    pairs = [
        [clip(f"{i} a", temporal_hash=words(i)), clip(f"{i} b", temporal_hash=flipped(words(i), bits))]
        for i in range(1000)
        for bits in [rng.choice(512, 64, replace=False)]
    ]
    found = copies([row for pair in pairs for row in pair])
    assert all(owner == name.replace("b", "a") for name, owner in found.items())
    assert len(found) >= 995


@pytest.mark.parametrize(
    ("pictures", "motion", "is_copy"), [(40, 36, True), (41, 36, False), (40, 37, False), (0, 256, False)]
)
def test_both_bounds_of_the_hash_hold_to_the_bit(pictures, motion, is_copy):
    bits = [*range(0, 512, 12)][:pictures] + [*range(512, 512 + motion)]
    rows = [clip("a", temporal_hash=words(1)), clip("b", temporal_hash=flipped(words(1), bits))]
    assert copies(rows, picture_bits=40) == ({"b": "a"} if is_copy else {})


def test_a_still_is_no_copy_of_a_film_and_nothing_is_a_copy_of_an_unknown():
    rows = [clip("film", temporal_hash=words(1)), clip("still", type="image", temporal_hash=words(1))]
    rows += [clip(name, source_id=None, embedding=[0.0] * 4) for name in "ab"]
    rows += [clip(name, embedding=[float("nan"), 1.0, 0.0, 0.0]) for name in "cd"]
    assert copies(rows, cosine=0.5) == {}


def test_pictures_that_show_nothing_do_not_make_copies():
    blank = [0, 0, 0, 0, *words(1)[4:8], 0, 0, 0, 0]
    other = [0, 0, 0, 0, *words(2)[4:8], 0, 0, 0, 0]
    assert copies([clip("a", temporal_hash=blank), clip("b", temporal_hash=other)]) == {}
    again = flipped(blank, [64 * 5, 64 * 6, 64 * 7])
    assert copies([clip("a", temporal_hash=blank), clip("b", temporal_hash=again)]) == {"b": "a"}


def test_embeddings_are_compared_by_angle_and_only_if_asked():
    rows = [clip("a", embedding=[1, 0, 0, 0]), clip("b", embedding=[5, 0.5, 0, 0]), clip("c", embedding=[0, 1, 0, 0])]
    assert copies(rows) == {}
    assert copies(rows, cosine=0.99) == {"b": "a"}
    assert copies(rows, cosine=0.999) == {}


def test_columns_that_are_not_there_are_not_compared():
    rows = [clip("a", temporal_hash=words(1)), clip("b", temporal_hash=words(1)), clip("c", source_id="content of a")]
    how = Duplicates(cosine=0.9)
    table = table_of(rows).drop_columns(["temporal_hash", "embedding"])
    assert "temporal_hash" not in columns_of(how, table.column_names)
    assert find_duplicates(table, np.ones(3, bool), how).to_pylist() == [None, None, "a"]
    assert set(columns_of(Duplicates(best="aesthetic"), SCHEMA.names)) == {*SCHEMA.names} - {"embedding"}
    needed = table_of(rows).select(columns_of(how, SCHEMA.names))
    assert find_duplicates(needed, np.ones(3, bool), how).to_pylist() == [None, "a", "a"]


# -- which one is kept


def test_the_best_score_is_kept_then_the_larger_picture_then_the_longer_clip_then_the_first_name():
    rows = [
        clip("a", temporal_hash=words(1), aesthetic=None, area_px=9000, duration_s=9.0),
        clip("b", temporal_hash=words(1), aesthetic=float("nan"), area_px=9000, duration_s=9.0),
        clip("c", temporal_hash=words(1), aesthetic=5.0, area_px=1000, duration_s=3.0),
        clip("d", temporal_hash=words(1), aesthetic=5.0, area_px=2000, duration_s=3.0),
        clip("e", temporal_hash=words(1), aesthetic=5.0, area_px=2000, duration_s=4.0),
        clip("f", temporal_hash=words(1), aesthetic=5.0, area_px=2000, duration_s=4.0),
    ]
    for left in (list("abcdef"), list("abcdf"), list("abcd"), list("abc"), list("ab")):
        there = [row for row in rows if row["clip_id"] in left]
        best = {"e": "e", "f": "f", "d": "d", "c": "c", "b": "a"}["e" if "e" in left else left[-1]]
        assert set(copies(there, best="aesthetic").values()) == {best}
    assert set(copies(rows).values()) == {"a"}


def test_a_copy_of_a_copy_that_is_no_copy_of_the_kept_one_begins_a_group_of_its_own():
    first = words(3)
    rng = np.random.default_rng(1)
    bits = rng.choice(512, 120, replace=False)
    chain = [clip(str(i), temporal_hash=flipped(first, bits[: 40 * i]), area_px=100 - i) for i in range(4)]
    assert copies(chain) == {"1": "0", "3": "2"}


def test_rows_that_something_else_rejects_neither_push_others_out_nor_are_named():
    rows = [clip(name, temporal_hash=words(1), area_px=area) for name, area in (("a", 3), ("b", 2), ("c", 1))]
    assert copies(rows) == {"b": "a", "c": "a"}
    assert copies(rows, standing=[False, True, True]) == {"c": "b"}
    assert copies(rows, standing=[False] * 3) == {}
    assert copies([]) == {}


def test_a_new_row_may_take_the_place_of_the_kept_one():
    old = [clip("a", temporal_hash=words(1), area_px=2), clip("b", temporal_hash=words(1), area_px=1)]
    assert copies(old) == {"b": "a"}
    assert copies([*old, clip("c", temporal_hash=words(1), area_px=3)]) == {"a": "c", "b": "c"}


# -- large tables


def big_table(hashes=None, embeddings=None):
    count = len(hashes if hashes is not None else embeddings)
    columns = {
        "clip_id": [f"{i:06d}" for i in range(count)],
        "type": ["video"] * count,
        "source_id": [str(i) for i in range(count)],
        "start_s": np.zeros(count),
        "end_s": np.ones(count),
        "area_px": np.arange(count, 0, -1),
        "duration_s": np.ones(count),
    }
    if hashes is not None:
        columns["temporal_hash"] = list(hashes.view(np.int64))
    if embeddings is not None:
        flat = pa.array(embeddings.astype(np.float16).ravel())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
    table = pa.table(columns)
    return pa.concat_tables([table.slice(0, count // 3), table.slice(count // 3)])  # in chunks, as files are read


def random_hashes(count, rng):
    return rng.integers(0, 2**64, (count, 12), dtype=np.uint64, endpoint=False)


def owners(table, **how):
    named = find_duplicates(table, np.ones(len(table), bool), Duplicates(**how))
    return np.array([-1 if name is None else int(name) for name in named.to_pylist()])


def test_thousands_of_hashes_alike_and_tens_of_thousands_of_others_are_settled():
    rng = np.random.default_rng(0)
    hashes = random_hashes(30_000, rng)
    hashes[20_000:26_000] = hashes[5]
    for _ in range(20):
        places = np.arange(20_000, 26_000), rng.integers(0, 12, 6000)
        hashes[places] ^= np.uint64(1) << rng.integers(0, 64, 6000).astype(np.uint64)
    found = owners(big_table(hashes=hashes))
    assert (found[20_000:26_000] == 5).all()
    assert (np.delete(found, np.s_[20_000:26_000]) == -1).all()


@pytest.mark.slow
def test_copies_are_found_though_thousands_share_their_first_picture():
    rng = np.random.default_rng(1)
    hashes = random_hashes(4500, rng)
    hashes[:3000, :2] = hashes[0, :2]
    hashes[4000:4500] = hashes[1000:1500]
    hashes[4000:4500, 4] ^= np.uint64(1 << 40 | 1 << 20 | 1)
    found = owners(big_table(hashes=hashes))
    assert (found[4000:4500] == np.arange(1000, 1500)).all()
    assert (np.delete(found, np.s_[4000:4500]) == -1).all()


@pytest.mark.slow
def test_near_embeddings_among_many_are_found_also_when_all_point_to_one_side():
    rng = np.random.default_rng(2)
    around = rng.standard_normal(64) * 1.0
    many = around + rng.standard_normal((9000, 64))
    many[8000:] = many[:1000] + 0.1 * rng.standard_normal((1000, 64))
    unit = many / np.linalg.norm(many, axis=1, keepdims=True)
    alike = unit @ unit.T >= 0.99
    assert 900 < np.count_nonzero(np.triu(alike, 1)) < 1100
    assert len(many) > duplicates.SMALL  # so the planes are what finds them
    found = owners(big_table(embeddings=many), cosine=0.99)
    close = alike.diagonal(8000)
    assert np.count_nonzero(found[8000:][close] == np.flatnonzero(close)) >= 0.998 * close.sum()
    assert (found[:8000] == -1).all()


@pytest.mark.parametrize("wrong", [{"picture_bits": 129}, {"picture_bits": -1}, {"motion_bits": 300}, {"cosine": 1.2}])
def test_bounds_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must be|outside"):
        Duplicates(**wrong)
