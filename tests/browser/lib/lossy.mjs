// A bad network: forwards datagrams between a client and one address of a node, late, and not all of them.
import { createSocket } from "node:dgram";
import { atEnd } from "./driver.mjs";

/** What a router keeps of what does not fit. */
const QUEUE_MS = 300;

/** A generator of numbers in [0, 1) that gives the same ones every time (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Listens beside `target` ({address, port}, IPv4) and returns {address, port, counts}. `loss` is the share lost each
 * way in percent, `delayMs` how late the others are. Towards the client the path carries `rate.kbps` kbit/s, all if 0,
 * and what does not fit waits in a queue of 300 ms; `rate` may be changed while it runs. Clients are told apart by their
 * address.
 */
export async function lossy(target, { loss, delayMs, rate = { kbps: 0 }, seed = 1 }) {
  const chance = generator(seed);
  const counts = { toClient: 0, toNode: 0, lost: 0, overflowed: 0 };
  const towards = new Map();
  const late = { toClient: [], toNode: [] };
  let busyUntil = 0;
  /** Milliseconds that a datagram of so many bytes waits in the queue and on the line; undefined if it does not fit. */
  const queued = (bytes) => {
    if (rate.kbps === 0) return 0;
    const now = performance.now();
    const start = Math.max(now, busyUntil);
    if (start - now > QUEUE_MS) return undefined;
    busyUntil = start + ((bytes + 28) * 8) / rate.kbps;
    return busyUntil - now;
  };
  const pass = (way, bytes, send) => {
    if (chance() * 100 < loss) {
      counts.lost += 1;
      return;
    }
    const wait = way === "toClient" ? queued(bytes) : 0;
    if (wait === undefined) {
      counts.overflowed += 1;
      return;
    }
    counts[way] += 1;
    if (delayMs + wait === 0) return void send();
    // Timers of nearly the same length may overtake each other; datagrams do not.
    late[way].push(send);
    setTimeout(() => late[way].shift()(), delayMs + wait);
  };
  const open = () => createSocket({ type: "udp4", recvBufferSize: 1 << 20 });
  const near = open();
  const sockets = [near];
  let closed = false;
  near.on("message", (data, client) => {
    const name = `${client.address}:${client.port}`;
    let far = towards.get(name);
    if (!far) {
      far = open();
      far.bind();
      far.on("message", (answer) =>
        pass("toClient", answer.length, () => !closed && near.send(answer, client.port, client.address)),
      );
      towards.set(name, far);
      sockets.push(far);
    }
    pass("toNode", data.length, () => !closed && far.send(data, target.port, target.address));
  });
  await new Promise((resolve) => near.bind(0, target.address, resolve));
  atEnd(() => {
    closed = true;
    for (const socket of sockets) socket.close();
  });
  return { address: target.address, port: near.address().port, counts };
}

/** The first UDP candidate of `sdp` with an IPv4 address that is not a loopback one. */
export function candidateOf(sdp) {
  for (const [, address, port] of sdp.matchAll(/^a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host/gim)) {
    if (!address.startsWith("127.")) return { address, port: Number(port) };
  }
  return undefined;
}

/** `sdp` with that candidate alone, and with the address of the bad network in the place of the node's. */
export function through(sdp, { address, port }) {
  let kept = false;
  return sdp
    .split(/\r?\n/)
    .filter((line) => {
      if (!line.startsWith("a=candidate:")) return true;
      if (kept) return false;
      kept = true;
      return true;
    })
    .map((line) =>
      line.startsWith("a=candidate:") ? `a=candidate:1 1 udp 2130706431 ${address} ${port} typ host` : line,
    )
    .join("\r\n");
}
