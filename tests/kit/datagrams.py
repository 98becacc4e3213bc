# SPDX-License-Identifier: MulanPSL-2.0
"""A program that sends datagrams of many sizes to ADDRESS, port 5300, and expects each back."""

CLIENT = """
import socket, sys
for number in range(8):
    client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(3)
    client.connect((sys.argv[1], 5300))
    for size in (0, 1, 1400, 5000, 65000):
        data = bytes([number]) * size
        client.send(data)
        assert client.recv(65536) == data, (number, size)
"""
