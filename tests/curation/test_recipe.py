"""The recipe: strict on every level, helpful about it, and the same after a round trip."""

import dataclasses
import inspect
import shlex

import pytest
import yaml

from cli.common import TABLES
from configs import CONFIGS
from core.errors import UserError
from core.settings import meaning_of, plain
from curation.recipe import (
    CaptionSettings,
    Limits,
    Recipe,
    Rule,
    ShotSettings,
    Workers,
    load_recipe,
    recipe_values,
    render_recipe,
    resolve,
    what_differs,
)
from curation.schema import BY_NAME
from curation.shots import DETECTORS
from media.settings import CutSettings

SETTINGS = [Recipe, ShotSettings, Rule, CaptionSettings, CutSettings, Limits, Workers]
SETTINGS += [*DETECTORS.values(), *TABLES.operators.values(), *TABLES.captioners.values()]


def recipe(text: str = "", *overrides: str) -> Recipe:
    raw = yaml.safe_load(text) or {}
    found, _ = resolve(raw, TABLES) if not overrides else _with_overrides(raw, overrides)
    return found


def _with_overrides(raw, overrides):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "r.yaml"
        file.write_text(yaml.safe_dump(raw))
        return load_recipe(file, overrides, TABLES)


def defaults() -> Recipe:
    """All defaults, with those of the detector and the captioner spelled out."""
    shots, caption = ShotSettings(), CaptionSettings()
    return Recipe(
        shots=dataclasses.replace(shots, settings=plain(DETECTORS[shots.detector]())),
        caption=dataclasses.replace(caption, settings=plain(TABLES.captioners[caption.captioner]())),
    )


def test_no_recipe_is_all_defaults():
    found, captioner = load_recipe(None, [], TABLES)
    assert found == defaults()
    assert isinstance(captioner, TABLES.captioners["template"])


def test_a_resolved_recipe_spells_out_the_settings_of_its_detector_and_captioner():
    """An output follows them though defaults change."""
    found = recipe("shots: {detector: fused, settings: {threshold: 9}}")
    assert found.shots.settings == plain(DETECTORS["fused"]()) | {"threshold": 9.0}
    assert found.detector == DETECTORS["fused"](threshold=9.0)
    assert set(found.caption.settings) == {f.name for f in dataclasses.fields(TABLES.captioners["template"]) if f.init}
    assert recipe_values(found)["shots"]["settings"] == found.shots.settings
    assert what_differs(found, recipe()) == ["shots.settings.threshold"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shot: {min_s: 3}", r"unknown key 'shot' \(did you mean 'shots'\?\)"),
        ("shots: {mins_s: 3}", r"shots: unknown key 'mins_s' \(did you mean 'min_s'\?\)"),
        ("shots: {settings: {treshold: 3}, detector: content}", r"shots.settings: unknown key 'treshold'.*'threshold'"),
        ("shots: {detector: fuzed}", r"shots.detector: unknown 'fuzed' \(did you mean 'fused'\?\)"),
        ("operators: {motions: {}}", r"unknown operator 'motions' \(did you mean 'motion'\?\)"),
        (
            "operators: {motion: {rate_fsp: 1}}",
            r"operators.motion: unknown key 'rate_fsp' \(did you mean 'rate_fps'\?\)",
        ),
        ("operators: {motion: }\nrules: {motoin: {min: 1}}", r"unknown column 'motoin' \(did you mean 'motion'\?\)"),
        ("operators: {motion: }\nrules: {motion: {mim: 1}}", r"rules.motion: unknown key 'mim'"),
        ("caption: {captionr: template}", r"caption: unknown key 'captionr' \(did you mean 'captioner'\?\)"),
        ("caption: {captioner: templat}", r"caption.captioner: unknown 'templat' \(did you mean 'template'\?\)"),
        ("caption: {settings: {zzz: 1}}", r"caption.settings: unknown key 'zzz'"),
        ("cut: {mod: none}", r"cut: unknown key 'mod' \(did you mean 'mode'\?\)"),
        ("cut: {mode: transcod}", r"cut.mode: 'transcod' is not a choice \(did you mean 'transcode'\?\)"),
        ("limits: {trys: 3}", r"limits: unknown key 'trys' \(did you mean 'tries'\?\)"),
        ("workers: {analyze: 3}", r"workers: unknown key 'analyze' \(did you mean 'analyse'\?\)"),
        ("reader: pyaw", r"reader: 'pyaw' is not a choice \(did you mean 'pyav'\?\)"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(text, message):
    with pytest.raises(UserError, match=message):
        recipe(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shots: 3", r"shots: expected keys and values, got 3"),
        ("shots: {min_s: three}", r"shots.min_s: expected float, got 'three'"),
        ("shots: {min_s: true}", r"shots.min_s: expected float, got True"),
        ("shots: {min_s: null}", r"shots.min_s: expected float, got None"),
        ("shots: {min_s: .nan}", r"shots.min_s: not a number"),
        ("shots: {settings: 3}", r"shots.settings: expected keys and values"),
        ("shots: {detector: 3}", r"shots.detector: expected str, got 3"),
        ("score_rejected: 1", r"score_rejected: expected bool, got 1"),
        ("score_rejected: 'yes'", r"score_rejected: expected bool"),
        ("limits: {tries: 2.5}", r"limits.tries: expected int, got 2.5"),
        ("cut: {crf: high}", r"cut.crf: expected int"),
        ("operators: [motion]", r"operators: expected names and settings"),
        ("operators: motion", r"operators: expected names and settings"),
        ("operators: {motion: 3}", r"operators.motion: expected keys and values, got 3"),
        ("operators: {motion: {rate_fps: fast}}", r"operators.motion.rate_fps: expected float"),
        ("rules: [motion]", r"rules: expected columns with min and max, got \['motion'\]"),
        ("rules: 3", r"rules: expected columns with min and max, got 3"),
        ("rules: motion", r"rules: expected columns with min and max, got 'motion'"),
        ("operators: {motion: }\nrules: {motion: 0.5}", r"rules.motion: expected keys and values, got 0.5"),
        ("operators: {motion: }\nrules: {motion: {min: low}}", r"rules.motion.min: expected float"),
        ("operators: {motion: }\nrules: {motion: {min: .nan}}", r"rules.motion.min: not a number"),
        ("caption: template", r"caption: expected keys and values"),
        ("workers: {analyse: two}", r"workers.analyse: expected int"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_place(text, message):
    with pytest.raises(UserError, match=message):
        recipe(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shots: {min_s: 11}", r"shots: min_s \(11.0\) must be .* at most max_s \(10.0\)"),
        ("shots: {min_s: 0}", r"above 0"),
        ("shots: {segment_s: 19}", r"at least twice max_s"),
        ("shots: {trim_s: -1}", r"trim_s must not be negative"),
        ("operators: {motion: }\nrules: {motion: {min: 3, max: 2}}", r"rules.motion: min 3.0 is above max 2.0"),
        ("operators: {motion: }\nrules: {motion: {}}", r"rules.motion: give min, max or both"),
        ("operators: {motion: }\nrules: {motion: }", r"rules.motion: give min, max or both"),
        ("cut: {crf: 52}", r"crf 52 is outside"),
        ("cut: {fps: 0}", r"fps above 0"),
        ("cut: {short_side_px: 8}", r"at least 16"),
        ("limits: {tries: 0}", r"tries must be at least 1"),
        ("limits: {silence_s: -1}", r"above 0"),
        ("workers: {analyse: 0}", r"at least 1 worker"),
    ],
)
def test_values_under_which_nothing_can_run_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        recipe(text)


def test_a_rule_needs_an_operator_that_writes_its_column():
    with pytest.raises(UserError, match=r"rules.motion: no operator of this recipe writes it; add operators.motion"):
        recipe("rules: {motion: {min: 1}}")
    assert recipe("operators: {motion: }\nrules: {motion: {min: 1}}").rules == {"motion": Rule(min=1.0)}
    assert recipe("rules: {duration_s: {max: 9}, short_side_px: {min: 240}}").rules.keys() == {
        "duration_s",
        "short_side_px",
    }


@pytest.mark.parametrize(
    "column", ["status", "caption", "source_path", "clip_num_frames", "source_clips", "content_box"]
)
def test_a_rule_on_what_is_no_number_or_not_known_yet_is_refused(column):
    with pytest.raises(UserError, match="not a number that is known"):
        recipe(f"operators: {{letterbox: }}\nrules: {{{column}: {{min: 1}}}}")


@pytest.mark.parametrize("bound", [".inf", "-.inf"])
def test_a_bound_is_a_finite_number(bound):
    """Against infinity nothing is low or high: such a rule would accept everything, or nothing."""
    with pytest.raises(UserError, match="a bound must be a finite number; null is none"):
        recipe("operators: {motion: }", f"rules.motion.min={bound}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("{cosine: 0.99}", "no operator writes embeddings; add operators.embedding"),
        ("{best: esthetic}", "'esthetic' is no column to judge by.*did you mean 'aesthetic'"),
        ("{best: caption}", "'caption' is no column to judge by"),
        ("{best: caption_alignment}", "'caption_alignment' is no column to judge by"),
        ("{best: aesthetic}", "no operator writes aesthetic; add operators.aesthetic"),
    ],
)
def test_copies_are_compared_and_ranked_by_columns_that_are_there(settings, words):
    with pytest.raises(UserError, match=words):
        recipe(f"operators: {{duplicates: {settings}}}")
    recipe("operators: {aesthetic: , embedding: , duplicates: {best: aesthetic, cosine: 0.99}}")


@pytest.mark.parametrize("page", ["docs/captioners.md", "configs/web_video.yaml"])
def test_the_overrides_that_pages_show_for_a_server_of_ones_own_hold(page):
    text = (CONFIGS.parent / page).read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if "caption.captioner=endpoint" in line)
    shown = [word for word in shlex.split(line) if word.startswith("caption.")]
    assert len(shown) == 2
    found, captioner = load_recipe(CONFIGS / "web_video.yaml", shown, TABLES)
    assert found.caption.captioner == "endpoint" and captioner.server.url == "http://HOST:8000/v1"


# -- overrides


def test_overrides_reach_every_depth():
    text = "operators: {motion: , sharpness: }\nrules: {motion: {min: 1, max: 9}, sharpness: {min: 1}}"
    found = recipe(
        text,
        "rules.motion.min=2",
        "rules.sharpness=false",
        "shots.max_s=8",
        "operators.motion.rate_fps=4",
        "reader=decord",
    )
    assert found.rules == {"motion": Rule(2.0, 9.0)}
    assert (found.shots.max_s, found.operators["motion"].rate_fps, found.reader) == (8.0, 4.0, "decord")
    assert recipe(text, "operators.sharpness=false", "rules.sharpness=false").operators.keys() == {"motion"}
    assert recipe("", "operators.motion=true").operators.keys() == {"motion"}
    assert recipe("", "rules.duration_s={min: 1, max: 4}").rules == {"duration_s": Rule(1.0, 4.0)}


def test_an_operator_left_out_takes_no_rule_with_it():
    with pytest.raises(UserError, match="rules.motion: no operator"):
        recipe("operators: {motion: }\nrules: {motion: {min: 1}}", "operators.motion=false")


@pytest.mark.parametrize(
    "override", ["shots.max_s", "=3", " =3", "shots.max_s={", "shots.maxs=3", "rules.motion.min=a: b: c"]
)
def test_overrides_that_mean_nothing_are_refused(override):
    with pytest.raises(UserError):
        recipe("", override)


def test_files_that_cannot_be_read_are_named(tmp_path):
    cases = {"a: [": "line", "- 1": "expected keys and values", "a: b: c": "not valid YAML"}
    for number, (text, message) in enumerate(cases.items()):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            load_recipe(file, [], TABLES)
    with pytest.raises(UserError, match="no such file"):
        load_recipe(tmp_path / "none.yaml", [], TABLES)
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(tmp_path, [], TABLES)
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(tmp_path / "bytes.yaml", [], TABLES)
    (tmp_path / "control.yaml").write_bytes(b"a: \x00")
    with pytest.raises(UserError, match="not valid YAML"):
        load_recipe(tmp_path / "control.yaml", [], TABLES)
    (tmp_path / "empty.yaml").write_text("")
    assert load_recipe(tmp_path / "empty.yaml", [], TABLES)[0] == defaults()


# -- round trip

EVERYTHING = """
reader: decord
shots: {detector: adaptive, min_s: 1.5, max_s: 7, trim_s: 0.1, segment_s: 33}
operators: {facts: , motion: {rate_fps: 3}, text_area: true, letterbox: {}, brightness: }
score_rejected: true
rules: {motion: {min: 1.0e-7, max: 1.0e+20}, duration_s: {max: 5}, brightness: {min: 0.1}}
caption: {captioner: template}
cut: {mode: copy, crf: 0, short_side_px: 480, fps: 23.976, crop_bars: true}
limits: {tries: 3, silence_s: 1.5, memory_gb: 0.5, max_pixels: 1000}
workers: {analyse: 2}
"""


@pytest.mark.parametrize("text", ["", EVERYTHING, *[(CONFIGS / f"{n}.yaml").read_text() for n in ("default", "demo")]])
def test_a_rendered_recipe_is_the_same_recipe(text):
    before = recipe(text)
    rendered = render_recipe(before)
    assert recipe(rendered) == before
    assert render_recipe(recipe(rendered)) == rendered
    after, _ = resolve(recipe_values(before), TABLES)
    assert after == before
    assert what_differs(after, before) == []


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_every_detector_comes_back_from_a_rendered_recipe(name):
    """With all its settings spelled out as they are by default."""
    settings = plain(DETECTORS[name]())
    before, _ = resolve({"shots": {"detector": name, "settings": settings}}, TABLES)
    assert before.detector == DETECTORS[name]()
    assert recipe(render_recipe(before)).detector == before.detector


def test_odd_texts_survive_rendering():
    captioner = TABLES.captioners["template"]
    texts = [f.name for f in dataclasses.fields(captioner) if f.type in (str, "str")]
    for text in ("# no comment", "a: b", "'\"\n\t", "null", "1.0", "", "ü ☃", "x" * 300):
        for name in texts:
            before, _ = resolve({"caption": {"settings": {name: text}}}, TABLES)
            assert recipe(render_recipe(before)) == before
        before, _ = resolve({"shots": {"detector": "fused"}}, TABLES)
        assert recipe(render_recipe(before)) == before


def test_what_differs_names_the_keys_and_passes_over_how_a_run_is_carried_out():
    one = recipe(EVERYTHING)
    assert what_differs(one, recipe(EVERYTHING, "limits.tries=9", "workers.analyse=7")) == []
    assert what_differs(one, recipe(EVERYTHING, "shots.max_s=6", "rules.motion.min=2")) == [
        "shots.max_s",
        "rules.motion.min",
    ]
    assert what_differs(one, recipe(EVERYTHING, "operators.text_area=false")) == ["operators.text_area"]
    changed = recipe(EVERYTHING, "rules.brightness=false", "reader=pyav", "caption.captioner=template")
    assert what_differs(changed, one) == ["reader", "rules.brightness"]


def test_defaults_spelled_out_are_no_difference():
    assert what_differs(recipe("shots: {min_s: 3.0, detector: fused, settings: {}}"), recipe()) == []
    spelled = {"shots": {"settings": plain(DETECTORS["fused"]())}}
    assert what_differs(resolve(spelled, TABLES)[0], recipe()) == []


# -- meanings


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda c: c.__name__)
def test_every_setting_has_a_meaning(settings):
    for field in dataclasses.fields(settings):
        if field.init:
            assert len(meaning_of(field)) > 5, f"{settings.__name__}.{field.name}"
            assert "\n" not in meaning_of(field)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda c: c.__name__)
def test_settings_are_frozen_have_defaults_and_say_what_they_are(settings):
    assert dataclasses.fields(settings) is not None
    assert settings.__dataclass_params__.frozen
    assert inspect.getdoc(settings)
    if settings is not Rule:
        settings()


def test_the_rendered_default_tells_every_meaning():
    rendered = render_recipe(load_recipe(CONFIGS / "default.yaml", [], TABLES)[0])
    for settings in (ShotSettings, CutSettings, Limits, Workers, CaptionSettings, Recipe):
        for field in dataclasses.fields(settings):
            assert meaning_of(field) in rendered
    assert BY_NAME["motion"].meaning in rendered


def test_resolving_leaves_the_values_it_was_given_alone():
    raw = yaml.safe_load(EVERYTHING)
    resolve(raw, TABLES)
    assert raw == yaml.safe_load(EVERYTHING)
