"""A map of bad input: for every argument of every public function values that it must refuse, before any work.

`bad_inputs.csv` holds the rows: function, argument, a bad value as Python writes it, and what the error must name
besides the argument. `python tests/test_bad_inputs.py` prints rows for the arguments that have none yet.
"""
import csv
import importlib
import inspect
import math
import pkgutil
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch

import creative_nb
from creative_nb.checks import in_words, problem
from creative_nb.generators import Prior

TABLE = Path(__file__).with_name("bad_inputs.csv")
# What the library itself calls, thousands of times or with what it has checked.
INTERNAL = {"checks", "select", "core.batches", "core.progress", "common.patch", "common.rng", "novelty.Views",
            "annotation_tool.main", "archive.main", "cluster.main", "machines.main", "pipeline.main", "site.main",
            "study.main"}
PROTOCOL = {"forward", "plan", "members", "layer", "draws", "change", "choose", "values"}  # networks, methods
ANYTHING = (inspect.Parameter.empty, object)  # annotations of arguments that take everything
SPACE = {"np": np, "torch": torch, "pd": pd, "nan": math.nan, "inf": math.inf, "Path": Path}
SAMPLES = [1, 2, 0.5, 1.5, "a.csv", "a.png", "max", "a", "#0173b2", "mnist",
           "truncated", "unit", "image", "higher", "group", True,
           None, {}, [], ["a"], [{}], {"a": {"b": "c"}}, (0.1, 0.9), (1, 1), (1, 1, 1), ("a", "b"),
           ("encoder",), [("a", "b")], torch.zeros(2, 2), torch.ones(2), np.zeros(2),
           np.zeros((2, 16)), np.zeros((2, 4, 4), bool), np.array([[0.0, 1.0]]), "fidelity", pd.DataFrame({"a": [1]}),
           pd.Series([1]), Path("a"), torch.nn.Identity(), torch.nn.Identity, Prior(), SimpleNamespace(content_hash=""),
           torch.device("cpu"), lambda *a: None, iter(()), sys, b"a", "https://example.org"]


def public():
    "Every public function, class and public method of the library, by a name such as `decode.CreativeDecoder.sample`."
    found = {}
    for info in pkgutil.iter_modules(creative_nb.__path__):
        if info.ispkg or info.name.startswith("_"): continue
        module = importlib.import_module(f"creative_nb.{info.name}")
        for name in getattr(module, "__all__", ()):
            o = getattr(module, name)
            if getattr(o, "__module__", None) != module.__name__: continue
            if inspect.isclass(o) and not issubclass(o, BaseException): found |= members(f"{info.name}.{name}", o)
            elif inspect.isfunction(o): found[f"{info.name}.{name}"] = o
    return {k: f for k, f in found.items() if not any(k == i or k.startswith(i + ".") for i in INTERNAL)
            and not (k.count(".") == 2 and k.rsplit(".")[-1] in PROTOCOL)}


def members(name, cls):
    own = {k: v for k, v in vars(cls).items() if not k.startswith("_")}
    methods = {f"{name}.{k}": getattr(v, "__func__", v) for k, v in own.items()
               if inspect.isfunction(v) or isinstance(v, (classmethod, staticmethod))}
    return ({name: cls} if "__init__" in vars(cls) else {}) | methods


def arguments(f):
    "Arguments with a type that can be wrong, and the types."
    function = f.__init__ if inspect.isclass(f) else f
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    parameters = inspect.signature(function).parameters
    return {n: hints[n] for n, p in parameters.items()
            if n not in ("self", "cls") and hints.get(n, object) not in ANYTHING}


def fitting(hint):
    "Some value that passes for a type."
    for sample in SAMPLES:
        try:
            if problem(sample, hint) is None: return sample
        except Exception: continue  # a kind that does not expect this sample
    return blank(hint)


def call(f, argument, value):
    "Call `f` with one bad argument; every other one that must be given is of the right type."
    function = f.__init__ if inspect.isclass(f) else f
    given, hints, kind = {argument: value}, arguments(f), inspect.signature(function).parameters[argument].kind
    for name, p in inspect.signature(function).parameters.items():
        if name in given or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD): continue
        if p.default is not p.empty and kind is not p.VAR_POSITIONAL: continue
        if name in ("self", "cls"): given[name] = blank(owner(f))
        else: given[name] = fitting(hints[name]) if name in hints else None
    others = {k: v for k, v in given.items() if k != argument}
    if kind is inspect.Parameter.VAR_POSITIONAL: return function(*others.values(), value)
    if kind is inspect.Parameter.VAR_KEYWORD: return function(**others, x=value)
    return function(**given)


def owner(f):
    if inspect.isclass(f): return f
    first = next(iter(inspect.unwrap(f).__annotations__.values()), None)
    return first if inspect.isclass(first) else object


def blank(cls):
    "An object of a class that nothing was done to."
    while get_origin(cls): cls = get_args(cls)[0] if get_origin(cls) is Annotated else get_origin(cls)
    made = type("Blank", (cls,), {name: None for name in getattr(cls, "__abstractmethods__", ())})
    return cls.__new__(made)


def refusal(f, argument, value):
    "The error of a call, or None if it went through; and whether it is of our own."
    try: call(f, argument, value)
    except Exception as e:
        where = traceback.extract_tb(e.__traceback__)[-1].filename
        return e, "creative_nb" in where and isinstance(e, (ValueError, TypeError, FileNotFoundError))
    return None, False


def rows():
    with TABLE.open(newline="", encoding="utf-8") as f: return list(csv.DictReader(f))


FUNCTIONS, ROWS = public(), rows() if TABLE.is_file() else []


def test_the_table_is_large(): assert len(ROWS) >= 600


@pytest.mark.parametrize("name", sorted({r["function"] for r in ROWS}))
def test_bad_input_is_refused(name):
    for row in (r for r in ROWS if r["function"] == name):
        error, ours = refusal(FUNCTIONS[name], row["argument"], eval(row["value"], SPACE))
        assert error is not None, f"{row}: accepted"
        assert ours, f"{row}: {type(error).__name__} {error}"
        assert row["argument"] in str(error) and row["names"] in str(error), f"{row}: {error}"


def test_every_argument_has_a_row():
    there = {(r["function"], r["argument"]) for r in ROWS}
    missing = {(name, a) for name, f in FUNCTIONS.items() for a in arguments(f)} - there
    assert not missing, f"no row for {sorted(missing)}: python {Path(__file__).name} proposes some"
    assert all(name in FUNCTIONS for name, _ in there)


BAD = ["None", "''", "'x y'", "-1", "0", "2.5", "nan", "inf", "True", "[]", "{}", "b'x'", "(1,)", "('a', 1)", "[None]",
       "torch.zeros(0)", "np.zeros((2, 2))", "object()", "10**400"]


def proposed(name, f):
    "Rows for the arguments of a function: at most four values each that its type refuses."
    for argument, hint in arguments(f).items():
        refused = []
        for text in BAD:
            try:
                if problem(eval(text, SPACE), hint) is not None: refused.append(text)
            except Exception: refused.append(text)
        first, rest = refused[:2], [t for t in refused[2:] if t in ("-1", "0", "nan", "2.5", "True", "[]", "''")]
        for text in (*first, *rest[:2]):
            error, words = refusal(f, argument, eval(text, SPACE))[0], in_words(hint)
            yield name, argument, text, words if words in str(error) else "expected"


if __name__ == "__main__":
    there = {(r["function"], r["argument"]) for r in ROWS}
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for name, f in FUNCTIONS.items(): writer.writerows(r for r in proposed(name, f) if (r[0], r[1]) not in there)
