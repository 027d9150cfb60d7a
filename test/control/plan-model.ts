/**
 * A plan that takes changes in the plainest way: what a translator has to have after them.
 */
import type {
  Permit,
  PlanChanges,
  Presence,
  Realm,
  TranslationPlan,
} from '../../src/translator/index.ts';
import { textOf } from '../support/text-of.ts';

export class PlanModel {
  readonly realms: Map<string, Realm> = new Map();
  readonly presences: Map<string, Presence> = new Map();
  /** The permits of each pair. */
  readonly permits: Map<string, readonly Permit[]> = new Map();
  /** How many things the changes have named. */
  named = 0;
  loads = 0;

  get plan(): TranslationPlan {
    return {
      realms: [...this.realms.values()],
      presences: [...this.presences.values()],
      permits: [...this.permits.values()].flat(),
    };
  }

  load({ realms, presences, permits }: TranslationPlan): void {
    this.loads++;
    for (const table of [this.realms, this.presences, this.permits]) table.clear();
    for (const realm of realms) this.realms.set(realm.name, realm);
    for (const each of presences) this.presences.set(`${each.realm} ${each.address}`, each);
    for (const permit of permits) {
      const key = `${permit.realm} ${permit.service.key}`;
      this.permits.set(key, [...(this.permits.get(key) ?? []), permit]);
    }
  }

  apply({ realms = [], presences = [], permits = [] }: PlanChanges): void {
    this.named += realms.length + presences.length + permits.length;
    const last = new Map(realms.map(({ name, realm }) => [name, realm]));
    for (const [name, realm] of last) if (realm !== undefined) this.realms.set(name, realm);
    for (const { realm, address, of } of presences) {
      const key = `${realm} ${address}`;
      if (this.presences.get(key)?.of.key !== of?.key) this.presences.delete(key);
      if (of !== undefined) this.presences.set(key, { realm, address, of });
    }
    for (const { realm, service, permits: all } of permits) {
      const key = `${realm} ${service.key}`;
      if (all.length === 0) this.permits.delete(key);
      else this.permits.set(key, all);
    }
    for (const [name, realm] of last) if (realm === undefined) this.#end(name);
  }

  /** The same plan as texts, in an order of their own, each permit once. */
  get text(): object {
    const { realms, presences, permits } = textOf(this.plan);
    const sorted = (list: readonly object[]): string[] =>
      [...new Set(list.map((each) => JSON.stringify(each, Object.keys(each).sort())))].sort();
    return {
      realms: sorted(realms),
      presences: presences
        .map(({ realm, address, of }) => `${realm} ${address} ${of.realm}/${of.address}`)
        .sort(),
      permits: sorted(
        permits.map(({ realm, service, ports, clients }) => ({
          realm,
          service: `${service.realm}/${service.address}`,
          ports: `${ports}`,
          clients: `${clients}`,
        }))
      ),
    };
  }

  #end(name: string): void {
    this.realms.delete(name);
    for (const [key, { realm, of }] of this.presences) {
      if (realm === name || of.realm === name) this.presences.delete(key);
    }
    for (const [key, [permit]] of this.permits) {
      if (permit!.realm === name || permit!.service.realm === name) this.permits.delete(key);
    }
  }
}
