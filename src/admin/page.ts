/**
 * Parameters of lists: pages, and filters by site.
 * @module
 */
import * as v from 'valibot';
import { NameText, type Schema, wholeNumber } from '../base/schema.ts';
import type { Owner } from '../registry/index.ts';
import { OwnerSchema } from './answers.ts';

const DEFAULT_PAGE = 100;
const MAX_PAGE = 1_000;

/** Which page of a list. */
export interface PageQuery {
  /** How many entries the page has at most, 1 to 1,000; default 100. */
  readonly limit: number;
  /** `next` of the page before. Default: the first page. */
  readonly cursor?: string | undefined;
}

/** Which entries of a list, by their site. */
export interface SiteFilter extends PageQuery {
  /** Default: all sites. */
  readonly site?: string | undefined;
}

/** Which exposures. */
export interface ExposureFilter extends SiteFilter {
  /** Default: all services. */
  readonly service?: string | undefined;
}

/** Which records of the desired state. */
export interface OwnerFilter {
  /** The owner that keeps them. Default: both. */
  readonly owner?: Owner | undefined;
}

const limit = v.optional(
  v.pipe(
    v.string(),
    v.metadata({ type: 'integer', minimum: 1, maximum: MAX_PAGE, default: DEFAULT_PAGE }),
    v.regex(/^[0-9]{1,4}$/, 'a whole number'),
    v.transform(Number),
    wholeNumber(1, MAX_PAGE) as v.GenericSchema<number, number>
  ),
  String(DEFAULT_PAGE)
);
const cursor = v.optional(v.pipe(v.string(), v.maxLength(512)));
export const PageQuerySchema: Schema<PageQuery> = v.strictObject({
  limit,
  cursor,
}) as Schema<PageQuery>;
export const SiteFilterSchema: Schema<SiteFilter> = v.strictObject({
  limit,
  cursor,
  site: v.optional(NameText),
}) as Schema<SiteFilter>;
export const ExposureFilterSchema: Schema<ExposureFilter> = v.strictObject({
  limit,
  cursor,
  site: v.optional(NameText),
  service: v.optional(NameText),
}) as Schema<ExposureFilter>;
export const OwnerFilterSchema: Schema<OwnerFilter> = v.strictObject({
  owner: v.optional(OwnerSchema),
}) as Schema<OwnerFilter>;
