/**
 * What an operator can ask of the cloud gateway, over its admin socket:
 *
 * ```sh
 * curl --unix-socket admin.sock http://admin/v1/status
 * curl --unix-socket admin.sock http://admin/v1/tokens -d '{"site":"site-a"}'
 * ```
 * @module
 */
import * as v from 'valibot';
import {
  type AdminHandler,
  CLOUD,
  ConfigError,
  type Json,
  NameText,
  parseSchema,
  type Schema,
  wholeNumber,
} from 'virtual-presence';
import type { CloudGateway } from './parts.ts';

const SiteSchema: Schema<{ site: string }> = v.strictObject({ site: NameText });
const TokenSchema: Schema<{ site: string; lifetimeSeconds?: number | undefined }> = v.strictObject({
  site: NameText,
  lifetimeSeconds: v.optional(v.pipe(v.number(), v.minValue(1))),
});
const MoveSchema: Schema<{ site: string; process: number }> = v.strictObject({
  site: NameText,
  process: wholeNumber(0, Number.MAX_SAFE_INTEGER),
});
const ExposureKeySchema: Schema<{ site: string; service: string }> = v.strictObject({
  site: NameText,
  service: NameText,
});

/** Bytes as hexadecimal digits; blanks between them do not matter. */
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

export function adminRoutes(gateway: CloudGateway): Record<string, AdminHandler> {
  const { registry, controller, authority, control, members, placement } = gateway;

  /** A site that has an edge gateway. */
  const edgeSite = (body: Json | undefined): string => {
    const { site } = parseSchema(SiteSchema, body);
    if (registry.site(site) === undefined) throw new ConfigError('site', `"${site}" is not a site`);
    if (site === CLOUD) throw new ConfigError('site', `"${site}" has no edge gateway`);
    return site;
  };

  return {
    'GET /v1/status': async () => {
      const names = registry.state.sites.map(({ name }) => name);
      const { verdicts, ...status } = await members.status(names);
      return {
        pid: process.pid,
        sites: names.map((name) => ({
          name,
          process: name === CLOUD ? undefined : placement.holderOf(name),
          revoked: authority.isSiteRevoked(name),
          edge: control.status(name),
          pool: controller.poolStats(name),
          verdicts: verdicts[name],
        })),
        ...status,
      };
    },
    'GET /v1/presences': () => controller.presences(),
    'GET /v1/paths': () => members.paths(),
    'GET /v1/desired': () => registry.state,
    'GET /v1/whois': ({ query }) => {
      const site = query.get('site') ?? '';
      const address = query.get('address') ?? '';
      const found = controller.whois(site, address);
      if (found === undefined) {
        throw new ConfigError('address', `"${address}" stands for nobody in "${site}"`);
      }
      return found;
    },
    'POST /v1/explain': async ({ body }) => {
      const { site, packet } = parseSchema(ExplainSchema, body);
      if (registry.site(site) === undefined) {
        throw new ConfigError('site', `"${site}" is not a site`);
      }
      const explanation = await members.explain(Buffer.from(packet, 'hex'), site);
      const result = explanation.packet;
      if (result === undefined) return { ...explanation };
      return { ...explanation, packet: Buffer.from(result).toString('hex') };
    },
    'GET /v1/crl': () => ({ pem: authority.crlPem() }),
    'POST /v1/tokens': async ({ body }) => {
      const { site, lifetimeSeconds } = parseSchema(TokenSchema, body);
      const token = await authority.createToken({
        site: edgeSite({ site }),
        endpoints: gateway.config.enrolment.endpoints,
        ...(lifetimeSeconds === undefined ? {} : { lifetimeMs: lifetimeSeconds * 1000 }),
      });
      return { token };
    },
    'POST /v1/exposures': ({ body }) => registry.expose(body, 'admin'),
    'DELETE /v1/exposures': ({ body }) =>
      registry.unexpose(parseSchema(ExposureKeySchema, body), 'admin'),
    'POST /v1/revocations': ({ body }) => gateway.revoke(edgeSite(body)),
    'DELETE /v1/revocations': ({ body }) => gateway.reinstate(edgeSite(body)),
    'POST /v1/moves': async ({ body }) => {
      const { site, process: to } = parseSchema(MoveSchema, body);
      const { processes = 1 } = gateway.config;
      if (to >= processes) {
        throw new ConfigError('process', `there are ${processes}, numbered from 0`);
      }
      await members.move(edgeSite({ site }), to);
    },
    'POST /v1/reload': () => gateway.reload(),
  };
}
