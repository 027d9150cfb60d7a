/**
 * `SiteResolver`: takes one query as bytes and returns one answer as bytes, for the clients of one site.
 *
 * 1. A message that is no query gets an error, or no answer.
 * 2. An answer by UDP beyond the rate of the client's network is truncated or dropped.
 * 3. A client that may not ask is refused.
 * 4. A query for another EDNS version, for another class or for a zone transfer is refused.
 * 5. A name in the site's zones is answered from them, and never leaves the site.
 * 6. Any other name is forwarded by the rule with the longest suffix, or refused if there is no rule.
 *
 * Nothing is cached: the site's own answers are in memory, and the upstreams cache theirs.
 * @module
 */
import { AUTHORITATIVE_ANSWER, RECURSION_AVAILABLE, TRUNCATED_RESPONSE } from 'dns-packet';
import type { Clock } from '../base/clock.ts';
import { checkClock, checkMethods, checkObject } from '../base/option-check.ts';
import type { PrefixInput } from '../base/prefix.ts';
import { parseSchema } from '../base/schema.ts';
import { Histogram, type HistogramSample } from '../observe/index.ts';
import { type Client, ClientTable } from './client-table.ts';
import { FairShare } from './fair-share.ts';
import { type ForwardRule, ForwardTable, type Upstream } from './forward-rules.ts';
import { DnsForwarder, type Forwarder } from './forwarder.ts';
import { integerWithin } from './limits.ts';
import {
  encodeFault,
  encodeReply,
  MAX_MESSAGE_LENGTH,
  MIN_UDP_LENGTH,
  parseQuery,
  type Query,
  Rcode,
  readUint16,
} from './message.ts';
import { OptRecords } from './opt-records.ts';
import { DEFAULT_ALLOW, type ResolverRules, ResolverRulesSchema } from './options.ts';
import { RecordType } from './record.ts';
import { RESPONSE_RATE_DEFAULTS, ResponseRate } from './response-rate.ts';
import type { Zone } from './zone.ts';
import type { ZoneAnswer } from './zone-data.ts';

export type DnsTransport = 'udp' | 'tcp';

export interface SiteResolverOptions extends ResolverRules {
  /** Default none: every name is foreign until `setZone`. */
  readonly zone?: Zone | undefined;
  /** Asks the upstreams; by default a `DnsForwarder`, which `close` closes. */
  readonly forwarder?: Forwarder | undefined;
  /**
   * The longest UDP answer in bytes, from 512 to 4096, even if a client takes more. Default 1232, which no
   * path fragments.
   */
  readonly maxUdpBytes?: number;
  /** The longest query in bytes; a longer one is malformed. Default 4096. */
  readonly maxQueryBytes?: number;
  /**
   * The number of queries that may wait for upstreams at a time; further ones get SERVFAIL. Default 512.
   * One client never holds more places than are free for others, so that it gets half of them when it
   * is alone.
   */
  readonly maxForwarding?: number;
  /** Measures the rate of answers; default the clock of the system. */
  readonly clock?: Clock;
}

/** The default of each option; `RESPONSE_RATE_DEFAULTS` has those of `rateLimit`. */
export const SITE_RESOLVER_DEFAULTS: Readonly<{
  allow: readonly string[];
  forward: readonly ForwardRule[];
  maxUdpBytes: number;
  maxQueryBytes: number;
  maxForwarding: number;
}> = Object.freeze({
  allow: DEFAULT_ALLOW,
  forward: Object.freeze([]),
  maxUdpBytes: 1232,
  maxQueryBytes: 4096,
  maxForwarding: 512,
});

/** Cumulative. Each message counts in exactly one of the first twelve, and in the others where they apply. */
export interface SiteResolverCounters {
  /** Answered from the site's zones with records. */
  success: number;
  /** Answered from the site's zones: the name has no record of the type. */
  nodata: number;
  /** Answered from the site's zones: the name does not exist. */
  nxdomain: number;
  /** Answered by an upstream. */
  forwarded: number;
  /** SERVFAIL: no upstream answered, too many queries were waiting for one, or the zone has expired. */
  failed: number;
  /** REFUSED: a foreign name without a rule, another class than IN, a zone transfer. */
  refused: number;
  /** FORMERR. */
  malformed: number;
  /** NOTIMP and BADVERS: another opcode than QUERY, an EDNS version other than 0. */
  unsupported: number;
  /** Responses, and messages shorter than a header, which get no answer. */
  ignored: number;
  /** REFUSED: the client is not one of `allow`. */
  notAllowed: number;
  /** Answers with TC and no records, beyond the rate of the client's network. */
  rateSlipped: number;
  /** Queries beyond the rate of the client's network, which get no answer. */
  rateDropped: number;
  /** Answers that were too long for UDP, and got TC instead of records. */
  truncated: number;
  /** The part of `failed` for which no upstream was asked. */
  overloaded: number;
  /** The part of `overloaded` whose client had its share, while there were free places for others. */
  overShare: number;
}

/** Answers queries without a socket; `DnsListener`, or a listener of your own, brings the queries. */
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
  /** The answers by response code; the last ones got no answer. */
  readonly #rcodes = new Float64Array(NO_ANSWER + 1);
  readonly #forwardSeconds = new Histogram();
  readonly #clock: Clock;
  readonly #forwardTable: ForwardTable;
  readonly #forwarder: Forwarder;
  readonly #ownForwarder: DnsForwarder | undefined;
  readonly #maxUdpBytes: number;
  readonly #optRecords: OptRecords;
  readonly #maxQueryBytes: number;
  readonly #clients: ClientTable;
  readonly #rate: ResponseRate;
  readonly #forwarding: FairShare;
  /** `RECURSION_AVAILABLE` if there are upstreams, else 0. */
  readonly #recursion: number;
  #zone: Zone | undefined;
  #isExpired = false;
  #closing: Promise<void> | undefined;

  /**
   * @throws {ConfigError} with the path of the option that is wrong: a rule or a prefix that cannot be read, or a
   *   limit out of its range.
   * @throws {ApiMisuseError} if `zone`, `forwarder` or `clock` lacks the methods that it needs.
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
    this.#clock = clock;
    this.#forwardTable = new ForwardTable(forward);
    this.#recursion = this.#forwardTable.size > 0 ? RECURSION_AVAILABLE : 0;
    this.#ownForwarder = forwarder === undefined ? new DnsForwarder() : undefined;
    this.#forwarder = forwarder ?? this.#ownForwarder!;
    this.#maxUdpBytes = integerWithin(
      'maxUdpBytes',
      options.maxUdpBytes ?? SITE_RESOLVER_DEFAULTS.maxUdpBytes,
      MIN_UDP_LENGTH,
      4096
    );
    this.#optRecords = new OptRecords(this.#maxUdpBytes);
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
   * Returns how many messages were answered with each response code, in the small letters of `NOERROR` and the others,
   * and how many got no answer (`none`). Of BADVERS only the lower bits are in the header, so it counts as `noerror`.
   */
  get responses(): Readonly<Record<string, number>> {
    const named: Record<string, number> = {};
    for (const [rcode, count] of this.#rcodes.entries()) {
      const name = RCODE_NAMES[rcode] ?? 'other';
      named[name] = (named[name] ?? 0) + count;
    }
    return named;
  }

  /** Returns how long it took until an upstream had answered, or none had, in seconds. */
  get forwardTimes(): HistogramSample {
    return this.#forwardSeconds.sample();
  }

  /**
   * Replaces the zone. All later queries are answered from the new one.
   *
   * @throws {ApiMisuseError} if `zone` is not a zone.
   */
  setZone(zone: Zone): void {
    checkZone(zone);
    this.#zone = zone;
    this.#isExpired = false;
  }

  /**
   * Says that the zone is too old to answer from: its names get SERVFAIL until the next `setZone`, as those of a
   * secondary server whose zone has expired (RFC 1035 section 3.3.13, RFC 8914 section 4.25). They are never
   * forwarded.
   */
  expireZone(): void {
    this.#isExpired = true;
  }

  /**
   * Replaces the prefixes that `sources` stands for in `allow`: the site's own hosts, as a `Snapshot`
   * lists them. They apply to all later queries.
   *
   * @throws {ConfigError} at `sources[i]` if an entry is not a prefix; nothing is changed then.
   */
  setSources(prefixes: readonly PrefixInput[]): void {
    this.#clients.setSources(prefixes);
  }

  /** Returns whether a client may ask; `address` is the text that `node:dgram` and `node:net` give. */
  mayAsk(address: string): boolean {
    return this.#clients.find(address).mayAsk;
  }

  /**
   * Answers one message: at once from the site's zones, or by a promise when an upstream is asked. It
   * never throws or rejects, whatever the bytes are.
   *
   * @param query must not change before the answer is there.
   * @param address of the client, as `node:dgram` and `node:net` give it. A text that is no address
   *   may not ask.
   * @returns `undefined` if the message gets no answer: it is a response, is shorter than a header, or
   *   came by UDP beyond the rate of the client's network.
   */
  resolve(
    query: Uint8Array,
    transport: DnsTransport,
    address: string
  ): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const answer = this.#answer(query, transport, address);
    if (!(answer instanceof Promise)) return this.#count(answer);
    return answer.then((later) => this.#count(later));
  }

  #answer(
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
      // An error is never truncated: TCP would bring nothing more.
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
      if (this.#isExpired) return this.#fail(parsed, transport);
      this.#counters[found.outcome]++;
      const rcode = found.outcome === 'nxdomain' ? Rcode.NxDomain : Rcode.NoError;
      return this.#encode(parsed, transport, rcode, AUTHORITATIVE_ANSWER, found);
    }
    const upstreams = this.#forwardTable.match(parsed.name);
    if (upstreams === undefined) return this.#refuse(parsed, transport);
    return this.#forward(parsed, transport, upstreams, client);
  }

  /** Closes the resolver's own forwarder; queries that wait for upstreams get SERVFAIL. */
  close(): Promise<void> {
    this.#closing ??= this.#ownForwarder?.close() ?? Promise.resolve();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Counts an answer by its response code, whose low four bits are in its header (RFC 1035 section 4.1.1). */
  #count(answer: Uint8Array | undefined): Uint8Array | undefined {
    this.#rcodes[answer === undefined ? NO_ANSWER : answer[3]! & 0xf]!++;
    return answer;
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
    const startMs = this.#clock.monotonicMs();
    try {
      const reply = await this.#forwarder.exchange(query, upstreams);
      return reply === undefined
        ? this.#fail(query, transport)
        : this.#relay(query, transport, reply);
    } catch {
      // An injected forwarder rejected, or returned less than a header.
      return this.#fail(query, transport);
    } finally {
      this.#forwarding.release(name);
      this.#forwardSeconds.record((this.#clock.monotonicMs() - startMs) / 1000);
    }
  }

  /**
   * Answers with TC and no records, so that the client asks again by TCP. RA is always set: if an answer
   * has no records and neither AA nor RA, glibc ignores TC and asks the next server.
   */
  #slip(query: Query): Uint8Array {
    const reply = {
      rcode: Rcode.NoError,
      flags: TRUNCATED_RESPONSE | RECURSION_AVAILABLE,
      ...NO_RECORDS,
    };
    return encodeReply(query, reply, this.#maxUdpBytes, this.#optRecords);
  }

  #fail(query: Query, transport: DnsTransport): Uint8Array {
    this.#counters.failed++;
    return this.#encode(query, transport, Rcode.ServFail);
  }

  /** Returns an upstream's reply with the id of the client's query and RA set. */
  #relay(query: Query, transport: DnsTransport, reply: Uint8Array): Uint8Array {
    const answer = Buffer.from(reply);
    answer.writeUInt16BE(readUint16(query.bytes, 0), 0);
    answer.writeUInt16BE(answer.readUInt16BE(2) | RECURSION_AVAILABLE, 2);
    this.#counters.forwarded++;
    if (answer.length <= this.#limit(query, transport)) return answer;
    return this.#encode(query, transport, Rcode.NoError, TRUNCATED_RESPONSE);
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
    const bytes = encodeReply(query, reply, this.#limit(query, transport), this.#optRecords);
    if ((readUint16(bytes, 2) & TRUNCATED_RESPONSE) !== 0) this.#counters.truncated++;
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
 * Returns whether a type asks for something else than the records of a name: transfers, the obsolete
 * mail types, keys (RFC 6895 section 3.1). ANY is not one of them: it gets a minimal answer.
 */
function isMetaType(type: number): boolean {
  return type === RecordType.OPT || (type >= 128 && type < RecordType.ANY);
}

const CLASS_IN = 1;
/** The place behind the response codes of a header, which have four bits. */
const NO_ANSWER = 16;
const RCODE_NAMES: Readonly<Record<number, string>> = {
  0: 'noerror',
  1: 'formerr',
  2: 'servfail',
  3: 'nxdomain',
  4: 'notimp',
  5: 'refused',
  [NO_ANSWER]: 'none',
};
const NO_RECORDS = { answers: [], authority: [], additional: [] };
