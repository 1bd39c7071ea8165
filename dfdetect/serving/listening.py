"""Binds the ports before anything is loaded, so that a taken one fails early.

Nobody can connect before `listen`: a client is refused while models load, rather than
left waiting. Imports nothing heavy.
"""

import errno
import os
import socket
import sys

from dfdetect.serving import options

_BACKLOG = 128
# What an address of the wrong family gives where the machine has no IPv6, say.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class HeldPort:
    """A port that is bound but does not listen, and that no other server holds.

    Args:
        flag: By which a person names it.
        host: An address or a name.
        port: Its number.

    Raises:
        OSError: It is taken, or this machine has no such address.
    """

    def __init__(self, flag: str, host: str, port: int) -> None:
        self._where = f"{shown_host(host)}:{port} (--{flag})"
        self._sockets: list[socket.socket] = []
        self._marks: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except socket.gaierror as error:
            message = f"cannot listen at {self._where}: {error.strerror}"
            raise OSError(message) from error
        absent: OSError | None = None
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                self._bind(socket.socket(family, kind, protocol), address)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    self.close()
                    raise self.describe(error) from error
                absent = error
        if absent and not self._sockets:
            raise self.describe(absent) from absent

    def listen(self) -> list[socket.socket]:
        """Lets clients connect, and hands the sockets to the caller.

        Raises:
            OSError: Another began to listen there since.
        """
        for bound in self._sockets:
            try:
                bound.listen(_BACKLOG)
            except OSError as error:
                raise self.describe(error) from error
        taken, self._sockets = self._sockets, []
        self.close()
        return taken

    def describe(self, error: OSError | None = None) -> OSError:
        """Returns the error that names the port.

        Args:
            error: What the system said; by default that the port is taken.
        """
        code = errno.EADDRINUSE if error is None else error.errno or 0
        return OSError(f"cannot listen at {self._where}: {os.strerror(code)}")

    def close(self) -> None:
        """Releases the port, unless it listens."""
        for held in (self._sockets, self._marks):
            while held:
                held.pop().close()

    def _bind(self, one: socket.socket, address: tuple) -> None:
        try:
            # Else connections of a server that has ended would block the port.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if one.family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind(address)
            self._mark(one)
        except OSError:
            one.close()
            raise
        self._sockets.append(one)

    def _mark(self, bound: socket.socket) -> None:
        """Keeps other servers from binding the same address before it listens.

        Linux lets two sockets with SO_REUSEADDR bind one address as long as neither
        listens. A name of the same network that one alone can have stands for it.
        """
        if sys.platform != "linux":
            return
        host, port = bound.getsockname()[:2]
        mark = socket.socket(socket.AF_UNIX)
        self._marks.append(mark)
        try:
            mark.bind(f"\0dfdetect serve {host} {port}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise


def hold_ports(settings: options.Options) -> dict[str, HeldPort]:
    """Binds the ports that are wanted; returns them by their flags.

    Raises:
        OSError: A port is taken or not allowed; the message names it.
    """
    held: dict[str, HeldPort] = {}
    try:
        for flag in ("rest_api_port", "port"):
            if number := getattr(settings, flag):
                held[flag] = HeldPort(flag, settings.host, number)
    except OSError:
        for port in held.values():
            port.close()
        raise
    return held


def shown_host(host: str) -> str:
    """Formats a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host
