/**
 * A plan that follows changes by keys, as a translator must.
 */
import { expect } from 'vitest';
import type {
  Permit,
  PlanChanges,
  Presence,
  Realm,
  TranslationPlan,
} from '../../src/translator/index.ts';

/** Fails if changes do not fit the plan: a realm that it has not, or a host with two presences of one IP version. */
export class KeyedPlan {
  #realms = new Map<string, Realm>();
  /** Keyed by realm and address. */
  #presences = new Map<string, Presence>();
  /** Keyed by clients' realm and service. */
  #permits = new Map<string, readonly Permit[]>();

  load({ realms, presences, permits }: TranslationPlan): void {
    this.#realms = new Map(realms.map((realm) => [realm.name, realm]));
    this.#presences = new Map(presences.map((each) => [`${each.realm} ${each.address}`, each]));
    this.#permits = new Map();
    for (const each of permits) {
      const key = `${each.realm} ${each.service}`;
      this.#permits.set(key, [...(this.#permits.get(key) ?? []), each]);
    }
    this.#check();
  }

  apply({ realms = [], presences = [], permits = [] }: PlanChanges): void {
    for (const { name, realm } of realms) if (realm !== undefined) this.#realms.set(name, realm);
    for (const { realm, address, of } of presences) {
      expect([...this.#realms.keys()]).toContain(realm);
      const key = `${realm} ${address}`;
      if (of === undefined) this.#presences.delete(key);
      else this.#presences.set(key, { realm, address, of });
    }
    for (const { realm, service, permits: all } of permits) {
      expect([...this.#realms.keys()]).toContain(realm);
      const key = `${realm} ${service}`;
      if (all.length === 0) this.#permits.delete(key);
      else this.#permits.set(key, all);
    }
    for (const { name, realm } of realms) if (realm === undefined) this.#remove(name);
    this.#check();
  }

  /** The plan, in an order that its history does not change. */
  get plan(): TranslationPlan {
    const inOrder = <T>(all: ReadonlyMap<string, T>): T[] =>
      [...all].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, each]) => each);
    return {
      realms: inOrder(this.#realms),
      presences: inOrder(this.#presences),
      permits: inOrder(this.#permits).flat(),
    };
  }

  #remove(name: string): void {
    this.#realms.delete(name);
    for (const [key, { realm }] of this.#presences) if (realm === name) this.#presences.delete(key);
    for (const [key, [first]] of this.#permits) {
      if (first!.realm === name) this.#permits.delete(key);
    }
  }

  #check(): void {
    const hosts = new Set<string>();
    for (const { realm, address, of } of this.#presences.values()) {
      const host = `${realm} IPv${address.family} ${of}`;
      expect(hosts).not.toContain(host);
      hosts.add(host);
      expect([...this.#realms.keys()]).toContain(of.realm);
    }
    for (const [{ service }] of [...this.#permits.values()] as [Permit][]) {
      expect([...this.#realms.keys()]).toContain(service.realm);
    }
  }
}
