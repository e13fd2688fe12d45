#!/usr/bin/env python3
"""Puts each argument into the trail and prints its seq once it is durable: graven_socket.py PATH RECORD..."""
import socket, struct, sys
trail = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
trail.connect(sys.argv[1])
trail.sendall(struct.pack("<8sII", b"GRAVENSK", 1, 0))
magic, version = struct.unpack("<8sI28x", trail.recv(40, socket.MSG_WAITALL))
assert magic == b"GRAVENSK" and version == 1, "no graven, or another version"
for number, record in enumerate(map(str.encode, sys.argv[2:])):
    trail.sendall(struct.pack("<QI", number, len(record)) + record)
    print(*struct.unpack("<QQ", trail.recv(16, socket.MSG_WAITALL)))
