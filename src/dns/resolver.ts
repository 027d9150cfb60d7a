/**
 * `SiteResolver`: one query as bytes to one answer as bytes, for the clients of one site.
 *
 * 1. What is no query is answered with its fault, or not at all.
 * 2. An answer by UDP beyond the rate of the client's network is truncated or dropped.
 * 3. A client that may not ask is refused.
 * 4. What we do not serve to anybody (EDNS versions, classes, zone transfers) is refused.
 * 5. A name in our zones is answered out of them, and never leaves the site.
 * 6. Any other name is forwarded by the rule of its longest suffix. It is refused if there is none.
 *
 * Nothing is cached: our own answers are at hand, and the upstreams cache theirs.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkClock, checkMethods, checkObject } from '../base/option-check.ts';
import type { PrefixInput } from '../base/prefix.ts';
import { parseSchema } from '../base/schema.ts';
import { type Client, ClientTable } from './client-table.ts';
import { FairShare } from './fair-share.ts';
import { type ForwardRule, ForwardTable, type Upstream } from './forward-rules.ts';
import { DnsForwarder, type Forwarder } from './forwarder.ts';
import { integerWithin } from './limits.ts';
import {
  encodeFault,
  encodeReply,
  FLAG_AA,
  FLAG_RA,
  FLAG_TC,
  MAX_MESSAGE_LENGTH,
  MIN_UDP_LENGTH,
  parseQuery,
  type Query,
  Rcode,
  readUint16,
} from './message.ts';
import { type ResolverRules, ResolverRulesSchema } from './options.ts';
import { RecordType } from './record.ts';
import { RESPONSE_RATE_DEFAULTS, ResponseRate } from './response-rate.ts';
import type { Zone } from './zone.ts';
import type { ZoneAnswer } from './zone-data.ts';

export type DnsTransport = 'udp' | 'tcp';

export interface SiteResolverOptions extends ResolverRules {
  /** Without one, and until `setZone`, every name is foreign. */
  readonly zone?: Zone | undefined;
  /** Asks the upstreams; by default a `DnsForwarder`, which `close` ends. */
  readonly forwarder?: Forwarder | undefined;
  /**
   * The longest UDP answer in bytes, however much a client takes; default 1232, which no path
   * fragments. 512 to 4096.
   */
  readonly maxUdpBytes?: number;
  /** A longer query is malformed; in bytes, default 4096. */
  readonly maxQueryBytes?: number;
  /**
   * Queries that may wait for upstreams at a time; beyond, SERVFAIL. Default 512. Those of one client
   * are never more than what is free for others: half of them when it is alone.
   */
  readonly maxForwarding?: number;
  /** Default: that of the system. */
  readonly clock?: Clock;
}

/** What is used where an option is absent; `RESPONSE_RATE_DEFAULTS` has those of `rateLimit`. */
export const SITE_RESOLVER_DEFAULTS: Readonly<{
  allow: readonly string[];
  forward: readonly ForwardRule[];
  maxUdpBytes: number;
  maxQueryBytes: number;
  maxForwarding: number;
}> = Object.freeze({
  allow: Object.freeze(['sources', 'loopback']),
  forward: Object.freeze([]),
  maxUdpBytes: 1232,
  maxQueryBytes: 4096,
  maxForwarding: 512,
});

/** Cumulative; one of the first twelve for each message, and the others beside it. */
export interface SiteResolverCounters {
  /** Answered out of our zones. */
  success: number;
  nodata: number;
  nxdomain: number;
  /** Answered by an upstream. */
  forwarded: number;
  /** SERVFAIL: no upstream answered, or too many queries were waiting for one. */
  failed: number;
  /** REFUSED: a foreign name without a rule, another class than IN, a zone transfer. */
  refused: number;
  /** FORMERR. */
  malformed: number;
  /** NOTIMP and BADVERS: another opcode than QUERY, an EDNS version other than 0. */
  unsupported: number;
  /** Not answered: responses, and what is shorter than a header. */
  ignored: number;
  /** REFUSED: the client is not one of `allow`. */
  notAllowed: number;
  /** Answered with TC alone: beyond the rate of the client's network. */
  rateSlipped: number;
  /** Not answered: beyond the rate of the client's network. */
  rateDropped: number;
  /** Answers that were too long for UDP, and were cut down to TC. */
  truncated: number;
  /** Those of `failed` that never got to ask. */
  overloaded: number;
  /** Those of `overloaded` whose client had its share, while there was room for other clients. */
  overShare: number;
}

/** Holds no socket: wire it to clients by `DnsListener`, or by your own. */
export class SiteResolver implements AsyncDisposable {
  readonly #counters: SiteResolverCounters = {
    success: 0,
    nodata: 0,
    nxdomain: 0,
    forwarded: 0,
    failed: 0,
    refused: 0,
    malformed: 0,
    unsupported: 0,
    ignored: 0,
    notAllowed: 0,
    rateSlipped: 0,
    rateDropped: 0,
    truncated: 0,
    overloaded: 0,
    overShare: 0,
  };
  readonly #forwardTable: ForwardTable;
  readonly #forwarder: Forwarder;
  readonly #ownForwarder: DnsForwarder | undefined;
  readonly #maxUdpBytes: number;
  readonly #maxQueryBytes: number;
  readonly #clients: ClientTable;
  readonly #rate: ResponseRate;
  readonly #forwarding: FairShare;
  /** `FLAG_RA` where there is somebody to ask, else 0. */
  readonly #recursion: number;
  #zone: Zone | undefined;
  #closing: Promise<void> | undefined;

  /**
   * @throws {ConfigError} naming the option that is wrong: a rule or a prefix cannot be read, a limit is out of its
   *   range.
   * @throws {ApiMisuseError} if a zone, a forwarder or a clock is none.
   */
  constructor(options: SiteResolverOptions = {}) {
    const { zone, forwarder } = checkObject('options', options);
    if (zone !== undefined) checkZone(zone);
    if (forwarder !== undefined) checkMethods('forwarder', forwarder, ['exchange']);
    const clock = checkClock(options.clock);
    const {
      forward = SITE_RESOLVER_DEFAULTS.forward,
      allow = SITE_RESOLVER_DEFAULTS.allow,
      rateLimit = {},
    } = parseSchema(ResolverRulesSchema, options);
    this.#zone = zone;
    this.#forwardTable = new ForwardTable(forward);
    this.#recursion = this.#forwardTable.size > 0 ? FLAG_RA : 0;
    this.#ownForwarder = forwarder === undefined ? new DnsForwarder() : undefined;
    this.#forwarder = forwarder ?? this.#ownForwarder!;
    this.#maxUdpBytes = integerWithin(
      'maxUdpBytes',
      options.maxUdpBytes ?? SITE_RESOLVER_DEFAULTS.maxUdpBytes,
      MIN_UDP_LENGTH,
      4096
    );
    this.#maxQueryBytes = integerWithin(
      'maxQueryBytes',
      options.maxQueryBytes ?? SITE_RESOLVER_DEFAULTS.maxQueryBytes,
      MIN_UDP_LENGTH,
      MAX_MESSAGE_LENGTH
    );
    this.#forwarding = new FairShare(
      integerWithin(
        'maxForwarding',
        options.maxForwarding ?? SITE_RESOLVER_DEFAULTS.maxForwarding,
        0,
        65_535
      )
    );
    this.#clients = new ClientTable(allow, rateLimit.exempt ?? RESPONSE_RATE_DEFAULTS.exempt);
    this.#rate = new ResponseRate(rateLimit, clock);
  }

  get counters(): Readonly<SiteResolverCounters> {
    return this.#counters;
  }

  /**
   * Replaces the zone; every query from now on is answered out of the new one.
   *
   * @throws {ApiMisuseError} if it is no zone.
   */
  setZone(zone: Zone): void {
    checkZone(zone);
    this.#zone = zone;
  }

  /**
   * Replaces the prefixes that `sources` stands for in `allow`: the site's own hosts, as a `Snapshot`
   * has them. Every query from now on is judged by the new ones.
   *
   * @throws {ConfigError} at `sources[i]` if one is no prefix; nothing is changed then.
   */
  setSources(prefixes: readonly PrefixInput[]): void {
    this.#clients.setSources(prefixes);
  }

  /** Whether queries from `address`, as `node:dgram` and `node:net` give it, are answered. */
  mayAsk(address: string): boolean {
    return this.#clients.find(address).mayAsk;
  }

  /**
   * Answers one message: at once out of our zones, by a promise when an upstream is asked. Never
   * throws or rejects, whatever the bytes are.
   *
   * @param query must not change until the answer is there.
   * @param address where it comes from, as `node:dgram` and `node:net` give it. Text that is no address
   *   may not ask.
   * @returns `undefined` when there is no answer: to a response, to less than a header, and by UDP
   *   beyond the rate of the client's network.
   */
  resolve(
    query: Uint8Array,
    transport: DnsTransport,
    address: string
  ): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const parsed = parseQuery(query, this.#maxQueryBytes);
    if (parsed === undefined) {
      this.#counters.ignored++;
      return undefined;
    }
    const client = this.#clients.find(address);
    const isFault = typeof parsed === 'number';
    if (transport === 'udp') {
      const verdict = this.#rate.judge(client, isFault || !client.mayAsk);
      if (verdict === 'drop') {
        this.#counters.rateDropped++;
        return undefined;
      }
      // An error is never truncated: it has nothing that TCP would bring.
      if (verdict === 'truncate' && !isFault) {
        this.#counters.rateSlipped++;
        return this.#slip(parsed);
      }
    }
    if (isFault) {
      this.#counters[parsed === Rcode.FormErr ? 'malformed' : 'unsupported']++;
      return encodeFault(query, parsed);
    }
    if (!client.mayAsk) {
      this.#counters.notAllowed++;
      return this.#encode(parsed, transport, Rcode.Refused);
    }
    if (parsed.edns !== undefined && parsed.edns.version !== 0) {
      this.#counters.unsupported++;
      return this.#encode(parsed, transport, Rcode.BadVers);
    }
    if (parsed.class !== CLASS_IN || isMetaType(parsed.type)) {
      return this.#refuse(parsed, transport);
    }
    const found = this.#zone?.lookup(parsed.name, parsed.type);
    if (found !== undefined && found.outcome !== 'not-authoritative') {
      this.#counters[found.outcome]++;
      const rcode = found.outcome === 'nxdomain' ? Rcode.NxDomain : Rcode.NoError;
      return this.#encode(parsed, transport, rcode, FLAG_AA, found);
    }
    const upstreams = this.#forwardTable.match(parsed.name);
    if (upstreams === undefined) return this.#refuse(parsed, transport);
    return this.#forward(parsed, transport, upstreams, client);
  }

  /** Ends the exchanges with upstreams of the resolver's own forwarder; their queries fail. */
  close(): Promise<void> {
    this.#closing ??= this.#ownForwarder?.close() ?? Promise.resolve();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #refuse(query: Query, transport: DnsTransport): Uint8Array {
    this.#counters.refused++;
    return this.#encode(query, transport, Rcode.Refused);
  }

  async #forward(
    query: Query,
    transport: DnsTransport,
    upstreams: readonly Upstream[],
    { name }: Client
  ): Promise<Uint8Array> {
    if (!this.#forwarding.take(name)) {
      this.#counters.overloaded++;
      if (!this.#forwarding.isFull) this.#counters.overShare++;
      return this.#fail(query, transport);
    }
    try {
      const reply = await this.#forwarder.exchange(query, upstreams);
      return reply === undefined
        ? this.#fail(query, transport)
        : this.#relay(query, transport, reply);
    } catch {
      // an injected forwarder broke its promise, or gave less than a header
      return this.#fail(query, transport);
    } finally {
      this.#forwarding.giveBack(name);
    }
  }

  /**
   * Answers with TC and no records, so that the client asks again by TCP. RA is always set: glibc takes
   * an answer without records, AA and RA for that of a server which knows nothing, and never looks at TC.
   */
  #slip(query: Query): Uint8Array {
    const reply = { rcode: Rcode.NoError, flags: FLAG_TC | FLAG_RA, ...NO_RECORDS };
    return encodeReply(query, reply, this.#maxUdpBytes, this.#maxUdpBytes);
  }

  #fail(query: Query, transport: DnsTransport): Uint8Array {
    this.#counters.failed++;
    return this.#encode(query, transport, Rcode.ServFail);
  }

  /** Hands an upstream's reply on under the id of the client, as one who has asked for it. */
  #relay(query: Query, transport: DnsTransport, reply: Uint8Array): Uint8Array {
    const answer = Buffer.from(reply);
    answer.writeUInt16BE(readUint16(query.bytes, 0), 0);
    answer.writeUInt16BE(answer.readUInt16BE(2) | FLAG_RA, 2);
    this.#counters.forwarded++;
    if (answer.length <= this.#limit(query, transport)) return answer;
    return this.#encode(query, transport, Rcode.NoError, FLAG_TC);
  }

  #encode(
    query: Query,
    transport: DnsTransport,
    rcode: Rcode,
    flags = 0,
    {
      answers,
      authority,
      additional,
    }: Pick<ZoneAnswer, 'answers' | 'authority' | 'additional'> = NO_RECORDS
  ): Uint8Array {
    const reply = { rcode, flags: flags | this.#recursion, answers, authority, additional };
    const bytes = encodeReply(query, reply, this.#limit(query, transport), this.#maxUdpBytes);
    if ((readUint16(bytes, 2) & FLAG_TC) !== 0) this.#counters.truncated++;
    return bytes;
  }

  #limit(query: Query, transport: DnsTransport): number {
    if (transport === 'tcp') return MAX_MESSAGE_LENGTH;
    const wanted = query.edns?.udpPayloadSize ?? MIN_UDP_LENGTH;
    return Math.min(Math.max(wanted, MIN_UDP_LENGTH), this.#maxUdpBytes);
  }
}

function checkZone(zone: Zone): void {
  checkMethods('zone', zone, ['lookup']);
}

/**
 * Types that ask for something else than records of a name: transfers, the obsolete mail types, keys
 * (RFC 6895 section 3.1). ANY is served minimally.
 */
function isMetaType(type: number): boolean {
  return type === RecordType.OPT || (type >= 128 && type < RecordType.ANY);
}

const CLASS_IN = 1;
const NO_RECORDS = { answers: [], authority: [], additional: [] };
