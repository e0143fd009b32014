"""The subset of Python's grammar that expressions may use, checked node by node."""

import ast
import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import nearest
from curation.ranks import rank, tier, tqd

MAX_DEPTH = 100
ALLOWED = (
    "allowed are columns, numbers, 'texts', true, false, x is null, + - * /, == != < >, and, or, not, in (…), "
    "a if c else b, functions"
)
QUOTA = "quota"
LITERALS = {"true": True, "false": False, "null": None}

ARITHMETIC: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
}
COMPARISONS: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
FUNCTIONS: dict[str, tuple[Callable[..., Any], bool]] = {
    "abs": (pc.abs, False),
    "log": (pc.ln, False),
    "sqrt": (pc.sqrt, False),
    "min": (functools.partial(pc.min_element_wise, skip_nulls=False), True),
    "max": (functools.partial(pc.max_element_wise, skip_nulls=False), True),
    "rank": (rank, False),
    "tier": (tier, True),
    "tqd": (tqd, True),
}
"""By name: the function, and whether it takes several arguments."""
COUNTS: dict[str, tuple[Callable[[int], bool], str]] = {
    "tier": (lambda n: n >= 4 and n % 2 == 0, "a column, and values with bounds between them: tier(motion, 0.5, 3, 1)"),
    "tqd": (lambda n: n in (2, 3), "two columns, and perhaps a strength: tqd(motion, visual_quality, 4)"),
}
"""Functions that take certain numbers of arguments: which, and an example."""


class FaultError(Exception):
    """Says what is wrong with a node; the expression makes a line for the user of it."""

    def __init__(self, node: ast.expr, message: str):
        """Keep the node."""
        super().__init__(message)
        self.node = node


def check_tree(tree: ast.expr) -> set[str]:
    """Refuse every node outside the subset, and give the columns.

    Raises:
        FaultError: the node at fault, or the whole tree where it is too deep.
    """
    columns = set()
    stack = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise FaultError(tree, f"nested too deeply; at most {MAX_DEPTH} levels are read")
        if isinstance(node, ast.Name) and node.id not in LITERALS:
            columns.add(node.id)
        stack += [(child, depth + 1) for child in _children(node)]
    return columns


@dataclass(frozen=True)
class Quota:
    """The most that one group of rows may have of what is drawn.

    Attributes:
        column: equal values are one group; a row without a value is a group by itself.
        share: of all draws, above 0 and at most 1.
    """

    column: str
    share: float


def without_quotas(tree: ast.expr) -> tuple[ast.expr, tuple[Quota, ...]]:
    """Take the factors `quota(column, share)` off a product.

    Returns:
        The other factors, 1 where there is none, and the quotas in order.

    Raises:
        FaultError: a quota that is not a column and a share.
    """
    match tree:
        case ast.BinOp(op=ast.Mult(), left=left, right=right):
            one, first = without_quotas(left)
            other, second = without_quotas(right)
            if not (first or second):
                return tree, ()
            product = ast.copy_location(ast.BinOp(one, ast.Mult(), other), tree)
            return product, (*first, *second)
        case ast.Call(func=ast.Name(id=name)) if name == QUOTA:
            match tree.args:
                case [ast.Name(id=column), ast.Constant(value=int() | float() as share)] if (
                    column not in LITERALS and not isinstance(share, bool) and 0 < share <= 1 and not tree.keywords
                ):
                    return ast.copy_location(ast.Constant(1.0), tree), (Quota(column, float(share)),)
            raise FaultError(tree, "a quota is a column and a share above 0 and up to 1: quota(cluster, 0.02)")
    return tree, ()


def _children(node: ast.expr) -> list[ast.expr]:
    """Return the parts of a node that are expressions themselves."""
    if is_null(node):
        raise FaultError(node, "null can only be asked for: x is null, x is not null")
    match node:
        case ast.Name():
            return []
        case ast.Constant():
            constant(node)
            return []
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd()):
            return [node.operand]
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            return [node.left, node.right]
        case ast.BoolOp():
            return node.values
        case ast.Compare():
            return operands(node)
        case ast.IfExp():
            return [node.test, node.body, node.orelse]
        case ast.Call(func=ast.Name(id=name)) if name == QUOTA:
            raise FaultError(node, "quotas are factors of the whole of data.repeat, as in x * quota(cluster, 0.02)")
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            if name not in FUNCTIONS:
                raise FaultError(node, f"no function '{name}'{nearest(name, list(FUNCTIONS))}")
            if not node.args or (len(node.args) > 1 and not FUNCTIONS[name][1]):
                raise FaultError(node, f"{name} takes {'at least ' if FUNCTIONS[name][1] else ''}one argument")
            if name in COUNTS and not COUNTS[name][0](len(node.args)):
                raise FaultError(node, f"{name} takes {COUNTS[name][1]}")
            return node.args
    raise FaultError(node, f"not allowed; {ALLOWED}")


def operands(node: ast.Compare) -> list[ast.expr]:
    """Return the operands of a chain of comparisons, each once, without lists and nulls that stand where they may.

    Raises:
        FaultError: a list or a null elsewhere.
    """
    parts: dict[int, ast.expr] = {}
    for left, op, right in links(node):
        used = [left, right]
        if isinstance(op, ast.In | ast.NotIn):
            constants(right)
            used = [left]
        elif isinstance(op, ast.Is | ast.IsNot):
            if not is_null(right):
                raise FaultError(node, "`is` asks for null only; compare values with ==")
            used = [left]
        elif isinstance(op, ast.Eq | ast.NotEq) and is_null(left) != is_null(right):
            used = [left] if is_null(right) else [right]
        parts.update((id(part), part) for part in used)
    return list(parts.values())


def links(node: ast.Compare) -> Iterable[tuple[ast.expr, ast.cmpop, ast.expr]]:
    """Return (left, operator, right) for each link of a chain of comparisons."""
    return zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)


def is_null(node: ast.expr) -> bool:
    """Return whether a node is the literal null or None."""
    return (isinstance(node, ast.Constant) and node.value is None) or (isinstance(node, ast.Name) and node.id == "null")


def constant(node: ast.expr) -> float | str | bool:
    """Return the value of a literal.

    Raises:
        FaultError: it is none, or one that no column can hold.
    """
    match node:
        case ast.Name(id="true" | "false" as name):
            return bool(LITERALS[name])
        case ast.Constant(value=bool() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -_finite_literal(node, value)
        case ast.Constant(value=int() | float() as value):
            return _finite_literal(node, value)
        case ast.Constant(value=str() as value):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise FaultError(node, "holds a lone surrogate; write the character itself") from None
            return value
    raise FaultError(node, f"not allowed; {ALLOWED}")


def _finite_literal(node: ast.expr, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FaultError(node, "too large a number")
    return number


def constants(node: ast.expr) -> pa.Array:
    """Return the values of a list after `in`.

    Raises:
        FaultError: no list of literals of one kind.
    """
    if not isinstance(node, ast.Tuple | ast.List) or not node.elts:
        raise FaultError(node, "`in` takes a list of values, as in (1, 2) or ('a',)")
    values = [constant(element) for element in node.elts]
    if len({type(value) for value in values}) > 1:
        raise FaultError(node, "values of one kind are needed in a list")
    return pa.array(values)
