"""What an alarm watches: one statistic of one metric, or an expression over several, period by period.

Of CloudWatch's metric mathematics there are numbers, the four operations, comparisons, `IF(condition, then,
otherwise)` and `FILL(metric, number)`, on single series. Where an operand is missing, or a divisor zero, there is no
datapoint. Everything else is answered with a loud "not implemented".
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sandbox.aws.errors import AwsError, not_implemented
from sandbox.aws.points import PERCENTILE, SIMPLE, Key, key_of

IDENTIFIER: Final = re.compile(r"[a-z][A-Za-z0-9_]{0,254}")
OPERATIONS: Final[Mapping[type[ast.AST], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True)
class Series:
    """One metric's statistic (`Sum`, `p99`), in one unit or in whatever it comes in (None)."""

    key: Key
    statistic: str
    unit: str | None


@dataclass(frozen=True)
class Watched:
    """What an alarm compares: series and expressions by id, the id that counts, and the period in seconds."""

    series: Mapping[str, Series]
    expressions: Mapping[str, ast.expr]
    result: str
    period: int

    @property
    def single(self) -> Series | None:
        """The one metric that is watched, None for an expression."""
        return None if self.result in self.expressions else self.series[self.result]

    def value(self, known: Mapping[str, float | None]) -> float | None:
        """The value of a period from the statistics of its series; None when there is none."""
        found = self._value(self.result, known)
        return found if found is not None and math.isfinite(found) else None

    def _value(self, name: str, known: Mapping[str, float | None]) -> float | None:
        if name in self.series:
            return known[name]
        return self._of(self.expressions[name], known)

    def _of(self, node: ast.expr, known: Mapping[str, float | None]) -> float | None:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return self._value(name, known)
            case ast.UnaryOp(operand=operand):
                value = self._of(operand, known)
                return None if value is None else -value
            case ast.BinOp(left=left, op=how, right=right) | ast.Compare(left=left, ops=[how], comparators=[right]):
                return _calculated(OPERATIONS[type(how)], self._of(left, known), self._of(right, known))
            case ast.Call(func=ast.Name(id="FILL"), args=[operand, instead]):
                value = self._of(operand, known)
                return self._of(instead, known) if value is None else value
            case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise]):
                holds = self._of(condition, known)
                return None if holds is None else self._of(then if holds else otherwise, known)
        raise TypeError(f"an expression that was not checked: {ast.dump(node)}")


def watched(alarm: Mapping[str, Any]) -> Watched:
    """What PutMetricAlarm's settings say is watched; raises AwsError for what cannot be."""
    if not alarm.get("Metrics"):
        name = alarm.get("Statistic") or alarm["ExtendedStatistic"]
        return Watched({"m1": Series(key_of(alarm), name, alarm.get("Unit"))}, {}, "m1", alarm["Period"])
    series: dict[str, Series] = {}
    expressions: dict[str, ast.expr] = {}
    periods: set[int] = set()
    results = [query["Id"] for query in alarm["Metrics"] if query.get("ReturnData", True)]
    for query in alarm["Metrics"]:
        name = query["Id"]
        if not IDENTIFIER.fullmatch(name) or name in {*series, *expressions}:
            raise _wrong(f"Id {name!r} must start with a lower-case letter and be given once")
        if query.get("AccountId"):
            raise not_implemented("alarms on metrics of another account")
        if bool(query.get("MetricStat")) == bool(query.get("Expression")):
            raise _wrong(f"{name} must have either MetricStat or Expression")
        if query.get("MetricStat"):
            stat = query["MetricStat"]
            if stat["Stat"] not in SIMPLE and not PERCENTILE.fullmatch(stat["Stat"]):
                raise _wrong(f"The value {stat['Stat']} for parameter Stat is not supported.")
            series[name] = Series(key_of(stat["Metric"]), stat["Stat"], stat.get("Unit"))
            periods.add(stat["Period"])
        else:
            expressions[name] = _parsed(query["Expression"])
            periods |= {query["Period"]} if query.get("Period") else set()
    if len(results) != 1 or len(periods) != 1:
        raise _wrong("exactly one of Metrics returns data, and all have the same Period")
    for name in expressions:
        _check(name, series, expressions, ())
    return Watched(series, expressions, results[0], periods.pop())


def _calculated(how: Callable[[float, float], float], left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    try:
        found = how(left, right)
    except (ArithmeticError, ValueError):
        return None
    return None if isinstance(found, complex) else float(found)


def _parsed(expression: str) -> ast.expr:
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise not_implemented(f"the expression {expression!r}") from error


def _check(
    name: str, series: Mapping[str, Series], expressions: Mapping[str, ast.expr], above: tuple[str, ...]
) -> None:
    """Refuse what `Watched` could not calculate, and expressions that need themselves."""
    if name in series:
        return
    if name not in expressions or name in above:
        raise _wrong(f"the expression of {above[-1]} refers to {name}, which is not there or refers back to it")
    called: set[ast.AST] = set()
    for node in ast.walk(expressions[name]):
        match node:
            case ast.Call(func=ast.Name(id="FILL") as function, args=[_, _], keywords=[]):
                called.add(function)
            case ast.Call(func=ast.Name(id="IF") as function, args=[_, _, _], keywords=[]):
                called.add(function)
            case ast.Name(id=other):
                if node not in called:
                    _check(other, series, expressions, (*above, name))
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                pass
            case ast.BinOp(op=how) | ast.Compare(ops=[how]) if type(how) in OPERATIONS:
                pass
            case ast.UnaryOp(op=ast.USub()) | ast.Load() | ast.operator() | ast.cmpop() | ast.unaryop():
                pass
            case _:
                raise not_implemented(f"the expression {ast.unparse(expressions[name])!r}")


def _wrong(message: str) -> AwsError:
    return AwsError("ValidationError", message)
