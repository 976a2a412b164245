"""The network interface that has an IPv4 address, where there is no ``ip`` to ask: interface.py ADDRESS."""

import fcntl
import socket
import struct
import sys

SIOCGIFADDR = 0x8915


def address_of(interface: str) -> str | None:
    """Its first IPv4 address; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, SIOCGIFADDR, struct.pack("256s", interface.encode()))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


if __name__ == "__main__":
    found = [name for _, name in socket.if_nameindex() if address_of(name) == sys.argv[1]]
    sys.exit(f"no interface has {sys.argv[1]}") if not found else print(found[0])
