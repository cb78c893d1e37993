"""A digest of the code that a script runs: what decides whether a result is out of date.

Snakemake compares the modification time of a script alone: it misses an edited module that the
script imports, and finds every script changed in a fresh clone. The digest here covers every
definition that the script can reach, over all modules of this project, and the versions of the
libraries that these use.

**What counts.** The statements of a script that run when it starts, and of each module that it
imports, directly or not, the statements that do more at import than to give a value a name: all but
definitions, imports, and assignments of plain values. Of the rest, what these name, and what that
names in turn: functions and classes as a whole, with their decorators, defaults and bases; every
statement that binds a name. What a method imports by itself (``fit.plot()`` the drawing) counts
where code that is reached has the name of the method after a full stop or as a text. A module that
is used otherwise than by ``module.name`` (passed on, ``getattr``) counts as a whole, as does one of
which a name is wanted that is not found in it; a package that makes its names on demand
(``__getattr__``) says in its stub, ``__init__.pyi``, where they come from. In doubt, more counts: a
result out of date is worse than a job too many.

**What does not.** Comments, docstrings and layout; ``if TYPE_CHECKING``; annotations that are never
evaluated; the words of messages: texts in ``raise``, in warnings, in calls of a logger, of
``sgnoise.messages`` and of ``sgnoise.progress``, unless code that is reached reads the message of
an error that it catches; and the few modules of ``NO_RESULT``.

The digest is one of text, not of a syntax tree: the same under every version of Python, in every
clone and folder.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import json
import keyword
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sgnoise.files import atomic_path

# Modules whose code changes no result, so that an edit of theirs reruns nothing: what a person is
# told, how a job is logged and started, and how a file gets its final name. What is put here must
# neither compute a number nor choose what is in a file.
NO_RESULT = frozenset({"sgnoise.files", "sgnoise.jobs", "sgnoise.messages", "sgnoise.progress"})

# Of these, the modules whose functions take words: the texts in calls of them count no more.
_WORDS = frozenset({"sgnoise.messages", "sgnoise.progress"})

# Import names that differ from the name of the distribution.
_DISTRIBUTIONS = {"open_clip": "open-clip-torch", "sklearn": "scikit-learn", "yaml": "pyyaml"}

# The workflow engine and the progress bar: a new release of either changes no number.
_IGNORED_LIBRARIES = frozenset({"snakemake", "tqdm"})

# Calls at import that have no effect but their value. A name that ends in a full stop stands for
# all that a module has.
_PURE = (
    *("abc.", "collections.namedtuple", "contextlib.", "dataclasses.", "enum.", "math.", "typing."),
    *(
        f"functools.{name}"
        for name in ("cache", "cached_property", "lru_cache", "partial", "wraps")
    ),
    *("importlib.metadata.version", "importlib.util.find_spec", "itertools.chain", "re.compile"),
    *("itertools.product", "logging.getLogger", "operator.attrgetter", "operator.itemgetter"),
    *(f"pathlib.{name}" for name in ("Path", "PurePath", "PurePosixPath")),
    *(f"numba.{name}" for name in ("guvectorize", "jit", "njit", "prange", "vectorize")),
    *(
        f"numpy.{name}"
        for name in ("arange", "array", "dtype", "errstate", "exp", "finfo", "iinfo")
    ),
    *(
        f"numpy.{name}"
        for name in ("linspace", "log", "log10", "logspace", "ones", "sqrt", "zeros")
    ),
    *(
        f"{module}.{kind}{bits}"
        for module in ("numba", "numpy")
        for kind in ("int", "uint", "float")
        for bits in (8, 16, 32, 64)
    ),
    *("torch.device", "torch.inference_mode", "torch.no_grad", "triton.jit"),
)
_PURE_BUILTINS = frozenset(
    {
        *("abs", "all", "any", "bool", "bytes", "complex", "dict", "enumerate", "float"),
        *("frozenset", "int", "len", "list", "max", "min", "object", "property", "range"),
        *("repr", "reversed", "round", "set", "sorted", "staticmethod", "classmethod", "str"),
        *("sum", "tuple", "type", "zip"),
    }
)
_PURE_METHODS = frozenset(
    {
        *("as_posix", "cwd", "deleter", "encode", "endswith", "format", "getter", "items", "join"),
        *(
            "keys",
            "lower",
            "maketrans",
            "numel",
            "partition",
            "removeprefix",
            "removesuffix",
            "setter",
            "split",
        ),
        *("startswith", "strip", "title", "tolist", "upper", "values"),
    }
)

# Methods that let a class act when it is defined or an object of it is made.
_ACTING = frozenset(
    {
        *("__init__", "__init_subclass__", "__new__", "__post_init__", "__set_name__"),
        *("__setattr__", "__getattribute__"),
    }
)

_LOGGING = frozenset({"critical", "debug", "error", "exception", "info", "log", "warning"})

# Attributes of an error that are no words of its message, and the errors that are sure to have them
# from elsewhere than the text that they are raised with.
_FACTS = frozenset({"code", "errno", "filename", "headers", "lineno", "name", "returncode"})

_FACTUAL = frozenset({"FileNotFoundError", "ImportError", "ModuleNotFoundError", "OSError"})

# What reads messages and docstrings without naming them.
_READERS = frozenset(
    {
        *("__doc__", "inspect.getdoc", "inspect.getsource", "sys.exc_info", "sys.exception"),
        *("traceback.format_exc", "traceback.print_exc", "warnings.catch_warnings"),
        "warnings.filterwarnings",
    }
)

# What code reaches by these is not to be seen from its text.
_NAMESPACES = frozenset({"eval", "exec", "globals", "locals", "vars"})
_LOADERS = frozenset({"__import__", "eval", "exec", "importlib", "pkgutil", "runpy"})
_BENIGN = frozenset({"__doc__", "__file__", "__name__", "__path__", "__version__"})

# Stands for the attributes that code asks for by a name that it makes.
_ANY = "*"

_PREFIX = "[rRbBuUfFtT]{0,2}"
_STRING = (
    rf'{_PREFIX}(?:"""(?:[^\\]|\\.)*?"""|"(?:[^"\\\n]|\\.)*"'
    rf"|'{{3}}(?:[^\\]|\\.)*?'{{3}}|'(?:[^'\\\n]|\\.)*')"
)
_TOKEN = re.compile(
    rf"(?P<string>{_STRING})|(?P<comment>\#[^\n]*)|(?P<line>\n)|(?P<blank>(?:[ \t\f\r]|\\\n)+)"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<comma>,)|(?P<word>\w+)|(?P<other>.)",
    re.DOTALL,
)
_STRINGS = re.compile(rf"(?:{_STRING}|\s|\#[^\n]*\n|\\\n)+", re.DOTALL)
_SOFT_KEYWORDS = frozenset(keyword.softkwlist)

# Names with a full stop between them; the first may be the full name of a module.
Chain = tuple[str, ...]
Scope = Mapping[str, tuple[Chain, ...]]


def layout_free(text: str) -> str:
    """``text`` of Python code without comments, blank lines, and what the layout alone decides.

    That is: white space within a line, line breaks within brackets, and a last comma that makes no
    tuple. Strings stay as they are.

    >>> layout_free("f(  # why\\n    a,\\n    b,\\n)")
    'f(a,b)'
    """
    pieces: list[str] = []
    brackets: list[list[bool]] = []  # of each: whether a last comma may go; a comma is waiting
    before = last = indent = ""  # kind and text of the last token
    gap = line = False
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup or "", match[0]
        if kind == "comment":
            continue
        if kind == "line":
            line, gap, indent = line or not brackets, True, ""
            continue
        if kind == "blank":
            gap, indent = True, token
            continue
        if brackets and brackets[-1][1]:
            if kind != "close" or not brackets[-1][0]:
                pieces.append(",")
            brackets[-1] = [True, False]
        if line and pieces:
            pieces.append(f"\n{indent}")
            before = ""
        elif gap and before == kind == "word":
            pieces.append(" ")
        gap = line = False
        if kind == "comma" and brackets:
            brackets[-1][1] = True
        else:
            pieces.append(token)
        if kind == "open":
            subject = before in ("close", "string") or (
                before == "word" and not keyword.iskeyword(last)
            )
            # (a,) is a tuple and f(a,) none; x[a,] has a tuple in it and [a,] none.
            free = {"(": subject and last not in _SOFT_KEYWORDS, "[": not subject, "{": True}
            brackets.append([free[token], False])
        elif kind == "close" and brackets:
            brackets.pop()
        before, last = kind, token
    return "".join(pieces)


@cache
def library_version(name: str) -> str:
    """The release of a library, by its import name, or ``absent``."""
    try:
        # The local part tells the build (CPU or a CUDA version), not the release.
        return version(_DISTRIBUTIONS.get(name, name)).split("+", maxsplit=1)[0]
    except PackageNotFoundError:
        return "absent"


@dataclass(frozen=True)
class _Import:
    """A name that an import binds: by which statement, and the full name of what it stands for."""

    statement: int
    target: Chain
    text: str


@dataclass
class _Statement:
    """One statement at the top of a module.

    Attributes:
        node: its syntax tree.
        uses: what it names, by the names of its module: chains as ``("store", "write_table")``.
        absolute: the same by full name, of what is imported within functions.
        imports: what it imports, also within functions, by full name.
        attributes: all names after a full stop, and texts that could be such.
        methods: what each method names that imports something, in a class that no library calls.
        cuts: what of the text does not count: first and last byte, and what stands for it.
        reads: whether it reads messages of errors or docstrings.
        loads: whether it imports what its text does not name.
        looks_up: whether it gets at names of its module otherwise than by naming them.
    """

    node: ast.stmt
    uses: set[Chain] = field(default_factory=set)
    absolute: set[Chain] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    methods: dict[str, _Statement] = field(default_factory=dict)
    cuts: list[tuple[int, int, bytes]] = field(default_factory=list)
    reads: bool = False
    loads: bool = False
    looks_up: bool = False

    @property
    def is_import(self) -> bool:
        return isinstance(self.node, ast.Import | ast.ImportFrom)


class _Module:
    """One file of Python code: its statements, and what each names and binds.

    Attributes:
        name: its full name.
        is_package: whether it is the ``__init__`` of one.
        statements: those at its top.
        binds: for each name the statements, or imports in them, that bind it.
        stars: the modules of which it imports all names.
        acts: the numbers of the statements that do more at import than to bind names.
        main: those of them that run in a script alone.
    """

    def __init__(self, name: str, file: Path, is_ours: Callable[[str], bool]) -> None:
        self.name = name
        self.is_package = file.stem == "__init__"
        self.is_ours = is_ours
        self._bytes = file.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
        tree = ast.parse(self._bytes, filename=str(file))
        self._starts = [0]
        for row in self._bytes.split(b"\n"):
            self._starts.append(self._starts[-1] + len(row) + 1)
        self.lazy_annotations = any(
            isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body
        )
        self.statements = [_Statement(node) for node in tree.body]
        self.binds: dict[str, list[int | _Import]] = {}
        self.stars: list[str] = []
        for index, node in enumerate(tree.body):
            self._bind(node, index)
        self.hints: set[str] = set()
        self._used: set[str] = set()
        for statement in self.statements:
            _Reader(self, statement).read()
        methods = [part for found in self.statements for part in found.methods.values()]
        used = {chain[0] for found in (*self.statements, *methods) for chain in found.uses}
        self._used = used | self.hints
        self.acts = [index for index, node in enumerate(tree.body) if self._acts(node)]
        self.main = [index for index in self.acts if _is_main(tree.body[index])]
        self._texts: dict[tuple[int, bool], str] = {}

    def origin(self, node: ast.ImportFrom) -> str:
        """The full name of the module that a ``from`` names."""
        own = self.name.split(".")
        packages = own[: len(own) - node.level + self.is_package] if node.level else []
        return ".".join([*packages, *([node.module] if node.module else [])])

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """The first byte of a node and the one after its last."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        first = self._starts[node.lineno - 1] + node.col_offset
        return first, self._starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, index: int, literally: bool) -> str:
        """What of a statement counts; ``literally``: with docstrings and the words of messages."""
        key = (index, literally)
        if key not in self._texts:
            self._texts[key] = self._text(self.statements[index], literally)
        return self._texts[key]

    def _text(self, statement: _Statement, literally: bool) -> str:
        node = statement.node
        first, last = self.span(node)
        for decorator in getattr(node, "decorator_list", []):
            first = min(first, self.span(decorator)[0])
        pieces = []
        for start, end, instead in [] if literally else sorted(statement.cuts):
            if start >= first:  # else it is within the cut before
                pieces += [self._bytes[first:start], instead]
                first = end
        text = b"".join([*pieces, self._bytes[first:last]]).decode()
        # From Python 3.12 on, an f-string may hold quotes of its own kind: its end is not found.
        if sys.version_info >= (3, 12) and not all(
            _STRINGS.fullmatch(self._bytes[slice(*self.span(part))].decode())
            for part in _f_strings(node)
        ):
            return text
        return layout_free(text)

    def _bind(self, node: ast.AST, index: int) -> None:
        """Note the names that a statement binds in the module."""
        if isinstance(node, ast.If) and _is_type_checking(node):
            for branch in node.orelse:
                self._bind(branch, index)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for name, target, text in self.imported(node):
                self.binds.setdefault(name, []).append(_Import(index, target, text))
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                self.stars.append(self.origin(node))
        else:
            for name in _names_bound(node):
                self.binds.setdefault(name, []).append(index)
            if not isinstance(node, _SCOPES):
                for part in ast.iter_child_nodes(node):
                    self._bind(part, index)

    def imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Chain, str]]:
        """The names that an import binds, what each stands for, and the import of it alone."""
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                if alias.name != "*":
                    name, origin = alias.asname or alias.name, self.origin(node)
                    yield name, (origin, alias.name), f"from {origin} import {alias.name} as {name}"
            else:
                # `import a.b` binds a, and makes b an attribute of it.
                target = alias.name if alias.asname else alias.name.partition(".")[0]
                name = alias.asname or target
                yield name, (target,), f"import {target} as {name}"

    def _acts(self, node: ast.stmt) -> bool:
        """Whether a statement does more at import than to bind names."""
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                now = [*node.args.defaults, *(part for part in node.args.kw_defaults if part)]
                if not self.lazy_annotations:
                    now += _annotations(node)
                return not all(map(self._is_pure_decorator, node.decorator_list)) or not all(
                    map(self.is_quiet, now)
                )
            case ast.ClassDef():
                # A base class of this project may act on its subclasses.
                return (
                    bool(node.keywords)
                    or any(
                        base is None or self.is_ours(base[0].partition(".")[0])
                        for base in self._bases(node)
                    )
                    or not all(map(self._is_pure_decorator, node.decorator_list))
                    or any(map(self._acts, node.body))
                )
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                return not all(map(_is_name, targets)) or not (
                    node.value is None or self.is_quiet(node.value)
                )
            case ast.Import() | ast.ImportFrom():
                # Imported for its effect: no one uses the names.
                return not any(name in self._used for name, _, _ in self.imported(node))
            case ast.Expr():
                return not isinstance(node.value, ast.Constant)
            case ast.If() if _is_type_checking(node):
                return bool(node.orelse)
        return not isinstance(node, ast.Pass)

    def _bases(self, node: ast.ClassDef) -> list[Chain | None]:
        """The full names of the bases of a class; of one of this module its own name after that."""
        names = [self.meaning(base) for base in node.bases]
        return [
            (self.name.split(".")[0], *name) if name and self._is_own(name[0]) else name
            for name in names
        ]

    def _is_own(self, name: str) -> bool:
        return any(isinstance(found, int) for found in self.binds.get(name, []))

    def meaning(self, node: ast.AST, scope: Scope | None = None) -> Chain | None:
        """The full name of what ``a.b.c`` stands for, as far as this file says; else None."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        chain = (node.id, *reversed(parts))
        if scope and node.id in scope:
            found = scope[node.id]
            return (*found[0], *chain[1:]) if len(found) == 1 else None
        bound = self.binds.get(node.id, [])
        if len(bound) == 1 and isinstance(bound[0], _Import):
            return (*bound[0].target, *chain[1:])
        return chain

    def is_quiet(self, node: ast.AST, scope: Scope | None = None) -> bool:
        """Whether an expression has no effect but its value, as far as this file says."""
        if isinstance(node, ast.Lambda):
            return True
        if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            return False
        if isinstance(node, ast.Call) and not self._is_pure(node.func, scope):
            return False
        if isinstance(node, ast.keyword) and node.arg in ("key", "default_factory"):
            # It is called as well, at once or when an object is made.
            body = node.value.body if isinstance(node.value, ast.Lambda) else None
            plain = isinstance(node.value, ast.Name) and node.value.id in _PURE_BUILTINS
            return plain or (body is not None and self.is_quiet(body, scope))
        return all(self.is_quiet(part, scope) for part in _children(node))

    def _is_pure(self, function: ast.expr, scope: Scope | None) -> bool:
        """Whether a call of ``function`` has no effect but its value, as far as this file says."""
        if isinstance(function, ast.Attribute) and function.attr in _PURE_METHODS:
            return True
        name = self.meaning(function, scope)
        if name is None:
            return False
        if len(name) == 1 and name[0] not in self.binds:
            error = getattr(builtins, name[0], None)
            raised = isinstance(error, type) and issubclass(error, BaseException)
            return raised or name[0] in _PURE_BUILTINS
        if takes_words(name) or any(
            ".".join(name).startswith(pure) if pure[-1] == "." else ".".join(name) == pure
            for pure in _PURE
        ):
            return True
        found = self.binds.get(name[0], [])
        if len(name) > 1 or len(found) != 1 or not isinstance(found[0], int):
            return False
        definition = self.statements[found[0]].node
        if isinstance(definition, ast.ClassDef):
            return self._is_plain(definition)
        # A decorator with its options: `compiled = njit(cache=True)`.
        value = definition.value if isinstance(definition, ast.Assign) else None
        return isinstance(value, ast.Call) and self._is_pure(value.func, None)

    def _is_pure_decorator(self, node: ast.expr) -> bool:
        return self.is_quiet(node) and self._is_pure(
            node.func if isinstance(node, ast.Call) else node, None
        )

    def _is_plain(self, node: ast.ClassDef) -> bool:
        """Whether to make an object of a class does nothing but keep its arguments."""
        methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        return (
            all(base == ("typing", "NamedTuple") for base in self._bases(node))
            and all(map(self._is_pure_decorator, node.decorator_list))
            and not node.keywords
            and not methods & _ACTING
            and not any(map(self._acts, node.body))
        )


def takes_words(name: Chain | None) -> bool:
    """Whether the function of that full name takes words for a person."""
    return name is not None and ".".join(name[:-1]) in _WORDS


class _Reader:
    """Walks through a statement and notes what it names and what of its text does not count."""

    def __init__(self, module: _Module, statement: _Statement) -> None:
        self._module = module
        self._statement = statement
        # Names of the errors caught around here, and whether their attributes can be facts.
        self._errors: list[tuple[str, bool]] = []
        self._passing = 0  # within a message, where to mention an error is to pass it on
        self._main = statement
        self._visitors: dict[type, Callable[[Any, Scope], None]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._name,
            ast.FunctionDef: self._function,
            ast.AsyncFunctionDef: self._function,
            ast.ClassDef: self._class,
            ast.Lambda: self._lambda,
            ast.Import: self._import,
            ast.ImportFrom: self._import,
            ast.If: self._if,
            ast.AnnAssign: self._annotated,
            ast.Raise: self._raise,
            ast.Expr: self._expression,
            ast.Call: self._call,
            ast.ExceptHandler: self._handler,
        }

    def read(self) -> None:
        self._visit(self._statement.node, {})

    def _visit(self, node: ast.AST, scope: Scope) -> None:
        """Visit ``node``; ``scope``: local names of the functions around it, and their imports."""
        visitor = self._visitors.get(type(node))
        if visitor is not None:
            visitor(node, scope)
        else:
            self._visit_all(_children(node), scope)

    def _visit_all(self, nodes: Iterable[ast.AST], scope: Scope) -> None:
        for node in nodes:
            self._visit(node, scope)

    def _constant(self, node: ast.Constant, scope: Scope) -> None:
        if isinstance(node.value, str) and node.value.isidentifier():
            self._statement.attributes.add(node.value)

    def _name(self, node: ast.expr, scope: Scope) -> None:
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        self._statement.attributes.update(parts)
        if "__doc__" in parts:
            self._statement.reads = True
        if not isinstance(node, ast.Name):
            self._visit(node, scope)
            return
        name, rest = node.id, tuple(reversed(parts))
        caught = next((found for found in reversed(self._errors) if found[0] == name), None)
        if caught is not None and not self._passing:
            self._statement.reads |= not (caught[1] and rest and rest[0] in _FACTS)
        if name in scope:
            self._statement.absolute |= {(*target, *rest) for target in scope[name]}
        else:
            self._statement.uses.add((name, *rest))
        targets = [
            found.target if isinstance(found, _Import) else (name,)
            for found in self._module.binds.get(name, [])
        ] or [(name,)]
        for target in scope.get(name, targets):
            full = ".".join((*target, *rest))
            modules = f"{full}.".startswith("sys.modules.")
            self._statement.reads |= full in _READERS
            self._statement.loads |= full.partition(".")[0] in _LOADERS or modules
            self._statement.looks_up |= full in _NAMESPACES or modules

    def _class(self, node: ast.ClassDef, scope: Scope) -> None:
        self._docstring(node)
        apart = [part for part in node.body if self._is_apart(node, part)]
        self._visit_all([*node.bases, *node.keywords, *node.decorator_list], scope)
        self._visit_all((part for part in node.body if part not in apart), scope)
        for part in apart:
            assert isinstance(part, ast.FunctionDef)
            self._statement = self._main.methods.setdefault(part.name, _Statement(part))
            self._visit(part, scope)
            self._statement = self._main

    def _is_apart(self, node: ast.ClassDef, part: ast.stmt) -> bool:
        """Whether a part of a class is a method that imports something, and only we call it."""
        return (
            node is self._main.node
            and not node.bases
            and isinstance(part, ast.FunctionDef)
            and not part.name.startswith("__")
            and all(
                isinstance(one, ast.Name) and one.id in ("classmethod", "property", "staticmethod")
                for one in part.decorator_list
            )
            and any(isinstance(one, ast.Import | ast.ImportFrom) for one in ast.walk(part))
        )

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        self._docstring(node)
        self._visit_all(node.decorator_list, scope)
        self._defaults(node.args, scope)
        self._annotations(_annotations(node), scope)
        self._visit_all(node.body, self._inner(node, scope))

    def _lambda(self, node: ast.Lambda, scope: Scope) -> None:
        self._defaults(node.args, scope)
        self._visit(node.body, {**scope, **dict.fromkeys(_arguments(node.args), ())})

    def _defaults(self, node: ast.arguments, scope: Scope) -> None:
        self._visit_all([*node.defaults, *(part for part in node.kw_defaults if part)], scope)

    def _annotations(self, nodes: Iterable[ast.expr], scope: Scope) -> None:
        """Annotations name something if they are evaluated."""
        for node in nodes:
            if self._module.lazy_annotations:
                parts = ast.walk(node)
                self._module.hints |= {part.id for part in parts if isinstance(part, ast.Name)}
            else:
                self._visit(node, scope)

    def _annotated(self, node: ast.AnnAssign, scope: Scope) -> None:
        self._annotations([node.annotation], scope)
        self._visit_all([node.target, *([node.value] if node.value else [])], scope)

    def _inner(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> Scope:
        """The local names within a function, with what they stand for where they are imported.

        Names that are bound in rarer ways are left out: to take one for a name of the module makes
        more count.
        """
        found: dict[str, list[Chain]] = {name: [] for name in _arguments(node.args)}
        outer: set[str] = set()
        parts: list[ast.AST] = list(node.body)
        while parts:
            part = parts.pop()
            match part:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    found.setdefault(part.name, [])
                    continue
                case ast.Import() | ast.ImportFrom():
                    for name, target, _ in self._module.imported(part):
                        found.setdefault(name, []).append(target)
                case ast.Global():
                    outer |= set(part.names)
                case ast.Assign(targets=targets):
                    found |= {name: found.get(name, []) for name in _stored(targets)}
                case (
                    ast.AnnAssign(target=target)
                    | ast.AugAssign(target=target)
                    | ast.For(target=target)
                ):
                    found |= {name: found.get(name, []) for name in _stored([target])}
                case ast.With(items=items):
                    targets = [item.optional_vars for item in items if item.optional_vars]
                    found |= {name: found.get(name, []) for name in _stored(targets)}
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                parts.extend(getattr(part, block, ()))
        inner = {**scope, **{name: tuple(targets) for name, targets in found.items()}}
        return {name: targets for name, targets in inner.items() if name not in outer}

    def _import(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        if isinstance(node, ast.Import):
            found = {alias.name for alias in node.names}
        else:
            found = {f"{self._module.origin(node)}.{alias.name}" for alias in node.names}
        self._statement.imports |= found

    def _if(self, node: ast.If, scope: Scope) -> None:
        kept = node.orelse if _is_type_checking(node) else _children(node)
        self._visit_all(kept, scope)

    def _handler(self, node: ast.ExceptHandler, scope: Scope) -> None:
        if node.type is not None:
            self._visit(node.type, scope)
        types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        self._errors.append((node.name or "", all(self._is_factual(part, scope) for part in types)))
        self._visit_all(node.body, scope)
        self._errors.pop()

    def _is_factual(self, node: ast.expr | None, scope: Scope) -> bool:
        """Whether an error is of a kind that no text of this project becomes an attribute of."""
        name = self._module.meaning(node, scope) if node is not None else None
        if name is None:
            return False
        if len(name) == 1 and name[0] not in self._module.binds:
            return name[0] in _FACTUAL
        return len(name) > 1 and not self._module.is_ours(name[0].partition(".")[0])

    def _raise(self, node: ast.Raise, scope: Scope) -> None:
        self._passing += 1
        if isinstance(node.exc, ast.Call):
            self._message(node.exc, scope)
        elif node.exc is not None:
            self._visit(node.exc, scope)
        if node.cause is not None:
            self._visit(node.cause, scope)
        self._passing -= 1

    def _expression(self, node: ast.Expr, scope: Scope) -> None:
        call = node.value
        if not isinstance(call, ast.Call):
            self._visit(call, scope)
        elif self._is_log(call.func, scope):
            if all(self._module.is_quiet(part, scope) for part in (*call.args, *call.keywords)):
                self._cut(node, b"")
            else:
                self._message(call, scope)
        elif self._module.meaning(call.func, scope) == ("warnings", "warn"):
            self._message(call, scope)
        else:
            self._call(call, scope)

    def _call(self, node: ast.Call, scope: Scope) -> None:
        if self._module.meaning(node.func, scope) == ("getattr",) and len(node.args) > 1:
            first, name = self._module.meaning(node.args[0], scope), node.args[1]
            imported = first is not None and first != (getattr(node.args[0], "id", ""),)
            if not isinstance(name, ast.Constant) and not imported:
                self._statement.attributes.add(_ANY)
        if takes_words(self._module.meaning(node.func, scope)):
            self._message(node, scope)
        else:
            self._visit_all(_children(node), scope)

    def _message(self, call: ast.Call, scope: Scope) -> None:
        """A call that takes words: those do not count."""
        self._passing += 1
        self._visit(call.func, scope)
        words = [self._is_words(part, scope) for part in call.args]
        if words and all(words) and not call.keywords:
            # With the brackets: one text for two, or none.
            first, last = self._module.span(call.func)[1], self._module.span(call)[1]
            self._main.cuts.append((first, last, b'("")'))
        else:
            keywords = [part.value for part in call.keywords]
            for part in (*call.args, *keywords):
                if self._is_words(part, scope):
                    self._cut(part, b'""')
                else:
                    self._visit(part, scope)
        self._passing -= 1

    def _is_words(self, node: ast.expr, scope: Scope) -> bool:
        """Whether an expression is text for a person, put together without any effect."""
        quiet = self._module.is_quiet
        match node:
            case ast.Constant(value=str()):
                return True
            case ast.JoinedStr():
                return quiet(node, scope)
            case ast.BinOp(op=ast.Add()):
                return self._is_words(node.left, scope) and self._is_words(node.right, scope)
            case ast.BinOp(op=ast.Mod()):
                return self._is_words(node.left, scope) and quiet(node.right, scope)
            case ast.IfExp():
                branches = (node.body, node.orelse)
                return quiet(node.test, scope) and all(self._is_words(p, scope) for p in branches)
            case ast.Call(func=ast.Attribute(value=value, attr="join" | "format")):
                return self._is_words(value, scope) and quiet(node, scope)
            case ast.Call():
                return takes_words(self._module.meaning(node.func, scope)) and quiet(node, scope)
        return False

    def _is_log(self, function: ast.expr, scope: Scope) -> bool:
        """Whether a call is one of a logger."""
        if not (isinstance(function, ast.Attribute) and function.attr in _LOGGING):
            return False
        name = self._module.meaning(function.value, scope)
        if name in (("logging",), ("sgnoise.progress", "logger")):
            return True
        bound = self._module.binds.get(name[0], []) if name is not None and len(name) == 1 else []
        if len(bound) != 1 or not isinstance(bound[0], int):
            return False
        node = self._module.statements[bound[0]].node
        return (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and self._module.meaning(node.value.func) == ("logging", "getLogger")
        )

    def _docstring(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        match node.body[0]:
            case ast.Expr(value=ast.Constant(value=str())) as text:
                self._cut(text, b"")

    def _cut(self, node: ast.expr | ast.stmt, instead: bytes) -> None:
        self._main.cuts.append((*self._module.span(node), instead))


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _names_bound(node: ast.AST) -> list[str]:
    """The names that a node binds by itself, apart from imports."""
    match node:
        case ast.Name(ctx=ast.Store() | ast.Del()):
            return [node.id]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return [name]
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def _stored(targets: Iterable[ast.expr]) -> Iterator[str]:
    """The names to which an assignment to ``targets`` gives values."""
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Tuple | ast.List):
            yield from _stored(target.elts)
        elif isinstance(target, ast.Starred):
            yield from _stored([target.value])


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node that can name something."""
    for name in node._fields:
        if name not in ("ctx", "op", "ops"):
            part = getattr(node, name, None)
            if isinstance(part, list):
                for one in part:
                    if isinstance(one, ast.AST):
                        yield one
            elif isinstance(part, ast.AST):
                yield part


def _arguments(node: ast.arguments) -> list[str]:
    several = [*node.posonlyargs, *node.args, *node.kwonlyargs, node.vararg, node.kwarg]
    return [argument.arg for argument in several if argument is not None]


def _annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    arguments = [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]
    found = [*(argument.annotation for argument in arguments), node.returns]
    return [annotation for annotation in found if annotation is not None]


def _f_strings(node: ast.AST) -> Iterator[ast.JoinedStr]:
    """The f-strings in a node, but none within another, as a format may be."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.JoinedStr):
            yield part
        else:
            yield from _f_strings(part)


def _is_name(node: ast.expr) -> bool:
    """Whether to assign to ``node`` binds names and does nothing else."""
    if isinstance(node, ast.Tuple | ast.List):
        return all(map(_is_name, node.elts))
    return isinstance(node, ast.Name)


def _is_type_checking(node: ast.If) -> bool:
    match node.test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
    return False


def _is_main(node: ast.stmt) -> bool:
    """Whether this is ``if __name__ == "__main__":``."""
    match node:
        case ast.If(
            test=ast.Compare(
                left=ast.Name(id="__name__"),
                ops=[ast.Eq()],
                comparators=[ast.Constant(value="__main__")],
            ),
            orelse=[],
        ):
            return True
    return False


class Project:
    """The Python code below some folders, of which each module is read once.

    Args:
        folders: where modules are looked for, in that order.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._modules: dict[str, _Module | None] = {}
        self._stubs: dict[str, _Module | None] = {}

    def digest(self, script: str) -> str:
        """The digest of a script: 16 hexadecimal digits.

        Args:
            script: a file beside the modules, such as ``pretrain.py``.

        Raises:
            FileNotFoundError: there is no such script.
            SyntaxError: a file is no Python.
        """
        return self.reach(script).digest()

    def reach(self, script: str) -> Reached:
        """What a script reaches; see ``digest``."""
        module = self.module(script.removesuffix(".py"))
        if module is None:
            raise FileNotFoundError(f"there is no {script} in {self._folders[0]}")
        reached = Reached(self)
        reached.add_module(module, as_script=True)
        return reached

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
            self._modules[name] = _Module(name, file, self.has) if file is not None else None
        return self._modules[name]

    def stub(self, module: _Module) -> _Module | None:
        """The stub of a module, ``.pyi``, if it has one."""
        if module.name not in self._stubs:
            file = self.file(module.name)
            assert file is not None
            stub = file.with_suffix(".pyi")
            self._stubs[module.name] = (
                _Module(module.name, stub, self.has) if stub.is_file() else None
            )
        return self._stubs[module.name]

    @cache  # noqa: B019 - a project lives as long as the process
    def has(self, name: str) -> bool:
        """Whether a module or package is one of the project, by its full name."""
        parts = name.split(".")
        return self.file(name) is not None or any(
            any(folder.joinpath(*parts).glob("*.py")) for folder in self._folders
        )

    def below(self, name: str) -> Iterator[str]:
        """The full names of the modules in a package, not of those below these."""
        file = self.file(name)
        assert file is not None
        for path in sorted(file.parent.iterdir()):
            is_module = path.suffix == ".py" and path.stem != "__init__"
            if is_module or (path / "__init__.py").is_file():
                yield f"{name}.{path.stem}"


class Reached:
    """What is reached from a script or function, and grows by ``add_module`` and ``add_name``.

    Attributes:
        libraries: import names of the libraries that are used.
        loads: the modules that import what their text does not name.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._statements: dict[str, set[int]] = {}
        self._imports: dict[str, set[_Import]] = {}
        self._started: set[str] = set()
        self._whole: set[str] = set()
        self._looked_up: set[tuple[str, Chain, bool]] = set()
        self._waiting: list[tuple[_Module, _Statement]] = []
        self._attributes: set[str] = set()
        self._methods: list[tuple[_Module, str, _Statement]] = []
        self._literally = False
        self.libraries: set[str] = set()
        self.loads: set[str] = set()

    def definitions(self) -> dict[str, list[str]]:
        """The names of what is reached, by module: for a person, and for tests."""
        found = {}
        for name, indices in self._statements.items():
            module = self._module(name)
            bound = {
                name: [index for index in indices if index in where]
                for name, where in module.binds.items()
            }
            found[name] = sorted(name for name, where in bound.items() if where)
        return dict(sorted(found.items()))

    def digest(self) -> str:
        """16 hexadecimal digits."""
        return with_libraries(self.code(), self.libraries)

    def code(self) -> str:
        """A digest of the project's code alone."""
        digest = hashlib.sha256()
        for name in sorted({*self._statements, *self._imports}):
            module = self._module(name)
            texts = [
                (index, module.text(index, self._literally))
                for index in self._statements.get(name, ())
            ]
            texts += [(found.statement, found.text) for found in self._imports.get(name, ())]
            digest.update(f"\0{name}\0".encode())
            for _, text in sorted(texts):
                digest.update(f"{text}\n".encode())
        return digest.hexdigest()

    def add_module(self, module: _Module, *, as_script: bool = False) -> None:
        """What runs when ``module`` is imported, or run as a script."""
        self._start(module, as_script)
        self._work()

    def add_name(self, module: _Module, name: str) -> None:
        """What ``module.name`` reaches."""
        self._start(module, False)
        self._look_up(module, (name,), own=False)
        self._work()

    def _module(self, name: str) -> _Module:
        module = self._project.module(name)
        assert module is not None
        return module

    def _work(self) -> None:
        while self._waiting:
            module, statement = self._waiting.pop()
            for chain in statement.uses:
                self._look_up(module, chain, own=True)
            for chain in statement.absolute:
                self._follow(chain)
            for name in statement.imports:
                self._import(name)
                self._add_library(name)
            if statement.looks_up:
                self._add_whole(module)
            if statement.loads:
                self.loads.add(module.name)
            self._literally |= statement.reads
            self._attributes |= statement.attributes
            self._methods += [(module, name, part) for name, part in statement.methods.items()]
            if not self._waiting:
                known = self._attributes
                called = [found for found in self._methods if {found[1], _ANY} & known]
                self._methods = [found for found in self._methods if found not in called]
                self._waiting += [(module, part) for module, _, part in called]

    def _add(self, module: _Module, index: int) -> None:
        """A statement counts."""
        statements = self._statements.setdefault(module.name, set())
        if index not in statements:
            statements.add(index)
            self._waiting.append((module, module.statements[index]))

    def _start(self, module: _Module, as_script: bool) -> None:
        """What runs when a module is imported."""
        if module.name in self._started or module.name in NO_RESULT:
            return
        self._started.add(module.name)
        for index in module.acts:
            if module.statements[index].is_import:
                for name in module.statements[index].imports:
                    self._add_library(name)
            elif as_script or index not in module.main:
                self._add(module, index)
        for statement in module.statements:
            if statement.is_import:
                for name in statement.imports:
                    self._import(name)
        for star in module.stars:
            self._follow((star,))

    def _import(self, name: str) -> None:
        """Import a module, and before it the packages that it is in."""
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            module = self._project.module(".".join(parts[:depth]))
            if module is not None:
                self._start(module, False)

    def _add_library(self, name: str) -> None:
        top = name.partition(".")[0]
        if not (
            top in sys.stdlib_module_names or top in _IGNORED_LIBRARIES or self._project.has(top)
        ):
            self.libraries.add(top)

    def _follow(self, chain: Chain) -> None:
        """What a full name stands for."""
        for depth in range(1, len(chain) + 1):
            module = self._project.module(".".join(chain[:depth]))
            if module is not None:
                self._add_value(module, chain[depth:])
                return
        self._add_library(chain[0])

    def _add_value(self, module: _Module, rest: Chain) -> None:
        """What ``module.a.b`` stands for; the whole module where it is used without a name."""
        if module.name in NO_RESULT:
            return
        self._import(module.name)
        if rest:
            self._look_up(module, rest, own=False)
        else:
            self._add_whole(module)

    def _look_up(self, module: _Module, chain: Chain, *, own: bool) -> None:
        """What a chain of names stands for in a module; ``own``: for the module's own code."""
        if (module.name, chain, own) in self._looked_up:
            return
        self._looked_up.add((module.name, chain, own))
        name, rest = chain[0], chain[1:]
        found = module.binds.get(name, [])
        part = self._project.module(f"{module.name}.{name}") if module.is_package else None
        for binding in found:
            if isinstance(binding, _Import):
                self._imports.setdefault(module.name, set()).add(binding)
                if binding.target != (module.name, name):
                    self._follow((*binding.target, *rest))
            else:
                self._add(module, binding)
        if part is not None:
            self._add_value(part, rest)
        if found or part is not None or own or name in _BENIGN:
            return
        stub = self._project.stub(module)
        bound = stub.binds.get(name, []) if stub is not None else []
        if bound and all(isinstance(binding, _Import) for binding in bound):
            self._look_up(module, ("__getattr__",), own=True)
            for binding in bound:
                assert isinstance(binding, _Import)
                self._follow((*binding.target, *rest))
        else:
            self._add_whole(module)

    def _add_whole(self, module: _Module) -> None:
        """Everything in a module, and in a package."""
        if module.name in self._whole or module.name in NO_RESULT:
            return
        self._whole.add(module.name)
        self._start(module, False)
        for name, bindings in module.binds.items():
            if any(isinstance(binding, _Import) for binding in bindings):
                self._look_up(module, (name,), own=True)
        for index, statement in enumerate(module.statements):
            if not statement.is_import and not _is_main(statement.node):
                self._add(module, index)
        if module.is_package:
            for name in self._project.below(module.name):
                self._add_whole(self._module(name))


def with_libraries(code: str, libraries: Iterable[str]) -> str:
    """The digest of some code and of the releases of the libraries that it uses."""
    texts = [code, *(f"{name}=={library_version(name)}" for name in sorted(libraries))]
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
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.pyi")]):
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
    module = project.module(module_name)
    if module is None:
        files = list(_installed(module_name))
        if not files:
            where = folder.resolve().joinpath(*module_name.split("."))
            raise FileNotFoundError(
                f"there is no {where}.py, no {where}/__init__.py, and no installed package "
                f"'{module_name.partition('.')[0]}'"
            )
        return _content(files)
    reached = Reached(project)
    reached.add_name(module, function)
    digest = reached.digest()
    if any(not loading.startswith(f"{__package__}.") for loading in reached.loads):
        digest += _content(_python_files(folder, library))
    return hashlib.sha256(digest.encode()).hexdigest()[:16]


def _installed(module: str) -> Iterator[Path]:
    """The files of the installed package that has a module; it is not imported."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is not None:
        for place in spec.submodule_search_locations or []:
            yield from sorted(Path(place).rglob("*.py"))
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
