"""Expressions mean what plain Python with three-valued logic means, and nothing else gets through."""

import math
import pickle
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from curation.expressions import keep_mask, parse, weights

TABLE = pa.table({
    "aesthetic": [1, None, 7],
    "motion": [0.5, 1.0, math.nan],
    "type": ["video", None, "image"],
    "is_vfr": [True, None, False],
    "nothing": pa.nulls(3),
    "reasons": [["a"], [], None],
})


def kept(text: str, table: pa.Table = TABLE) -> list[bool]:
    return keep_mask(table, parse(text, "--where")).tolist()


# -- a plain reading of the same language ----------------------------------------------------------------


def number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def plainly(function, *arguments):
    """Apply a function of numbers; missing or not finite is missing."""
    if None in arguments:
        return None
    try:
        return number(float(function(*arguments)))
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def both(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


ARITHMETIC = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}
COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
FUNCTIONS = {"abs": abs, "sqrt": math.sqrt, "log": math.log, "min": min, "max": max}


def evaluate(tree: tuple, row: dict) -> float | str | bool | None:
    kind, *rest = tree
    if kind == "literal":
        return rest[0]
    if kind == "column":
        value = row[rest[0]]
        return number(value) if isinstance(value, float) else value
    if kind == "binary":
        return plainly(ARITHMETIC[rest[0]], *(evaluate(t, row) for t in rest[1:]))
    if kind == "call":
        return plainly(FUNCTIONS[rest[0]], *(evaluate(t, row) for t in rest[1]))
    if kind == "minus":
        return plainly(lambda a: -a, evaluate(rest[0], row))
    if kind == "chain":
        values = [evaluate(t, row) for t in rest[1]]
        result: bool | None = True
        for op, a, b in zip(rest[0], values, values[1:], strict=False):
            result = both(result, None if a is None or b is None else COMPARE[op](a, b))
        return result
    if kind == "in":
        value = evaluate(rest[1], row)
        return None if value is None else (value in rest[2]) == (rest[0] == "in")
    if kind == "null":
        return (evaluate(rest[1], row) is None) == (rest[0] in ("is null", "is None", "== None"))
    if kind == "not":
        value = evaluate(rest[0], row)
        return None if value is None else not value
    values = [evaluate(t, row) for t in rest[0]]
    if kind == "or":
        values = [None if v is None else not v for v in values]
    result = True
    for value in values:
        result = both(result, value)
    return result if kind == "and" or result is None else not result


def literal(value: float | str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def written(tree: tuple) -> str:
    kind, *rest = tree
    if kind == "literal":
        return literal(rest[0])
    if kind == "column":
        return rest[0]
    if kind == "binary":
        return f"({written(rest[1])} {rest[0]} {written(rest[2])})"
    if kind == "call":
        return f"{rest[0]}({', '.join(map(written, rest[1]))})"
    if kind == "minus":
        return f"(-{written(rest[0])})"
    if kind == "chain":
        parts = [written(rest[1][0])]
        for op, tree in zip(rest[0], rest[1][1:], strict=True):
            parts += [op, written(tree)]
        return f"({' '.join(parts)})"
    if kind == "in":
        return f"({written(rest[1])} {rest[0]} ({''.join(literal(v) + ', ' for v in rest[2])}))"
    if kind == "null":
        return f"({written(rest[1])} {rest[0]})"
    if kind == "not":
        return f"(not {written(rest[0])})"
    return "(" + f" {kind} ".join(map(written, rest[0])) + ")"


LITERALS = st.one_of(st.integers(0, 9), st.sampled_from([0.5, 2.5, 1e300])).map(float)
NUMBERS = st.recursive(
    st.one_of(st.tuples(st.just("column"), st.sampled_from("ab")), st.tuples(st.just("literal"), LITERALS)),
    lambda inner: st.one_of(
        st.tuples(st.just("binary"), st.sampled_from(list(ARITHMETIC)), inner, inner),
        st.tuples(st.just("minus"), inner),
        st.tuples(st.just("call"), st.sampled_from(["abs", "sqrt", "log"]), st.tuples(inner)),
        st.tuples(st.just("call"), st.sampled_from(["min", "max"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)
TEXTS = st.one_of(
    st.tuples(st.just("column"), st.just("t")),
    st.tuples(st.just("literal"), st.sampled_from(["", "a", "b", "Ä", "\U0001f3a5", "a'#", "\uffee"])),
)


def chains(operand: st.SearchStrategy) -> st.SearchStrategy:
    operators = st.lists(st.sampled_from(list(COMPARE)), min_size=1, max_size=2)
    return operators.flatmap(
        lambda ops: st.tuples(
            st.just("chain"), st.just(ops), st.lists(operand, min_size=len(ops) + 1, max_size=len(ops) + 1)
        )
    )


CONDITIONS = st.recursive(
    st.one_of(
        st.tuples(st.just("column"), st.just("f")),
        chains(NUMBERS),
        chains(TEXTS),
        st.tuples(st.just("in"), st.sampled_from(["in", "not in"]), NUMBERS, st.lists(LITERALS, min_size=1)),
        st.tuples(st.just("in"), st.sampled_from(["in", "not in"]), TEXTS, st.just(["a", "Ä"])),
        st.tuples(
            st.just("null"),
            st.sampled_from(["is null", "is None", "== None", "is not null", "!= None"]),
            st.one_of(NUMBERS, TEXTS),
        ),
    ),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.just("chain"), st.just(["=="]), st.lists(inner, min_size=2, max_size=2)),
    ),
    max_leaves=5,
)
ROWS = st.lists(
    st.fixed_dictionaries({
        "a": st.one_of(st.none(), st.integers(-3, 9).map(float), st.sampled_from([0.5, math.nan, math.inf, 1e300])),
        "b": st.one_of(st.none(), st.integers(-3, 9)),
        "t": st.one_of(st.none(), st.sampled_from(["", "a", "b", "Ä", "\U0001f3a5", "\uffee"])),
        "f": st.one_of(st.none(), st.booleans()),
    }),
    max_size=6,
)
SCHEMA = pa.schema([("a", pa.float64()), ("b", pa.int64()), ("t", pa.string()), ("f", pa.bool_())])


@settings(max_examples=400, deadline=None)
@given(tree=CONDITIONS, rows=ROWS)
@example(tree=("or", [("column", "f"), ("not", ("column", "f"))]), rows=[{"a": None, "b": 1, "t": "", "f": None}])
@example(tree=("in", "in", ("minus", ("column", "a")), [0.0]), rows=[{"a": 0.0, "b": 1, "t": "", "f": None}])
@example(
    tree=("chain", [">"], [("binary", "/", ("column", "b"), ("literal", 0.0)), ("literal", 1.0)]),
    rows=[{"a": 0.0, "b": 1, "t": "", "f": None}],
)
def test_conditions_equal_plain_python_row_by_row(tree: tuple, rows: list[dict]) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    expected = [evaluate(tree, row) for row in rows]
    expression = parse(written(tree), "--where")
    assert expression.evaluate(table).to_pylist() == expected
    assert keep_mask(table, expression).tolist() == [value is True for value in expected]


@settings(max_examples=200, deadline=None)
@given(tree=NUMBERS, rows=ROWS)
def test_weights_equal_plain_python_row_by_row(tree: tuple, rows: list[dict]) -> None:
    found = weights(pa.Table.from_pylist(rows, schema=SCHEMA), parse(written(tree), "--weight"))
    assert found.dtype == np.float64 and found.shape == (len(rows),)
    expected = [evaluate(tree, {**row, "b": None if row["b"] is None else float(row["b"])}) for row in rows]
    np.testing.assert_allclose(found, [math.nan if v is None else v for v in expected], rtol=1e-12)


# -- by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aesthetic > 5 and motion < 3", [False, False, False]),
        ("aesthetic > 5 or motion < 3", [True, True, True]),
        ("1 + 2 * 3 == 7 and 8 / 4 / 2 == 1", [True, True, True]),
        ("not aesthetic > 5 or type == 'image'", [True, False, True]),
        ("-aesthetic < -3", [False, False, True]),
        ("1 < aesthetic * 2 <= 14", [True, False, True]),
        ("aesthetic == None", [False, True, False]),
        ("None != motion", [True, True, False]),
        ("type not in ('image', 'gif')", [True, False, False]),
        ("not type in ('image', 'gif')", [True, False, False]),
        ("is_vfr == false", [False, False, True]),
        ("nothing > 3 or nothing is null", [True, True, True]),
        ("nothing", [False, False, False]),
        ("false or 2 > 1", [True, True, True]),
        ("(aesthetic\n  > 5)", [False, False, True]),
        ("type == '#'", [False, False, False]),
    ],
)
def test_precedence_nulls_and_literals(text: str, expected: list[bool]) -> None:
    assert kept(text) == expected


def test_every_kind_of_column() -> None:
    table = pa.table({
        "big": pa.array([2**62 + 1, None], pa.int64()),
        "small": pa.array([3, 4], pa.uint8()),
        "half": pa.array([1.5, 2.5], pa.float32()),
        "word": pa.array(["a", "b"]).dictionary_encode(),
        "long": pa.array(["a", "b"], pa.large_string()),
        "money": pa.array([1, 2], pa.int64()).cast(pa.decimal128(25, 2)),
    })
    assert kept("big > 4e18", table) == [True, False]
    assert kept("small == 3 and half == 1.5 and money < 2", table) == [True, False]
    assert kept("word == 'b' and long in ('b',)", table) == [False, True]
    assert kept("half > 2", table.slice(0, 0)) == []


def test_an_expression_knows_its_columns_and_travels() -> None:
    expression = parse("min(aesthetic, 5) > motion and type is not null", "--where")
    assert expression.columns == {"aesthetic", "motion", "type"}
    other = pickle.loads(pickle.dumps(expression))
    assert other == expression and keep_mask(TABLE, other).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("__import__('os').system('id')", r"'__import__\('os'\).system\('id'\)': not allowed"),
        ("__import__('os')", "no function '__import__'"),
        ("aesthetic.real > 1", "'aesthetic.real': not allowed"),
        ("(lambda: 1)() > 0", "not allowed"),
        ("[x for x in aesthetic] == 1", r"'\[x for x in aesthetic\]'"),
        ("9 ** 9 ** 9 > 1", r"'9 \*\* 9 \*\* 9': not allowed"),
        ("aesthetic % 2 == 0", "'aesthetic % 2'"),
        ("aesthetic[0] > 1", r"'aesthetic\[0\]'"),
        ("(x := 5) > 1", "'x := 5'"),
        ("f'{aesthetic}' == '1'", "f'"),
        ("b'a' == type", "b'a'"),
        ("aesthetic > 1j", "'1j'"),
        ("aesthetic > 1e999", "'1e999': too large"),
        ("aesthetic > " + "9" * 400, "too large"),
        ("aesthetic = 5", "'= 5'"),
        ("aesthetic > 5 AND motion < 3", "'AND motion < 3'"),
        ("aesthetic >", "not readable"),
        ("aesthetic > 5 # and motion < 3", "'# and motion < 3': comments"),
        ("type in 'video'", "takes a list"),
        ("type in ()", "takes a list"),
        ("type in ('a', 1)", "one kind"),
        ("aesthetic < null", "null can only be asked for"),
        ("aesthetic is 5", "compare values with =="),
        ("mni(aesthetic, 2) > 1", "did you mean 'min'"),
        ("abs(aesthetic, 2) > 1", "abs takes one"),
        ("min(*aesthetic) > 1", r"'\*aesthetic'"),
        ("min(aesthetic, key=1) > 1", "not allowed"),
        ("type == '\\ud800'", "surrogate"),
        ("type == '\ud800'", "half a character"),
        ("aesthetic\0 > 1", "null bytes|zero byte"),
        ("", "empty"),
        ("  ", "empty"),
    ],
)
def test_what_is_not_in_the_language_is_shown(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part) as error:
        parse(text, "data.where")
    assert str(error.value).startswith("data.where: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000_000,
        "(" * 5000 + "1" + ")" * 5000,
        "(" * 100_000 + "1" + ")" * 100_000,
        "(" * 150 + "x > " + "(" * 40,
        "-" * 9_000 + "1 > 0",
        "not " * 2_400 + "x",
        "x" + " + 1" * 2_400 + " > 0",
        "x" + "[1]" * 3_000,
        "x" + ".a" * 4_900,
        "9" * 9_000 + " > x",
        "[" * 9_000,
    ],
    ids=lambda text: f"{text[:12]}…{len(text)}",
)
def test_long_and_deep_texts_are_refused_at_once(text: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(UserError) as error:
        parse(text, "--where")
    assert time.perf_counter() - begin < 1 and len(str(error.value)) < 500


def test_chains_within_chains_are_evaluated_once_each() -> None:
    text = "is_vfr"
    for _ in range(90):
        text = f"(is_vfr == {text} == is_vfr)"
    begin = time.perf_counter()
    assert kept(text) == [True, False, False]
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("asthetic > 1", "no column 'asthetic' .did you mean 'aesthetic'"),
        ("type > 5", "'5': this is a number where a text"),
        ("aesthetic and motion", "'aesthetic': this is a number where a condition"),
        ("is_vfr + 1 > 1", "'is_vfr': this is a condition where a number"),
        ("is_vfr < true", "no order"),
        ("type in (1, 2)", "'type': this is a text"),
        ("reasons == 'a'", "'reasons': the column holds list"),
        ("aesthetic", "'aesthetic' is a number; compare it"),
    ],
)
def test_what_does_not_fit_the_table_is_shown(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        keep_mask(TABLE, parse(text, "--where"))


def test_a_weight_is_a_number() -> None:
    with pytest.raises(UserError, match=r"--weight: 'motion > 1' is a condition; a number"):
        weights(TABLE, parse("motion > 1", "--weight"))
    assert np.isnan(weights(TABLE, parse("nothing", "--weight"))).all()
    assert weights(TABLE, parse("2", "--weight")).tolist() == [2, 2, 2]
