/**
 * The schemas of sites, services and exposures: what an operator, a file or the store may give.
 * @module
 */
import * as v from 'valibot';
import {
  AddressText,
  chosen,
  DomainText,
  NameText,
  PortText,
  PrefixText,
  type Schema,
  wholeNumber,
} from '../base/schema.ts';
import type {
  Exposure,
  ExposureKey,
  Labels,
  SelectorExposure,
  Service,
  ServiceBinding,
  Site,
} from './model.ts';

/**
 * The longest zone, in characters: a client's name is made of its address and its site, and the longest such name must
 * fit within the 253 characters of a name (RFC 1035 section 2.3.4).
 */
const MAX_ZONE_LENGTH: number = 253 - '.'.length - 63 - '.'.length - 39;

/** What every IPv4 host accepts (RFC 1122 section 3.3.2), and the longest IPv4 packet. */
const MIN_MTU = 576;
const MAX_MTU = 65_535;

const MAX_LABELS = 64;
const MAX_ALIASES = 16;
const MAX_BINDINGS = 8;
const MAX_ALPN = 8;

export const LabelsSchema: Schema<Labels> = /* @__PURE__ */ v.pipe(
  v.record(NameText as v.GenericSchema<string, string>, NameText),
  v.maxEntries(
    MAX_LABELS,
    ({ input }) => `expected at most ${MAX_LABELS} labels, got ${Object.keys(input).length}`
  )
) as Schema<Labels>;

/** An instant, as ISO 8601 with `Z` or an offset; it becomes its text in UTC. */
const InstantText: Schema<string> = /* @__PURE__ */ v.pipe(
  v.string(),
  v.metadata({
    title: 'time with its offset',
    format: 'date-time',
    examples: ['2026-12-01T09:00:00+01:00', '2026-12-01T08:00:00Z'],
  }),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const instant = instantOf(dataset.value);
    if (instant !== undefined) return instant;
    const shown = JSON.stringify(dataset.value.slice(0, MAX_SHOWN));
    addIssue({
      message: `expected a time with its offset such as 2026-12-01T09:00:00+01:00, got ${shown}`,
    });
    return NEVER;
  })
) as Schema<string>;

const INSTANT =
  /^(\d{4}-(\d{2})-(\d{2}))T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?:Z|[+-]\d{2}:\d{2})$/;

function instantOf(text: string): string | undefined {
  const [, date, , day] = INSTANT.exec(text) ?? [];
  const ms = Date.parse(text);
  if (date === undefined || Number.isNaN(ms)) return undefined;
  // `Date.parse` takes 30 February for 2 March.
  if (new Date(`${date}T00:00:00Z`).getUTCDate() !== Number(day)) return undefined;
  return new Date(ms).toISOString();
}

const BindingSchema: Schema<ServiceBinding> = /* @__PURE__ */ v.strictObject({
  prefix: v.optional(
    v.pipe(
      v.string(),
      v.regex(
        /^_[a-zA-Z0-9]([a-zA-Z0-9-]{0,60}[a-zA-Z0-9])?(\._[a-zA-Z0-9]([a-zA-Z0-9-]{0,60}[a-zA-Z0-9])?)?$/,
        'one or two labels that begin with an underscore, such as _8443._https'
      )
    )
  ),
  priority: v.optional(wholeNumber(1, 65_535), 1),
  target: v.optional(
    chosen<string>([v.literal('.'), DomainText], (input) =>
      input === '.' ? v.literal('.') : DomainText
    ),
    '.'
  ),
  alpn: v.optional(
    v.pipe(
      v.array(
        v.pipe(
          v.string(),
          v.regex(/^[a-zA-Z0-9._/-]{1,63}$/, 'an identifier of a protocol such as h2')
        )
      ),
      v.minLength(1),
      v.maxLength(MAX_ALPN)
    )
  ),
  port: v.optional(wholeNumber(1, 65_535)),
}) as Schema<ServiceBinding>;

/** The keys of the terms of an exposure. */
export const TERM_ENTRIES: v.ObjectEntries = {
  service: NameText,
  dnsName: v.optional(DomainText),
  clients: v.optional(v.array(PrefixText)),
  address: v.optional(AddressText),
  aliases: v.optional(v.pipe(v.array(DomainText), v.maxLength(MAX_ALIASES))),
  wildcard: v.optional(v.pipe(v.boolean(), v.metadata({ default: false }))),
  https: v.optional(v.pipe(v.array(BindingSchema), v.maxLength(MAX_BINDINGS))),
  svcb: v.optional(v.pipe(v.array(BindingSchema), v.maxLength(MAX_BINDINGS))),
  notBefore: v.optional(InstantText),
  notAfter: v.optional(InstantText),
};

/** The keys of a site besides its name. */
export const SITE_ENTRIES: v.ObjectEntries = {
  sources: v.array(PrefixText),
  pools: v.array(PrefixText),
  reserved: v.optional(v.array(PrefixText), []),
  zone: v.pipe(DomainText, v.maxLength(MAX_ZONE_LENGTH)),
  maxClients: v.optional(wholeNumber(0, 1_000_000), 1024),
  maxNames: v.optional(wholeNumber(0, 1_000_000), 4096),
  serviceReserve: v.optional(wholeNumber(0, 2 ** 32)),
  clientShare: v.optional(wholeNumber(0, 2 ** 32)),
  mtu: v.optional(wholeNumber(MIN_MTU, MAX_MTU)),
  reject: v.optional(
    v.pipe(v.picklist(['drop', 'unreachable', 'reset']), v.metadata({ default: 'drop' }))
  ),
  labels: v.optional(LabelsSchema),
};

export const SiteSchema: Schema<Site> = /* @__PURE__ */ v.strictObject({
  name: NameText,
  ...SITE_ENTRIES,
}) as unknown as Schema<Site>;

/** The keys of a service besides its name. */
export const SERVICE_ENTRIES: v.ObjectEntries = {
  site: NameText,
  address: AddressText,
  ports: v.array(PortText),
};

export const ServiceSchema: Schema<Service> = /* @__PURE__ */ v.strictObject({
  name: NameText,
  ...SERVICE_ENTRIES,
}) as unknown as Schema<Service>;

export const ExposureSchema: Schema<Exposure> = /* @__PURE__ */ v.strictObject({
  ...TERM_ENTRIES,
  site: NameText,
}) as unknown as Schema<Exposure>;

export const SelectorExposureSchema: Schema<SelectorExposure> = /* @__PURE__ */ v.strictObject({
  ...TERM_ENTRIES,
  name: NameText,
  siteSelector: LabelsSchema,
}) as unknown as Schema<SelectorExposure>;

/** An exposure to one site, or one with a selector, which has a name or a `siteSelector`. */
export const AnyExposureSchema: Schema<Exposure | SelectorExposure> = /* @__PURE__ */ chosen(
  [ExposureSchema, SelectorExposureSchema],
  (input) => {
    const isObject = typeof input === 'object' && input !== null;
    return isObject && ('siteSelector' in input || 'name' in input)
      ? SelectorExposureSchema
      : ExposureSchema;
  }
);

const NamedKeySchema: Schema<ExposureKey> = /* @__PURE__ */ v.object({ name: NameText });
const PlacedKeySchema: Schema<ExposureKey> = /* @__PURE__ */ v.object({
  site: NameText,
  service: NameText,
});

/** What names an exposure. Other keys are ignored, so that a whole exposure is accepted. */
export const ExposureKeySchema: Schema<ExposureKey> = /* @__PURE__ */ chosen(
  [PlacedKeySchema, NamedKeySchema],
  (input) =>
    typeof input === 'object' && input !== null && 'name' in input
      ? NamedKeySchema
      : PlacedKeySchema
);

/** A list of anything, which takes as long however long it is. */
const List: Schema<readonly unknown[]> = /* @__PURE__ */ v.lazy((input) =>
  Array.isArray(input) ? v.unknown() : v.array(v.unknown())
) as Schema<readonly unknown[]>;

/** The lists of a desired state; their entries are checked by their own schemas. */
export const DesiredListsSchema: Schema<{
  readonly sites: readonly unknown[];
  readonly services: readonly unknown[];
  readonly exposures: readonly unknown[];
}> = /* @__PURE__ */ v.strictObject({
  sites: List,
  services: v.optional(List, []),
  exposures: v.optional(List, []),
}) as Schema<{
  readonly sites: readonly unknown[];
  readonly services: readonly unknown[];
  readonly exposures: readonly unknown[];
}>;

/** How many characters of a wrong value a message shows. */
const MAX_SHOWN = 57;
