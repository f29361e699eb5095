import ast
import subprocess
import sys

import pytest

from ensemble_keras.search.code.layout import Bracketed, call, flat, lay_out, text_of

LONG = [f"argument_number_{i}" for i in range(12)]
LIST = Bracketed("", "[", tuple(("", item) for item in LONG))


def test_what_fits_stays_on_one_line():
    expression = call(call("layers.Add", kwargs={"name": '"sum"'}), [Bracketed("", "[", (("", "x"), ("", "y")))])
    assert lay_out(expression, "x = ", depth=1) == ['    x = layers.Add(name="sum")([x, y])']


def test_a_tuple_of_one_keeps_its_comma():
    assert flat(Bracketed("", "(", (("", "1"),))) == "(1,)"
    assert flat(call("f", ["1"])) == "f(1)"


def test_the_layer_is_opened_before_its_call():
    expression = call(call("layers.Dense", LONG), ["x"])
    assert lay_out(expression, "x = ", depth=1) == [
        "    x = layers.Dense(",
        *(f"        {item}," for item in LONG),
        "    )(x)",
    ]


@pytest.mark.parametrize(
    "expression",
    [
        call("f", LONG),
        call("f", [LIST]),
        call("f", ["a"], {"items": LIST, "other": call("g", LONG)}),
        call(call("f"), LONG),
        call(call("f", ["a"]), [LIST]),
        call(call("f", LONG), LONG),
        call(call("f", LONG)),
        LIST,
        Bracketed("", "(", LIST.items),
        Bracketed("", "(", (("", LIST),)),
        Bracketed("", "{", (('"a": ', LIST), ('"b": ', "1"))),
    ],
    ids=range(11),
)
def test_a_formatter_leaves_every_layout_as_it_is(expression):
    source = "\n".join(["def f():", *lay_out(expression, "return ", depth=1), ""])
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "118", "-"]
    assert subprocess.run(command, input=source, text=True, capture_output=True, check=True).stdout == source
    assert ast.dump(ast.parse(source).body[0].body[0].value) == ast.dump(ast.parse(flat(expression)).body[0].value)


@pytest.mark.parametrize(
    ("value", "text"), [("a", '"a"'), ("it's", '"it\'s"'), ('say "a"', "'say \"a\"'"), ("\\ \n", '"\\\\ \\n"')]
)
def test_strings_stand_in_double_quotes(value, text):
    assert text_of(value) == text
    assert ast.literal_eval(text) == value
