/**
 * Answers the operations of a cloud gateway.
 * @module
 */

import { ConfigError, ConflictError, NotFoundError } from '../errors.ts';
import type { ListQuery, RevocationEntry, TokenEntry } from '../pki/index.ts';
import { CLOUD, type Registry, type Site } from '../registry/index.ts';
import type { Presence } from '../translator/index.ts';
import type { Page } from './answers.ts';
import type { CloudOperations } from './cloud-operations.ts';
import { desiredHandlers } from './desired-handlers.ts';
import { documentOf } from './documents.ts';
import { Accepted, type Handlers } from './handler.ts';
import type { PageQuery, SiteFilter } from './page.ts';
import type { AdminTarget } from './target.ts';

/** Returns the handlers for an `AdminServer`. */
export function cloudHandlers(target: AdminTarget): Handlers<CloudOperations> {
  const { registry, controller, authority } = target;
  return {
    ...desiredHandlers(registry),
    getDocument: () => documentOf('cloud-api'),
    getStatus: ({ query: { site } }) => target.status(site),
    releaseClients: async ({ params: { site } }) => {
      return { released: await target.releaseClients(edgeSite(registry, known(registry, site))) };
    },
    listTokens: ({ query }) =>
      pageFrom<TokenEntry>(
        query,
        (of) => authority.tokens(of),
        ({ id }) => id
      ),
    createToken: async ({ body: { site, lifetimeSeconds } }) => {
      const lifetime = lifetimeSeconds === undefined ? {} : { lifetimeMs: lifetimeSeconds * 1000 };
      return { token: await target.createToken({ site: edgeSite(registry, site), ...lifetime }) };
    },
    deleteToken: ({ params: { token } }) => target.deleteToken(token),
    listRevocations: ({ query }) =>
      pageFrom<RevocationEntry>(
        query,
        (of) => authority.revocations.page(of),
        ({ key }) => key
      ),
    revoke: async ({ body: { reason, ...scope } }) => {
      const receipt = await target.revoke(scope, reason);
      return (receipt.unconfirmed ?? []).length === 0 ? receipt : new Accepted(receipt);
    },
    reinstate: ({ params: { site } }) => target.reinstate(site),
    listPresences: ({ query }) => presences(target, query),
    listPaths: ({ query }) => target.pathPage(query),
    whois: ({ query: { site, address } }) => {
      const found = controller.whois(site, address);
      if (found !== undefined) return found;
      throw new NotFoundError(`${address} is not a presence in "${site}"`);
    },
    lookup: ({ query: { name, site } }) => ({ hosts: target.lookup(name, site) }),
    explain: async ({ body }) => {
      const query = 'packet' in body ? { ...body, packet: Buffer.from(body.packet, 'hex') } : body;
      const { packet, translated, ...explanation } = await target.explain(query);
      return {
        ...explanation,
        ...(packet && { packet: Buffer.from(packet).toString('hex') }),
        ...(translated && { translated: Buffer.from(translated).toString('hex') }),
      };
    },
    capture: ({ body, signal }) => target.capture(body, signal),
    ping: ({ params: { site }, body, signal }) =>
      target.ping(edgeSite(registry, known(registry, site)), { ...body, signal }),
    moveSite: async ({ body }) => {
      const site = edgeSite(registry, body.site);
      if ('machine' in body) return target.moveSite(site, { machine: body.machine });
      if (body.worker >= target.workerCount) {
        throw new ConfigError('worker', `there are ${target.workerCount}, numbered from 0`);
      }
      return target.moveSite(site, body.worker);
    },
    listMachines: () => target.machines(),
    drainMachine: ({ params: { machine } }) => {
      assertOwn(target, machine, 'drain');
      return target.drain();
    },
    resumeMachine: ({ params: { machine } }) => {
      assertOwn(target, machine, 'resume');
      return target.resume();
    },
    removeMachine: ({ params: { machine } }) => target.removeMachine(machine),
    reload: () => target.reload(),
    getCa: () => target.caStatus(),
    getTrustBundle: () => authority.trustBundlePem,
    getCrl: () => authority.crlPem(),
    rollCa: async ({ body: { step, ...options } }) => {
      await target.rotateCa(step, options);
      return target.caStatus();
    },
  };
}

/**
 * A machine drains and resumes itself alone.
 *
 * @throws {NotFoundError} if there is no such machine.
 * @throws {ConflictError} if it is another one than the one that is asked, or there are no machines.
 */
function assertOwn(target: AdminTarget, name: string, what: string): void {
  const { machine, machines } = target.machines();
  if (name === machine.name) return;
  if (!machines.some((each) => each.name === name)) {
    throw new NotFoundError(`there is no machine "${name}"`);
  }
  throw new ConflictError(
    `this is machine "${machine.name}"; ${what} "${name}" at its own gateway`
  );
}

/** @throws {NotFoundError} if the path names no site. */
function known(registry: Registry, site: string): string {
  if (registry.site(site) !== undefined) return site;
  throw new NotFoundError(`there is no site "${site}"`);
}

/** @throws {ConfigError} unless the site exists and has an edge gateway. */
function edgeSite(registry: Registry, site: string): string {
  if (registry.site(site) === undefined) throw notASite(site);
  if (site === CLOUD) throw new ConfigError('site', `"${site}" has no edge gateway`);
  return site;
}

function notASite(site: string): ConfigError {
  return new ConfigError('site', `"${site}" is not a site`);
}

/** Returns a page of what `list` returns in the order of the keys. */
function pageFrom<T>(
  { cursor, limit, site }: SiteFilter,
  list: (query: ListQuery) => readonly T[],
  keyOf: (entry: T) => string
): Page<T> {
  const found = list({ after: cursor, limit: limit + 1, site });
  const items = found.slice(0, limit);
  return found.length === items.length ? { items } : { items, next: keyOf(items.at(-1)!) };
}

/** Goes through the sites from that of the cursor on, so that a page costs what the sites on it have. */
function presences(
  { registry, controller }: AdminTarget,
  { site, cursor = '', limit }: SiteFilter
): Page<Presence> {
  const first = cursor.slice(0, Math.max(0, cursor.indexOf('/')));
  const found: Presence[] = [];
  for (const name of site === undefined ? sitesFrom(registry, first) : [site]) {
    const query = { cursor: name === first ? cursor : '', limit: limit + 1 - found.length };
    found.push(...pageOf(controller.presences(name), keyOfPresence, query).items);
    if (found.length > limit) break;
  }
  const items = found.slice(0, limit);
  return found.length === items.length ? { items } : { items, next: keyOfPresence(items.at(-1)!) };
}

function keyOfPresence({ realm, address }: Presence): string {
  return `${realm}/${address}`;
}

/** Returns the names of the sites from `first` on, in their order. */
function* sitesFrom(registry: Registry, first: string): Generator<string> {
  if (registry.site(first) !== undefined) yield first;
  for (let after = first; ; ) {
    const records = registry.page({ kind: 'site', after, limit: SITES_AT_ONCE });
    for (const { spec } of records) yield (spec as Site).name;
    if (records.length < SITES_AT_ONCE) return;
    after = (records.at(-1)!.spec as Site).name;
  }
}

/** Returns the entries behind the cursor, in the order of their keys, which differ. */
function pageOf<T>(
  all: readonly T[],
  keyOf: (entry: T) => string,
  { cursor = '', limit }: PageQuery
): Page<T> {
  const keyed = all.map((entry) => ({ entry, key: keyOf(entry) }));
  const behind = keyed.filter(({ key }) => key > cursor);
  behind.sort((a, b) => (a.key < b.key ? -1 : 1));
  const items = behind.slice(0, limit).map(({ entry }) => entry);
  if (behind.length <= limit) return { items };
  return { items, next: behind[limit - 1]!.key };
}

const SITES_AT_ONCE = 100;
