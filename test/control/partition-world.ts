/**
 * A cloud's plan in one translator, and in several with the kernel between them: what passes must be
 * the same. The controller is the real one, and so are all the translators.
 */
import { IpAddress } from '../../src/base/address.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { PlanPartition, PresenceController } from '../../src/control/index.ts';
import { Registry } from '../../src/registry/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import {
  PacketTranslator,
  type PlanChanges,
  type Presence,
  TRANSLATION_HEADROOM,
  type TranslationPlan,
  VERDICT_NAMES,
} from '../../src/translator/index.ts';
import { type TextPresence, textOf } from '../support/text-of.ts';

export const CLOUD = 'cloud';

/** Where a packet has come to, or why not. */
export type Arrival =
  | { readonly realm: string; readonly packet: Uint8Array }
  | { readonly refused: string };

export class PartitionWorld {
  readonly registry: Registry;
  controller!: PresenceController;
  readonly whole: PacketTranslator = new PacketTranslator();
  readonly parts: readonly PacketTranslator[];
  readonly partition: PlanPartition;
  /** The routes that the kernel has. */
  readonly routes: Map<string, string> = new Map();
  readonly holders: Map<string, number> = new Map();
  /** All that are in force. */
  readonly presences: Map<string, TextPresence> = new Map();
  /** Sites whose packets have come through the kernel from one part to another. */
  crossed = 0;

  private constructor(registry: Registry, count: number) {
    this.registry = registry;
    this.parts = Array.from({ length: count }, () => new PacketTranslator());
    this.partition = new PlanPartition({
      shared: CLOUD,
      targets: this.parts,
      holderOf: (site) => this.holders.get(site)!,
      onRoutes: (changes) => {
        for (const { prefix, site } of changes) {
          if (site === undefined) this.routes.delete(`${prefix}`);
          else this.routes.set(`${prefix}`, site);
        }
      },
    });
  }

  static async start(
    desired: { readonly sites: readonly { readonly name: string }[] },
    holders: Readonly<Record<string, number>>,
    count: number
  ): Promise<PartitionWorld> {
    const store = new MemoryStore();
    const registry = await Registry.open(store);
    await registry.apply(desired, 'file');
    const world = new PartitionWorld(registry, count);
    for (const [site, holder] of Object.entries(holders)) world.holders.set(site, holder);
    world.controller = await PresenceController.start({
      registry,
      store,
      translator: world,
      transit: CLOUD,
    });
    return world;
  }

  load(plan: TranslationPlan): void {
    this.presences.clear();
    for (const presence of plan.presences) this.#note(presence);
    this.whole.load(plan);
    this.partition.load(plan);
  }

  apply(changes: PlanChanges): void {
    for (const { realm, address, of } of changes.presences ?? []) {
      if (of === undefined) this.presences.delete(`${realm} ${address}`);
      else this.#note({ realm, address, of });
    }
    this.whole.apply(changes);
    this.partition.apply(changes);
  }

  async close(): Promise<void> {
    await this.controller.close();
    await this.registry.close();
  }

  move(site: string, to: number): void {
    this.holders.set(site, to);
    this.partition.moved(site)();
  }

  /** What one translator with the whole plan makes of it. */
  async throughWhole(realm: string, packet: Uint8Array): Promise<Arrival> {
    return this.#translate(this.whole, realm, packet);
  }

  /** What the parts make of it, one after the other. */
  async throughParts(realm: string, packet: Uint8Array): Promise<Arrival> {
    if (realm === CLOUD) {
      // The kernel lets nobody on the LAN send from a presence (rp_filter).
      if (this.#isPooled(sourceOf(packet))) return { refused: 'by the kernel' };
      return this.#route(packet);
    }
    const arrival = await this.#translate(this.parts[this.holders.get(realm)!]!, realm, packet);
    if ('refused' in arrival || arrival.realm !== CLOUD) return arrival;
    if (!this.#isPooled(destinationOf(arrival.packet))) return arrival;
    this.crossed++;
    return this.#route(arrival.packet);
  }

  /** Whether an address is in a pool of the cloud. */
  #isPooled(address: IpAddress): boolean {
    const { pools } = this.registry.site(CLOUD)!;
    return pools.some((pool) => pool.contains(address));
  }

  async #route(packet: Uint8Array): Promise<Arrival> {
    const address = destinationOf(packet);
    const found = [...this.routes]
      .map(([prefix, site]) => ({ prefix: IpPrefix.parse(prefix), site }))
      .filter(({ prefix }) => prefix.contains(address))
      .sort((a, b) => b.prefix.length - a.prefix.length)[0];
    if (found === undefined) return { refused: 'by the kernel' };
    return this.#translate(this.parts[this.holders.get(found.site)!]!, CLOUD, packet);
  }

  async #translate(
    translator: PacketTranslator,
    realm: string,
    packet: Uint8Array
  ): Promise<Arrival> {
    const start = TRANSLATION_HEADROOM;
    for (let round = 0; ; round++) {
      const buffer = new Uint8Array(start + packet.length);
      buffer.set(packet, start);
      const index = translator.realm(realm);
      const verdict =
        VERDICT_NAMES[translator.translate(index, buffer, start, buffer.length, -1, start)]!;
      if (verdict === 'Forward') {
        const egress = translator.realmName(translator.egress);
        return { realm: egress, packet: buffer.slice(translator.start, translator.end) };
      }
      if (verdict !== 'NeedsPresence' || round > 0) return { refused: verdict };
      const egress = translator.realmName(translator.egress);
      const source = translator.lackingPresence().toString();
      const family = translator.lackingFamily;
      try {
        await this.controller.admit(realm, source, egress, family);
      } catch {
        return { refused: 'NotAdmitted' };
      }
    }
  }

  #note(presence: Presence): void {
    this.presences.set(`${presence.realm} ${presence.address}`, textOf(presence));
  }
}

export function sourceOf(packet: Uint8Array): IpAddress {
  const family = packet[0]! >>> 4 === 4 ? 4 : 6;
  return IpAddress.fromBytes(family, packet, family === 4 ? 12 : 8);
}

export function destinationOf(packet: Uint8Array): IpAddress {
  const family = packet[0]! >>> 4 === 4 ? 4 : 6;
  return IpAddress.fromBytes(family, packet, family === 4 ? 16 : 24);
}
