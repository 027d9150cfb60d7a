/**
 * The standing scene: a cloud and two sites that all use 10.0.0.0/24 and fd00::/64. In each of them
 * the host .5 (::5) takes part: in the cloud as the service, at both sites as compute host.
 *
 * - both sites use the cloud's tcp/5672, udp/53 and echo
 * - the cloud uses tcp/16509 of both compute hosts
 * - site B uses tcp/49152-49215 of site A's compute host
 * @module
 */
import { expect } from 'vitest';
import {
  PacketTranslator,
  type PacketTranslatorOptions,
  type PathStatus,
  TRANSLATION_HEADROOM,
  VERDICT_NAMES,
  type VerdictName,
} from '../../src/translator/index.ts';
import type { Ends } from '../support/packets.ts';
import type { TextPermit, TextPlan, TextPresence } from '../support/text-of.ts';
import { framed, VNET, type VnetHeader } from '../support/vnet.ts';

export type RealmName = 'cloud' | 'site-a' | 'site-b';

/** The addresses of one IP version, as each realm sees them. */
export interface Addresses {
  /** The host of the scene, in all three realms. */
  readonly host: string;
  /** Another real host, without any presence. */
  readonly unknownHost: string;
  readonly router: string;
  /** The presence of the cloud's host in both sites. */
  readonly cloud: string;
  /** The presence of site A's host in the cloud and in site B. */
  readonly siteA: string;
  /** The presence of site B's host in the cloud and in site A. */
  readonly siteB: string;
  /** An address in a pool of every realm that is never bound. */
  readonly unbound: string;
  /** An address outside of all sources. */
  readonly foreign: string;
}

export const ADDRESSES: Readonly<Record<4 | 6, Addresses>> = {
  4: {
    host: '10.0.0.5',
    unknownHost: '10.0.0.7',
    router: '10.0.0.1',
    cloud: '100.64.0.1',
    siteA: '100.64.0.11',
    siteB: '100.64.0.12',
    unbound: '100.64.0.200',
    foreign: '192.0.2.9',
  },
  6: {
    host: 'fd00::5',
    unknownHost: 'fd00::7',
    router: 'fd00::1',
    cloud: 'fd64::1',
    siteA: 'fd64::a',
    siteB: 'fd64::b',
    unbound: 'fd64::c8',
    foreign: '2001:db8::9',
  },
};

export const FAMILIES = [4, 6] as const;

export const PAYLOAD: Uint8Array = Uint8Array.from('the quick brown fox', (letter) =>
  letter.charCodeAt(0)
);

export const PLAN: TextPlan = {
  realms: (['cloud', 'site-a', 'site-b'] as const).map((name) => ({
    name,
    sources: ['10.0.0.0/24', 'fd00::/64'],
    pools: ['100.64.0.0/24', 'fd64::/64'],
  })),
  presences: FAMILIES.flatMap((family) => presencesOf(ADDRESSES[family])),
  permits: FAMILIES.flatMap((family) => permitsOf(ADDRESSES[family].host)),
};

/** A packet's addresses where it enters and where it leaves. */
export interface PacketPath {
  readonly name: string;
  readonly ingress: RealmName;
  readonly egress: RealmName;
  readonly before: Ends;
  readonly after: Ends;
}

/** The plan without one of its realms. */
export function without(name: RealmName): TextPlan {
  return {
    realms: PLAN.realms.filter((realm) => realm.name !== name),
    presences: PLAN.presences.filter(({ realm, of }) => realm !== name && of.realm !== name),
    permits: PLAN.permits.filter(({ realm, service }) => realm !== name && service.realm !== name),
  };
}

/** The path of a client's packets to a service; `reply` is the path of the replies. */
export function pathOf(
  family: 4 | 6,
  ingress: RealmName,
  egress: RealmName,
  side: 'request' | 'reply' = 'request'
): PacketPath {
  const { host } = ADDRESSES[family];
  return {
    name: `${side} from ${ingress} to ${egress} over IPv${family}`,
    ingress,
    egress,
    before: { source: host, destination: presenceOf(family, egress) },
    after: { source: presenceOf(family, ingress), destination: host },
  };
}

/** The address that stands for the host of a realm in the other realms. */
export function presenceOf(family: 4 | 6, realm: RealmName): string {
  const { cloud, siteA, siteB } = ADDRESSES[family];
  return { cloud, 'site-a': siteA, 'site-b': siteB }[realm];
}

/** The result for a packet. */
export interface Sent {
  readonly verdict: VerdictName;
  /** Valid iff the verdict is Forward or NeedsPresence. */
  readonly egress: string;
  /** The packet behind its virtio-net header, as it is now. */
  readonly packet: Uint8Array;
}

/** A translator with the plan loaded. */
export class Scene {
  readonly translator: PacketTranslator;
  /** The virtio-net header of the packet that was forwarded last, if it had one. */
  vnet: Uint8Array = new Uint8Array(VNET);

  constructor(options: PacketTranslatorOptions & { readonly plan?: TextPlan } = {}) {
    this.translator = new PacketTranslator(options);
    this.translator.load(options.plan ?? PLAN);
  }

  /**
   * Translates a copy of the packet in the middle of a buffer. Throws if a byte around the packet was
   * written, or if a packet that was not forwarded has changed. Only for a packet that changes its IP
   * version may the virtio-net header and the `headroom` in front be written.
   */
  send(
    ingress: string,
    packet: Uint8Array,
    header?: VnetHeader,
    headroom: number = TRANSLATION_HEADROOM
  ): Sent {
    const { translator } = this;
    const frame = framed(packet, header);
    const start = AROUND + headroom + VNET;
    const end = start + packet.length;
    const buffer = new Uint8Array(end + AROUND).fill(CANARY);
    buffer.set(frame, start - VNET);
    const untouched = buffer.slice();
    const realm = translator.realm(ingress);
    const vnet = header === undefined ? -1 : start - VNET;
    const room = header === undefined ? headroom + VNET : headroom;
    const verdict = VERDICT_NAMES[translator.translate(realm, buffer, start, end, vnet, room)]!;

    let result = packet;
    if (verdict === 'Forward') {
      result = buffer.slice(translator.start, translator.end);
      this.vnet = buffer.slice(translator.vnet, translator.vnet + VNET);
      const isSameVersion = result[0]! >>> 4 === packet[0]! >>> 4;
      const from = isSameVersion ? start : AROUND;
      buffer.set(untouched.subarray(from, end), from);
    }
    if (Buffer.compare(buffer, untouched) !== 0) {
      throw new Error(`${verdict}, and bytes were changed that were not to be changed`);
    }
    return { verdict, egress: translator.realmName(translator.egress), packet: result };
  }

  /** Translates packets that come from one realm, and returns the verdicts on them. */
  verdicts(ingress: string, ...packets: readonly Uint8Array[]): VerdictName[] {
    return packets.map((packet) => this.send(ingress, packet).verdict);
  }

  /** The answer to the packet that was refused last, if there is one. */
  get reply(): Uint8Array | undefined {
    const { replyLength, reply } = this.translator;
    if (replyLength === 0) return undefined;
    expect(reply.slice(0, VNET)).toEqual(new Uint8Array(VNET));
    return reply.slice(VNET, replyLength);
  }

  /** Translates the packet, which must be forwarded, and returns it as it leaves. */
  forward(ingress: string, packet: Uint8Array, header?: VnetHeader): Uint8Array {
    const sent = this.send(ingress, packet, header);
    if (sent.verdict !== 'Forward') throw new Error(`not forwarded but ${sent.verdict}`);
    return sent.packet;
  }

  /** The counters of a realm, without those that are zero. */
  counters(realm: string): Partial<Record<VerdictName, number>> {
    const counters = this.translator.counters(this.translator.realm(realm));
    return Object.fromEntries(Object.entries(counters).filter(([, count]) => count !== 0));
  }

  paths(): PathStatus[] {
    return [...this.translator.paths()];
  }
}

/** Expects the packet built for the addresses before to leave as the one built for those after. */
export function expectForwarded(
  scene: Scene,
  { ingress, egress, before, after }: PacketPath,
  build: (ends: Ends) => Uint8Array,
  header?: VnetHeader
): void {
  const sent = scene.send(ingress, build(before), header);
  expect([sent.verdict, sent.egress]).toEqual(['Forward', egress]);
  // Faster than toEqual on 64 KiB.
  expect(Buffer.compare(sent.packet, build(after))).toBe(0);
}

function presencesOf(addresses: Addresses): TextPresence[] {
  const { host: address, cloud, siteA, siteB } = addresses;
  return [
    { realm: 'site-a', address: cloud, of: { realm: 'cloud', address } },
    { realm: 'site-b', address: cloud, of: { realm: 'cloud', address } },
    { realm: 'cloud', address: siteA, of: { realm: 'site-a', address } },
    { realm: 'cloud', address: siteB, of: { realm: 'site-b', address } },
    { realm: 'site-b', address: siteA, of: { realm: 'site-a', address } },
    { realm: 'site-a', address: siteB, of: { realm: 'site-b', address } },
  ];
}

function permitsOf(address: string): TextPermit[] {
  const cloud = { realm: 'cloud', address };
  return [
    { realm: 'site-a', service: cloud, ports: ['tcp/5672', 'udp/53', 'icmp'] },
    { realm: 'site-b', service: cloud, ports: ['tcp/5672', 'udp/53', 'icmp'] },
    { realm: 'cloud', service: { realm: 'site-a', address }, ports: ['tcp/16509'] },
    { realm: 'cloud', service: { realm: 'site-b', address }, ports: ['tcp/16509'] },
    { realm: 'site-b', service: { realm: 'site-a', address }, ports: ['tcp/49152-49215'] },
  ];
}

/** Bytes in front of the virtio-net header and behind the packet. */
const AROUND = 24;
const CANARY = 0xa5;
