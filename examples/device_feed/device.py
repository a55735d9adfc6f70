"""A device that sends readings and carries commands out; see README.md."""

import asyncio, collections, contextlib, itertools, json, os, random, struct, time

HEAD = struct.Struct(">ihhii")  # package length, header length, version, op, seq
readings = {}  # by seq, until the server has stored them
done = collections.deque(maxlen=500)  # ids of commands, for one may come twice


def frame(op, body, seq=0):
    return HEAD.pack(16 + len(data := json.dumps(body).encode()), 16, 1, op, seq) + data


async def measure():
    for seq in itertools.count(1):
        readings[seq] = {"at": int(time.time()), "celsius": round(random.gauss(20, 1), 1)}
        await asyncio.sleep(2)


async def session(host, port, token, sent=0):
    reader, writer = await asyncio.open_connection(host, port)
    with contextlib.closing(writer):
        writer.write(frame(7, {"token": token, "ack": True}))
        while True:
            async with asyncio.timeout(10):  # seconds of silence are trouble
                size, head, _, op, seq = HEAD.unpack(await reader.readexactly(16))
                number, body = [await reader.readexactly(n) for n in (head - 16, size - head)]
            if op in {3, 8}:  # let in, or a heartbeat answered: what is new, and the next heartbeat
                writer.writelines([frame(4, readings[sent := n], n) for n in readings if n > sent])
                asyncio.get_running_loop().call_later(2, writer.write, frame(2, {}))
            elif op == 5 and number:
                if number not in done:
                    print("command", body.decode(), flush=True)  # carry it out here
                    done.append(number)
                writer.write(frame(22, [str(int.from_bytes(number))]))
            elif op == 5 and "error" not in json.loads(body):
                readings.pop(seq, None)
            elif op == 6 and not json.loads(body)["reconnect"]:
                raise SystemExit(body.decode())


async def stay(*where, pause=1):  # seconds
    measuring = asyncio.create_task(measure())
    while not measuring.done():
        began = time.monotonic()
        with contextlib.suppress(OSError, EOFError):
            await session(*where)
        pause = 1 if time.monotonic() - began > 60 else min(2 * pause, 60)
        await asyncio.sleep(random.uniform(0.5, pause))


asyncio.run(stay(*os.environ["SERVER"].split(":"), os.environ["TOKEN"]))
