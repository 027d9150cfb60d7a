/**
 * Finds the host that a name of a site stands for, as the site's DNS does: by its own name, by an alias, or by the
 * wildcard of a host above it ([RFC 4592](https://www.rfc-editor.org/rfc/rfc4592)).
 * @module
 */

/** The names of one host. */
export interface NamedHost {
  /** The full domain name. */
  readonly name: string;
  /** Full names that lead to `name`; none if absent. */
  readonly aliases?: readonly string[] | undefined;
  /** Whether the host also has the names below `name` that do not exist; false if absent. */
  readonly wildcard?: boolean | undefined;
}

/** The names of all hosts of a zone. It does not change. */
export class HostNames {
  readonly #zone: string;
  /** Keyed by name or alias, in lower case: the name of the host. */
  readonly #hosts = new Map<string, string>();
  readonly #wildcards = new Set<string>();
  /** The names in between, if there are wildcards: each exists, because a name below it does. */
  readonly #above = new Set<string>();

  constructor(zone: string, hosts: Iterable<NamedHost>) {
    this.#zone = zone.toLowerCase();
    const aliases: (readonly [string, string])[] = [];
    for (const host of hosts) {
      const name = host.name.toLowerCase();
      this.#hosts.set(name, name);
      if (host.wildcard === true) this.#wildcards.add(name);
      for (const alias of host.aliases ?? []) aliases.push([alias.toLowerCase(), name]);
    }
    // An alias gives way to a host; of two hosts with one alias, the one whose name sorts first has it.
    aliases.sort(([, a], [, b]) => (a < b ? -1 : 1));
    for (const [alias, name] of aliases) {
      if (!this.#hosts.has(alias)) this.#hosts.set(alias, name);
    }
    if (this.#wildcards.size === 0) return;
    for (const name of this.#hosts.keys()) {
      let above = parentOf(name);
      while (above !== '' && !this.#above.has(above)) {
        this.#above.add(above);
        above = parentOf(above);
      }
    }
  }

  /**
   * Returns the name of the host, in lower case; undefined if there is none.
   *
   * @param text a full domain name in any case, with or without the trailing dot, or a name within the zone. A name that
   *   only a wildcard covers must be full.
   */
  find(text: string): string | undefined {
    const name = text.toLowerCase().replace(/\.$/, '');
    const found = this.#hosts.get(name) ?? this.#hosts.get(`${name}.${this.#zone}`);
    if (found !== undefined || this.#wildcards.size === 0) return found;
    if (!name.endsWith(`.${this.#zone}`) || this.#above.has(name)) return undefined;
    let encloser = parentOf(name);
    while (encloser !== '' && !this.#hosts.has(encloser) && !this.#above.has(encloser)) {
      encloser = parentOf(encloser);
    }
    return this.#wildcards.has(encloser) ? encloser : undefined;
  }
}

/** Returns the name without its first label; '' if it has only one. */
function parentOf(name: string): string {
  const dot = name.indexOf('.');
  return dot < 0 ? '' : name.slice(dot + 1);
}
