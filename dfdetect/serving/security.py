"""Access to the server: a bearer token, host names, TLS and client certificates."""

import hashlib
import hmac
import ipaddress
import pathlib
import ssl
from collections.abc import Sequence
from typing import Any

import grpc

UNAUTHENTICATED = "The request lacks a valid bearer token"

_HEALTH = "/grpc.health.v1.Health/"


class Token:
    """A secret that clients send as `Authorization: Bearer SECRET`."""

    def __init__(self, secret: str) -> None:
        if not secret or not secret.isascii() or secret.split() != [secret]:
            raise ValueError("the token must be printable ASCII without spaces.")
        self._digest = _digest(secret)

    def matches(self, header: str | bytes) -> bool:
        """Whether a header is correct; compares in constant time."""
        if isinstance(header, bytes):
            header = header.decode("latin-1")
        scheme, _, secret = header.partition(" ")
        right = hmac.compare_digest(_digest(secret.strip()), self._digest)
        return right and scheme.lower() == "bearer"


class Hosts:
    """Host names that HTTP clients may address the server by.

    A page of another site can have its name stand for this machine (DNS rebinding) and
    then reads what a server without a token tells. The `Host` that its browser sends
    still is that name.

    Args:
        host: Address that the server listens at. One that only this machine reaches
            is asked by its own names alone.
        others: Names that are allowed, too. Where there are some, also a server that
            others reach is asked by these alone.
    """

    def __init__(self, host: str, others: Sequence[str] = ()) -> None:
        self.guarded = is_loopback(host)
        self._allowed = {name.lower() for name in (host, *others)}
        if self.guarded:
            self._allowed |= {"localhost", "127.0.0.1", "::1"}
        self._all = not (self.guarded or others)

    def allow(self, header: str) -> bool:
        """Whether a `Host` header is allowed; HTTP/1.0 has none."""
        name = header.strip().lower()
        if self._all or not name:
            return True
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        else:
            name = name.partition(":")[0]
        return name.removesuffix(".") in self._allowed


class Interceptor(grpc.aio.ServerInterceptor):
    """Refuses gRPC calls without the token, but for those of the health service."""

    def __init__(self, token: Token) -> None:
        self._token = token

    async def intercept_service(
        self, continuation: Any, handler_call_details: Any
    ) -> Any:
        sent = dict(handler_call_details.invocation_metadata or ())
        if is_health(handler_call_details.method) or self._token.matches(
            sent.get("authorization", "")
        ):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


def tls_context(certificate: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """Builds the TLS context of the HTTP port.

    Args:
        certificate: File of the server's chain, PEM.
        key: File of its key, without a passphrase.
        client_ca: File of whose certificates clients must have; None: they need none.

    Raises:
        OSError: A file cannot be read.
        ValueError: It is not what it should be.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise ValueError(
            f"the TLS certificate, key or client CA does not fit: {error.reason}."
        ) from error
    return context


def grpc_credentials(
    certificate: str, key: str, client_ca: str | None
) -> grpc.ServerCredentials:
    """Reads the credentials of the gRPC port; `tls_context` checks the files."""
    pair = (pathlib.Path(key).read_bytes(), pathlib.Path(certificate).read_bytes())
    ca = pathlib.Path(client_ca).read_bytes() if client_ca else None
    return grpc.ssl_server_credentials([pair], ca, require_client_auth=bool(ca))


def is_health(method: str) -> bool:
    """Whether a gRPC method belongs to the health service, which probes call."""
    return method.startswith(_HEALTH)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _refuse(request, context):
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED)


def _no_passphrase() -> str:
    # Else OpenSSL asks the terminal for one.
    raise ValueError("the TLS key must not have a passphrase.")


def _digest(secret: str) -> bytes:
    # Of one length, whatever the secret's.
    return hashlib.sha256(secret.encode()).digest()
