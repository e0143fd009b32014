"""What a report page is made of: columns as they were, nothing that fetches or runs, pictures within a budget."""

import base64
import dataclasses
import gzip
import hashlib
import json
import math
import random
import re
import shutil
import struct
import time
import uuid
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from browser import a_row, an_id, default_recipe, make_up, put_pictures, with_recipe, write_rows
from hypothesis import example, given, settings
from hypothesis import strategies as st
from runs import rows_of

import run_pipeline
from cli.common import TABLES
from curation.output.table import read_table
from curation.recipe import load_recipe
from curation.report.gather import gather
from curation.report.pack import gzipped, pack_codes, pack_ids, pack_numbers, pack_text_column, pack_texts
from curation.report.phrases import frequent_phrases
from curation.report.pictures import counts_of, embedded, in_order_of_interest
from curation.report.run_facts import RunFacts, StepCost, in_words, read_run
from curation.report.write import Budget, _caption_rows, in_script, write_report

ANY_TEXT = st.text(st.characters(), max_size=40)  # halves of characters, too


def unpacked(text: str, dtype: str) -> np.ndarray:
    """Undo what `pack.py` does, as the page's script does it."""
    packed = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    size = np.dtype(dtype).itemsize
    return np.ascontiguousarray(packed.reshape(size, -1).T).view(dtype).ravel()


def unpacked_texts(text: str) -> list:
    texts: list = json.loads(gzip.decompress(base64.b64decode(text)).decode("utf-8"))
    return texts


def recipe_of(out: Path):
    return load_recipe(out / "recipe.yaml", [], TABLES)[0]


# -- columns


@settings(max_examples=200)
@given(st.lists(st.one_of(st.none(), st.floats()), max_size=50))
@example([math.inf, -math.inf, math.nan, 5e-324, -5e-324, -0.0, 1.7976931348623157e308, 2**53 + 1.0, None])
def test_numbers_come_back_bit_by_bit_and_what_is_missing_as_nan(values):
    back = unpacked(pack_numbers(pa.chunked_array([pa.array(values, pa.float64())])), "<f8").tolist()
    assert len(back) == len(values)
    for value, seen in zip(values, back, strict=True):
        if value is None or value != value:
            assert seen != seen
        else:
            assert struct.pack("<d", value) == struct.pack("<d", seen)


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=30))
@example([2**53 + 1, 2**63 - 1, -(2**63)])
def test_whole_numbers_of_any_size_become_the_nearest_float(values):
    """A damaged file may claim any bit rate; that is no reason to write no page."""
    back = unpacked(pack_numbers(pa.chunked_array([pa.array(values, pa.int64())])), "<f8").tolist()
    assert [None if number != number else number for number in back] == [v if v is None else float(v) for v in values]


def test_a_page_is_written_of_a_source_that_claims_an_impossible_bit_rate(tmp_path):
    recipe = default_recipe()
    out = write_rows(tmp_path / "out", recipe, [a_row(recipe, 1, bit_rate_bps=2**63 - 1)])
    assert write_report(out, recipe, Budget()).is_file()


@given(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=5), st.lists(st.one_of(st.none(), st.text(max_size=8))))
def test_codes_and_their_words_give_the_texts_again(cuts, values):
    chunks = np.array_split(np.array(values, object), len(cuts) + 1)
    column = pa.chunked_array([pa.array(list(chunk), pa.string()) for chunk in chunks]).combine_chunks()
    words = column.dictionary_encode().dictionary.to_pylist()
    places = unpacked(pack_codes(column.dictionary_encode()), "<i4").tolist()
    assert [None if place < 0 else words[place] for place in places] == values
    assert len(words) == len(set(words))


@given(st.lists(st.uuids(), max_size=20))
def test_ids_come_back(ids):
    back = unpacked(pack_ids(pa.chunked_array([pa.array(list(map(str, ids)), pa.string())])), "u1").tobytes()
    assert [uuid.UUID(bytes=back[i : i + 16]) for i in range(0, len(back), 16)] == ids


@given(st.lists(st.one_of(st.none(), ANY_TEXT), max_size=20))
@example(["</script>", "\x00\x1f\x7f\u2028\u2029\ufeff", "\ud800", "日本語 🎬", ""])
def test_texts_come_back_but_for_halves_of_characters(texts):
    assert unpacked_texts(pack_texts(texts)) == [
        None if text is None else text.encode("utf-8", "replace").decode() for text in texts
    ]


@given(st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)), max_size=20))
def test_a_column_of_texts_comes_back(texts):
    column = pa.chunked_array([pa.array(texts[:7], pa.string()), pa.array(texts[7:], pa.string())])
    assert unpacked_texts(pack_text_column(column)) == texts


@given(st.lists(st.tuples(st.sampled_from([0, 1, 100, 40_000, 70_000]), st.booleans()), max_size=4), st.integers(0, 99))
def test_runs_of_bytes_are_one_gzip_file_whether_they_compress_or_not(runs, seed):
    """A browser takes a single member, and nothing behind it."""
    rng = np.random.default_rng(seed)
    given_runs = [rng.bytes(size) if is_noise else bytes(size) for size, is_noise in runs]
    packed = gzipped(given_runs)
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert reader.decompress(packed) == b"".join(given_runs)
    assert reader.eof and not reader.unused_data
    noise = sum(len(run) for run, (_, is_noise) in zip(given_runs, runs, strict=True) if is_noise)
    assert noise <= len(packed) <= noise * 1.001 + 500 * len(runs) + 100


@given(st.lists(st.none() | st.text("aé", max_size=9), max_size=20), st.integers(0, 60), st.data())
def test_captions_are_chosen_as_long_as_they_fit(captions, budget_bytes, data):
    first = data.draw(st.lists(st.integers(0, len(captions) - 1), unique=True)) if captions else []
    sizes = [len((caption or "").encode()) for caption in captions]
    chosen = _caption_rows(pa.chunked_array([pa.array(captions, pa.string())]), first, budget_bytes)
    if sum(sizes) <= budget_bytes:
        assert chosen is None
        return
    rest = range(0, len(sizes), max(1, round(sum(sizes) / max(1, budget_bytes))))
    wanted: list[int] = []
    for row in dict.fromkeys([*first, *rest]):
        if sum(sizes[i] for i in wanted) + sizes[row] > budget_bytes:
            break
        wanted.append(row)
    assert chosen is not None and chosen.tolist() == sorted(wanted)


def test_columns_pack_to_the_same_bytes_every_time():
    values = pa.chunked_array([pa.array(np.random.default_rng(0).normal(size=1000))])
    assert pack_numbers(values) == pack_numbers(values)
    assert len(pack_numbers(values)) < 8 * 1000 * 4 / 3, "smaller than plain base64"


# -- the page as a file


@settings(max_examples=200)
@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3)))
@example("</script><script>alert(1)</script>")
@example("<!--<script>")
@example("]]>&amp;\u2028")
def test_values_in_a_script_cannot_end_it_and_read_back_the_same(value):
    text = str(in_script(value))
    assert not set(text) & set("<>&\u2028\u2029") and text.isascii()
    assert json.loads(text) == value


class Elements(HTMLParser):
    """Collects the elements of a page: name, attributes, and text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.is_inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), ""))
        self.is_inside = True

    def handle_endtag(self, tag):
        self.is_inside = False

    def handle_data(self, data):
        if self.is_inside:
            tag, attrs, text = self.found[-1]
            self.found[-1] = (tag, attrs, text + data)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Two thousand made-up clips with pictures."""
    out = make_up(tmp_path_factory.mktemp("report") / "out", default_recipe("rules.motion={min: 2, max: 20}"), 2000)
    put_pictures(out)
    return out


@pytest.fixture(scope="module")
def page(output) -> str:
    return write_report(output, recipe_of(output), Budget(pictures_mb=1)).read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_outside_itself_and_its_folder(page):
    for tag, attributes, _ in Elements(page).found:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}, tag
        assert not {"src", "srcset", "action", "data", "poster"} & attributes.keys(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
    styles = "".join(text for tag, _, text in Elements(page).found if tag == "style")
    assert not re.search(r"url\(|@import", styles)


def test_the_policy_lets_run_just_the_scripts_and_styles_of_the_page(page):
    elements = Elements(page).found
    policy = next(a["content"] for tag, a, _ in elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(part.split(" ", 1) for part in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert not re.search(r"unsafe|https?:|\*", policy)
    for kind, own in (("script", lambda a: "type" not in a), ("style", lambda a: True)):
        texts = [text for tag, attributes, text in elements if tag == kind and own(attributes)]
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in texts]
        assert texts and rules[f"{kind}-src"].split() == hashes
    data = [attributes["type"] for tag, attributes, _ in elements if tag == "script" and "type" in attributes]
    assert set(data) == {"application/json", "text/plain"}, "what is data is no script to a browser"


def test_the_columns_in_the_page_are_those_of_the_table(output, page):
    texts = {a["id"]: text for tag, a, text in Elements(page).found if tag == "script" and "id" in a}
    facts = json.loads(texts["output-facts"])
    table = gather(output, recipe_of(output)).table
    assert facts["rows"] == len(table) == 2000
    for column in facts["columns"]:
        expected = pc.cast(table[column["name"]], pa.float64()).to_numpy(zero_copy_only=False)
        assert np.array_equal(unpacked(texts[f"output-column-{column['name']}"], "<f8"), expected, equal_nan=True)
    for name in ("type", "kind", "status", "caption_status", "review", "source_path"):
        words = unpacked_texts(texts[f"output-words-{name}"])
        codes = unpacked(texts[f"output-codes-{name}"], "<i4")
        assert [None if code < 0 else words[code] for code in codes] == table[name].to_pylist()
    assert unpacked_texts(texts["output-captions"]) == table["caption"].to_pylist()
    errors = dict(unpacked_texts(texts["output-errors"]))
    assert [errors.get(row) for row in range(2000)] == table["error"].to_pylist()


def test_text_from_outside_cannot_leave_its_place_in_the_file(tmp_path):
    recipe = default_recipe()
    attack = "</script></pre><script>window.pwned=1</script><img src=http://example.org/x onerror=x>"
    rows = [
        a_row(recipe, 1, source_path=attack, caption=attack, caption_status=attack),
        a_row(recipe, 2, source_path=attack, status="failed", error=attack),
    ]
    out = write_rows(tmp_path / "a<script>b", recipe, rows)
    (out / "run.json").write_text(json.dumps({"command": [attack], "cpu_s": {attack: 1.0}, "finished": attack}))
    text = write_report(out, recipe, Budget()).read_text(encoding="utf-8")
    clean = write_report(write_rows(tmp_path / "b", recipe, []), recipe, Budget()).read_text(encoding="utf-8")
    assert "pwned=1</script>" not in text and "<img src" not in text
    scripts = [
        [t for tag, a, t in Elements(page).found if tag == "script" and "type" not in a] for page in (text, clean)
    ]
    assert scripts[0] == scripts[1]


def test_secrets_in_a_recipe_stay_out_of_the_page(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_AbCdEfGhIjKl")
    recipe = default_recipe()
    caption = dataclasses.replace(recipe.caption, settings={"note": "hf_AbCdEfGhIjKl"})
    recipe = with_recipe(recipe, caption=caption)
    out = write_rows(tmp_path / "out", recipe, [])
    assert "hf_AbCdEfGhIjKl" not in write_report(out, recipe, Budget()).read_text(encoding="utf-8")


def test_captions_beyond_their_budget_are_a_sample_and_the_page_says_so(output):
    recipe = recipe_of(output)
    text = write_report(output, recipe, Budget(pictures_mb=0.2, texts_mb=0.02)).read_text(encoding="utf-8")
    texts = {a["id"]: t for tag, a, t in Elements(text).found if tag == "script" and "id" in a}
    facts = json.loads(texts["output-facts"])
    rows, held = facts["caption_rows"], unpacked_texts(texts["output-captions"])
    assert 0 < len(rows) == len(held) < 2000 and rows == sorted(set(rows))
    assert sum(len((caption or "").encode()) for caption in held) <= 20_000
    table = gather(output, recipe).table
    assert held == table["caption"].take(rows).to_pylist()
    assert len({*facts["pictured"]} & {*rows}) > 0.9 * len(facts["pictured"]), "clips with pictures first"


# -- pictures


def test_pictures_stay_within_the_budget_and_are_the_same_every_time(output):
    seen = gather(output, recipe_of(output))
    counts = counts_of(seen)
    assert (counts == 4).all()
    sizes = []
    for budget in (0, 50_000, 400_000, 3_000_000):
        found = embedded(seen, counts, budget)
        assert found == embedded(seen, counts, budget)
        sizes.append(sum(len(jpeg) for jpegs in found.values() for jpeg in jpegs))
        assert sizes[-1] <= budget
        assert sizes[-1] > budget - 80_000, "no more is left than the next clip needs"
        assert all(base64.b64decode(jpeg).startswith(b"\xff\xd8") for jpegs in found.values() for jpeg in jpegs)
    assert sizes[0] == 0


def test_the_clips_beside_every_threshold_and_the_ends_of_every_score_come_first(output):
    seen = gather(output, recipe_of(output))
    first = set(list(in_order_of_interest(seen))[:400])
    for name, rule in seen.rules.items():
        values = np.array([math.nan if v is None else v for v in seen.table[name].to_pylist()], float)
        for bound in (rule.min, rule.max):
            if bound is None:
                continue
            above = np.where(values >= bound, values - bound, math.inf)
            below = np.where(values < bound, bound - values, math.inf)
            for away in (above, below):
                nearest = np.flatnonzero(away == away.min())
                assert math.isinf(away.min()) or first & set(nearest.tolist()), (name, bound)
        assert first & set(np.flatnonzero(values == np.nanmax(values)).tolist()), name
        assert first & set(np.flatnonzero(values == np.nanmin(values)).tolist()), name
    firsts = [reasons[0] if reasons else status for reasons, status in zip(
        seen.table["reasons"].to_pylist(), seen.table["status"].to_pylist(), strict=True)]  # fmt: skip
    assert {firsts[row] for row in first} == {*firsts}, "some of every reason"


def test_every_row_is_given_once_in_the_order_of_interest(output):
    order = list(in_order_of_interest(gather(output, recipe_of(output))))
    assert sorted(order) == list(range(2000))


def test_rows_asked_for_come_before_all_others(output):
    seen = gather(output, recipe_of(output))
    asked = random.Random(0).sample(range(2000), 5)
    assert list(embedded(seen, counts_of(seen), 300_000, asked))[:5] == asked


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_an_output_of_hardly_any_rows_has_its_pictures(tmp_path, rows):
    recipe = default_recipe()
    out = write_rows(tmp_path / "out", recipe, [a_row(recipe, number) for number in range(rows)])
    (out / "previews" / an_id(0)[:2]).mkdir(parents=True)
    (out / "previews" / an_id(0)[:2] / f"{an_id(0)}-0.jpg").write_bytes(b"\xff\xd8jpeg")
    seen = gather(out, recipe)
    assert len(embedded(seen, counts_of(seen), 1000)) == min(rows, 1)


# -- what captions say


def test_phrases_are_counted_by_caption_and_the_longest_stands_for_its_parts():
    captions = [f"A boat leaves the old harbour at {hour}." for hour in ("dawn", "noon", "dusk")]
    captions += ["Waves and waves and waves and waves, the old harbour in rain", "Nothing of that"]
    phrases = dict(frequent_phrases(captions))
    assert phrases["a boat leaves the old harbour"] == 3
    assert "boat leaves the" not in phrases, "stands within a longer one as common as itself"
    assert phrases["the old harbour"] == 4, "commoner than what it stands within"
    assert not any("waves" in phrase for phrase in phrases), "what one caption alone says is no habit"
    assert list(phrases.values()) == sorted(phrases.values(), reverse=True)


def test_words_keep_their_apostrophes_and_scripts():
    captions = ["C'est l'heure du thé, dit-on", "L’été: c'est l'heure du thé!"] * 2
    assert ("c'est l'heure du thé", 4) in frequent_phrases(captions)
    assert frequent_phrases([]) == frequent_phrases(["", "one two", "…"]) == []


@given(st.lists(ANY_TEXT, max_size=8))
def test_any_captions_have_phrases_that_they_hold(captions):
    for phrase, count in frequent_phrases(captions * 2):
        assert 2 <= count <= 2 * len(captions) and 3 <= len(phrase.split()) <= 6


# -- the run


def test_the_run_is_told_in_words(tmp_path):
    run = {
        "finished": "2026-01-02T03:04:05Z",
        "wall_s": 100.0,
        "command": ["run_pipeline.py", "curate", "my films", "--output", "out"],
        "machine": {"cpus": 4, "memory_gb": 16.0},
        "versions": {"python": "3.12", "ray": None},
        "cpu_s": {"analyse": 60.0, "probe": 0.0, "text": 20.0},
        "footage_s": {"analyse": 160.0, "cut": 40.0},
        "problems": ["x"],
        "is_complete": False,
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    facts = read_run(tmp_path)
    assert facts.steps == (StepCost("analyse", 60.0, 0.75), StepCost("text", 20.0, 0.25))
    assert facts.command == "run_pipeline.py curate 'my films' --output out"
    assert (facts.finished, facts.wall_s, facts.problems, facts.is_complete) == (run["finished"], 100.0, 1, False)
    assert ("memory gb", "16.0") in facts.machine and ("python", "3.12") in facts.versions
    assert facts.bottleneck == (
        "analyse cost most: 75% of 80 CPU-seconds, before text with 25%; all steps together took 0.50 CPU-seconds "
        "for a second of footage. The machine's 4 CPUs were busy 20% of the 100 s: starting up, or waiting."
    )


def test_a_machine_that_was_busy_is_not_said_to_have_waited():
    words = in_words((StepCost("text", 90.0, 1.0),), 50.0, 2, 0.0)
    assert words == "text cost most: 100% of 90 CPU-seconds."
    assert in_words((), 50.0, 2, 9.0) == "No step of the last run reported its time."
    assert in_words((StepCost("text", 90.0, 1.0),), 0.0, None, 0.0) == words


DAMAGED = (
    "", "{", "[]", "null", '"text"', "7", '{"cpu_s": null}', '{"cpu_s": []}', '{"cpu_s": {"a": "x"}}',
    '{"cpu_s": {"a": NaN}}', '{"cpu_s": {"a": Infinity}}', '{"machine": null}', '{"machine": []}',
    '{"machine": {"cpus": "two"}, "cpu_s": {"a": 1}, "wall_s": 5}', '{"versions": 3}', '{"wall_s": null}',
    '{"wall_s": "long"}', '{"wall_s": Infinity}', '{"command": [1]}', '{"command": 5}', '{"problems": 3}',
    '{"footage_s": {"a": "x"}, "cpu_s": {"a": 1}}', '{"finished": {"a": 3}}',
)  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_run_file_costs_its_facts_and_not_the_page(tmp_path, text):
    recipe = default_recipe()
    out = write_rows(tmp_path / "out", recipe, [a_row(recipe, 1)])
    assert read_run(out) == RunFacts()
    (out / "run.json").write_text(text)
    assert isinstance(read_run(out), RunFacts)
    assert write_report(out, recipe, Budget()).is_file()
    (out / "run.json").write_bytes(b"\xff\xfe\x00")
    assert read_run(out) == RunFacts()


# -- what `select` set aside


def test_the_report_knows_scores_and_captions_that_select_set_aside(tmp_path):
    recipe = default_recipe()
    out = make_up(tmp_path / "out", recipe, 300)
    before = gather(out, recipe).table
    held = read_table(out, recipe.operators)
    assert run_pipeline.main(["select", str(out), "rules.motion.min=15"]) == 0
    now = read_table(out, recipe.operators)
    for name in ("text_area", "caption"):
        assert now[name].null_count > held[name].null_count, "set aside"
    after = gather(out, recipe_of(out)).table
    for name in ("text_area", "caption", "caption_status", "clip_path", "motion"):
        assert same(after[name], before[name]), name
    shutil.rmtree(out / "_retired")
    assert same(gather(out, recipe_of(out)).table["caption"], now["caption"]), "what is gone is gone"


def same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    return repr(one.to_pylist()) == repr(other.to_pylist())


def test_writing_a_report_changes_nothing_but_the_report(output):
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.name != "report.html"}
    write_report(output, recipe_of(output), Budget(pictures_mb=0.1))
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.name != "report.html"} == before


def test_select_and_report_write_the_page_anew(tmp_path, capsys):
    out = make_up(tmp_path / "out", default_recipe(), 60)
    assert run_pipeline.main(["report", str(out), "--pictures-mb", "0"]) == 0
    told = capsys.readouterr().out
    assert "text_area" in told and "report.html" in told
    first = (out / "report.html").read_text(encoding="utf-8")
    assert run_pipeline.main(["select", str(out), "rules.motion.min=4"]) == 0
    facts = {a["id"]: t for tag, a, t in Elements((out / "report.html").read_text(encoding="utf-8")).found if "id" in a}
    assert {"column": "motion", "min": 4.0, "max": 60.0} in json.loads(facts["output-facts"])["rules"]
    assert (out / "report.html").read_text(encoding="utf-8") != first
    assert len(rows_of(out)) == 60


# -- time


def seconds_per_row(folder: Path, rows: int) -> float:
    out = make_up(folder / str(rows), with_recipe(default_recipe(), score_rejected=True), rows)
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        write_report(out, recipe_of(out), Budget())
        took.append(time.perf_counter() - begin)
    return min(took) / rows


def test_a_report_of_ten_thousand_clips_is_written_in_seconds(tmp_path):
    each_s = seconds_per_row(tmp_path, 10_000)
    print(f"{each_s * 1e6:.0f} µs a row")
    assert each_s * 10_000 < 3


@pytest.mark.slow
def test_ten_times_the_clips_take_no_more_time_each(tmp_path):
    few_s, many_s = seconds_per_row(tmp_path, 10_000), seconds_per_row(tmp_path, 100_000)
    print(f"{few_s * 1e6:.0f} and {many_s * 1e6:.0f} µs a row")
    assert many_s < 2 * few_s
