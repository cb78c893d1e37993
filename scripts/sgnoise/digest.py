"""A digest of the code that a script runs: what decides whether a result is out of date.

Snakemake compares the modification time of a script alone: it misses an edited module that the
script imports, and finds every script changed in a fresh clone. The digest here covers every
definition that the script can reach, over all modules of this project, and the versions of Python
and of the libraries that these use.

**What counts.** Of a script and of each module that it imports, directly or not: the statements
that do more at import than to give a value a name. Of the rest, what these name, and what that
names in turn: functions and classes as a whole, every statement that binds a name. A module that is
used otherwise than by ``module.name`` (passed on, ``getattr``) counts as a whole, as does one of
which a name is wanted that is not found in it. In doubt, more counts: a result out of date is worse
than a job too many.

**What does not.** Comments, docstrings and layout; ``if TYPE_CHECKING``; names in annotations that
are never evaluated; the words of messages: texts in ``raise``, in warnings, in calls of a logger,
of ``sgnoise.messages`` and of ``sgnoise.progress``, unless code that is reached reads the message
of an error that it catches, or a line of a log, after which the code goes on, is made of what may
be an iterator; and the few modules of ``NO_RESULT``.

It is a digest of syntax trees, which differ between versions of Python: so does the digest.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from sgnoise.files import atomic_path


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


# Modules whose code changes no result, so that an edit of theirs reruns nothing: what a person is
# told, how a job is logged and started, how a file gets its final name, and `fit.plot()`, which no
# script calls. What is put here must neither compute a number nor choose what is in a file.
NO_RESULT = frozenset(
    f"sgnoise.{name}" for name in ("files", "fit_figure", "jobs", "messages", "progress")
)

# Of these, the modules whose functions take words: the texts in calls of them count no more.
_WORDS = ("sgnoise.messages", "sgnoise.progress")

# Import names that differ from the name of the distribution.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "open_clip": "open-clip-torch",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}

# The workflow engine and the progress bar: a new release of either changes no number.
_IGNORED_LIBRARIES = frozenset({"snakemake", "tqdm"})

# Calls that have no effect but their value: all functions of some modules, single functions by full
# name, and methods by name alone. What is missing here counts more often than it must.
_PURE_MODULES = frozenset(
    {"abc", "builtins", "collections", "contextlib", "dataclasses", "enum", "math", "typing"}
)
_PURE = _set(
    """
    functools.cache functools.cached_property functools.lru_cache functools.partial functools.wraps
    importlib.metadata.version importlib.util.find_spec itertools.chain itertools.product
    logging.getLogger operator.attrgetter operator.itemgetter pathlib.Path re.compile
    numba.njit numba.float32 numba.int32 numba.uint32 numba.vectorize
    numpy.arange numpy.array numpy.float32 numpy.float64 numpy.int32 numpy.int64 numpy.linspace
    torch.device torch.inference_mode torch.no_grad triton.jit
    """
)
_PURE_METHODS = _set(
    """
    as_posix endswith format getter items join keys lower maketrans numel partition removeprefix
    removesuffix rpartition setter split startswith strip tolist upper values
    """
)
_IMPURE_BUILTINS = _set(
    """
    __import__ breakpoint compile delattr eval exec exit filter getattr globals input iter locals
    map next open print quit setattr super vars
    """
)

# Builtins that go through their arguments.
_ITERATING = _set("all any dict enumerate frozenset list max min reversed set sorted sum tuple zip")

_LOGGING = frozenset({"critical", "debug", "error", "exception", "info", "log", "warning"})

# Attributes of errors that are no words of ours.
_FACTS = _set(
    "HTTPError.code HTTPError.headers ImportError.name ModuleNotFoundError.name OSError.errno"
)

# Names of what reads messages and docstrings otherwise than by the name of an error.
_READERS = _set(
    """
    __doc__ exc_info filterwarnings format_exc getdoc getsource print_exc
    """
)

# What code reaches by these is not to be seen from its text.
_NAMESPACES = frozenset({"eval", "exec", "globals", "locals", "vars"})
_LOADERS = frozenset({"__import__", "eval", "exec", "importlib", "pkgutil", "runpy"})
_BENIGN = frozenset({"__doc__", "__file__", "__name__", "__path__", "__version__"})

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

# Names with a full stop between them; the first may be the full name of a module.
Chain = tuple[str, ...]


@cache
def library_version(name: str) -> str:
    """The release of a library, by its import name, or ``absent``.

    Of one that has no release by that name, such as a module in ``PYTHONPATH``, and of one that is
    worked on (``pip install --editable``), the content of its Python files.
    """
    try:
        found = distribution(_DISTRIBUTIONS.get(name, name))
    except PackageNotFoundError:
        files = list(_installed(name))
        return _content(files) if files else "absent"
    # The local part tells the build (CPU or a CUDA version), not the release.
    release = found.version.split("+", maxsplit=1)[0]
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return release + _content(_installed(name))
    return release


class _Import(NamedTuple):
    """A name that an import binds: by which statement, and the full name of what it stands for."""

    statement: int
    name: str
    target: Chain


class _Statement:
    """One statement at the top of a module.

    Attributes:
        node: its syntax tree, without what does not count.
        uses: what it names, by the names of its module: chains as ``("store", "write_table")``.
        absolute: the same by full name, of what is imported within functions.
        imports: what is imported within it, by full name.
        reads: whether it reads messages of errors or docstrings.
    """

    def __init__(self, module: _Module, node: ast.stmt) -> None:
        self.node = node
        self.uses: set[Chain] = set()
        self.absolute: set[Chain] = set()
        self.imports: set[str] = set()
        self._aliases: dict[str, set[Chain]] = {}
        named = set()
        for part in ast.walk(node):
            if isinstance(part, ast.Import | ast.ImportFrom):
                origin = [module.origin(part)] if isinstance(part, ast.ImportFrom) else []
                for alias in part.names:
                    named |= {*alias.name.split(".")}
                    self.imports.add(".".join([*origin, alias.name]))
                for name, target in module.imported(part):
                    self._aliases.setdefault(name, set()).add(target)
            elif isinstance(part, ast.Name):
                named.add(part.id)
            elif isinstance(part, ast.Attribute):
                named.add(part.attr)
        self.reads = bool(named & _READERS) or any(
            _reads_error(part) or _records_warnings(part) for part in ast.walk(node)
        )
        self._read(node, frozenset())

    @cached_property
    def text(self) -> str:
        """All of it but its layout."""
        return ast.dump(self.node)

    def _read(self, node: ast.AST, local: frozenset[str]) -> None:
        """Note what ``node`` names; ``local``: names that the functions around it bind."""
        if isinstance(node, ast.Name | ast.Attribute):
            start, rest = _chain(node)
            if isinstance(start, ast.Name):
                self.absolute |= {(*one, *rest) for one in self._aliases.get(start.id, ())}
                self.uses |= {(start.id, *rest)} if start.id not in local else set()
            else:
                self._read(start, local)
        elif isinstance(node, _FUNCTIONS):
            body = node.body if isinstance(node.body, list) else [node.body]
            outside = [part for part in ast.iter_child_nodes(node) if part not in body]
            bound = {name for part in _within([node.args, *body]) for name in _names_bound(part)}
            declared = [part.names for part in _within(body) if isinstance(part, ast.Global)]
            elsewhere = {*chain.from_iterable(declared)}
            for part in outside:
                self._read(part, local)
            for part in body:
                self._read(part, (local | bound) - elsewhere)
        else:
            for part in ast.iter_child_nodes(node):
                self._read(part, local)


class _Module:
    """One file of Python code: its statements, and what each names and binds.

    Attributes:
        name: its full name.
        is_package: whether it is the ``__init__`` of one.
        statements: those at its top.
        binds: for each name the statements, or imports in them, that bind it.
        acts: the numbers of the statements that do more at import than to bind names.
    """

    def __init__(self, name: str, file: Path, project: Project) -> None:
        self.name = name
        self.file = file
        self.is_package = file.stem == "__init__"
        self._is_ours = project.has
        tree = ast.parse(file.read_bytes(), filename=str(file))
        body = [
            part
            for node in tree.body
            for part in (node.orelse if _is_type_checking(node) else [node])
        ]
        self.lazy_annotations = any(
            isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in body
        )
        self._counts = Counter(name for node in ast.walk(tree) for name in _names_bound(node))
        self.binds: dict[str, list[int | _Import]] = {}
        for index, node in enumerate(body):
            for part in _within([node]):
                if isinstance(part, ast.Import | ast.ImportFrom):
                    for bound, target in self.imported(part):
                        self.binds.setdefault(bound, []).append(_Import(index, bound, target))
                elif not isinstance(part, ast.alias):
                    for bound in _names_bound(part):
                        self.binds.setdefault(bound, []).append(index)
        self._nodes = body
        self.acts = [index for index, node in enumerate(body) if self._acts(node)]
        stripped = _Stripped(self, project.literally)
        self.statements = [_Statement(self, stripped.visit(node) or ast.Pass()) for node in body]

    def origin(self, node: ast.ImportFrom) -> str:
        """The full name of the module that a ``from`` names."""
        own = self.name.split(".")
        packages = own[: len(own) - node.level + self.is_package] if node.level else []
        return ".".join([*packages, *([node.module] if node.module else [])])

    def imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Chain]]:
        """The names that an import binds, and what each stands for."""
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                names = () if alias.name == "*" else (alias.name,)
                yield alias.asname or alias.name, (self.origin(node), *names)
            else:
                # `import a.b` binds a, and makes b an attribute of it.
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or name, (name,)

    def meaning(self, node: ast.expr) -> str:
        """The full name of what ``a.b.c`` stands for wherever it is in this module; else nothing.

        Nothing as well if anything else in the module has the name ``a``.
        """
        start, rest = _chain(node)
        if not isinstance(start, ast.Name):
            return ""
        bound = self.binds.get(start.id, [])
        if not self._counts[start.id] and hasattr(builtins, start.id):
            return ".".join(["builtins", start.id, *rest])
        if self._counts[start.id] == 1 and bound:
            first = bound[0].target if isinstance(bound[0], _Import) else (self.name, start.id)
            return ".".join([*first, *rest])
        return ""

    def _definition(self, name: str) -> ast.stmt | None:
        """The statement that defines what has that full name, if it is of this module."""
        own, _, name = name.rpartition(".")
        bound = self.binds.get(name, [])
        if own != self.name or len(bound) != 1 or isinstance(bound[0], _Import):
            return None
        return self._nodes[bound[0]]

    def is_log(self, call: ast.Call) -> bool:
        """Whether a call is one of a logger."""
        if not (isinstance(call.func, ast.Attribute) and call.func.attr in _LOGGING):
            return False
        name = self.meaning(call.func.value)
        match self._definition(name):
            case ast.Assign(value=ast.Call(func=function)):
                return self.meaning(function) == "logging.getLogger"
        return name in ("logging", "sgnoise.progress.logger")

    def is_quiet(self, node: ast.AST | None) -> bool:
        """Whether an expression has no effect but its value, as far as this file says."""
        match node:
            case None | ast.Lambda():
                return True
            case ast.NamedExpr() | ast.Await() | ast.Yield() | ast.YieldFrom():
                return False
            case ast.keyword(arg="key" | "default_factory", value=value):
                # It is called as well, at once or when an object is made.
                return isinstance(value, ast.Name) and self._is_pure(value)
            case ast.Call(func=function) if not self._is_pure(function):
                return False
        return all(map(self.is_quiet, ast.iter_child_nodes(node)))

    def _is_pure(self, function: ast.expr) -> bool:
        """Whether a call of ``function`` has no effect but its value, as far as this file says."""
        name = self.meaning(function)
        module, _, last = name.rpartition(".")
        if module in _PURE_MODULES:
            return module != "builtins" or last not in _IMPURE_BUILTINS
        if name in _PURE or takes_words(name):
            return True
        match self._definition(name):
            case ast.ClassDef() as definition:
                return self._is_plain(definition)
            case ast.Assign(value=ast.Call(func=made)):
                # A decorator with its options: `compiled = njit(cache=True)`; no `partial(act)`.
                return self._is_pure(made) and not self.meaning(made).startswith("functools.")
        method = isinstance(function, ast.Attribute) and function.attr in _PURE_METHODS
        return method and not (module and self._is_ours(module))

    def _is_decorated(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        """Whether a decorator may do more than to give back what it takes, in another form."""
        calls = [part.func if isinstance(part, ast.Call) else part for part in node.decorator_list]
        quiet = all(map(self.is_quiet, node.decorator_list))
        return not (quiet and all(map(self._is_pure, calls)))

    def _is_plain(self, node: ast.ClassDef) -> bool:
        """Whether to make an object of a class does nothing but keep its arguments."""
        methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
        return (
            all(self.meaning(base) == "typing.NamedTuple" for base in node.bases)
            and not any(name.startswith("__") for name in methods)
            and not self._acts(node)
        )

    def _acts(self, node: ast.stmt) -> bool:
        """Whether a statement does more at import than to bind names."""
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._is_decorated(node) or not self.is_quiet(node.args)
            case ast.ClassDef():
                # A base class of this project may act on its subclasses.
                bases = [self.meaning(base).partition(".")[0] for base in node.bases]
                return (
                    bool(node.keywords)
                    or not all(bases)
                    or any(map(self._is_ours, bases))
                    or self._is_decorated(node)
                    or any(map(self._acts, node.body))
                )
            case ast.Assign(targets=[ast.Name() | ast.Tuple()]) | ast.AnnAssign(target=ast.Name()):
                parts = _within(node.targets if isinstance(node, ast.Assign) else [])
                plain = (ast.Name, ast.Tuple, ast.expr_context)
                return not all(isinstance(part, plain) for part in parts) or not self.is_quiet(node)
        return not isinstance(node, ast.Import | ast.ImportFrom | ast.Pass) and not _is_text(node)


class _Stripped(ast.NodeTransformer):
    """Takes out of the statements of a module what does not count; ``literally``: no words."""

    def __init__(self, module: _Module, literally: bool) -> None:
        self._module = module
        self._literally = literally

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
            node.returns = self._annotation(node.returns)
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            node.annotation = self._annotation(node.annotation)
        if not self._literally:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    node.body = node.body[_is_text(node.body[0]) :]
                case ast.Raise(exc=ast.Call() as call):
                    self._strip(call)
                case ast.Expr(value=ast.Call() as call) if self._module.is_log(
                    call
                ) and not _uses_up(call):
                    if all(map(self._module.is_quiet, (*call.args, *call.keywords))):
                        return None
                    self._strip(call)
                case ast.Call(func=function) if takes_words(
                    self._module.meaning(function)
                ) and not _uses_up(node):
                    self._strip(node)
        return self.generic_visit(node)

    def _annotation(self, node: ast.expr) -> ast.expr:
        """An annotation that is never evaluated is a text and names nothing."""
        return ast.Constant(ast.dump(node)) if self._module.lazy_annotations else node

    def _strip(self, call: ast.Call) -> None:
        """Take out the words that a call is given, if they are put together without any effect."""
        call.args = [self._stripped(part) for part in call.args]
        for keyword in call.keywords:
            keyword.value = self._stripped(keyword.value)
        if not call.keywords and all(map(_is_nothing, call.args)):
            call.args = []  # one text for two, or none

    def _stripped(self, node: ast.expr) -> ast.expr:
        words = self._is_words(node) and self._module.is_quiet(node)
        return ast.Constant("") if words else node

    def _is_words(self, node: ast.expr) -> bool:
        """Whether an expression is text for a person."""
        match node:
            case ast.Constant(value=str()) | ast.JoinedStr():
                return True
            case (
                ast.BinOp(left=text)
                | ast.Call(func=ast.Attribute(value=text, attr="join" | "format"))
            ):
                return self._is_words(text)
            case ast.IfExp(body=one, orelse=other):
                return self._is_words(one) and self._is_words(other)
            case ast.Call(func=function):
                return takes_words(self._module.meaning(function))
        return False


def takes_words(name: str) -> bool:
    """Whether the function of that full name takes words for a person."""
    return name == "warnings.warn" or name.rpartition(".")[0] in _WORDS


def _chain(node: ast.AST) -> tuple[ast.AST, Chain]:
    """What ``a.b.c`` starts with, and the names that follow."""
    rest: list[str] = []
    while isinstance(node, ast.Attribute):
        rest.insert(0, node.attr)
        node = node.value
    return node, tuple(rest)


def _within(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """``nodes`` and their parts, but none that has names of its own."""
    for node in nodes:
        yield node
        if not isinstance(node, _SCOPES):
            yield from _within(ast.iter_child_nodes(node))


def _names_bound(node: ast.AST) -> list[str]:
    """The names that a node binds by itself."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
            return [name]
        case ast.alias():
            return [node.asname or node.name.partition(".")[0]]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return [name]
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def _records_warnings(node: ast.AST) -> bool:
    """Whether ``catch_warnings`` is called to look at the warnings, not only to keep filters."""
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] == "catch_warnings"
        and bool(node.args or node.keywords)
    )


def _asks_no_words(node: ast.AST) -> bool:
    """Whether a call asks an error for its kind, or for its first line, which is for the log."""
    asked = ("isinstance", "messages.first_line")
    return isinstance(node, ast.Call) and ast.unparse(node.func) in asked


def _reads_error(node: ast.AST) -> bool:
    """Whether a handler uses the error that it catches, but to raise another or for its facts."""
    if not isinstance(node, ast.ExceptHandler) or node.name is None or node.type is None:
        return False
    types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    names = [ast.unparse(part).rpartition(".")[2] for part in types]
    passed: set[ast.AST] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Raise) or _asks_no_words(part):
            passed |= {*ast.walk(part)}
        if isinstance(part, ast.Attribute) and {f"{name}.{part.attr}" for name in names} <= _FACTS:
            passed.add(part.value)
    used = (part for part in ast.walk(node) if isinstance(part, ast.Name) and part.id == node.name)
    return any(part not in passed for part in used)


def _uses_up(node: ast.AST) -> bool:
    """Whether an expression goes through something that may be an iterator, and leaves it empty.

    A call makes its iterator anew; a name, an attribute or an item may be one that is still needed.
    """
    for part in ast.walk(node):
        match part:
            case ast.Call(func=ast.Name(id=name)) if name in _ITERATING:
                gone_through = part.args
            case ast.Call(func=ast.Attribute(attr="join")):
                gone_through = part.args
            case ast.comprehension(iter=one) | ast.Starred(value=one):
                gone_through = [one]
            case _:
                continue
        if any(isinstance(one, ast.Name | ast.Attribute | ast.Subscript) for one in gone_through):
            return True
    return False


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a constant and no more, as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_nothing(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == ""


def _is_type_checking(node: ast.stmt) -> TypeGuard[ast.If]:
    return (
        isinstance(node, ast.If)
        and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING"
    )


def _is_main(node: ast.AST) -> bool:
    """Whether this is ``if __name__ == "__main__":``."""
    if not isinstance(node, ast.If) or node.orelse:
        return False
    return ast.unparse(node.test) == "__name__ == '__main__'"


class Project:
    """The Python code below some folders, of which each module is read once.

    Args:
        folders: where modules are looked for, in that order.
        literally: whether docstrings and the words of messages count.
    """

    def __init__(self, *folders: Path, literally: bool = False) -> None:
        self._folders = folders
        self._modules: dict[str, _Module | None] = {}
        self.literally = literally

    def digest(self, script: str) -> str:
        """The digest of a script: 16 hexadecimal digits.

        Args:
            script: a file beside the modules, such as ``pretrain.py``.

        Raises:
            FileNotFoundError: there is no such script.
            SyntaxError: a file is no Python.
        """
        return self.reach(script).digest()

    def reach(self, script: str, name: str | None = None) -> Reached:
        """What a script reaches, or ``name`` in a module.

        Raises:
            FileNotFoundError: there is no such script.
            SyntaxError: a file is no Python.
        """
        module = self.module(script.removesuffix(".py"))
        if module is None:
            raise FileNotFoundError(f"there is no {script} in {self._folders[0]}")
        reached = Reached(self, module, name)
        if reached.reads and not self.literally:
            return self._literal.reach(script, name)
        return reached

    @cached_property
    def _literal(self) -> Project:
        return Project(*self._folders, literally=True)

    def file(self, name: str) -> Path | None:
        """The file of a module, by its full name; None if the project has none of that name."""
        for folder in self._folders:
            base = folder.joinpath(*name.split("."))
            for candidate in (base / "__init__.py", base.with_name(f"{base.name}.py")):
                if candidate.is_file():
                    return candidate
        return None

    def module(self, name: str) -> _Module | None:
        """A module by its full name; None if the project has none of that name."""
        if name not in self._modules:
            file = self.file(name)
            self._modules[name] = _Module(name, file, self) if file is not None else None
        return self._modules[name]

    @cache  # noqa: B019 - a project lives as long as the process
    def has(self, name: str) -> bool:
        """Whether a module or package is one of the project, by its full name."""
        parts = name.split(".")
        return self.file(name) is not None or any(
            any(folder.joinpath(*parts).glob("*.py")) for folder in self._folders
        )


class Reached:
    """What is reached from a script, or from a name in a module.

    Attributes:
        libraries: import names of the libraries that are used.
        loads: the modules that import what their text does not name.
        reads: whether any code of it reads messages of errors or docstrings.
    """

    def __init__(self, project: Project, module: _Module, name: str | None) -> None:
        self._project = project
        self._statements: dict[_Module, set[int]] = {}
        self._imports: dict[_Module, set[_Import]] = {}
        self._started: set[_Module] = set()
        self._whole: set[_Module] = set()
        self._looked_up: set[tuple[_Module, Chain]] = set()
        self._waiting: list[tuple[_Module, _Statement]] = []
        self.libraries: set[str] = set()
        self.loads: set[str] = set()
        self.reads = False
        self._start(module, as_script=name is None)
        if name is not None:
            self._look_up(module, (name,))
        while self._waiting:
            module, statement = self._waiting.pop()
            self.reads |= statement.reads
            for names in statement.uses:
                self._use(module, names)
            for names in statement.absolute:
                self._follow(module, names)
            for imported in statement.imports:
                self._import(module, imported)

    def definitions(self) -> dict[str, list[str]]:
        """The names of what is reached, by module: for a person, and for tests."""
        return {
            module.name: sorted(name for name, where in module.binds.items() if indices & {*where})
            for module, indices in sorted(self._statements.items(), key=lambda item: item[0].name)
        }

    def digest(self) -> str:
        """16 hexadecimal digits."""
        return with_libraries(self.code(), self.libraries)

    def code(self) -> str:
        """A digest of the project's code alone."""
        digest = hashlib.sha256()
        for module in sorted({*self._statements, *self._imports}, key=lambda module: module.name):
            imports = [(*found[:2], str(found.target)) for found in self._imports.get(module, ())]
            indices = self._statements.get(module, ())
            texts = [(index, "", module.statements[index].text) for index in indices]
            digest.update(f"\0{module.name}\0".encode())
            for _, name, text in sorted(imports + texts):
                digest.update(f"{name} {text}\n".encode())
        return digest.hexdigest()

    def _add(self, module: _Module, index: int) -> None:
        """A statement counts."""
        statements = self._statements.setdefault(module, set())
        if index not in statements:
            statements.add(index)
            self._waiting.append((module, module.statements[index]))

    def _start(self, module: _Module, *, as_script: bool = False) -> None:
        """What runs when a module is imported, or run as a script."""
        if module.name in NO_RESULT or module in self._started:
            return
        self._started.add(module)
        for index in module.acts:
            if as_script or not _is_main(module.statements[index].node):
                self._add(module, index)
        for statement in module.statements:
            if isinstance(statement.node, ast.Import | ast.ImportFrom):
                for name in statement.imports:
                    self._import(module, name)
        if "*" in module.binds:
            self._look_up(module, ("*",))

    def _import(self, module: _Module, name: str) -> None:
        """Import a module or library for ``module``, and before it the packages that it is in."""
        top, *rest = name.split(".")
        if top in _LOADERS:
            self.loads.add(module.name)
        if not self._project.has(top):
            if top not in sys.stdlib_module_names and top not in _IGNORED_LIBRARIES:
                self.libraries.add(top)
            return
        for depth in range(len(rest) + 1):
            imported = self._project.module(".".join([top, *rest[:depth]]))
            if imported is not None:
                self._start(imported)

    def _use(self, module: _Module, names: Chain) -> None:
        """What ``a.b.c`` stands for in the code of a module."""
        name = names[0]
        if name in module.binds:
            self._look_up(module, names)
        elif name in _NAMESPACES:
            self._add_whole(module)
        if name in _LOADERS:
            self.loads.add(module.name)

    def _follow(self, module: _Module, names: Chain) -> None:
        """What a full name stands for, in the code of ``module``."""
        self._import(module, names[0])
        if names[:2] == ("sys", "modules"):
            self._add_whole(module)
            self.loads.add(module.name)
        for depth in range(1, len(names) + 1):
            found = self._project.module(".".join(names[:depth]))
            if found is not None:
                self._add_value(found, names[depth:])
                return

    def _add_value(self, module: _Module, rest: Chain) -> None:
        """What ``module.a.b`` stands for; the whole module where it is used without a name."""
        if module.name in NO_RESULT:
            return
        self._start(module)
        if rest:
            self._look_up(module, rest)
        else:
            self._add_whole(module)

    def _look_up(self, module: _Module, names: Chain) -> None:
        """What ``module.a.b.c`` stands for."""
        if (module, names) in self._looked_up:
            return
        self._looked_up.add((module, names))
        name, rest = names[0], names[1:]
        found = module.binds.get(name, [])
        for binding in found:
            if isinstance(binding, int):
                self._add(module, binding)
            else:
                self._imports.setdefault(module, set()).add(binding)
                self._follow(module, (*binding.target, *rest))
        part = self._project.module(f"{module.name}.{name}") if module.is_package else None
        if part is not None:
            self._add_value(part, rest)
        elif not found and name not in _BENIGN:
            self._add_whole(module)

    def _add_whole(self, module: _Module) -> None:
        """Everything in a module, and in a package."""
        if module in self._whole or module.name in NO_RESULT:
            return
        self._whole.add(module)
        self._start(module)
        for index, statement in enumerate(module.statements):
            if not _is_main(statement.node):
                self._add(module, index)
        for name in module.binds:
            self._look_up(module, (name,))
        for path in module.file.parent.glob("*") if module.is_package else []:
            part = self._project.module(f"{module.name}.{path.stem}")
            if part is not None:
                self._add_whole(part)


def with_libraries(code: str, libraries: Iterable[str]) -> str:
    """The digest of some code, of the version of Python and of the libraries that it uses."""
    python = f"python=={sys.version_info.major}.{sys.version_info.minor}"
    texts = [code, python, *(f"{name}=={library_version(name)}" for name in sorted(libraries))]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


class Scripts:
    """The digests of the scripts in a folder, remembered while no file in it changes.

    To read 14,000 lines of Python takes half a second, which each call of the workflow would pay.

    Args:
        folder: of the scripts and of the library.
        memory: JSON file for what is remembered. Without it, all is read again.
    """

    def __init__(self, folder: Path, memory: Path) -> None:
        self._project = Project(folder)
        self._memory = memory
        everything = hashlib.sha256(repr(sys.version_info).encode())
        for file in sorted(folder.rglob("*.py")):
            everything.update(f"\0{file.relative_to(folder)}\0".encode() + file.read_bytes())
        self._key = everything.hexdigest()
        self._found: dict[str, tuple[str, list[str]]] = {}
        try:
            known = json.loads(memory.read_text(encoding="utf-8"))
            if known["key"] == self._key:
                self._found = known["scripts"]
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def digest(self, script: str) -> str:
        """As ``Project.digest``."""
        if script not in self._found:
            reached = self._project.reach(script)
            self._found[script] = reached.code(), sorted(reached.libraries)
            text = json.dumps({"key": self._key, "scripts": self._found})
            with suppress(OSError), atomic_path(self._memory) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return with_libraries(*self._found[script])


def network_digest(name: str, folder: Path, library: Path) -> str:
    """The digest of a network of the user's own, ``module:function``: 16 hexadecimal digits.

    A module in ``folder`` counts as far as the function reaches, with all that it imports from
    there. If any of that imports what its text does not name (``importlib``, ``exec``), every
    Python file below ``folder`` counts. Of an installed package every file counts. Other files that
    a network reads, such as a table of sizes, are not seen.

    Args:
        name: as in the settings, such as ``nets.resnet:build``.
        folder: where the workflow runs.
        library: the folder of this library.

    Raises:
        FileNotFoundError: there is no such module.
        SyntaxError: a file is no Python.
    """
    module_name, _, function = name.partition(":")
    project = Project(folder, library)
    if project.module(module_name) is None:
        files = list(_installed(module_name))
        if not files:
            where = folder.resolve().joinpath(*module_name.split("."))
            raise FileNotFoundError(
                f"there is no {where}.py, no {where}/__init__.py, and no installed package "
                f"'{module_name.partition('.')[0]}'"
            )
        return _content(files)
    reached = project.reach(module_name, function)
    digest = reached.digest()
    if any(not loading.startswith(f"{__package__}.") for loading in reached.loads):
        digest += _content(_python_files(folder, library))
    return hashlib.sha256(digest.encode()).hexdigest()[:16]


def _installed(module: str) -> Iterator[Path]:
    """The files of the installed package that has a module; it is not imported."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is not None:
        for folder in spec.submodule_search_locations or []:
            yield from sorted(Path(folder).rglob("*.py"))
        if spec.origin is not None and not spec.submodule_search_locations:
            yield Path(spec.origin)


def _python_files(folder: Path, library: Path) -> Iterator[Path]:
    """The Python files below a folder, apart from results, environments and the library."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            yield path
        elif path.is_dir() and not (
            path.name.startswith(".")
            or path.name == "results"
            or (path / "pyvenv.cfg").exists()
            or path.samefile(library)
        ):
            yield from _python_files(path, library)


def _content(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
