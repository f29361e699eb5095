"""Layout: Python expressions as lines of text that a formatter leaves as they are."""

import dataclasses
import json

_WIDTH = 118
_INDENT = 4
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclasses.dataclass(frozen=True)
class Bracketed:
    """An expression that ends in a bracket: a call, a list, a tuple, a dict.

    Attributes:
        head: What is called, text or another `Bracketed`; empty for a list, a tuple and a dict.
        opening: `"("`, `"["` or `"{"`.
        items: Pairs of a prefix (`""`, `"name="`, `"key: "`) and an expression: text or another `Bracketed`.
    """

    head: object
    opening: str
    items: tuple

    @property
    def closing(self):
        """The bracket that ends the expression."""
        return _CLOSING[self.opening]


def call(function, args=(), kwargs=None):
    """Returns the expression of a call with these expressions as its arguments."""
    named = [(f"{name}=", value) for name, value in (kwargs or {}).items()]
    return Bracketed(function, "(", (*(("", value) for value in args), *named))


def text_of(value):
    """Returns a string as a formatter writes it, in double quotes where these need no escape."""
    return repr(value) if '"' in value and "'" not in value else json.dumps(value, ensure_ascii=False)


def flat(expression):
    """Returns an expression as text on one line."""
    if isinstance(expression, str):
        return expression
    return flat(expression.head) + _flat_bracket(expression)


def lay_out(expression, before="", after="", depth=0):
    """Returns an expression as a list of lines.

    What does not fit on a line of 118 characters is opened at its brackets, one item a line with a comma after each:
    so it stays as it is where lines may be longer, too.

    Args:
        expression: Text or a `Bracketed`.
        before: Text in front of it, such as `"x = "`.
        after: Text behind it.
        depth: Int, by how many levels the lines are indented.
    """
    pad = " " * (_INDENT * depth)
    line = pad + before + flat(expression) + after
    if len(line) <= _WIDTH or isinstance(expression, str):
        return [line]
    if not expression.items:
        return lay_out(expression.head, before, _flat_bracket(expression) + after, depth)
    if isinstance(expression.head, Bracketed):
        bracket = _flat_bracket(expression) + after
        if len(pad + expression.head.closing + bracket) <= _WIDTH and expression.head.items:
            return lay_out(expression.head, before, bracket, depth)
        first = lay_out(expression.head, before, expression.opening, depth)
    else:
        first = [pad + before + expression.head + expression.opening]
    middle = [
        line for prefix, item in expression.items for line in lay_out(item, before=prefix, after=",", depth=depth + 1)
    ]
    return [*first, *middle, pad + expression.closing + after]


def _flat_bracket(expression):
    inner = ", ".join(prefix + flat(item) for prefix, item in expression.items)
    is_tuple_of_one = not expression.head and expression.opening == "(" and len(expression.items) == 1
    return expression.opening + inner + ("," if is_tuple_of_one else "") + expression.closing
