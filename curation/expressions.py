"""Expressions over score columns: which rows are trained on, and how much each counts.

`aesthetic > 5 and (motion < 3 or type == 'image')`, `aesthetic / 10`, `2 if motion > 5 else tier(motion, 0.5, 1, 1)`.
The functions are abs, log, sqrt, min, max, and those of `ranks`: rank, tier, tqd. The grammar is a subset of Python's:
it is parsed by `ast`, checked node by node and evaluated over Arrow columns. Nothing is executed.

Missing values follow SQL's three-valued logic (Kleene): what is computed from a missing value is missing, `and` and
`or` are decided by the other side where that is enough, and a condition that is missing keeps nothing. Numbers are
float64; one that is not finite (a division by 0, the logarithm of 0) is missing.
"""

import ast
import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import UserError, nearest
from curation.grammar import (
    ALLOWED,
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    LITERALS,
    MAX_DEPTH,
    FaultError,
    Quota,
    check_tree,
    constant,
    constants,
    is_null,
    links,
    operands,
    without_quotas,
)

MAX_CHARS = 10_000
SHOWN_CHARS = 60
NAMES = {pa.float64(): "a number", pa.string(): "a text", pa.bool_(): "a condition", pa.null(): "missing"}

Data = Any
"""A `pa.ChunkedArray` (a column) or a `pa.Scalar` (a constant)."""


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes:
        text: as it was written.
        what: where it was written, for messages.
        columns: the columns it reads.
        quotas: factors that hold for groups of rows, which `evaluate` takes for 1.
    """

    text: str
    what: str
    columns: frozenset[str]
    _tree: ast.expr = field(repr=False, compare=False)
    quotas: tuple[Quota, ...] = ()

    def check(self, known: Iterable[str], hint: str = "") -> None:
        """See that all columns are there.

        Raises:
            UserError: names the first one that is not and the nearest that is; `hint` follows.
        """
        names = list(known)
        for column in sorted(self.columns - set(names)):
            raise UserError(f"no column '{column}'{nearest(column, names)}{hint}", field=self.what)

    def evaluate(self, table: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Return the value for each row: float64, string or bool, null where it is missing.

        Raises:
            UserError: a column is not there, or holds what the expression cannot use.
        """
        self.check(table.column_names)
        try:
            data = _value(self._tree, table)
        except FaultError as fault:
            raise _user_error(fault, self.text, self.what) from None
        return pa.repeat(data, len(table)) if isinstance(data, pa.Scalar) else data


def parse(text: str, what: str, *, quotas: bool = False) -> Expression:
    """Read an expression.

    Args:
        text: the expression.
        what: where it was written, such as `data.where`.
        quotas: `quota(column, share)` may be a factor of the whole.

    Raises:
        UserError: shows the part that is not allowed, or says that the text is too long or too deeply nested.
    """
    if len(text) > MAX_CHARS:
        raise UserError(f"{len(text)} characters", field=what, fix=f"at most {MAX_CHARS} are read")
    text = "\n".join(text.strip().replace("\r\n", "\n").split("\r"))
    if not text:
        raise UserError("empty", field=what, fix="leave it out, or write a condition such as aesthetic > 5")
    try:
        with warnings.catch_warnings():  # Python's remarks on style, such as `1and`
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise UserError(f"not readable{_place(text, error)} ({error.msg})", field=what, fix=ALLOWED) from None
    except (MemoryError, RecursionError):
        raise UserError("nested too deeply", field=what, fix=f"at most {MAX_DEPTH} levels are read") from None
    except ValueError:
        raise UserError("holds a zero byte or half a character", field=what, fix="delete it") from None
    if "#" in (after := text[_end(text, tree) :]):  # the parser would pass over it, and what a user lost in it
        raise UserError(f"'{_short(after.strip())}': comments are not read", field=what, fix="delete it")
    try:
        rest, found = without_quotas(tree) if quotas else (tree, ())
        columns = check_tree(rest) | {quota.column for quota in found}
        return Expression(text, what, frozenset(columns), rest, found)
    except FaultError as fault:
        raise _user_error(fault, text, what) from None


def groups(table: pa.Table, column: str) -> list[str | None]:
    """Return the text of each row's value in a column, None where it is missing.

    Raises:
        UserError: a value is neither text, number nor true or false.
    """
    kind = table[column].type
    if pa.types.is_nested(kind):
        raise UserError(f"quota({column}): the column holds {kind}; name one of texts or numbers")
    values: list[str | None] = pc.cast(table[column], pa.string()).to_pylist()
    return values


def keep_mask(table: pa.Table, expression: Expression) -> np.ndarray:
    """Return which rows the condition keeps: bool (N,), true where it is true and not where it is missing.

    Raises:
        UserError: see `Expression.evaluate`; or the expression is no condition.
    """
    data = expression.evaluate(table)
    if data.type == pa.null():
        return np.zeros(len(table), bool)
    if data.type != pa.bool_():
        raise UserError(
            f"'{_short(expression.text)}' is {NAMES[data.type]}", field=expression.what, fix="compare it, as in x > 5"
        )
    return np.asarray(pc.fill_null(data, False).to_numpy(zero_copy_only=False), bool)


def weights(table: pa.Table, expression: Expression) -> np.ndarray:
    """Return the number for each row: float64 (N,), NaN where it is missing.

    Raises:
        UserError: see `Expression.evaluate`; or the expression is no number.
    """
    data = expression.evaluate(table)
    if data.type == pa.null():
        return np.full(len(table), np.nan)
    if data.type != pa.float64():
        raise UserError(
            f"'{_short(expression.text)}' is {NAMES[data.type]}", field=expression.what, fix="a number is needed"
        )
    return np.asarray(pc.fill_null(data, float("nan")).to_numpy(zero_copy_only=False), np.float64)


# -- evaluating --------------------------------------------------------------------------------------------


def _value(node: ast.expr, table: pa.Table) -> Data:
    match node:
        case ast.Constant():
            return pa.scalar(constant(node))
        case ast.Name(id=name):
            return pa.scalar(LITERALS[name]) if name in LITERALS else _column(node, table[name])
        case ast.UnaryOp(op=ast.Not()):
            return pc.invert(_typed(node.operand, _value(node.operand, table), pa.bool_()))
        case ast.UnaryOp():
            number = _typed(node.operand, _value(node.operand, table), pa.float64())
            return pc.negate(number) if isinstance(node.op, ast.USub) else number
        case ast.BinOp():
            sides = [_typed(side, _value(side, table), pa.float64()) for side in (node.left, node.right)]
            return _finite(ARITHMETIC[type(node.op)](*sides))
        case ast.BoolOp():
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            return functools.reduce(join, [_typed(part, _value(part, table), pa.bool_()) for part in node.values])
        case ast.IfExp():
            condition = _typed(node.test, _value(node.test, table), pa.bool_())
            one, other = _value(node.body, table), _value(node.orelse, table)
            kind = other.type if one.type == pa.null() else one.type
            chosen = pc.if_else(condition, _typed(node.body, one, kind), _typed(node.orelse, other, kind))
            return chosen  # missing where the condition is
        case ast.Call(func=ast.Name(id=name)):
            arguments = [_typed(part, _value(part, table), pa.float64()) for part in node.args]
            return _finite(FUNCTIONS[name][0](*arguments))
        case ast.Compare():
            # Each operand is evaluated once: in chains within chains twice each would be exponential.
            wanted = {id(part): _value(part, table) for part in operands(node)}
            found = [_link(wanted.get(id(a)), op, wanted.get(id(b)), a, b) for a, op, b in links(node)]
            return functools.reduce(pc.and_kleene, found)
    raise AssertionError(ast.dump(node))  # checked by `parse`


def _link(a: Data | None, op: ast.cmpop, b: Data | None, left: ast.expr, right: ast.expr) -> Data:
    """Compare two operands; None stands for a list or for null."""
    if isinstance(op, ast.In | ast.NotIn):
        values = constants(right)
        a = _typed(left, a, values.type)
        if values.type == pa.float64():  # `is_in` tells -0.0 from 0.0, which adding 0 makes one
            a, values = pc.add(a, 0.0), pc.add(values, 0.0)
        found = pc.if_else(pc.is_valid(a), pc.is_in(a, value_set=values), pa.scalar(None, pa.bool_()))
        return pc.invert(found) if isinstance(op, ast.NotIn) else found
    if is_null(left) or is_null(right):
        missing = pc.is_null(b if is_null(left) else a)
        return pc.invert(missing) if isinstance(op, ast.IsNot | ast.NotEq) else missing
    assert a is not None and b is not None
    kind = b.type if a.type == pa.null() else a.type
    if kind == pa.null():
        kind = pa.float64()
    if kind == pa.bool_() and not isinstance(op, ast.Eq | ast.NotEq):
        raise FaultError(left, "true and false have no order; numbers or texts can be compared so")
    return COMPARISONS[type(op)](_typed(left, a, kind), _typed(right, b, kind))


def _typed(node: ast.expr, data: Data, kind: pa.DataType) -> Data:
    if data.type == kind:
        return data
    if data.type == pa.null():
        return data.cast(kind)
    raise FaultError(node, f"this is {NAMES[data.type]} where {NAMES[kind]} is needed")


def _column(node: ast.expr, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as float64, string, bool or null."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _finite(pc.cast(column, pa.float64(), safe=False))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column
    raise FaultError(node, f"the column holds {kind}; numbers, texts and true/false can be used")


def _finite(data: Data) -> Data:
    return pc.if_else(pc.is_finite(data), data, pa.scalar(None, pa.float64()))


# -- messages --------------------------------------------------------------------------------------------


def _user_error(fault: FaultError, text: str, what: str) -> UserError:
    part = ast.get_source_segment(text, fault.node) or text
    return UserError(f"'{_short(part)}': {fault}", field=what)


def _place(text: str, error: SyntaxError) -> str:
    lines = text.split("\n")
    if not error.offset or not error.lineno or error.lineno > len(lines):
        return f": '{_short(text)}'"
    rest = lines[error.lineno - 1][error.offset - 1 :].strip()
    return f" from '{_short(rest)}' on" if rest else f": '{_short(text)}' ends too early"


def _end(text: str, tree: ast.expr) -> int:
    """Return the place in the text where a tree ends."""
    lines = text.split("\n")
    last = (tree.end_lineno or 1) - 1
    in_line = lines[last].encode()[: tree.end_col_offset].decode()
    return sum(len(line) + 1 for line in lines[:last]) + len(in_line)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
