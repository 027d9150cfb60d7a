/**
 * Tells the hosts of a LAN that this machine now answers for addresses for which another machine has answered before.
 * Without it, hosts that know an address send to the other machine until their own timers end, which takes 10 s and more.
 *
 * For IPv4 the kernel answers ARP for what is routed to a TUN (`proxyArp`), so an announcement is all that is missing.
 * For IPv6 the kernel also needs an entry for each address (`proxy-neighbours.ts`), which is kept here too.
 *
 * Each address is announced twice, because a frame can be lost. The frames are paced, as switches limit broadcasts.
 * @module
 */
import { networkInterfaces } from 'node:os';
import { IpAddress } from '../base/address.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { IpPrefix } from '../base/prefix.ts';
import { arpAnnouncement, neighbourAdvertisement } from '../packet/neighbour-frame.ts';
import { PacketSocket } from './packet-socket.ts';
import {
  changeProxyNeighbours,
  forgetProxyNeighbours,
  type ProxyNeighbours,
} from './proxy-neighbours.ts';
import { loadSyscalls } from './syscalls.ts';

export interface NeighbourAnnouncerOptions {
  /** The interfaces of the LAN. With none, nothing is done. */
  readonly interfaces: readonly string[];
  /** Called with one sentence when nothing can be announced at an interface; a lasting fault is reported once. */
  readonly onProblem: (problem: string) => void;
  /** Default `systemClock`. */
  readonly clock?: Clock;
}

/** Announces addresses at all interfaces. Needs CAP_NET_RAW, and koffi, which the first announcement loads. */
export class NeighbourAnnouncer {
  readonly #interfaces: readonly string[];
  readonly #onProblem: (problem: string) => void;
  readonly #clock: Clock;
  /** The addresses that are to be announced the first time, by their text. */
  readonly #first = new Map<string, IpAddress>();
  /** The addresses that are to be announced a second time, in the order of the time from which on that is due. */
  readonly #second = new Map<string, { readonly address: IpAddress; readonly dueMs: number }>();
  #segments: readonly Segment[] = [];
  #isRunning = false;
  #isClosed = false;
  #cancelTurn: () => void = () => {};
  /** When the next turn is due. */
  #nextTurnMs = 0;
  /** The last fault that was reported of each interface, until an announcement succeeds there. */
  readonly #reported = new Map<string, string>();

  constructor({ interfaces, onProblem, clock = systemClock }: NeighbourAnnouncerOptions) {
    this.#interfaces = interfaces;
    this.#onProblem = onProblem;
    this.#clock = clock;
  }

  /**
   * Announces the addresses of some prefixes, and no longer answers for those of others. Must be called when the routes
   * are set. It resolves when the kernel answers for the addresses; the announcements follow. Of a prefix, the first
   * 256 addresses count.
   *
   * @throws {EnvironmentError} if the command `ip` is missing or refuses an entry.
   */
  async change(added: readonly IpPrefix[], removed: readonly IpPrefix[]): Promise<void> {
    const gone = removed.flatMap(addressesIn);
    for (const address of gone) {
      this.#first.delete(address.toString());
      this.#second.delete(address.toString());
    }
    const here = added.flatMap(addressesIn);
    await changeProxyNeighbours(this.#proxied(here), this.#proxied(gone));
    this.#announce(here);
  }

  /**
   * Removes what a killed process has left, and what this one has set, within prefixes.
   *
   * @throws {EnvironmentError} if the command `ip` is missing or fails.
   */
  async forget(within: readonly IpPrefix[]): Promise<void> {
    for (const device of this.#interfaces) await forgetProxyNeighbours(device, within);
  }

  /** Ends the announcements. */
  close(): void {
    this.#isClosed = true;
    this.#first.clear();
    this.#second.clear();
    this.#cancelTurn();
    this.#closeSegments();
  }

  #proxied(addresses: readonly IpAddress[]): ProxyNeighbours[] {
    const ipv6 = addresses.filter(({ family }) => family === 6);
    return this.#interfaces.map((device) => ({ device, addresses: ipv6 }));
  }

  #announce(addresses: readonly IpAddress[]): void {
    if (this.#isClosed || this.#interfaces.length === 0) return;
    for (const address of addresses) {
      const text = address.toString();
      this.#second.delete(text);
      if (this.#first.size + this.#second.size < MAX_WAITING) this.#first.set(text, address);
      else
        this.#report('', `more than ${MAX_WAITING} addresses wait to be announced: some are not`);
    }
    if (this.#first.size === 0) return;
    if (this.#isRunning) {
      // The next turn may be as late as the next second announcement.
      if (this.#nextTurnMs > this.#clock.monotonicMs() + TURN_MS) this.#turnIn(TURN_MS);
      return;
    }
    this.#isRunning = true;
    void this.#run();
  }

  async #run(): Promise<void> {
    try {
      const syscalls = await loadSyscalls();
      if (this.#isClosed) return;
      this.#segments = this.#interfaces.flatMap((name) => {
        try {
          return { name, socket: PacketSocket.open(syscalls, name), linkLocal: linkLocalOf(name) };
        } catch (error) {
          this.#report(name, (error as Error).message);
          return [];
        }
      });
    } catch (error) {
      this.#report('', (error as Error).message);
    }
    this.#turn();
  }

  /** Sends what is due, up to the limit of a turn, and returns later for the rest. */
  #turn(): void {
    let isBusy = false;
    for (let count = 0; count < ADDRESSES_PER_TURN && !isBusy; count++) {
      const nowMs = this.#clock.monotonicMs();
      const [text, address] = this.#next(nowMs) ?? [];
      if (text === undefined) break;
      isBusy = !this.#send(address!);
      if (isBusy) break;
      if (!this.#first.delete(text)) this.#second.delete(text);
      else this.#second.set(text, { address: address!, dueMs: nowMs + SECOND_AFTER_MS });
    }
    const [waiting] = this.#second.values();
    if (this.#segments.length === 0 || (this.#first.size === 0 && waiting === undefined)) {
      // Without an interface that works, nothing is kept: the next announcement tries again.
      this.#first.clear();
      this.#second.clear();
      this.#closeSegments();
      this.#isRunning = false;
      return;
    }
    const untilMs = this.#first.size > 0 ? 0 : waiting!.dueMs - this.#clock.monotonicMs();
    this.#turnIn(Math.max(TURN_MS, untilMs));
  }

  #turnIn(delayMs: number): void {
    this.#cancelTurn();
    this.#nextTurnMs = this.#clock.monotonicMs() + delayMs;
    this.#cancelTurn = this.#clock.after(delayMs, () => this.#turn(), true);
  }

  /** Returns the address to announce now; all first announcements come before the second ones. */
  #next(nowMs: number): readonly [string, IpAddress] | undefined {
    const [first] = this.#first;
    if (first !== undefined) return first;
    const [second] = this.#second;
    return second !== undefined && second[1].dueMs <= nowMs
      ? [second[0], second[1].address]
      : undefined;
  }

  /** Sends a frame at each interface. Returns false if the kernel takes no more now. */
  #send(address: IpAddress): boolean {
    for (const segment of this.#segments) {
      const { name, socket, linkLocal } = segment;
      if (address.family === 6 && linkLocal === undefined) {
        this.#report(
          name,
          `interface ${name} has no link-local address: IPv6 addresses are not announced`
        );
        continue;
      }
      try {
        const frame =
          address.family === 4
            ? arpAnnouncement(socket.hardware, address)
            : neighbourAdvertisement(socket.hardware, linkLocal!, address);
        if (!socket.send(frame)) return false;
        this.#reported.delete(name);
      } catch (error) {
        this.#report(name, (error as Error).message);
        socket.close();
        this.#segments = this.#segments.filter((each) => each !== segment);
      }
    }
    return true;
  }

  #closeSegments(): void {
    for (const { socket } of this.#segments) socket.close();
    this.#segments = [];
  }

  #report(name: string, problem: string): void {
    if (this.#reported.get(name) === problem) return;
    this.#reported.set(name, problem);
    this.#onProblem(problem);
  }
}

/** An interface where addresses are announced. */
interface Segment {
  readonly name: string;
  readonly socket: PacketSocket;
  /** The source of neighbour advertisements; undefined if the interface has none. */
  readonly linkLocal: IpAddress | undefined;
}

function linkLocalOf(name: string): IpAddress | undefined {
  const addresses = networkInterfaces()[name] ?? [];
  return addresses
    .map(({ address }) => IpAddress.parse(address))
    .find((it) => LINK_LOCAL.contains(it));
}

function addressesIn(prefix: IpPrefix): IpAddress[] {
  const count = Math.min(prefix.size, MAX_OF_PREFIX);
  return Array.from({ length: count }, (_, index) => prefix.at(index));
}

const LINK_LOCAL: IpPrefix = /* @__PURE__ */ IpPrefix.parse('fe80::/10');
const MAX_OF_PREFIX = 256;
/** Some 4000 sites. */
const MAX_WAITING = 65_536;
/** 2,000 addresses a second. */
const ADDRESSES_PER_TURN = 20;
const TURN_MS = 10;
/** RetransTimer of RFC 4861 section 10; RFC 5227 section 1.1 has 2 s. */
const SECOND_AFTER_MS = 1000;
