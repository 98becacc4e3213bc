# SPDX-License-Identifier: MulanPSL-2.0
"""Sends back what comes, closes when the peer does: echo_server.py ADDRESS PORT."""

from __future__ import annotations

import asyncio
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return  # the peer was killed: that is what it is for
    finally:
        writer.close()


async def main(address: str, port: int) -> None:
    server = await asyncio.start_server(echo, address, port, backlog=1024)
    print("serving", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
