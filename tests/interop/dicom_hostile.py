"""Hostile bytes on the DICOM port of a running edge: each is answered or closed, and the next association works. Usage: dicom_hostile.py PORT"""
import socket
import struct
import sys

PORT = int(sys.argv[1])


def connect():
    stream = socket.create_connection(("127.0.0.1", PORT))
    stream.settimeout(10)
    return stream


def ask(data):
    with connect() as stream:
        stream.sendall(data)
        try:
            return stream.recv(1000)
        except (ConnectionError, TimeoutError):
            return b""


def item(kind, value):
    return bytes([kind, 0]) + struct.pack(">H", len(value)) + value


def request(called=b"HILUM"):
    context = bytes([1, 0, 0, 0]) + item(0x30, b"1.2.840.10008.5.1.4.1.1.2") + item(0x40, b"1.2.840.10008.1.2.1")
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
    body = b"\0\1\0\0" + called.ljust(16) + b"ME".ljust(16) + b"\0" * 32
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    return b"\1\0" + struct.pack(">I", len(body)) + body


def value(flags, data):
    data = struct.pack(">I", len(data) + 2) + bytes([1, flags]) + data
    return b"\4\0" + struct.pack(">I", len(data)) + data


def store(data_set):
    element = lambda number, data: struct.pack("<HHI", 0, number, len(data)) + data
    command = element(2, b"1.2.840.10008.5.1.4.1.1.2\0") + element(0x100, b"\1\0") + element(0x110, b"\1\0")
    command += element(0x800, b"\1\0") + element(0x1000, b"1.2.3.4\0")
    with connect() as stream:
        stream.sendall(request())
        assert stream.recv(1000)[0] == 2
        stream.sendall(value(3, element(0, struct.pack("<I", len(command))) + command))
        pieces = [data_set[at : at + 16000] for at in range(0, len(data_set), 16000)]
        for number, piece in enumerate(pieces):
            stream.sendall(value(2 if number == len(pieces) - 1 else 0, piece))
        answer = stream.recv(1000)
        at = answer.find(b"\x00\x09\x02\0\0\0")
        return struct.unpack("<H", answer[at + 6 : at + 8])[0]


nested = (b"\x08\0\x10\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff") * 10000
claim = b"\x08\0\x18\0UI\x04\x001.2\0" + b"\x09\0\x10\0UN\0\0\xf0\xff\xff\xff" + b"x" * 100
checks = [
    ("http request", lambda: ask(b"GET / HTTP/1.1\r\n\r\n") == b""),
    ("garbage", lambda: ask(b"\xff" * 1000) == b""),
    ("1.5 GB announced", lambda: ask(b"\1\0" + struct.pack(">I", 1_500_000_000)) == b""),
    ("unknown called title", lambda: ask(request(b"NOBODY"))[7:10] == b"\1\1\7"),
    ("data before the request", lambda: ask(value(3, b"x"))[8:10] == b"\2\2"),
    ("10,000 nested sequences", lambda: store(nested) == 0xC000),
    ("4 GB announced in an element", lambda: store(claim) == 0xC000),
    ("garbage as data set", lambda: store(b"\xff" * 5000) == 0xC000),
    ("a good association afterwards", lambda: ask(request())[0] == 2),
]
for name, check in checks:
    assert check(), name
print(f"{len(checks)} passed, 0 failed")
