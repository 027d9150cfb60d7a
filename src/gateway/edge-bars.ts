/**
 * `EdgeBars`: the presences to which an edge that comes back lets no packet pass for a while. While it was away, it
 * answered from its last snapshot, and a presence may have become that of another host meanwhile: a client of the site that
 * has cached the answer would send to that host what is meant for the first one. So such a presence is barred for as long
 * as an answer may be cached. An edge that is not away follows each change long before the presence has another host.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import type { Snapshot, SnapshotHost } from '../control/index.ts';

/** A presence that has ceased to be that of a host while the edge was away. */
interface LeftPresence {
  readonly address: IpAddress;
  /** The names under which it may be cached. */
  readonly names: ReadonlySet<string>;
  /** Until when, on the monotonic clock. */
  readonly untilMs: number;
}

export class EdgeBars {
  readonly #clock: Clock;
  readonly #setBarred: (addresses: readonly IpAddress[]) => void;
  /** Keyed by the text of the address. */
  readonly #left = new Map<string, LeftPresence>();
  #cancel = (): void => {};

  /** @param setBarred is called with all that is barred now, whenever that may have changed */
  constructor(clock: Clock, setBarred: (addresses: readonly IpAddress[]) => void) {
    this.#clock = clock;
    this.#setBarred = setBarred;
  }

  /**
   * Follows a new snapshot.
   *
   * @param before the snapshot from which names were answered until now; undefined if there was none
   * @param awayMs for how long the edge had been without its cloud before the snapshot came, as far as it has noticed; 0 if
   *   it was not
   */
  follow(before: Snapshot | undefined, after: Snapshot, awayMs: number): void {
    const present = hostsByAddress(after);
    const ttlMs = (before?.ttlSeconds ?? 0) * 1000;
    // A presence rests for a TTL at least before it gets another host.
    const isLate = awayMs > 0 && awayMs + NOTICE_MS >= ttlMs;
    if (before !== undefined && ttlMs > 0 && isLate) {
      const untilMs = this.#clock.monotonicMs() + ttlMs;
      for (const [text, { address, names }] of hostsByAddress(before)) {
        if (!isShared(names, present.get(text)?.names)) {
          this.#left.set(text, { address, names, untilMs });
        }
      }
    }
    this.#apply(present);
  }

  /** Ends the timer. What is barred stays barred. */
  close(): void {
    this.#cancel();
  }

  #apply(present: ReadonlyMap<string, NamedPresence>): void {
    this.#cancel();
    const nowMs = this.#clock.monotonicMs();
    let nextMs = Number.POSITIVE_INFINITY;
    const barred: IpAddress[] = [];
    for (const [text, { address, names, untilMs }] of this.#left) {
      if (untilMs <= nowMs) {
        this.#left.delete(text);
        continue;
      }
      nextMs = Math.min(nextMs, untilMs);
      const now = present.get(text);
      if (now?.isServed === true && !isShared(names, now.names)) barred.push(address);
    }
    this.#setBarred(barred);
    if (this.#left.size === 0) return;
    this.#cancel = this.#clock.after(nextMs - nowMs, () => this.#apply(present), true);
  }
}

/** What a snapshot says of a presence. */
interface NamedPresence {
  readonly address: IpAddress;
  readonly names: Set<string>;
  /** Whether anything is offered there. Nobody can begin to send to a host that offers nothing. */
  isServed: boolean;
}

function hostsByAddress({ hosts }: Snapshot): ReadonlyMap<string, NamedPresence> {
  const all = new Map<string, NamedPresence>();
  for (const host of hosts) {
    for (const address of [...host.addresses, ...(host.former ?? [])]) {
      const text = address.toString();
      let presence = all.get(text);
      if (presence === undefined) {
        presence = { address, names: new Set(), isServed: false };
        all.set(text, presence);
      }
      for (const name of namesOf(host)) presence.names.add(name);
      presence.isServed ||= host.ports.length > 0;
    }
  }
  return all;
}

function namesOf({ name, aliases = [] }: SnapshotHost): readonly string[] {
  return [name, ...aliases];
}

function isShared(names: ReadonlySet<string>, others: ReadonlySet<string> | undefined): boolean {
  if (others === undefined) return false;
  for (const name of names) if (others.has(name)) return true;
  return false;
}

/** An edge may be cut off for so long before it notices: three intervals of a keepalive of 10 s, and some more. */
const NOTICE_MS = 40_000;
