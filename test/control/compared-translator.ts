/**
 * A translator that gets the changes of a controller, and beside it what has to agree with it: a translator that loads
 * the whole plan each time, and two parts of a divided plan with their routes.
 */
import { expect } from 'vitest';
import { PlanPartition } from '../../src/control/index.ts';
import {
  PacketTranslator,
  type PlanChanges,
  TRANSLATION_HEADROOM,
  type TranslationPlan,
  VERDICT_NAMES,
} from '../../src/translator/index.ts';
import { ACK, SYN, tcpPacket, udpPacket } from '../support/packets.ts';
import { destinationOf, sourceOf } from './partition-world.ts';
import { PlanModel } from './plan-model.ts';
import { ObservedTranslator, type ScriptedStore } from './scene.ts';

/** A packet of a host to a service that some clients may use, and the answer to it. */
export interface Probe {
  readonly host: string;
  /** Chooses the permit. */
  readonly at: number;
}

/** A host that lacks a presence in a site. */
export interface Lacking {
  readonly site: string;
  readonly host: string;
  readonly realm: string;
  readonly family: 4 | 6;
}

const CLOUD = 'cloud';

export class ComparedTranslator extends ObservedTranslator {
  readonly #whole = new PacketTranslator();
  readonly parts: readonly PlanModel[] = [new PlanModel(), new PlanModel()];
  readonly routes: Map<string, string> = new Map();
  readonly #partition = new PlanPartition({
    shared: CLOUD,
    targets: this.parts,
    holderOf: (site) => site.charCodeAt(site.length - 1) % 2,
    onRoutes: (changes) => {
      for (const { prefix, site } of changes) {
        if (site === undefined) this.routes.delete(`${prefix}`);
        else this.routes.set(`${prefix}`, site);
      }
    },
  });
  readonly #onForward: () => void;

  /** @param onForward is called for each packet that passes */
  constructor(store: ScriptedStore, onForward: () => void) {
    super(store);
    this.#onForward = onForward;
  }

  override load(plan: TranslationPlan): void {
    super.load(plan);
    this.#whole.load(plan);
    this.#partition.load(plan);
  }

  override apply(changes: PlanChanges): void {
    super.apply(changes);
    this.#whole.load(this.keyed.plan);
    this.#partition.apply(changes);
    this.compare();
  }

  /** Sends a packet, and the answer to it if it passes. Returns who lacks a presence, if somebody does. */
  send({ host, at }: Probe, nowMs: number): Lacking | undefined {
    for (const each of this.#both) each.advance(nowMs);
    const { permits } = this.plan;
    const permit = permits[at % permits.length];
    if (permit === undefined) return undefined;
    const { realm, service, ports } = permit;
    const presences = this.addressesOf(realm, service.realm, service.address);
    const address = presences.find((each) => each.includes(':') === host.includes(':'));
    if (address === undefined) return undefined;
    const [protocol, text] = ports[0]!.split('/');
    const packetOf = protocol === 'udp' ? udpPacket : tcpPacket;
    const port = Number(text);
    const ends = { source: host, destination: address };
    const there = this.#translate(
      realm,
      packetOf(ends, { sourcePort: 40_000, destinationPort: port, flags: SYN })
    );
    if (there.verdict === 'NeedsPresence') {
      const family = this.real.lackingFamily;
      return { site: realm, host, realm: there.egress, family };
    }
    if (there.packet === undefined) return undefined;
    this.#onForward();
    const back = {
      source: destinationOf(there.packet).toString(),
      destination: sourceOf(there.packet).toString(),
    };
    this.#translate(
      there.egress,
      packetOf(back, { sourcePort: port, destinationPort: 40_000, flags: SYN | ACK })
    );
    return undefined;
  }

  /** Says what becomes of packets from some hosts to all presences, in an order that history does not change. */
  explanations(): string[] {
    return this.presences
      .flatMap(({ realm, address }) => {
        const hosts = address.includes(':') ? ['2001:db8::5'] : ['10.0.0.5', '10.0.0.6'];
        return hosts.map((source) => {
          const ends = { source, destination: address };
          const ports = { sourcePort: 40_000, destinationPort: 80 };
          const packet = tcpPacket(ends, { ...ports, flags: SYN });
          // A packet that changes its version has a number that counts on.
          const { verdict, reason, egress } = this.real.explain(packet, realm);
          return `${realm} ${source}: ${verdict} to ${egress}: ${reason}`;
        });
      })
      .sort();
  }

  /** The paths and their counters are those of the translator that loads. */
  compare(): void {
    const [applied, loaded] = this.#both.map((translator) =>
      Array.from(translator.paths(), (path) => Object.values(path).join(' ')).sort()
    );
    expectSame(applied, loaded);
  }

  get #both(): [PacketTranslator, PacketTranslator] {
    return [this.real, this.#whole];
  }

  #translate(realm: string, packet: Uint8Array): Outcome {
    const [applied, loaded] = this.#both.map((translator): Outcome => {
      const explanation = JSON.stringify(translator.explain(packet, realm));
      const start = TRANSLATION_HEADROOM;
      const buffer = new Uint8Array(start + packet.length);
      buffer.set(packet, start);
      const index = translator.realm(realm);
      const verdict =
        VERDICT_NAMES[translator.translate(index, buffer, start, buffer.length, -1, start)]!;
      const isKnown = verdict === 'Forward' || verdict === 'NeedsPresence';
      const egress = isKnown ? translator.realmName(translator.egress) : '';
      const whole = verdict === 'Forward' && buffer.slice(translator.start, translator.end);
      return { explanation, verdict, egress, packet: whole || undefined };
    });
    expectSame(applied, loaded);
    return applied!;
  }
}

/** Compares texts first, because that is much faster. */
export function expectSame(actual: unknown, expected: unknown): void {
  if (JSON.stringify(actual) !== JSON.stringify(expected)) expect(actual).toEqual(expected);
}

interface Outcome {
  readonly explanation: string;
  readonly verdict: string;
  readonly egress: string;
  /** Undefined if it was not forwarded. */
  readonly packet: Uint8Array | undefined;
}
