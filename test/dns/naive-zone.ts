/**
 * What a zone has to answer, written down plainly: a list of records, searched from the start for each query as RFC 1034
 * section 4.3.2 and RFC 4592 section 3.3.1 say. It knows reverse zones of IPv4 prefixes of whole octets only.
 */
import { RecordType, type ZoneData, type ZoneHost } from '../../src/dns/index.ts';

/** The records as text, `owner type data`, sorted. */
export interface NaiveAnswer {
  readonly outcome: string;
  readonly answers: readonly string[];
  readonly authority: readonly string[];
  readonly additional: readonly string[];
}

interface NaiveRecord {
  readonly owner: string;
  readonly type: keyof typeof RecordType;
  readonly data: unknown;
}

export class NaiveZone {
  readonly #origin: string;
  readonly #nameserver: string;
  readonly #data: ZoneData;
  readonly #apexes: string[];
  readonly #records: NaiveRecord[] = [];
  /** Names that exist without records too. */
  readonly #hosts: string[];

  constructor(data: ZoneData) {
    this.#data = data;
    this.#origin = `${data.origin}.`;
    this.#nameserver = this.#full(data.nameserver);
    const reverse = (data.reverse ?? []).map((prefix) => {
      const [address, length] = String(prefix).split('/');
      return reverseOf(address!.split('.').slice(0, Number(length) / 8));
    });
    const owners = data.pointers.map(({ address }) => reverseOf(String(address).split('.')));
    const isCovered = (name: string): boolean =>
      [this.#origin, ...reverse].some((apex) => isAtOrBelow(name, apex));
    const lone = owners.filter((owner) => !isCovered(owner));
    this.#apexes = [...new Set([this.#origin, ...reverse, ...lone])];
    for (const owner of this.#apexes) this.#add(owner, 'NS', this.#nameserver);
    for (const address of data.nameserverAddresses) {
      this.#add(this.#nameserver, 'A', String(address));
    }
    data.pointers.forEach(({ name }, i) => {
      this.#add(owners[i]!, 'PTR', this.#full(name));
    });
    this.#hosts = [this.#nameserver];
    for (const { name, wildcard } of data.hosts) {
      this.#hosts.push(this.#full(name), ...(wildcard ? [`*.${this.#full(name)}`] : []));
    }
    for (const host of data.hosts) this.#addHost(host);
    this.#addAliases(data.hosts);
  }

  lookup(qname: string, qtype: number): NaiveAnswer {
    const apex = longest(this.#apexes.filter((each) => isAtOrBelow(qname, each)));
    if (apex === undefined) return answerOf('not-authoritative');
    const { minimum, ttl } = this.#soa();
    const soa = { owner: apex, type: 'SOA', data: minimum } as const;
    const node = this.#sourceOf(qname);
    if (node === undefined) return answerOf('nxdomain', [], [soa]);
    if (qtype === RecordType.SOA && qname === apex) {
      return answerOf('success', [{ ...soa, data: ttl }]);
    }
    const found = this.#find(node, qname, qtype);
    if (found.length > 0) return answerOf('success', found, [], this.#additional(found));
    const [alias] = this.#find(node, qname, RecordType.CNAME);
    if (alias === undefined) return answerOf('nodata', [], [soa]);
    if (qtype === RecordType.ANY) return answerOf('success', [alias]);
    const host = alias.data as string;
    const behind = this.#find(host, host, qtype);
    return behind.length > 0
      ? answerOf('success', [alias, ...behind], [], this.#additional(behind))
      : answerOf('nodata', [alias], [soa]);
  }

  #addHost({ name: text, addresses, texts, ports, bindings, wildcard }: ZoneHost): void {
    const name = this.#full(text);
    for (const owner of wildcard ? [name, `*.${name}`] : [name]) {
      for (const address of addresses) {
        this.#add(owner, String(address).includes(':') ? 'AAAA' : 'A', String(address));
      }
      for (const each of texts ?? []) this.#add(owner, 'TXT', each);
    }
    for (const { protocol, port, service } of ports ?? []) {
      if (service === undefined) continue;
      const data = { priority: 0, weight: 0, port, target: name };
      this.#add(`_${service}._${protocol}.${name}`, 'SRV', data);
    }
    for (const { type, prefix, priority, target = '.', alpn, port } of bindings ?? []) {
      const owners = prefix ? [`${prefix}.${name}`] : wildcard ? [name, `*.${name}`] : [name];
      const data = { priority, target: target === '.' ? '.' : this.#full(target), alpn, port };
      for (const owner of owners) this.#add(owner, type, data);
    }
  }

  #addAliases(hosts: readonly ZoneHost[]): void {
    const sorted = [...hosts].sort((a, b) => (this.#full(a.name) < this.#full(b.name) ? -1 : 1));
    for (const { name, aliases } of sorted) {
      for (const alias of aliases ?? []) {
        const owner = this.#full(alias);
        const isTaken = [...this.#hosts, ...this.#records.map((record) => record.owner)].includes(
          owner
        );
        if (!isTaken) this.#add(owner, 'CNAME', this.#full(name));
      }
    }
  }

  #add(owner: string, type: NaiveRecord['type'], data: unknown): void {
    const isThere = this.#records.some((each) => textOf(each) === textOf({ owner, type, data }));
    if (!isThere) this.#records.push({ owner, type, data });
  }

  /** Returns the name whose records answer for a name; `undefined` if it does not exist. */
  #sourceOf(qname: string): string | undefined {
    if (this.#exists(qname)) return qname;
    let encloser = qname;
    while (!this.#exists(encloser)) encloser = encloser.slice(encloser.indexOf('.') + 1);
    return this.#exists(`*.${encloser}`) ? `*.${encloser}` : undefined;
  }

  #exists(name: string): boolean {
    const names = [...this.#hosts, ...this.#records.map(({ owner }) => owner)];
    return names.some((each) => isAtOrBelow(each, name));
  }

  #find(node: string, owner: string, type: number): NaiveRecord[] {
    const all = this.#records.filter((each) => each.owner === node);
    if (type === RecordType.ANY && all.length > 0 && all[0]!.type !== 'CNAME') {
      return [{ owner, type: 'HINFO', data: { cpu: 'RFC8482', os: '' } }];
    }
    return all.filter((each) => RecordType[each.type] === type).map((each) => ({ ...each, owner }));
  }

  #additional(records: readonly NaiveRecord[]): NaiveRecord[] {
    const added = records.flatMap(({ owner, type, data }) => {
      if (type === 'NS') return this.#addresses(data as string);
      if (type === 'SRV') return this.#addresses((data as { target: string }).target);
      if (type !== 'HTTPS' && type !== 'SVCB') return [];
      const { priority, target } = data as { priority: number; target: string };
      if (priority > 0) return this.#addresses(target === '.' ? owner : target);
      return target === '.' ? [] : [...this.#addresses(target), ...this.#of(target, type)];
    });
    return added.filter((each, i) => added.findIndex((one) => textOf(one) === textOf(each)) === i);
  }

  #addresses(name: string): NaiveRecord[] {
    return [...this.#of(name, 'A'), ...this.#of(name, 'AAAA')];
  }

  #of(name: string, type: NaiveRecord['type']): NaiveRecord[] {
    const isOurs = this.#apexes.some((apex) => isAtOrBelow(name, apex));
    const node = isOurs ? this.#sourceOf(name) : undefined;
    return node === undefined ? [] : this.#find(node, name, RecordType[type]);
  }

  #soa(): { ttl: unknown; minimum: unknown } {
    const { serial, ttlSeconds, negativeTtlSeconds } = this.#data;
    return {
      ttl: { serial, ttl: ttlSeconds },
      minimum: { serial, ttl: Math.min(ttlSeconds, negativeTtlSeconds) },
    };
  }

  #full(text: string): string {
    const name = text.toLowerCase();
    if (name.endsWith('.')) return name;
    return isAtOrBelow(`${name}.`, this.#origin) ? `${name}.` : `${name}.${this.#origin}`;
  }
}

/** Returns a record as text, for the comparison with a `ZoneRecord`. */
export function textOf({ owner, type, data }: NaiveRecord): string {
  return `${owner} ${type} ${JSON.stringify(data)}`;
}

function answerOf(
  outcome: string,
  answers: readonly NaiveRecord[] = [],
  authority: readonly NaiveRecord[] = [],
  additional: readonly NaiveRecord[] = []
): NaiveAnswer {
  const sorted = (records: readonly NaiveRecord[]): string[] => records.map(textOf).sort();
  return {
    outcome,
    answers: sorted(answers),
    authority: sorted(authority),
    additional: sorted(additional),
  };
}

function isAtOrBelow(name: string, apex: string): boolean {
  return name === apex || name.endsWith(`.${apex}`);
}

function longest(names: readonly string[]): string | undefined {
  return [...names].sort((a, b) => b.length - a.length)[0];
}

function reverseOf(octets: readonly string[]): string {
  return `${[...octets].reverse().join('.')}.in-addr.arpa.`;
}
