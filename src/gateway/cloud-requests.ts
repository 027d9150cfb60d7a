/**
 * Checks the arguments of a cloud gateway's methods, which may come from plain JavaScript. Each function throws a
 * `ConfigError` that names the place.
 * @module
 */
import * as v from 'valibot';
import type { CaStep, CaStepOptions, SiteTokenOptions } from '../admin/index.ts';
import { NameText, parseSchema, type Schema } from '../base/schema.ts';
import { ConfigError } from '../errors.ts';
import type { CaMaterial, RevocationScope } from '../pki/index.ts';
import { CLOUD, type Registry } from '../registry/index.ts';

export function tokenOptionsOf(options: unknown): SiteTokenOptions {
  return parseSchema(TokenSchema, options);
}

export function scopeOf(scope: unknown): RevocationScope {
  const given = parseSchema(ScopeSchema, scope);
  const names = Object.keys(given).filter(
    (name) => given[name as keyof typeof given] !== undefined
  );
  if (names.length === 1) return given as RevocationScope;
  const what = names.length === 0 ? 'none of them' : names.join(' and ');
  throw new ConfigError('scope', `expected one of site, serial and spki, got ${what}`);
}

export function caStepOf(step: unknown): CaStep {
  return parseSchema(StepSchema, step, 'step');
}

export function caStepOptionsOf(options: unknown): CaStepOptions {
  return parseSchema(StepOptionsSchema, options);
}

/** Returns the name of a site, which need not exist: a site that was removed can still be revoked. */
export function siteNameOf(site: unknown): string {
  return parseSchema(NameText, site, 'site');
}

/** Returns the name of a site that exists and has an edge gateway. */
export function edgeSiteOf(registry: Registry, site: unknown): string {
  const name = parseSchema(NameText, site, 'site');
  if (registry.site(name) === undefined) throw new ConfigError('site', `"${name}" is not a site`);
  if (name === CLOUD) throw new ConfigError('site', `"${name}" has no edge gateway`);
  return name;
}

function isCa(value: unknown): boolean {
  const { certificatePem, privateKeyPem } = (value ?? {}) as Partial<CaMaterial>;
  return typeof certificatePem === 'string' && typeof privateKeyPem === 'string';
}

const TokenSchema: Schema<SiteTokenOptions> = v.strictObject({
  site: NameText,
  lifetimeMs: v.optional(v.number()),
}) as Schema<SiteTokenOptions>;
const ScopeSchema: Schema<{ site?: string; serial?: string; spki?: string }> = v.strictObject({
  site: v.optional(NameText),
  serial: v.optional(v.string()),
  spki: v.optional(v.string()),
}) as Schema<{ site?: string; serial?: string; spki?: string }>;
const StepSchema: Schema<CaStep> = v.picklist(['prepare', 'activate', 'retire']);
const StepOptionsSchema: Schema<CaStepOptions> = v.strictObject({
  // The message must not contain the value, which may be a private key.
  ca: v.optional(
    v.pipe(
      v.unknown(),
      v.check(isCa, 'expected a CA with certificatePem and privateKeyPem, both PEM texts')
    )
  ),
  force: v.optional(v.boolean()),
}) as Schema<CaStepOptions>;
