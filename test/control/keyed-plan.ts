/**
 * A plan that follows changes by keys, as a translator must. It throws if changes do not fit.
 */
import type {
  Permit,
  PlanChanges,
  Presence,
  Realm,
  TranslationPlan,
} from '../../src/translator/index.ts';

export class KeyedPlan {
  readonly #realms = new Map<string, Realm>();
  /** Keyed by realm and address. */
  readonly #presences = new Map<string, Presence>();
  /** Keyed by realm, host and IP version: where the host's presence is. */
  readonly #hosts = new Map<string, string>();
  /** Keyed by clients' realm and service. */
  readonly #permits = new Map<string, readonly Permit[]>();

  load({ realms, presences, permits }: TranslationPlan): void {
    this.#realms.clear();
    this.#presences.clear();
    this.#hosts.clear();
    this.#permits.clear();
    const pairs = new Map<string, Permit[]>();
    for (const each of permits) {
      const key = `${each.realm} ${each.service}`;
      pairs.set(key, [...(pairs.get(key) ?? []), each]);
    }
    this.apply({
      realms: realms.map((realm) => ({ name: realm.name, realm })),
      presences,
      permits: [...pairs.values()].map((all) => {
        const { realm, service } = all[0]!;
        return { realm, service, permits: all };
      }),
    });
  }

  apply({ realms = [], presences = [], permits = [] }: PlanChanges): void {
    for (const { name, realm } of realms) if (realm !== undefined) this.#realms.set(name, realm);
    for (const { realm, address } of presences) this.#unbind(realm, `${realm} ${address}`);
    for (const { realm, address, of, formerUntil } of presences) {
      if (of === undefined) continue;
      const former = formerUntil === undefined ? {} : { formerUntil };
      this.#bind({ realm, address, of, ...former });
    }
    for (const { realm, service, permits: all } of permits) {
      this.#need(realm);
      if (all.length > 0) this.#need(service.realm);
      if (all.length > 0) this.#permits.set(`${realm} ${service}`, all);
      else this.#permits.delete(`${realm} ${service}`);
    }
    const gone = realms.filter(({ realm }) => realm === undefined).map(({ name }) => name);
    if (gone.length > 0) this.#remove(new Set(gone));
  }

  presences(): Presence[] {
    return [...this.#presences.values()];
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

  #bind(presence: Presence): void {
    const { realm, address, of } = presence;
    this.#need(realm);
    this.#need(of.realm);
    const host = hostOf(presence);
    if (this.#hosts.has(host)) throw new Error(`${host} has two presences`);
    this.#hosts.set(host, `${realm} ${address}`);
    this.#presences.set(`${realm} ${address}`, presence);
  }

  #unbind(realm: string, place: string): void {
    this.#need(realm);
    const before = this.#presences.get(place);
    if (before === undefined) return;
    this.#presences.delete(place);
    this.#hosts.delete(hostOf(before));
  }

  #need(realm: string): void {
    if (!this.#realms.has(realm)) throw new Error(`the plan has no realm ${realm}`);
  }

  #remove(gone: ReadonlySet<string>): void {
    for (const [place, { realm }] of this.#presences) {
      if (gone.has(realm)) this.#unbind(realm, place);
    }
    for (const [key, [first]] of this.#permits) {
      if (gone.has(first!.realm)) this.#permits.delete(key);
    }
    for (const name of gone) this.#realms.delete(name);
    for (const { of } of this.#presences.values()) this.#need(of.realm);
    for (const [first] of this.#permits.values()) this.#need(first!.service.realm);
  }
}

/** A host may have several former addresses beside its newest one. */
function hostOf({ realm, address, of, formerUntil }: Presence): string {
  const former = formerUntil === undefined ? '' : ` at ${address} until ${formerUntil}`;
  return `${realm} IPv${address.family} ${of}${former}`;
}
