"""A name server for tests, which knows what it is told and has no other."""

import ipaddress
import socket
import struct
import threading
from types import TracebackType

_A, _INTERNET = 1, 1
_ANSWER, _REFUSED_NAME = 0x8580, 0x8583  # RFC 1035, section 4.1.1


class NameServer:
    """Answers over UDP in a with statement; `addresses` has those of each name and may change."""

    def __init__(self, address: str, port: int = 53) -> None:
        self.addresses: dict[str, list[str]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "NameServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, sender = self._socket.recvfrom(4096)
                self._socket.sendto(self._answer(query), sender)
            except OSError:
                return

    def _answer(self, query: bytes) -> bytes:
        labels, position = [], 12
        while length := query[position]:
            labels.append(query[position + 1 : position + 1 + length].decode())
            position += 1 + length
        (kind,) = struct.unpack_from("!H", query, position + 1)
        addresses = self.addresses.get(".".join(labels).lower())
        records = (
            struct.pack("!HHHIH", 0xC00C, _A, _INTERNET, 1, 4) + ipaddress.ip_address(address).packed
            for address in (addresses or () if kind == _A else ())
        )
        body = b"".join(records)
        flags = _REFUSED_NAME if addresses is None else _ANSWER
        header = query[:2] + struct.pack("!HHHHH", flags, 1, len(body) // 16, 0, 0)
        return header + query[12 : position + 5] + body
