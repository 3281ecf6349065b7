"""Which tests may end without having asserted anything, found by reading them: nothing runs here.

A test asserts by `assert`, by `pytest.raises`, `warns` or `fail`, by what is called `assert_...`, by a process
that is run with `check=True`, by an error that it turns into a failure, and by a function that does so on each of
its paths and is called for that alone, not for what it returns. What only tells a type checker that something
is there, or has a type, is no assertion.

A loop counts where what it goes through can be seen to hold something; before any other loop a test says that
it goes through something. A nested function counts where it is called, not where it stands.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent

Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor | ast.While
OF_PYTEST = {"raises", "warns", "fail", "deprecated_call"}
AS_LONG_AS_ITS_ARGUMENTS = {"enumerate", "sorted", "reversed", "list", "tuple", "set", "product", "dict"}

State = bool | None
"""True if each path to here has asserted; None where no path leads here."""


def complaints(path: Path, suite: Suite) -> list[str]:
    """What is wrong with the tests of one file: a line for each, which says what to do."""
    known, found = suite.known(path), []
    for function in _functions(suite.trees[path]):
        where = f"{path.name}:{function.lineno} {function.name}"
        if function.name.startswith("test_"):
            found += [f"{where}: {what}" for what in _of_test(function, known)]
        elif _is_fixture(function) and "request.param" in ast.unparse(function) and _skips(function):
            found.append(f"{where}: skips by its parameter; list the parameters that are valid")
    return found


def _of_test(function: Function, known: Known) -> Iterator[str]:
    for node in _own(function):
        if isinstance(node, ast.Return):
            yield f"returns at line {node.lineno}; parametrize the valid combinations, or make it two tests"
    for line in _skips(function):
        yield f"skips at line {line}; a case that can't run is not listed, what a machine lacks is said by a mark"
    reading = Reading(known)
    if reading.ends(function) is False:
        empty = f" (the loop at line {reading.may_be_empty[0]} may be empty)" if reading.may_be_empty else ""
        yield f"may end without an assertion{empty}"


class Known:
    """What the names in a file stand for: functions that assert, constants that hold something."""

    def __init__(self, asserting: Iterable[str] = (), filled: Iterable[str] = ()) -> None:
        self.asserting, self.filled = set(asserting), set(filled)

    def __len__(self) -> int:
        return len(self.asserting) + len(self.filled)

    def copy(self) -> Known:
        return Known(self.asserting, self.filled)


class Suite:
    """All files of tests below a folder, and what their names stand for."""

    def __init__(self, root: Path = TESTS) -> None:
        self.trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.py"))}
        self._modules = {".".join(path.relative_to(root).with_suffix("").parts): path for path in self.trees}
        self._known = {path: Known() for path in self.trees}
        while sum(self._learn(path) for path in self.trees):
            pass

    def known(self, path: Path) -> Known:
        """Also the fixtures of each conftest.py above it."""
        found = self._known[path].copy()
        for folder in path.parents:
            if folder / "conftest.py" in self._known:
                found.asserting |= self._known[folder / "conftest.py"].asserting
        return found

    def _learn(self, path: Path) -> int:
        """Learns what the names of one file stand for; returns how many are new."""
        known = self._known[path]
        before = len(known)
        for statement in self.trees[path].body:
            if isinstance(statement, ast.ImportFrom) and statement.module in self._modules:
                there = self._known[self._modules[statement.module]]
                names = {alias.name: alias.asname or alias.name for alias in statement.names}
                known.asserting |= {mine for name, mine in names.items() if name in there.asserting}
                known.filled |= {mine for name, mine in names.items() if name in there.filled}
            elif isinstance(statement, Function) and not statement.name.startswith("test_"):
                if _asserts(statement, known):
                    known.asserting.add(statement.name)
            else:
                _fill(statement, known)
        return len(known) - before


class Reading:
    """One function, read from top to bottom."""

    def __init__(self, known: Known) -> None:
        self.known = known.copy()
        self.may_be_empty: list[int] = []
        self._returned: list[State] = []
        self._left: list[list[State]] = []
        """The states in which each loop around is left, or begun anew."""

    def ends(self, function: Function) -> State:
        return _joined([self._block(function.body, False), *self._returned])

    def _block(self, statements: list[ast.stmt], state: State) -> State:
        for statement in statements:
            if state is None:
                break
            state = self._statement(statement, state)
        return state

    def _statement(self, statement: ast.stmt, state: bool) -> State:
        for kinds, read in self._kinds():
            if isinstance(statement, kinds):
                return read(statement, state)
        _fill(statement, self.known)
        if _ends_the_test(statement):
            return None
        return state or self._calls_for_assertions(statement) or self._asserts(statement)

    def _kinds(self) -> Iterator[tuple[tuple[type[ast.stmt], ...], Callable[..., State]]]:
        yield (ast.Assert,), lambda statement, state: state or not _narrows(statement.test)
        yield (ast.FunctionDef, ast.AsyncFunctionDef), self._nested
        yield (ast.ClassDef,), lambda statement, state: state
        yield (ast.Return,), self._return
        yield (ast.Raise,), lambda statement, state: None
        yield (ast.Continue, ast.Break), self._leave
        yield (ast.If,), self._if
        yield (ast.For, ast.AsyncFor, ast.While), self._loop
        yield (ast.With, ast.AsyncWith), self._with
        yield (ast.Try, ast.TryStar), self._try
        yield (ast.Match,), self._match

    def _nested(self, statement: Function, state: bool) -> State:
        if _asserts(statement, self.known):
            self.known.asserting.add(statement.name)
        return state

    def _return(self, statement: ast.Return, state: bool) -> State:
        self._returned.append(state or (statement.value is not None and self._asserts(statement.value)))
        return None

    def _leave(self, statement: ast.stmt, state: bool) -> State:
        self._left[-1].append(state)
        return None

    def _if(self, statement: ast.If, state: bool) -> State:
        state = state or self._asserts(statement.test) or _fails(statement.body)
        return _joined([self._block(statement.body, state), self._block(statement.orelse, state)])

    def _loop(self, statement: Loop, state: bool) -> State:
        what = statement.test if isinstance(statement, ast.While) else statement.iter
        state = state or self._asserts(what)
        self._left.append([])
        through = _joined([self._block(statement.body, state), *self._left[-1]])
        self._left.pop()
        if not state and through and not _filled(what, self.known):
            self.may_be_empty.append(statement.lineno)
        after = through if _filled(what, self.known) else state
        return self._block(statement.orelse, after) if after is not None else None

    def _with(self, statement: ast.With | ast.AsyncWith, state: bool) -> State:
        managers = [item.context_expr for item in statement.items]
        entered = state or any(self._asserts(manager) for manager in managers)
        after = self._block(statement.body, entered)
        names = {_name(manager) for manager in managers if isinstance(manager, ast.Call)}
        if "suppress" in names:
            return entered
        return entered if after is None and names & OF_PYTEST else after

    def _try(self, statement: ast.Try, state: bool) -> State:
        state = state or any(_fails(handler.body) for handler in statement.handlers)
        after = self._block([*statement.body, *statement.orelse], state)
        after = _joined([after, *(self._block(handler.body, state) for handler in statement.handlers)])
        last = self._block(statement.finalbody, bool(after))
        return None if after is None or last is None else last

    def _match(self, statement: ast.Match, state: bool) -> State:
        last = statement.cases[-1]
        all_else = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None
        ends = [self._block(case.body, state) for case in statement.cases]
        return _joined(ends if all_else else [*ends, state])

    def _calls_for_assertions(self, statement: ast.stmt) -> bool:
        call = statement.value if isinstance(statement, ast.Expr) else None
        by_name = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        return by_name and _name(call) in self.known.asserting

    def _asserts(self, node: ast.AST) -> bool:
        for call in _calls(node):
            name = _name(call)
            if name.startswith("assert") or name in OF_PYTEST:
                return True
            if any(word.arg == "check" and ast.unparse(word.value) == "True" for word in call.keywords):
                return True
        return False


def _asserts(function: Function, known: Known) -> bool:
    """True if a call asserts; of a fixture, if a call of the function that it returns does."""
    if not _is_fixture(function):
        return bool(Reading(known).ends(function))
    given = {ast.unparse(n.value) for n in _own(function) if isinstance(n, ast.Return | ast.Yield) and n.value}
    nested = [inner for inner in function.body if isinstance(inner, Function) and inner.name in given]
    return any(_asserts(inner, known) for inner in nested)


def _fill(statement: ast.stmt, known: Known) -> None:
    """Keeps the names that an assignment binds to a container with items, or to a number above 0."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return
    for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
        pairs = [(target, statement.value)]
        if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
            pairs = list(zip(target.elts, statement.value.elts, strict=False))
        for place, value in pairs:
            if isinstance(place, ast.Name):
                change = known.filled.add if _filled(value, known) else known.filled.discard
                change(place.id)


def _filled(node: ast.expr, known: Known) -> bool:
    """True if the expression can be seen to be a container with items, or a number above 0."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(not isinstance(item, ast.Starred) or _filled(item.value, known) for item in node.elts)
    if isinstance(node, ast.Dict):
        return any(key is not None for key in node.keys)
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.Name):
        return node.id in known.filled
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return all(_filled(each.iter, known) and not each.ifs for each in node.generators)
    if isinstance(node, ast.IfExp):
        return _filled(node.body, known) and _filled(node.orelse, known)
    return isinstance(node, ast.Call) and _gives_something(node, known)


def _gives_something(call: ast.Call, known: Known) -> bool:
    name, filled = _name(call), [_filled(argument, known) for argument in call.args]
    if name in ("items", "keys", "values") and isinstance(call.func, ast.Attribute):
        return _filled(call.func.value, known)
    if name == "zip":  # strict: all are as long as the one that is seen
        return any(filled) if any(word.arg == "strict" for word in call.keywords) else all(filled)
    if name == "range":
        if all(isinstance(argument, ast.Constant) for argument in call.args):
            return bool(range(*(ast.literal_eval(argument) for argument in call.args)))
        return len(filled) == 1 and filled[0]
    return name in AS_LONG_AS_ITS_ARGUMENTS and bool(filled) and all(filled)


def _narrows(test: ast.expr) -> bool:
    """True for `isinstance(...)` and `... is not None`, which tell a type checker what is known already."""
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and _name(test) == "isinstance"


def _fails(body: list[ast.stmt]) -> bool:
    """True if these lines end by failing the test."""
    last = body[-1]
    if isinstance(last, ast.Raise) and last.exc is not None:
        return ast.unparse(last.exc).startswith("AssertionError")
    return isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and _name(last.value) == "fail"


def _ends_the_test(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return (
        isinstance(call, ast.Call)
        and _name(call) in ("skip", "xfail", "fail")
        and ast.unparse(call).startswith("pytest.")
    )


def _skips(function: Function) -> list[int]:
    calls = [call for call in _calls(function) if _name(call) in ("skip", "xfail")]
    return [call.lineno for call in calls if ast.unparse(call.func).startswith("pytest.")]


def _functions(tree: ast.Module) -> Iterator[Function]:
    """Of the module, and of classes of tests."""
    for statement in tree.body:
        if isinstance(statement, Function):
            yield statement
        elif isinstance(statement, ast.ClassDef):
            yield from (inner for inner in statement.body if isinstance(inner, Function))


def _is_fixture(function: Function) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in function.decorator_list)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below, without those of functions and classes within: what runs where this runs."""
    waiting = [node]
    while waiting:
        for inner in ast.iter_child_nodes(waiting.pop()):
            if not isinstance(inner, Function | ast.Lambda | ast.ClassDef):
                waiting.append(inner)
                yield inner


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    yield from (inner for inner in (node, *_own(node)) if isinstance(inner, ast.Call))


def _name(call: ast.Call) -> str:
    """The last part of what is called."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _joined(states: Iterable[State]) -> State:
    live = [state for state in states if state is not None]
    return all(live) if live else None
