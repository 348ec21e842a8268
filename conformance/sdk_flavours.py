"""The SDK's two halves behind one face, and the record of what was driven."""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import stacyvm
from stacyvm import AsyncClient, Client

from checks import equal

# --- what the SDK offers, and what was driven -------------------------------------------------------------------------


class Coverage:
    """Wraps every public method and property of the SDK's classes and notes each one that ends well."""

    def __init__(self) -> None:
        self.driven: set[str] = set()
        self.offered: set[str] = set()
        for info in pkgutil.iter_modules(stacyvm.__path__):
            module = importlib.import_module(f"stacyvm.{info.name}")
            for cls in vars(module).values():
                if inspect.isclass(cls) and cls.__module__ == module.__name__ and self._has_methods(cls):
                    self._wrap_class(cls)

    @staticmethod
    def _has_methods(cls: type) -> bool:
        return not issubclass(cls, BaseException) and not hasattr(cls, "__dataclass_fields__")

    def _wrap_class(self, cls: type) -> None:
        managed = {"__enter__", "__exit__", "__aenter__", "__aexit__", "__repr__", "__init__"}
        for name, member in list(vars(cls).items()):
            if name.startswith("_") and name not in managed:
                continue
            label = f"{cls.__name__}.{name}"
            if isinstance(member, property):
                wrapped: Any = property(self._wrap(label, member.fget))
            elif inspect.isfunction(member):
                wrapped = self._wrap(label, member)
            else:
                continue
            self.offered.add(label)
            setattr(cls, name, wrapped)

    def _wrap(self, label: str, method: Any) -> Any:
        if inspect.isasyncgenfunction(method):

            @functools.wraps(method)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                async for item in method(*args, **kwargs):
                    yield item
                self.driven.add(label)

        elif inspect.isgeneratorfunction(method):

            @functools.wraps(method)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                yield from method(*args, **kwargs)
                self.driven.add(label)

        elif inspect.iscoroutinefunction(method):

            @functools.wraps(method)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                value = await method(*args, **kwargs)
                self.driven.add(label)
                return value

        else:

            @functools.wraps(method)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                value = method(*args, **kwargs)
                self.driven.add(label)
                return value

        return wrapper


# --- the two flavours -------------------------------------------------------------------------------------------------


class Sync:
    """The SDK's blocking half."""

    name = "sync"

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self._open: list[Any] = []
        self.client = self.connect()
        self._shared: Any = None

    def connect(self, **overrides: Any) -> Any:
        client = Client(**self._settings(overrides))
        self._open.append(client)
        return client

    def _settings(self, overrides: dict) -> dict:
        return {"base_url": self.options.url, "api_key": self.options.api_key, "timeout": 60.0} | overrides

    def do(self, value: Any) -> Any:
        return value

    def chunks(self, stream: Any) -> Iterator[Any]:
        return stream

    def spawn(self, **arguments: Any) -> Any:
        return self.do(self.client.spawn(**({"image": self.options.image, "ttl": "10m"} | arguments)))

    @property
    def sandbox(self) -> Any:
        """One sandbox for all checks that do not end it."""
        if self._shared is None:
            self._shared = self.spawn()
        return self._shared

    def ids(self) -> list[str]:
        return [s.id for s in self.do(self.client.list())]

    def raises(self, expected: type, call: Any, code: str | None = None) -> Any:
        """`call` builds the value inside, because the async half raises only when awaited."""
        try:
            value = self.do(call())
        except expected as error:
            assert type(error) is expected, f"got {type(error).__name__}, want exactly {expected.__name__}: {error}"
            if code is not None:
                equal(error.code, code, f"code of {error}")
            return error
        raise AssertionError(f"no {expected.__name__} raised, got {value!r}")

    def enter(self, thing: Any) -> Any:
        return thing.__enter__()

    def leave(self, thing: Any) -> None:
        thing.__exit__(None, None, None)

    def close(self) -> None:
        if self._shared is not None:
            self.do(self._shared.destroy())
        for client in self._open:
            self.do(client.close())


class Async(Sync):
    """The SDK's asyncio half, on one loop that lives as long as the suite."""

    name = "async"

    def __init__(self, options: argparse.Namespace):
        self.loop = asyncio.new_event_loop()
        super().__init__(options)

    def connect(self, **overrides: Any) -> Any:
        client = AsyncClient(**self._settings(overrides))
        self._open.append(client)
        return client

    def do(self, value: Any) -> Any:
        return self.loop.run_until_complete(value) if inspect.isawaitable(value) else value

    def chunks(self, stream: Any) -> Iterator[Any]:
        while True:
            try:
                yield self.loop.run_until_complete(stream.__anext__())
            except StopAsyncIteration:
                return

    def enter(self, thing: Any) -> Any:
        return self.do(thing.__aenter__())

    def leave(self, thing: Any) -> None:
        self.do(thing.__aexit__(None, None, None))

    def close(self) -> None:
        super().close()
        self.loop.close()
