/**
 * The routes of a cloud gateway's admin socket:
 *
 * ```sh
 * curl --unix-socket admin.sock http://admin/v1/status
 * curl --unix-socket admin.sock http://admin/v1/tokens -d '{"site":"site-a"}'
 * ```
 * @module
 */
import * as v from 'valibot';
import { NameText, parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import { ConfigError } from '../errors.ts';
import type { RevocationReason, RevocationScope } from '../pki/index.ts';
import { CLOUD, type ExposureKey } from '../registry/index.ts';
import type { Json } from '../store/index.ts';
import { type AdminHandler, PemText } from './admin-server.ts';
import type { AdminTarget, CaStep } from './target.ts';

const SiteSchema: Schema<{ site: string }> = v.strictObject({ site: NameText });
const TokenSchema: Schema<{ site: string; lifetimeSeconds?: number | undefined }> = v.strictObject({
  site: NameText,
  lifetimeSeconds: v.optional(v.pipe(v.number(), v.minValue(1))),
});
const ScopeSchema: Schema<{
  site?: string | undefined;
  serial?: string | undefined;
  spki?: string | undefined;
  reason?: RevocationReason | undefined;
}> = v.strictObject({
  site: v.optional(NameText),
  serial: v.optional(v.pipe(v.string(), v.maxLength(64))),
  spki: v.optional(v.pipe(v.string(), v.maxLength(64))),
  reason: v.optional(
    v.picklist([
      'unspecified',
      'keyCompromise',
      'affiliationChanged',
      'superseded',
      'cessationOfOperation',
      'privilegeWithdrawn',
    ])
  ),
});
const CaSchema: Schema<{
  step: CaStep;
  ca?: { certificatePem: string; privateKeyPem: string } | undefined;
  force?: boolean | undefined;
}> = v.strictObject({
  step: v.picklist(['prepare', 'activate', 'retire']),
  ca: v.optional(v.strictObject({ certificatePem: v.string(), privateKeyPem: v.string() })),
  force: v.optional(v.boolean()),
});
const MoveSchema: Schema<{ site: string; process: number }> = v.strictObject({
  site: NameText,
  process: wholeNumber(0, Number.MAX_SAFE_INTEGER),
});
const NamedSchema: Schema<{ name: string }> = v.strictObject({ name: NameText });
const ExposureSchema: Schema<ExposureKey> = v.lazy((input): Schema<ExposureKey> => {
  const hasName = typeof input === 'object' && input !== null && 'name' in input;
  return hasName ? NamedSchema : v.strictObject({ site: NameText, service: NameText });
}) as Schema<ExposureKey>;

/** Bytes as hexadecimal digits; white space is ignored. */
const HexText = (most: number) =>
  v.pipe(
    v.string(),
    v.transform((text) => text.replace(/\s/g, '')),
    v.regex(/^(?:[0-9a-fA-F]{2})+$/, 'bytes as hexadecimal digits'),
    v.maxLength(2 * most)
  );
const ExplainSchema: Schema<{ site: string; packet: string }> = v.strictObject({
  site: NameText,
  packet: HexText(65_535),
}) as Schema<{ site: string; packet: string }>;

/** Returns the handlers for an `AdminServer`, by method and path. */
export function adminRoutes(target: AdminTarget): Record<string, AdminHandler> {
  const { registry, controller, authority } = target;

  /** Returns the name of a site that has an edge gateway. */
  const edgeSite = (body: Json | undefined): string => {
    const { site } = parseSchema(SiteSchema, body);
    if (registry.site(site) === undefined) throw new ConfigError('site', `"${site}" is not a site`);
    if (site === CLOUD) throw new ConfigError('site', `"${site}" has no edge gateway`);
    return site;
  };

  /** Returns the one scope of the body, and the reason if there is one. */
  const scopeOf = (body: Json | undefined): [RevocationScope, RevocationReason | undefined] => {
    const { site, serial, spki, reason } = parseSchema(ScopeSchema, body);
    const scopes = [
      site !== undefined && { site: edgeSite({ site }) },
      serial !== undefined && { serial },
      spki !== undefined && { spki },
    ].filter((scope) => scope !== false);
    if (scopes.length !== 1) throw new ConfigError('', 'expected one of site, serial and spki');
    return [scopes[0]!, reason];
  };

  return {
    'GET /v1/status': () => target.status(),
    'GET /v1/presences': () => controller.presences(),
    'DELETE /v1/presences': async ({ body }) => {
      return { released: await target.releaseClients(edgeSite(body)) };
    },
    'GET /v1/paths': () => target.paths(),
    'GET /v1/desired': () => {
      const { selectors, ...state } = registry.state;
      return { ...state, exposures: [...state.exposures, ...selectors] };
    },
    'GET /v1/whois': ({ query }) => {
      const site = query.get('site') ?? '';
      const address = query.get('address') ?? '';
      const found = controller.whois(site, address);
      if (found === undefined) {
        throw new ConfigError('address', `"${address}" is not a presence in "${site}"`);
      }
      return found;
    },
    'POST /v1/explain': async ({ body }) => {
      const { site, packet } = parseSchema(ExplainSchema, body);
      if (registry.site(site) === undefined) {
        throw new ConfigError('site', `"${site}" is not a site`);
      }
      const explanation = await target.explain(Buffer.from(packet, 'hex'), site);
      const result = explanation.packet;
      if (result === undefined) return { ...explanation };
      return { ...explanation, packet: Buffer.from(result).toString('hex') };
    },
    'GET /v1/crl': () => new PemText(authority.crlPem()),
    'GET /v1/ca': () => new PemText(authority.trustBundlePem),
    'POST /v1/ca': async ({ body }) => {
      const { step, ...options } = parseSchema(CaSchema, body);
      await target.rotateCa(step, options);
      return { rollover: authority.rollover };
    },
    'POST /v1/tokens': async ({ body }) => {
      const { site, lifetimeSeconds } = parseSchema(TokenSchema, body);
      const lifetime = lifetimeSeconds === undefined ? {} : { lifetimeMs: lifetimeSeconds * 1000 };
      return { token: await target.createToken({ site: edgeSite({ site }), ...lifetime }) };
    },
    'PUT /v1/sites': ({ body }) => registry.putSite(body, 'admin'),
    'DELETE /v1/sites': ({ body }) =>
      registry.removeSite(parseSchema(NamedSchema, body).name, 'admin'),
    'PUT /v1/services': ({ body }) => registry.putService(body, 'admin'),
    'DELETE /v1/services': ({ body }) =>
      registry.removeService(parseSchema(NamedSchema, body).name, 'admin'),
    'POST /v1/exposures': ({ body }) => registry.expose(body, 'admin'),
    'DELETE /v1/exposures': ({ body }) =>
      registry.unexpose(parseSchema(ExposureSchema, body), 'admin'),
    'POST /v1/revocations': ({ body }) => target.revoke(...scopeOf(body)),
    'DELETE /v1/revocations': ({ body }) => target.reinstate(edgeSite(body)),
    'POST /v1/moves': async ({ body }) => {
      const { site, process: to } = parseSchema(MoveSchema, body);
      if (to >= target.workerCount) {
        throw new ConfigError('process', `there are ${target.workerCount}, numbered from 0`);
      }
      await target.moveSite(edgeSite({ site }), to);
    },
    'POST /v1/reload': () => target.reload(),
  };
}
