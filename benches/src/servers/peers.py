"""Servers of asyncio and uvloop: library, layer, mode, core."""
import asyncio
import os
import sys
import threading

library, layer, mode, core = sys.argv[1:5]
READ = 256 * 1024


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Lines(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.rest = b""

    def data_received(self, data):
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            self.transport.write(line + b"\n")


async def echo(reader, writer):
    try:
        while data := await reader.read(READ):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def lines(reader, writer):
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def main():
    loop = asyncio.get_running_loop()
    if layer == "protocol":
        factory = Lines if mode == "lines" else Echo
        server = await loop.create_server(factory, "127.0.0.1", 0, backlog=1024)
    else:
        handler = lines if mode == "lines" else echo
        server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=1024)
    host, port = server.sockets[0].getsockname()
    print(f"listening on {host}:{port}", flush=True)
    await server.serve_forever()


def end_with_input():
    sys.stdin.read()
    os._exit(0)


if core != "any":
    os.sched_setaffinity(0, {int(core)})
threading.Thread(target=end_with_input, daemon=True).start()
if library == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main())
